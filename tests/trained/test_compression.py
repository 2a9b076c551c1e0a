"""A run that is made smaller: the same run where nothing is left out, and a run like any other."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch

from recsys.compare.__main__ import main as compare
from recsys.compress.__main__ import main as compress
from recsys.errors import ConfigError
from recsys.export.__main__ import main as export
from recsys.fit.__main__ import main as fit
from recsys.testing.shop import make_shop_words, write_encoder, write_shop
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.compression import distil, students
from recsys.trained.compression.cut import Student, cut_encoder, select_places
from recsys.trained.compression.distil import draw_rows
from recsys.trained.compression.settings import CompressionSettings
from recsys.trained.compression.teacher import find_basis, find_rotation, read_teacher
from recsys.trained.exports.opened import open_for_export
from recsys.trained.run import load

MOVED = ["optimizer.lr=0.02", "trainer.max_steps=4", "checkpoint.pick=last", "trainer.epochs=2"]
FOLDER = "format=sentence_transformers"
HISTORIES = [["000", "007"], ["012"], ["003", "004", "003"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("compression")


@pytest.fixture(autouse=True)
def cache(place, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(place / "cache"))


@pytest.fixture(scope="module")
def words(place):
    for name in ("shop", "encoder"):
        (place / name).mkdir()
    return make_shop_words(write_shop(place / "shop"), write_encoder(place / "encoder"))


@pytest.fixture(scope="module")
def train(words, place):
    def train(name, *more):
        folder = place / name
        if not folder.exists():
            patch = pytest.MonkeyPatch()
            patch.setenv("RECSYS_CACHE", str(place / "cache"))
            assert fit([*words, f"output={folder}", *MOVED, *more]) == 0
            patch.undo()
        return next(folder.iterdir())

    return train


@pytest.fixture
def shrink(tmp_path):
    def shrink(run, *more, output="small"):
        assert compress([f"run={run}", f"output={tmp_path / output}", *more]) == 0
        made = sorted((tmp_path / output).glob("*/result.json"), key=lambda p: p.stat().st_mtime)
        return load(made[-1].parent)

    return shrink


def answer(run):
    return run.recommend(histories=HISTORIES, k=10), run.recommend(texts=["red lamp"], k=5)


def list_bytes(run):
    return {
        path.relative_to(run.folder / "encoder").as_posix(): path.read_bytes()
        for path in sorted((run.folder / "encoder").rglob("*.safetensors"))
    }


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_same_run_comes_out_where_nothing_is_left_out(train, shrink, tuning):
    whole = load(train(tuning, f"tuning={tuning}"))
    same = shrink(whole.folder)
    for name, value in whole.metrics.items():
        assert same.metrics[name] == pytest.approx(value, abs=1e-6, nan_ok=True)
    for one, other in zip(answer(whole), answer(same), strict=True):
        assert one["item"].to_list() == other["item"].to_list()
        assert (one["score"] - other["score"]).abs().max() <= 1e-4
    cases = [pl.read_parquet(run.folder / "cases.parquet") for run in (whole, same)]
    assert cases[0].equals(cases[1])


def test_a_turned_vector_of_nearly_all_numbers_says_nearly_the_same(train, shrink):
    whole = load(train("heads", "tuning=full", "optimizer.head_lr=0.1"))
    less = shrink(whole.folder, "width=31")
    made = less.assemble().recommender
    vectors = made.select_item_vectors(made.index_catalog())
    assert vectors.shape == (30, 31)
    own = whole.assemble().recommender
    theirs = own.select_item_vectors(own.index_catalog())
    assert (vectors @ vectors.T - theirs @ theirs.T).abs().max() < 1e-4
    # 30 items lie in 30 of the 31 dimensions: users have the same scores too, by a head that was
    # turned; what it writes into the last one changes a user's length a little.
    for one, other in zip(answer(whole), answer(less), strict=True):
        assert (one["score"] - other["score"]).abs().max() <= 2e-3 * one["score"].max()


def test_fewer_layers_learn_the_vectors_of_the_run(train, shrink):
    whole = load(train("full", "tuning=full"))
    run = shrink(whole.folder, "layers=1", "steps=30")
    own = whole.assemble().recommender
    wanted = own.select_item_vectors(own.index_catalog())
    made = run.assemble()
    assert made.encoding.encoder.depth == 1
    vectors = made.recommender.select_item_vectors(made.recommender.index_catalog())
    assert float((vectors * wanted).sum(1).mean()) > 0.99
    assert run.result["compression"]["encoder_layers"] == 1
    assert run.result["compression"]["encoder_mb"] < 0.2


def test_a_pool_that_nothing_reads_raises_an_error():
    for words in ({"vectors": "int8"}, {}):
        with pytest.raises(ConfigError, match="pool changes nothing: vectors is"):
            CompressionSettings.parse({**words, "pool": "5"})
    assert CompressionSettings.parse({"vectors": "binary+int8", "pool": "5"}).pool == 5


def test_a_student_comes_closer_to_vectors_and_scores(train, tmp_path):
    teacher = read_teacher(open_for_export(load(train("full", "tuning=full"))))
    torch.manual_seed(0)
    student = Student(cut_encoder(teacher.encoder, 1, ("mean",)), teacher.width)
    settings = CompressionSettings(layers=1, steps=40, batch=16, lr=1e-3)
    made = distil.Distillation(teacher, student, settings, tmp_path / "state")

    def measure():
        turn = teacher.basis.T
        with torch.no_grad():
            vectors = student(teacher.gather_tokens(teacher.rows))
        sides = (teacher.targets @ turn, teacher.queries @ turn)
        return float(distil.compute_loss(vectors, *sides, [8, 32], teacher.scale))

    before = measure()
    made.train()
    assert measure() < before / 2
    assert not any(parameter.requires_grad for parameter in student.parameters())


def test_the_loss_is_the_sum_of_its_terms():
    vectors, targets, queries = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    assert distil.compute_loss(targets, targets, queries, [4], 5.0) == pytest.approx(0, abs=1e-6)
    own, theirs, asked = (x.numpy().astype(float) for x in (vectors, targets, queries))

    def cut(x):
        length = np.linalg.norm(x, axis=1, keepdims=True)
        return x[:, :2] / np.linalg.norm(x[:, :2], axis=1, keepdims=True) * length

    def share(x):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)

    apart = np.square(cut(own) - cut(theirs)).sum() / np.square(theirs).sum()
    wanted, given = share(5 * asked @ theirs.T), share(5 * cut(asked) @ cut(own).T)
    apart += (wanted * np.log(wanted / given)).sum(1).mean()
    assert float(distil.compute_loss(vectors, targets, queries, [2], 5.0)) == pytest.approx(apart)


def test_static_vectors_are_means_of_their_tokens(train, shrink):
    whole = load(train("full", "tuning=full"))
    made = shrink(whole.folder, "layers=static", "width=8").assemble()
    encoder, catalog = made.encoding.encoder, made.encoding.catalog
    table = encoder.model.get_input_embeddings().weight.detach()
    with torch.no_grad():
        found = encoder(catalog.gather_tokens(torch.arange(30)))
    for row in range(30):
        ids = catalog.gather_tokens(torch.tensor([row])).values.long()
        mean = table[ids].sum(0) / (len(ids) + 2)  # the special tokens are zeros
        assert torch.allclose(found[row], mean[:8], atol=1e-5)
    own = whole.assemble().recommender
    theirs = own.select_item_vectors(own.index_catalog())
    vectors = made.recommender.select_item_vectors(made.recommender.index_catalog())
    # two words a text, of 11: a sum of both says most of what the encoder says of the pair
    near = ((vectors @ vectors.T) * (theirs @ theirs.T)).sum() / (theirs @ theirs.T).square().sum()
    assert float(near) > 0.9


def test_vectors_are_stored_and_ranked_in_few_bits(train, shrink):
    whole = load(train("full", "tuning=full"))
    own = whole.assemble().recommender
    exact = own.select_item_vectors(own.index_catalog()).numpy()
    rounded = shrink(whole.folder, "vectors=int8").assemble().recommender
    found = rounded.select_item_vectors(rounded.index_catalog()).numpy()
    step = np.abs(exact).max(1, keepdims=True) / 127
    assert np.allclose(found, np.round(exact / step) * step, atol=1e-6)
    signs = shrink(whole.folder, "vectors=binary").assemble().recommender
    found = signs.select_item_vectors(signs.index_catalog()).numpy()
    assert np.allclose(found, np.where(exact > 0, 1, -1) / 32**0.5, atol=1e-6)
    pool = shrink(whole.folder, "vectors=binary+int8", "pool=30")
    assert pool.metrics == shrink(whole.folder, "vectors=int8").metrics  # all of them are scored


def test_everything_reads_what_came_out(train, shrink, tmp_path, capsys):
    whole = load(train("lora", "tuning=lora"))
    run = shrink(whole.folder, "layers=2", "width=16", "vectors=int8", "steps=3")
    (source,) = run.result["built_on"]
    assert source["run"] == str(whole.folder)
    assert source["cost"]["method_seconds"] == whole.result["cost"]["method_seconds"]
    bundle, vectors, model = tmp_path / "bundle", tmp_path / "vectors", tmp_path / "model"
    assert export([f"run={run.folder}", f"to={bundle}", "format=bundle"]) == 0
    for one, other in zip(answer(run), answer(open_bundle(bundle)), strict=True):
        assert one["item"].to_list() == other["item"].to_list()
        assert (one["score"] - other["score"]).abs().max() <= 1e-4
    assert export([f"run={run.folder}", f"to={vectors}", "format=vectors"]) == 0
    assert (
        export([f"run={run.folder}", f"to={model}", FOLDER]) == 0
    )  # which compares vectors itself
    assert "in full precision" in capsys.readouterr().out
    second = shrink(whole.folder, "layers=2", "width=16", "vectors=int8", "steps=3", "seed=1")
    page = tmp_path / "page"
    assert compare([str(whole.folder), str(run.folder), str(second.folder), f"output={page}"]) == 0
    rows = json.loads((page / "comparison.json").read_text())["rows"]
    assert sorted(len(row["runs"]) for row in rows if not row["floor"]) == [
        1,
        2,
    ]  # seeds: one method


def test_held_out_events_change_no_byte(words, train, shrink, place, tmp_path):
    """The last event of each user is the test, the one before it the validation."""
    run = train("full", "tuning=full")
    before = list_bytes(shrink(run, "layers=2", "steps=5", "width=16", output="one"))
    events = place / "shop" / "events.csv"
    kept = events.read_text()
    rows = [line.split(",") for line in kept.splitlines()]
    changed = [*rows[:1]]
    for at, row in enumerate(rows[1:]):
        last = at % 5 >= 3
        changed.append([row[0], f"0{(int(row[1]) + 7) % 30:02d}", *row[2:]] if last else row)
    try:
        events.write_text("\n".join(",".join(row) for row in changed) + "\n")
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        assert fit([*words, f"output={tmp_path / 'other'}", *MOVED, "tuning=full"]) == 0
        other = next((tmp_path / "other").iterdir())
        weights = [folder / "checkpoints" / "best.safetensors" for folder in (run, other)]
        assert weights[0].read_bytes() == weights[1].read_bytes()  # they taught the run nothing
        after = list_bytes(shrink(other, "layers=2", "steps=5", "width=16", output="two"))
    finally:
        events.write_text(kept)
    assert before == after


def test_a_stopped_distillation_goes_on(train, shrink, monkeypatch, tmp_path):
    run = train("full", "tuning=full")
    words = ("layers=2", "steps=9", "batch=8", "seed=3")
    whole = list_bytes(shrink(run, *words, output="whole"))
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(distil, "EVERY", 4)
    steps = distil.Distillation._compute_step
    seen = []

    def stop(self, step):
        seen.append(step)
        if step == 6 and len(seen) == 7:
            raise KeyboardInterrupt
        return steps(self, step)

    monkeypatch.setattr(distil.Distillation, "_compute_step", stop)
    target = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        compress([f"run={run}", f"output={target}", *words])
    (left,) = target.iterdir()  # the state, and no folder of half a run
    assert left.name.startswith(".compressed-")
    again = list_bytes(shrink(run, *words, output="stopped"))
    assert seen[7:] == [4, 5, 6, 7, 8]
    assert again == whole
    assert not left.exists()


def test_one_student_serves_all_widths(train, shrink, monkeypatch):
    run = train("full", "tuning=full")
    shrink(run, "layers=2", "steps=4", "seed=5")

    def refuse(*_):
        raise AssertionError("it was learned already")

    monkeypatch.setattr(students, "Distillation", refuse)
    small = shrink(run, "layers=2", "steps=4", "seed=5", "width=8", "vectors=binary")
    assert small.result["compression"]["vector_width"] == 8


def test_a_notebook_makes_the_same_of_a_run(train, shrink, tmp_path):
    run = load(train("full", "tuning=full"))
    small = run.compress(width=8, vectors="int8", seed=2, output=tmp_path / "made")
    assert list_bytes(small) == list_bytes(shrink(run.folder, "width=8", "vectors=int8", "seed=2"))
    assert small.config.seed == 2
    with pytest.raises(ConfigError, match="lr=2 is no number between"):
        run.compress(lr=2, output=tmp_path / "made")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["layers=0"], "layers=0 is no number from 1"),
        (["layers=3"], "the encoder has 3; give fewer"),
        (["width=32"], "have 32 numbers; give fewer"),
        (["width=x"], "width=x is no number from 1; give one or full"),
        (["vectors=int4"], "vectors=int4 is none of fp32, int8, binary, binary+int8"),
        (["steps=-1"], "steps=-1 is no whole number from 0"),
        (["lr=fast"], "lr=fast is no number between 0 and 1"),
        (["layer=2"], "layer is not a known key. Did you mean 'layers'?"),
        (["width="], "width is empty"),
    ],
)
def test_a_wrong_word_is_one_sentence(train, tmp_path, capsys, wrong, says):
    output = tmp_path / "none"
    assert compress([f"run={train('full', 'tuning=full')}", f"output={output}", *wrong]) == 2
    told = capsys.readouterr().err
    assert says in told.replace("\n", " ")
    assert "Traceback" not in told
    assert not output.exists() or not list(output.iterdir())


@pytest.mark.parametrize(
    ("name", "more", "word", "says"),
    [
        ("popularity", ["architecture=popularity"], "width=8", "what is made smaller is a run of"),
        ("ids", ["architecture.item=text+id"], "width=8", "architecture.item=text+id"),
        ("causal", ["architecture.history=causal"], "width=8", "architecture.history=causal"),
        ("adapter", ["tuning=adapter"], "width=8", "tuning=adapter, which adds parameters"),
    ],
)
def test_a_run_that_cannot_be_made_smaller_is_refused(
    train, tmp_path, capsys, name, more, word, says
):
    run = train(name, *more)
    assert compress([f"run={run}", f"output={tmp_path / 'none'}", word]) == 2
    assert says in capsys.readouterr().err


def test_storing_in_few_bits_is_refused_beside_more_than_a_product(words, tmp_path, capsys):
    line = ["architecture.vectors_as=int8", "architecture.popularity=true"]
    assert fit([*words, f"output={tmp_path}", *line]) == 2
    assert "architecture.popularity=true asks for more" in capsys.readouterr().err


def test_a_run_may_be_trained_with_vectors_in_few_bits(train):
    run = load(train("int8", "tuning=frozen", "architecture.vectors_as=int8"))
    assert len(run.recommend(users=["u3"], k=5)) == 5


def test_layers_are_taken_at_even_distances_up_to_the_last():
    assert select_places(6, 3) == [1, 3, 5]
    assert select_places(6, 2) == [2, 5]
    assert select_places(12, 5) == [1, 3, 6, 8, 11]


def test_each_text_is_drawn_once_before_one_comes_again():
    drawn = torch.cat([draw_rows(12, 4, step, seed=1) for step in range(3)])
    assert sorted(drawn.tolist()) == list(range(12))
    assert draw_rows(3, 8, 0, 0).sort().values.tolist() == [0, 1, 2]


def test_a_rotation_changes_no_product_and_brings_vectors_near_their_signs():
    vectors = torch.randn(200, 16, generator=torch.Generator().manual_seed(0)) + 1
    vectors = torch.nn.functional.normalize(vectors * torch.logspace(0, -2, 16), dim=-1)
    turn = find_rotation(vectors)
    assert torch.allclose(turn @ turn.T, torch.eye(16), atol=1e-5)
    turned = vectors @ turn.T
    assert torch.allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-5)

    def measure(x):
        return float((x - x.sign() / 4).square().sum())

    assert measure(turned) < 0.8 * measure(vectors)


def test_a_basis_has_most_of_the_vectors_in_its_first_directions():
    vectors = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(6, 12)
    basis = find_basis(vectors)
    assert torch.allclose(basis @ basis.T, torch.eye(12), atol=1e-5)
    sizes = (vectors @ basis.T).square().sum(0)
    assert torch.equal(sizes.argsort(descending=True)[:6], torch.arange(6))
    assert float(sizes[6:].sum()) < 1e-6 * float(sizes.sum())

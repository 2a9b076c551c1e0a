"""Hard negatives: who ranks, what is left out, what is drawn of them, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.assembly import build, negatives
from recsys.config.compose import compose, format_config
from recsys.data.batches.hard_negatives import count_hard_negatives, list_excluded_items
from recsys.data.splits.split import TRAIN
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommend.__main__ import main as recommend

HARD = [
    "data.negatives=hard",
    "data.hard_top=6",
    "tuning=frozen",
    "objective=bce",
    "objective.negatives=4",
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def assembled(words, *more):
    return build.assemble(compose([*words, *more]))


def mined(made):
    """Hard items of each training query, a row each."""
    return np.array(made.datamodule.sampler.mined.items)


def drawn(made, epoch=0, part=slice(None)):
    """Negatives as catalog rows, a row each, by user and target."""
    batch = made.datamodule.make_train_batch(made.datamodule.make_epoch_order(epoch)[part], epoch)
    rows = batch.plan.items[batch.candidates.clamp(min=0)].masked_fill(batch.candidates < 0, -1)
    return {
        (user, items[0]): items[1:]
        for user, items in zip(batch.users.tolist(), rows.tolist(), strict=True)
    }


@pytest.mark.parametrize("skip", [0, 2])
def test_tfidf_ranks_as_sklearn_does_and_leaves_out_what_is_no_negative(shop_words, skip):
    made = assembled(shop_words, *HARD, f"data.hard_skip={skip}")
    split, found = made.split, mined(made)
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+")
    vectors = words.fit_transform(made.tables.items["text"].to_list()).toarray()
    seen = set(split.item[split.role == TRAIN].tolist())
    events = made.examples.list_target_events("random")
    assert found.shape == (len(events), 6 - skip)
    for event, row in zip(events.tolist(), found.tolist(), strict=True):
        own = split.slice_history(event)
        user = int(split.compute_user_rows()[event])
        mine = slice(split.offsets[user], split.offsets[user + 1])
        liked = set(split.item[mine][split.role[mine] == TRAIN].tolist())
        scores = vectors @ vectors[split.item[own]].mean(0)
        able = [i for i in range(len(vectors)) if i in seen and i not in liked]
        want = np.array(sorted(able, key=lambda i: -round(scores[i], 6))[skip:6])
        # Rounding may turn equals round; scores do not change with it.
        assert scores[row] == pytest.approx(scores[want], abs=1e-6)
        assert set(row) <= set(able)
        assert len(set(row)) == len(row)


def rewritten(shop, folder, change):
    """The shop with other items in the validation or test events of all users."""
    frame = pl.read_csv(shop / "events.csv", schema_overrides={"what": pl.String})
    place = pl.int_range(pl.len()).over("who")
    other = (pl.col("what").cast(pl.Int64) + 7) % 30
    frame = frame.with_columns(
        pl.when(place.is_in(change))
        .then(other.cast(pl.String).str.zfill(3))
        .otherwise("what")
        .alias("what")
    )
    folder.mkdir()
    frame.write_csv(folder / "events.csv")
    return f"data.source.interactions={folder / 'events.csv'}"


def test_what_is_held_out_changes_no_hard_negative(shop, shop_words, tmp_path):
    """Places 3 and 4 of a user are validation and test; place 1 is training."""
    before = mined(assembled(shop_words, *HARD))
    for name, change, same in (("held", [3, 4], True), ("train", [1], False)):
        other = assembled(shop_words, *HARD, rewritten(shop, tmp_path / name, change))
        assert np.array_equal(before, mined(other)) is same


def test_the_first_places_are_hard_and_the_others_drawn_as_before(shop_words):
    hard, plain = assembled(shop_words, *HARD), assembled(shop_words, *HARD[2:])
    assert list(drawn(hard)) == list(drawn(plain))
    pools = dict(
        zip(hard.examples.list_target_events("random").tolist(), mined(hard).tolist(), strict=True)
    )
    for event in hard.datamodule.make_epoch_order(0).tolist():
        key = (int(hard.split.compute_user_rows()[event]), int(hard.split.item[event]))
        mine, other = drawn(hard)[key], drawn(plain)[key]
        assert len(set(mine[:2])) == 2
        assert set(mine[:2]) <= set(pools[event])
        assert mine[2:] == other[2:]
    again = assembled(shop_words, *HARD)
    assert drawn(again) == drawn(hard)
    epochs = [{k: v[:2] for k, v in drawn(hard, epoch).items()} for epoch in range(2)]
    shared = epochs[0].keys() & epochs[1].keys()
    assert any(epochs[0][key] != epochs[1][key] for key in shared)


def test_two_ranks_draw_what_one_does(shop_words):
    made = assembled(shop_words, *HARD)
    parts = [drawn(made, 1, slice(rank, None, 2)) for rank in range(2)]
    assert parts[0] | parts[1] == drawn(made, 1)


def test_mining_changes_no_weight_and_happens_once(shop_words, monkeypatch, capsys):
    words = [*shop_words, *HARD, "architecture.history=causal"]
    plain = assembled([*shop_words, *HARD[2:]], "architecture.history=causal")
    first = assembled(words)
    assert "80 queries are ranked once" in capsys.readouterr().err
    monkeypatch.setattr(negatives, "_rank_blocks", None)
    second = assembled(words)
    for made in (first, second):
        for name, value in plain.recommender.state_dict().items():
            assert torch.equal(value, made.recommender.state_dict()[name]), name
    items = second.datamodule.sampler.mined.items
    assert isinstance(items, np.memmap)
    assert items.dtype == np.int32


def test_the_last_query_alone_is_mined_where_no_other_is_asked(shop_words):
    every, last = assembled(shop_words, *HARD), assembled(shop_words, *HARD, "data.queries=last")
    events = last.examples.list_target_events("last")
    assert len(events) == 40
    assert set(last.datamodule.make_epoch_order(0)) == set(events)
    places = np.searchsorted(every.examples.list_target_events("random"), events)
    assert np.array_equal(mined(last), mined(every)[places])


def test_too_few_hard_items_are_filled_with_drawn_ones(shop_words):
    made = assembled(shop_words, *HARD)
    sampler = made.datamodule.sampler
    few = np.full((len(mined(made)), 6), -1, dtype=np.int32)
    few[:, 0] = mined(made)[:, 0]
    rest = dataclasses.replace(sampler.mined, items=few)
    made.datamodule.sampler = dataclasses.replace(sampler, mined=rest)
    plain = drawn(assembled(shop_words, *HARD[2:]))
    for key, items in drawn(made).items():
        assert items[1:] == plain[key][1:]


@pytest.mark.parametrize(
    ("n", "share", "count"), [(4, 0.5, 2), (1, 0.5, 1), (5, 0.5, 3), (4, 0.1, 0), (3, 1, 3)]
)
def test_half_a_hard_negative_is_rounded_up(n, share, count):
    assert count_hard_negatives(n, share) == count


def fitted(words, output, *more):
    """Folder of a run."""
    quick = ["tracking.wandb=off", "trainer.epochs=1", "evaluation.beyond=false"]
    assert main([*words, *more, *quick, f"output={output}"]) == 0
    (folder,) = output.iterdir()
    return folder


@pytest.fixture(scope="module")
def once(shop_base, tmp_path_factory):
    """A run whose histories are shorter than those of the runs that mine from it."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))
        words = ["tuning=lora", "data.max_history=1", "optimizer.lr=0.05"]
        return fitted(shop_base, root / "runs", *words)


@pytest.fixture
def finished(once, tmp_path):
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(once, tmp_path / "finished"))


def test_a_run_ranks_with_its_weights_and_its_histories(shop_words, finished):
    made = assembled(shop_words, *HARD, f"data.hard_from={finished}")
    ranks = build.assemble(compose([*shop_words, "tuning=lora", "data.max_history=1"]))
    fresh = ranks.recommender.eval()
    untrained = [model_ranks(ranks, event) for event in ranks.examples._train[:20]]
    fresh.load_trained(finished / "checkpoints" / "best.safetensors")
    trained = [model_ranks(ranks, event) for event in ranks.examples._train[:20]]
    assert not all(torch.equal(a, b) for a, b in zip(untrained, trained, strict=True))
    for place, scores in enumerate(trained):
        row = torch.from_numpy(mined(made)[place].astype(np.int64))
        event = int(made.examples.list_target_events("random")[place])
        _, out = list_excluded_items(made.examples, np.array([event]))
        scores[torch.from_numpy(out)] = -torch.inf
        able = torch.from_numpy(made.examples.get_pool("uniform"))
        best = scores[able].sort(descending=True).values[:6]
        assert torch.allclose(scores[row], best, atol=1e-5)


@torch.no_grad()
def model_ranks(made, event):
    model = made.recommender
    at = np.array([event])
    batch = made.examples.make_batch(made.examples.make_case_rows(at), np.zeros(30, dtype=np.int64))
    items = model.index_catalog()
    return model.score(model.queries(batch, items[batch.plan.items]), items)[0]


def test_other_weights_are_other_negatives(shop_words, finished, tmp_path):
    first = mined(assembled(shop_words, *HARD, f"data.hard_from={finished}"))
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    path = other / "checkpoints" / "best.safetensors"
    state = load_file(path)
    save_file({k: v + torch.randn_like(v) for k, v in state.items()}, path)
    assert not np.array_equal(first, mined(assembled(shop_words, *HARD, f"data.hard_from={other}")))


def test_a_run_that_trained_on_hard_negatives_ranks_after_its_own_source_is_gone(
    shop_words, finished, tmp_path
):
    few = ["trainer.max_steps=1", f"data.hard_from={finished}"]
    second = fitted(shop_words, tmp_path / "second", *HARD, *few)
    shutil.rmtree(finished)
    shutil.rmtree(tmp_path / "cache" / "hard")
    assert mined(assembled(shop_words, *HARD, f"data.hard_from={second}")).min() >= 0
    assert recommend([f"run={second}", "user=u3", "k=2"]) == 0


def test_runs_that_may_not_rank_are_refused(shop, shop_words, finished, tmp_path):
    words = [*HARD, f"data.hard_from={finished}"]

    def refused(sentence, *more):
        with pytest.raises(ConfigError, match=sentence):
            assembled(shop_words, *words, *more)

    refused("other data", rewritten(shop, tmp_path / "other", [1]))
    refused("splits the events in another way", "data.split=time")
    refused("several runs; name one", f"data.hard_from={finished.parent}")
    (tmp_path / "empty").mkdir()
    refused("no run: config.yaml", f"data.hard_from={tmp_path / 'empty'}")
    result = finished / "result.json"
    kept = result.read_text()
    result.write_text(json.dumps({"test": {}}))
    refused(r"result\.json is damaged")
    result.unlink()
    refused("not complete")
    result.write_text(kept)
    (finished / "checkpoints" / "best.safetensors").unlink()
    refused(r"best\.safetensors is missing")
    config = finished / "config.yaml"
    config.write_text(config.read_text().replace("positive_from: null", "positive_from: 2.0"))
    refused("likes other ones")


def test_a_joint_encoder_cannot_rank_the_catalog(shop_words, finished):
    """Its configuration says so; nothing of it is loaded."""
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=5", "tuning=frozen"]
    run = compose([*shop_words, "architecture=cross_encoder", "objective=bce", *lists])
    (finished / "config.yaml").write_text(format_config(run))
    folder = finished
    with pytest.raises(ConfigError, match="cannot score the whole catalog"):
        assembled(shop_words, *HARD, f"data.hard_from={folder}")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["objective=in_batch"], "not with in_batch and 0"),
        (["objective=mse"], "not with mse"),
        (["objective=gbce"], r"objective\.calibration=0\.75 allows for negatives"),
        (
            ["objective=sampled_softmax", "objective.sampling=frequency", "objective.logq=1"],
            r"objective\.logq=1 allows for negatives",
        ),
        (["data.hard_share=0.1"], "less than one item"),
        (["data.hard_skip=6"], "leaves nothing"),
        (["data.negatives=drawn"], r"data\.hard_top speaks of hard negatives"),
    ],
)
def test_what_makes_no_sense_is_refused(shop_words, words, sentence):
    named = {word.partition("=")[0] for word in words}
    first = [word for word in HARD if word.partition("=")[0] not in named]
    if "objective" in named:
        first = [word for word in first if not word.startswith("objective.")]
    with pytest.raises(ConfigError, match=sentence):
        assembled(shop_words, *first, *words)


@pytest.mark.parametrize(
    "words",
    [
        ["objective=bpr"],
        ["objective=in_batch", "objective.negatives=4", "objective.logq=1"],
        ["objective=gbce", "objective.calibration=0"],
        ["objective=sampled_softmax", "objective.sampling=frequency"],
    ],
)
def test_the_other_objectives_take_hard_negatives(shop_words, words):
    made = assembled(shop_words, *HARD[:3], *words)
    model, batch = made.recommender, next(iter(made.datamodule.train_dataloader()))
    with torch.no_grad():
        loss = model.parts.objective(model(batch), batch, model.get_objective_context())
    assert int(loss.count) > 0
    fewer = dataclasses.replace(batch, candidates=batch.candidates.clone())
    fewer.candidates[:, 1] = -1  # the first hard one
    with torch.no_grad():
        less = model.parts.objective(model(fewer), fewer, model.get_objective_context())
    assert float(less.total) < float(loss.total)

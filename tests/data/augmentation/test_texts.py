"""Item texts of which training leaves out words and fields: another part in each epoch."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch

from recsys.assembly import build
from recsys.assembly.checks import check_pairs
from recsys.config.compose import compose
from recsys.data.augmentation.fields import make_field_variants
from recsys.data.augmentation.words import number_words
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.testing.shop import COLOURS, THINGS

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *THINGS, *COLOURS]
DROP = "data.augment={drop_words: .4, drop_fields: .3}"


@pytest.fixture
def words(shop, shop_words, tmp_path, monkeypatch):
    """The shop, each of whose items has three fields of one or two words."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    rows = []
    for line in (shop / "items.csv").read_text().splitlines()[1:]:
        what, name = line.split(",")
        kind, room = (" ".join(rng.choice(VOCABULARY[4:], n)) for n in rng.integers(1, 3, 2))
        rows.append(f"{what},{name},{kind},{room if rng.random() < 0.8 else ''}\n")
    (tmp_path / "items.csv").write_text("what,name,kind,room\n" + "".join(rows))
    return [
        *(w for w in shop_words if not w.startswith(("data.source.items", "data.source.item_t"))),
        f"data.source.items={tmp_path / 'items.csv'}",
        "data.source.item_text='{name} {kind} {room}'",
        "tracking.wandb=off",
        "trainer.batch_size=6",
    ]


def spell(tokens):
    return [" ".join(VOCABULARY[i] for i in text.tolist()) for text in tokens.split()]


def read_texts(made, epoch):
    rows = torch.arange(len(made.tables.items))
    return spell(made.encoding.gather_tokens(rows, epoch))


def is_subsequence(short, long):
    rest = iter(long)
    return all(word in rest for word in short)


def test_words_are_left_out_whole_and_never_all_of_them(words):
    made = build.assemble(compose([*words, "data.augment.drop_words=0.4"]))
    whole = [text.split() for text in made.tables.items["text"].to_list()]
    assert read_texts(made, None) == [" ".join(text) for text in whole]
    epochs = [[text.split() for text in read_texts(made, epoch)] for epoch in range(20)]
    for texts in epochs:
        assert all(text for text in texts)
        assert all(map(is_subsequence, texts, whole))
    share = sum(len(t) for texts in epochs for t in texts) / sum(map(len, whole)) / len(epochs)
    assert share == pytest.approx(0.6, abs=0.04)
    assert epochs[0] != epochs[1]
    last = build.assemble(compose([*words, "data.augment.drop_words=1"]))
    assert {len(text.split()) for text in read_texts(last, 0)} == {1}


def test_fields_are_left_out_whole_and_never_all_of_them(words):
    made = build.assemble(compose([*words, "data.augment.drop_fields=0.4"]))
    items = made.tables.items
    fields = items.select("name", "kind", "room").fill_null("").rows()
    left = 0
    for epoch in range(20):
        for text, whole in zip(read_texts(made, epoch), fields, strict=True):
            parts = {
                " ".join(f for f, kept in zip(whole, keep, strict=True) if kept and f)
                for keep in np.ndindex(2, 2, 2)
            } - {""}
            assert text in parts
            left += text != " ".join(filter(None, whole))
    assert 0.4 < left / 600 < 0.85


def test_a_template_is_filled_as_the_source_fills_it_without_a_field():
    items = pl.DataFrame(
        {
            "item": ["1", "2", "3"],
            "title": ["Heat", "Clue", None],
            "year": ["1995", None, None],
            "genres": ["Action|Crime", "Comedy", "Drama"],
            "text": ["Heat (1995). Action, Crime", "Clue. Comedy", "Drama"],
        }
    )
    made = make_field_variants(items, "{title} ({year}). {genres}", ["genres"])
    assert made.fields == 3
    found = [[made.texts[row] for row in rows] for rows in made.rows.tolist()]
    assert found[0] == [
        "Heat (1995). Action, Crime",
        "(1995). Action, Crime",
        "Heat. Action, Crime",
        "Action, Crime",
        "Heat (1995)",
        "(1995)",
        "Heat",
        "Heat (1995). Action, Crime",
    ]
    assert found[1] == [*["Clue. Comedy", "Comedy"] * 2, *["Clue", "Clue. Comedy"] * 2]
    assert set(found[2]) == {"Drama"}
    assert len(made.texts) == 3 + 6 + 2  # each text of an item once


@pytest.mark.parametrize(
    ("text", "spans", "want"),
    [
        ("red lamp", [(0, 3), (4, 6), (6, 8)], [0, 1, 1]),  # pieces of a word
        ("red lamp", [(0, 3), (3, 8)], [0, 1]),  # a token that begins with the blank
        ("red, lamp", [(0, 3), (3, 4), (5, 9)], [0, 0, 1]),
        ("item: red", [(0, 4), (4, 5), (6, 9)], [-1, -1, 0]),  # a prompt of six characters
        ("\u7ea2\u706f lamp", [(0, 1), (0, 1), (1, 2), (3, 7)], [0, 0, 1, 2]),  # bytes of one
        ("red  ", [(0, 3), (3, 5), (0, 0)], [0, -1, -1]),
    ],
)
def test_tokens_have_the_number_of_their_word(text, spans, want):
    begin = 6 if text.startswith("item: ") else 0
    assert number_words(text, spans, begin) == want


def test_a_prompt_stays_before_every_text(words):
    prompt = "encoder.item_prompt='lamp lamp '"
    made = build.assemble(compose([*words, prompt, DROP]))
    bare = build.assemble(compose([*words, DROP]))
    for epoch in (0, 1):
        assert read_texts(made, epoch) == [f"lamp lamp {text}" for text in read_texts(bare, epoch)]


KINDS = {
    "two_tower": ["tuning=full"],
    "two_tower_frozen": ["tuning=frozen", "encoder.cache=false"],
    "two_tower_from_text": ["architecture.user=text"],
    "separate": ["architecture.towers=separate", "architecture.user=text"],
    "softmax": ["objective=full_softmax", "objective.encode_catalog=true"],
    "late_interaction": ["architecture=late_interaction", "objective=bce", "objective.negatives=2"],
    "late_interaction_frozen": [
        *("architecture=late_interaction", "objective=bce", "objective.negatives=2"),
        *("tuning=frozen", "encoder.cache=false"),
    ],
    "cross_encoder": [
        *("architecture=cross_encoder", "objective=bce", "objective.negatives=2"),
        *("evaluation.protocol=candidates", "evaluation.candidates=8"),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reads_the_texts_of_its_epoch_and_an_evaluation_whole_ones(words, kind, tmp_path):
    """As if the data set had those texts in the first place; a cached vector would be another."""
    words = [*words, *KINDS[kind]]
    made = build.assemble(compose([*words, DROP]))
    # what one epoch has made is not taken for the other's
    for epoch in (0, 1):
        texts = read_texts(made, epoch)
        rows = zip(made.tables.items["item"], texts, strict=True)
        (tmp_path / "less.csv").write_text(
            "what,name\n" + "".join(f"{item},{text}\n" for item, text in rows)
        )
        other = [w for w in words if not w.startswith(("data.source.items", "data.source.item_t"))]
        other += [f"data.source.items={tmp_path / 'less.csv'}", "data.source.item_text='{name}'"]
        plain = build.assemble(compose(other))
        plain.recommender.load_state_dict(made.recommender.state_dict())
        at = made.datamodule.make_epoch_order(epoch)[:9]
        losses = []
        for each in (made, plain):
            each.recommender.eval()
            batch = each.datamodule.make_train_batch(at, epoch)
            assert batch.plan.sizes == each.encoding.count_tokens(batch.plan.items, epoch)
            loss = each.recommender.compute_loss(batch)
            losses.append(float((loss.total / loss.count).detach()))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    whole = build.assemble(compose(words))
    whole.recommender.load_state_dict(made.recommender.state_dict())
    loss = whole.recommender.eval().compute_loss(batch)
    assert float((loss.total / loss.count).detach()) != pytest.approx(losses[0], rel=1e-4)
    scores = []
    for each in (made, whole):
        case = next(iter(each.datamodule.val_dataloader()))
        assert case.plan.epoch is None
        with torch.no_grad():
            items = each.recommender.index(case.plan)
            scores.append(each.recommender.score_candidates(case, items))
    assert torch.allclose(*scores, atol=1e-5)


def test_texts_do_not_depend_on_what_comes_with_them(words):
    made = build.assemble(compose([*words, DROP]))
    rows = torch.arange(30)
    for epoch in range(3):
        whole = read_texts(made, epoch)
        for part in (rows[:1], rows[7:20], rows.flip(0)):
            tokens = made.encoding.gather_tokens(part, epoch)
            assert spell(tokens) == [whole[row] for row in part.tolist()]
            assert tokens.sizes == made.encoding.count_tokens(part, epoch)
    reseeded = build.assemble(compose([*words, DROP, "seed=1"]))
    assert read_texts(reseeded, 0) != read_texts(made, 0)


def test_zeros_leave_every_text_as_it_was(words):
    plain = build.assemble(compose(words))
    same = build.assemble(compose([*words, "data.augment={drop_words: 0, drop_fields: 0}"]))
    assert same.encoding.training_texts is None
    at = plain.datamodule.make_epoch_order(0)[:9]
    one, two = (made.datamodule.make_train_batch(at, 0) for made in (plain, same))
    assert two.plan.epoch is None
    assert one.plan.sizes == two.plan.sizes


def test_a_run_counts_the_tokens_that_it_reads(words, tmp_path):
    """Its work is told for the texts as they are read."""
    tokens = {}
    for name, more in (("whole", []), ("less", ["data.augment.drop_words=1"])):
        asked = [*words, "tuning=full", "trainer.epochs=2", "evaluation.test=false", *more]
        assert main([*asked, f"output={tmp_path / name}"]) == 0
        (folder,) = (tmp_path / name).iterdir()
        tokens[name] = json.loads((folder / "result.json").read_text())["cost"]["tokens"]
    made = build.assemble(compose([*words, "data.augment.drop_words=1"])).datamodule
    read = sum(
        sum(size + 2 for size in made.make_train_batch(at, epoch).plan.sizes)
        for epoch in range(2)
        for at in made.plan.make_batches(epoch)
    )
    assert tokens["less"] == read < tokens["whole"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["tuning=frozen"], "encoder.cache=false"),
        (["tuning=frozen", "architecture=late_interaction", "objective=bce"], "encoder.cache=fal"),
        (["experiment=sasrec"], "reads none"),
        (["trainer.encoder_updates=half_epoch"], "trainer.encoder_updates=every_step"),
        (["experiment=popularity"], "does not train"),
        (
            ["objective=full_softmax", "tuning=frozen", "encoder.cache=false"],
            "objective.encode_catalog=true",
        ),
    ],
)
def test_texts_that_no_step_reads_are_refused_before_data_is_read(more, said):
    for name in ("drop_words", "drop_fields"):
        with pytest.raises(ConfigError, match=said):
            check_pairs(compose([*more, f"data.augment.{name}=0.2"]))


def test_states_that_are_kept_are_refused(words):
    last = [*words, "tuning=lora", "tuning.layers=1"]
    with pytest.raises(ConfigError, match=r"data.augment.drop_words=0.4 and .*encoder.cache=false"):
        build.assemble(compose([*last, DROP]))
    build.assemble(compose([*last, DROP, "encoder.cache=false"]))


def test_fields_that_cannot_be_left_out_are_refused(words):
    drop = "data.augment.drop_fields=0.2"
    one = [w for w in words if not w.startswith("data.source.item_text")]
    with pytest.raises(ConfigError, match="made of one column"):
        build.assemble(compose([*one, "data.source.item_text='{name}'", drop]))
    with pytest.raises(ConfigError, match="has no item_text"):
        check_pairs(compose(["data.source=sequences", "data.source.path=x", drop]))
    items = pl.DataFrame({"item": ["1"], "a": ["x"], "b": ["y"], "text": ["x y"]})
    with pytest.raises(ConfigError, match="no longer make the texts"):
        make_field_variants(items, "{a}, {b}", ())
    with pytest.raises(ConfigError, match="no longer make the texts"):
        make_field_variants(items, "{a} {c}", ())
    many = " ".join(f"{{c{n}}}" for n in range(7))
    with pytest.raises(ConfigError, match="name 6 at most"):
        make_field_variants(items, many, ())


def test_a_batch_of_tokens_stays_within_its_budget(words):
    made = build.assemble(compose([*words, DROP, "trainer.batch_tokens=60"])).datamodule
    for at in made.plan.make_batches(0):
        plan = made.make_train_batch(at, 0).plan
        assert sum(size + 2 for size in plan.sizes) <= 60 or len(at) == 1
        assert dataclasses.replace(plan, epoch=None).sizes == plan.sizes

"""Context stands at the head of a user's text, the same in training, test and recommendation."""

import dataclasses
import datetime

import numpy as np
import polars as pl
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.examples import VAL
from recsys.data.batches.user_texts import UserTexts
from recsys.data.context import UNKNOWN, ContextFeatures, make_context_features
from recsys.encoders.pretrained.source import ModelFiles
from recsys.encoders.pretrained.tokenizer import load_tokenizer
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommend.__main__ import main as recommend
from recsys.types import Ragged

TOWER = ["architecture=two_tower", "architecture.user=text", "tuning=frozen"]
CROSS = [
    *("architecture=cross_encoder", "objective=sampled_softmax", "tuning=frozen"),
    *("evaluation.protocol=candidates", "evaluation.candidates=9"),
]
ASTEXT = "architecture.context_as=text"
KINDS = {"two_tower": [*TOWER, ASTEXT], "cross_encoder": CROSS}
CONTEXT = "architecture.context=[device,hour]"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def words(situated_words, tiny_bytes):
    """The shop with devices, and an encoder that can tell one from another."""
    kept = [w for w in situated_words if not w.startswith("encoder.")]
    return [*kept, f"encoder.model={tiny_bytes}", "encoder.max_length=64"]


def assembled(*words):
    return build.assemble(compose(list(words)))


def texts(tokens, folder):
    tokenizer = load_tokenizer(ModelFiles.locate(str(folder)))
    pieces = [tokenizer.convert_ids_to_tokens(ids.tolist()) for ids in tokens.split()]
    return ["".join(of).replace("Ġ", " ") for of in pieces]


def device_of(made, event):
    return made.tables.interactions["device"][int(made.split.row[event])] or ""


def by_training(made, event):
    """The batch of a training query at an event."""
    return made.examples.make_batch(
        made.examples.make_train_rows("last", event), made.datamodule.sizes
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_begins_with_what_is_known_of_the_query(words, tiny_bytes, kind):
    made = assembled(*words, *KINDS[kind], CONTEXT)
    plain = assembled(*words, *KINDS["cross_encoder"])
    batch = next(iter(made.datamodule.train_dataloader()))
    found = texts(made.recommender.encoding.user_texts.compose_tokens(batch), tiny_bytes)
    without = texts(plain.recommender.encoding.user_texts.compose_tokens(batch), tiny_bytes)
    names = ["", "desk", "phone"]
    for at, device in enumerate(batch.context["device"].tolist()):
        hour = int(batch.context["hour"][at]) - 1
        said = f"device: {names[device]}" if device else ""
        whole = ";".join(filter(None, [said, f"hour: {hour}", without[at]]))
        assert found[at] == whole[:64]
        # The first of a user's events, with a phone, has its context alone for a text.
        assert bool(without[at]) == (names[device] != "phone")
    assert set(batch.context["device"].tolist()) == {0, 1, 2}


def test_no_history_is_long_enough_to_cut_it_away(words, tiny_bytes):
    made = assembled(*words, *TOWER, ASTEXT, "architecture.context=[device]")
    batch = by_training(made, made.split.list_cases(VAL)[:4])
    tokens = made.recommender.encoding.user_texts
    assert all(
        text.startswith("device: phone;")
        for text in texts(tokens.compose_tokens(batch), tiny_bytes)
    )
    tokens.max_tokens = 20
    assert {t[:14] for t in texts(tokens.compose_tokens(batch), tiny_bytes)} == {"device: phone;"}
    assert tokens.compose_tokens(batch).sizes == (20,) * 4


def test_of_what_is_unknown_nothing_is_said(words):
    made = assembled(*words, *CROSS, "architecture.context=[device]")
    plain = assembled(*words, *CROSS)
    event = np.flatnonzero(made.context_features.codes["device"] == UNKNOWN)
    # Missing in training, and a value that only the test has.
    assert {device_of(made, e) for e in event} == {"", "watch"}
    batch = made.examples.make_batch(made.examples.make_case_rows(event), made.datamodule.sizes)
    found = made.recommender.encoding.user_texts.compose_tokens(batch)
    want = plain.recommender.encoding.user_texts.compose_tokens(batch)
    assert found.sizes == want.sizes
    assert torch.equal(found.values, want.values)


@pytest.mark.parametrize("kind", KINDS)
def test_another_device_is_another_score_before_any_training(words, kind):
    made = assembled(*words, *KINDS[kind], "architecture.context=[device]")
    model = made.recommender.eval()
    assert kind == "cross_encoder" or model.context is None  # no vectors beside the words
    items = model.index(made.examples.make_serving_batch(np.arange(9)).plan)
    scores = {}
    for device in ("phone", "desk", ""):
        codes, _ = made.context_features.encode_context(0, {"device": device})
        batch = made.examples.make_serving_batch(np.array([3, 4]))
        batch.context.update(codes)
        with torch.no_grad():
            scores[device] = model.score(model.queries(batch, items), items)[0]
    assert not torch.allclose(scores["phone"], scores["desk"], atol=1e-4)
    assert not torch.allclose(scores["phone"], scores[""], atol=1e-4)


def test_training_test_and_recommendation_compose_the_same_tokens(words, tmp_path, monkeypatch):
    """Of one query: what trains it, what ranks it as a case, and who asks with it."""
    words = [*words, *TOWER, ASTEXT, CONTEXT, "data.queries=all", "trainer.max_steps=1"]
    assert main(words) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    made = assembled(*words)
    compose_texts, examples = made.recommender.encoding.user_texts, made.examples
    ids = made.tables.items["item"].to_list()
    noted, inner = [], UserTexts.compose_tokens

    def note(self, batch):
        noted.append(inner(self, batch))
        return noted[-1]

    monkeypatch.setattr(UserTexts, "compose_tokens", note)
    whole = examples.make_train_rows("all", np.arange(2))
    together = dict(
        zip(
            whole.event.tolist(),
            inner(compose_texts, examples.make_batch(whole, made.datamodule.sizes)).split(),
            strict=True,
        )
    )
    for event in (2, 3, 4):  # of the first user: trained, validated, tested
        at = np.array([event])
        case = examples.make_batch(
            examples.make_case_rows(at), made.datamodule.sizes, with_seen=True
        )
        want = inner(compose_texts, by_training(made, at)).values
        assert torch.equal(inner(compose_texts, case).values, want)
        assert event > 2 or torch.equal(together[event], want)
        had = ",".join(ids[i] for i in made.split.item[:event])
        seconds = int(made.split.time[event]) // 1000
        asked = [f"history={had}", f"at={seconds}", f"context.device={device_of(made, event)}"]
        assert recommend([f"run={folder}", *asked, "k=2"]) == 0
        assert torch.equal(noted[-1].values, want)


@pytest.mark.parametrize("kind", KINDS)
def test_a_free_text_is_read_in_its_context(words, tiny_bytes, kind):
    made = assembled(*words, *KINDS[kind], CONTEXT)
    tokens = made.recommender.encoding.user_texts
    batch = made.examples.make_serving_batch(np.empty(0, dtype=np.int64))
    ids = torch.tensor(made.tokenize(["red lamp"])[0])
    free = Ragged(ids, (len(ids),))
    assert texts(tokens.compose_with_text(batch, free), tiny_bytes) == ["red lamp"]
    batch.context.update(made.context_features.encode_context(7 * 3_600_000, {"device": "desk"})[0])
    want = "device: desk;hour: 7;red lamp"
    assert texts(tokens.compose_with_text(batch, free), tiny_bytes) == [want]
    model = made.recommender.eval()
    with torch.no_grad():
        query = model.make_text_query(batch, "red lamp", free)
    if kind == "cross_encoder":
        assert query.tolist() == [made.tokenize([want])[0]]
    else:
        texts_of_users = model._encode_users(tokens.compose_with_text(batch, free))
        assert torch.allclose(query, model.make_text_users(texts_of_users, None))


def test_codes_are_said_in_words(words):
    made = assembled(*words, *TOWER, ASTEXT, "architecture.context=[weekday,hour]")
    pieces = made.context_features.format_codes()
    day = 86_400_000
    for moment in (0, 3 * day, 1_600_000_000_000, 1_714_999_999_999):
        codes, notes = made.context_features.encode_context(moment, {})
        when = datetime.datetime.fromtimestamp(moment / 1000, datetime.UTC)
        assert pieces["weekday"][int(codes["weekday"])] == f"weekday: {when:%A}"
        assert pieces["hour"][int(codes["hour"])] == f"hour: {when.hour}"
        assert notes == ()
    assert pieces["hour"][UNKNOWN] == ""
    said = ContextFeatures({}, {"device_type": ("", "smart  phone", " ")}).format_codes()
    assert said == {"device_type": ["", "device type: smart phone", ""]}


def test_an_own_column_of_hours_is_a_column(words):
    made = assembled(*words, *TOWER)
    frame = made.tables.interactions
    hours = pl.Series("hour", ["night" if i % 2 else "noon" for i in range(frame.height)])
    tables = dataclasses.replace(made.tables, interactions=frame.with_columns(hours))
    found = make_context_features(tables, made.split, ["hour"], ())
    assert found.clock == frozenset()
    assert found.values == {"hour": ("", "night", "noon")}
    assert found.encode_context(0, {"hour": "noon"})[0]["hour"].tolist() == [2]


def test_tags_are_read_as_words_where_the_items_text_names_them(words):
    own = [w for w in words if not w.startswith("data.source.item_text")]
    made = assembled(*own, *TOWER, "data.source.item_text='{name}. kind: {kind}'")
    assert made.tables.items["text"][0].endswith("kind: wood|home")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["architecture.user=history", CONTEXT, ASTEXT], "set architecture.user=text, or"),
        (["architecture.user=text", ASTEXT], "has no context to write"),
        ([*CROSS, ASTEXT], "context_as is not a known key"),
        ([*CROSS, "architecture.context=[place]"], "no column 'place'.*hour, weekday, .*device"),
        ([*CROSS, "architecture.context=[rating]"], "not known when a recommendation"),
        (["architecture=late_interaction", CONTEXT], "context is not a known key"),
    ],
)
def test_what_cannot_be_is_refused(words, more, sentence):
    with pytest.raises(ConfigError, match=sentence):
        assembled(*words, *more)

"""What a user said up to a query begins its text, and of what is too long the end is read."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

from recsys.assembly.build import assemble
from recsys.config.compose import compose
from recsys.data.moments import MOMENT, find_query_column, keep_last_words
from recsys.data.splits.methods import make_split
from recsys.errors import ConfigError, DataError
from recsys.fit.__main__ import main
from recsys.testing.shop import write_encoder
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.write import write_bundle
from recsys.trained.run import load
from recsys.types import Ragged
from tests.data.sources.test_redial import INFO, dialogue, write

SAID = (
    "Hi What do you like ? I liked Seven ( 1995 ) and 8 Women is fine . Try Nine 2009 or Six Then "
    "Seen it about Thanks , bye ; crime drama Two detectives A B"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("moments")
    parts = {"train": range(8), "valid": range(8, 12), "test": range(12, 16)}
    write(root / "d", INFO, **{k: [dialogue(n) for n in v] for k, v in parts.items()})
    write_encoder(root / "encoder", SAID.split())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))
        yield [
            *("data.source=redial", f"data.source.path={root / 'd'}"),
            *(f"encoder.model={root / 'encoder'}", "encoder.max_length=16", "evaluation.k=[1]"),
            *("evaluation.monitor=hr@1", "trainer.max_steps=0", "tuning=frozen"),
        ]


def made_of(base, *words):
    made = assemble(compose([*base, *words]))
    batch = next(iter(made.datamodule.test_dataloader()))
    return made, batch


def test_a_document_tower_reads_the_dialogue_so_far(base):
    made, batch = made_of(base, "architecture=two_tower", "architecture.user=text")
    texts = made.parts.written.compose_plain_texts(batch)
    first = "Hi\nWhat do you like?\nI liked Seven (1995) and 8 Women"
    assert texts[0].startswith(f"{first}; 8 Women; Seven (1995); crime, drama")
    assert texts[0] == texts[1]  # both films of one turn
    assert texts[2].startswith(f"{first}\nSeven (1995) is fine. Try Nine (2009) or\nSeen it.")
    # 14 tokens have room beside the special ones, which the encoder sees to.
    own = made.encoding.user_texts.compose_tokens(batch).split()
    whole = made.tokenize([texts[2].partition("; ")[0]])[0]
    assert len(whole) > 14
    assert own[2].tolist()[:14] == whole[-14:]


def test_without_it_a_query_is_its_titles(base):
    plain, words = "data.query_column=none", ("architecture=tfidf", "architecture.user=text")
    base = [word for word in base if not word.startswith(("tuning", "trainer"))]
    made, batch = made_of(base, *words, plain)
    assert made.parts.written.compose_plain_texts(batch)[0].startswith("8 Women; Seven (1995)")
    made, batch = made_of(base, *words)
    assert made.parts.written.compose_plain_texts(batch)[0].startswith("Hi\nWhat")


def test_who_asks_after_the_dialogue_is_read_whole(base):
    made, _ = made_of(base, "architecture=two_tower", "architecture.user=text")
    batch = made.examples.make_serving_batch(np.empty(0, dtype=np.int64), 3)
    texts = made.parts.written.compose_plain_texts(batch)
    assert texts[0].endswith("Then Six\nThanks, bye")
    nobody = made.examples.make_serving_batch(np.empty(0, dtype=np.int64))
    assert made.parts.written.compose_plain_texts(nobody) == [""]
    assert int(nobody.context[MOMENT][0]) == 0


def test_a_text_that_asks_stands_in_its_place_and_keeps_its_end(base):
    made, _ = made_of(base, "architecture=two_tower", "architecture.user=text")
    asked = " ".join(["Hi"] * 20 + ["Try", "Women"])
    ids = made.tokenize([asked])[0]
    batch = made.examples.make_serving_batch(np.empty(0, dtype=np.int64))
    tokens = Ragged(torch.tensor(ids), (len(ids),))
    read = made.encoding.user_texts.compose_with_text(batch, tokens).values.tolist()
    assert read == ids[-14:]


def test_a_cross_encoder_leaves_room_for_the_item(base):
    words = ("architecture=cross_encoder", "objective=bpr", "data.max_tokens=6")
    lists = ("evaluation.protocol=candidates", "evaluation.candidates=3")
    made, batch = made_of(base, *words, *lists)
    own = made.encoding.user_texts.compose_tokens(batch).split()[0]
    assert len(own) <= 16
    assert made.encoding.user_texts.latest == 16 - 3 - 6


@pytest.mark.parametrize("column", ["by", "turn"])
def test_columns_can_be_named(column, base):
    run = compose([*base, "architecture=two_tower", f"data.query_column={column}"])
    assert find_query_column(run.data) == column
    if column == "turn":
        with pytest.raises(ConfigError, match="is Int64, and the text of a query is made of texts"):
            assemble(run)
    else:
        assert assemble(run).context_features.moments.texts == ("", "seeker", "recommender")


@pytest.mark.parametrize(
    ("column", "message"),
    [("nothing", "have no such column .there are: .*said"), ("event", "tells what came of it")],
)
def test_what_cannot_be_read_is_refused(column, message, base):
    with pytest.raises(ConfigError, match=message):
        assemble(compose([*base, "architecture=two_tower", f"data.query_column={column}"]))


def test_the_last_words_hold_the_last_tokens():
    assert keep_last_words("a  b\nc d", 2) == "c d"
    assert keep_last_words("a  b\nc d", 3) == "b\nc d"
    assert keep_last_words("a b", 2) == "a b"
    assert keep_last_words("", 2) == ""


def test_a_column_of_events_is_no_target_where_it_says_so(base):
    made, _ = made_of(base, "architecture=two_tower")
    events = made.tables.interactions
    asked = events["is_target"].to_numpy()[made.split.row]
    for role in (1, 2):
        assert asked[made.split.list_cases(role)].all()
    assert made.examples.list_target_events("all").size == 8 * 2  # of each dialogue 9 and 6
    told = dataclasses.replace(
        made.tables, interactions=events.with_columns(is_target=pl.lit("yes"))
    )
    with pytest.raises(DataError, match="row 1 of column 'is_target' holds 'yes'; give true or f"):
        make_split(told, "given")


def test_a_bundle_reads_what_its_run_reads(base, tmp_path):
    words = [w for w in base if not w.startswith("evaluation.monitor")]
    own = ["architecture=two_tower", "architecture.user=text", "evaluation.monitor=hr@1"]
    assert main([*words, *own, "tracking.wandb=off", f"output={tmp_path / 'runs'}"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    run = load(folder)
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    long = " ".join(["Hi"] * 20 + ["Try", "Women"])
    for asked in ({"users": ["14"]}, {"texts": ["Try Nine"]}, {"texts": [long]}):
        ours, theirs = run.recommend(k=2, **asked), bundle.recommend(k=2, **asked)
        assert ours["item"].to_list() == theirs["item"].to_list()
        assert ours["score"].to_list() == pytest.approx(theirs["score"].to_list(), abs=1e-5)
    # The end of a long text is what is read.
    cut = run.recommend(texts=[" ".join(long.split()[-14:])], k=2)
    assert cut["score"].to_list() == pytest.approx(ours["score"].to_list(), abs=1e-5)


def test_searches_of_a_shop_are_texts_of_its_queries(tmp_path):
    rows = [
        *("u,1,1,,false", "u,2,2,red lamp,true", "u,3,3,,true", "u,4,4,a mirror,true"),
        *("v,1,1,lamp,TRUE", "v,3,2,blue,1", "v,2,3,red lamp,0", "v,4,5,mirror,1"),
    ]
    (tmp_path / "e.csv").write_text("user,item,time,search,is_target\n" + "\n".join(rows) + "\n")
    (tmp_path / "i.csv").write_text("item,title\n1,lamp\n2,red lamp\n3,shelf\n4,mirror\n")
    words = ["data.source=tables", f"data.source.interactions={tmp_path / 'e.csv'}"]
    words += [f"data.source.items={tmp_path / 'i.csv'}", "data.split=leave_one_out"]
    own = ["architecture=tfidf", "architecture.user=text", "data.query_column=search"]
    made = assemble(compose([*words, *own, "data.max_history=1"]))
    batch = next(iter(made.datamodule.test_dataloader()))
    # Of v the last three that may be asked about are held out of and trained on, and not 2.
    assert made.parts.written.compose_plain_texts(batch) == ["a mirror; shelf", "mirror; red lamp"]
    texts = dict(zip(made.context_features.moments.texts, range(9), strict=False))
    assert list(texts) == ["", "red lamp", "a mirror", "lamp", "blue", "mirror"]

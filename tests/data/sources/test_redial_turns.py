"""A case is a recommender's turn, with the dialogue before it: counted and read by hand."""

import dataclasses
import gzip
import itertools
import json
import re

import polars as pl
import pytest

from recsys.config.compose import compose, compose_data
from recsys.data.prepare import prepare_data
from recsys.data.sources import redial
from recsys.data.splits import methods
from recsys.errors import ConfigError, DataError
from tests.data.samples import lines
from tests.data.sources.test_more_sources import real
from tests.data.sources.test_redial import INFO, dialogue, write


def turns_of(folder, info=INFO, **parts):
    return dataclasses.replace(write(folder, info, **parts), cut="he")


def events_of(config, number="5"):
    columns = ("item", "is_target", "by", "turn", "moment")
    found = redial.load(config)
    own = found.interactions.filter(user=number)
    return found, own.select(columns).rows(), own["said"].to_list()


def test_a_dialogue_by_hand(tmp_path):
    config = turns_of(tmp_path, train=[dialogue(), dialogue(7), dialogue(8)], test=[dialogue(6)])
    found, rows, said = events_of(config)
    # Messages of one side in a row are one turn; 7 is named again by the recommender, and 8 and 9
    # again by the seeker, which asks for nothing and adds nothing to the history.
    assert rows == [
        ("7", False, "seeker", 2, "5-2"),
        ("8", False, "seeker", 2, "5-2"),
        ("7", True, "recommender", 3, "5-3"),
        ("9", True, "recommender", 3, "5-3"),
        ("6", True, "recommender", 5, "5-5"),
    ]
    begin = "Hi\nWhat do you like?"
    first = f"{begin}\nI liked Seven (1995) and 8 Women"
    last = f"{first}\nSeven (1995) is fine. Try Nine (2009) or\n"
    last += "Seen it. What about Nine (2009) or 8 Women?"
    assert said == [begin, begin, first, first, last]
    whole = found.users.filter(user="5").select("text", "said").row(0)
    assert whole == ("", f"{last}\nThen Six\nThanks, bye")
    assert (
        "redial: test: 3 targets in 2 turns of 1 dialogue, 1 of them named before in their "
        "dialogue." in found.notes
    )


def test_no_text_says_what_is_asked_for(tmp_path):
    config = turns_of(tmp_path, train=[dialogue(n) for n in range(3)], test=[dialogue(6)])
    events = redial.load(config).interactions
    titles = dict(redial.load(config).items.select("item", "title").iter_rows())
    known: dict[str, set[str]] = {}
    for user, item, moment, said in events.select("user", "item", "moment", "said").rows():
        before = known.setdefault(user, set())
        assert (titles[item] in said) == (item in {each for each, at in before if at != moment})
        before.add((item, moment))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"speakers": True}, ["Seeker: Hi", "Recommender: What do you like?"]),
        ({"turns": "seeker"}, ["Hi"]),
        ({"text_words": 3}, ["you like?"]),
        ({"text_words": 5, "speakers": True}, ["Seeker: Hi", "Recommender: What do you like?"]),
    ],
)
def test_texts_can_be_marked_and_cut(fields, said, tmp_path):
    config = turns_of(tmp_path, train=[dialogue(n) for n in range(3, 6)])
    config = dataclasses.replace(config, held_out=0.3, **fields)
    _, _, texts = events_of(config)
    if fields == {"text_words": 3}:
        assert texts[0] == "do you like?"
        assert texts[-1] == "or 8 Women?"
    else:
        assert texts[0].split("\n") == said


def test_those_of_all_turns_can_be_asked_for(tmp_path):
    config = turns_of(tmp_path, train=[dialogue(n) for n in range(3, 6)])
    _, rows, _ = events_of(dataclasses.replace(config, held_out=0.3, targets="all"))
    assert [(item, asked) for item, asked, *_ in rows] == [
        *(("7", True), ("8", True), ("7", True), ("9", True)),
        *(("9", True), ("8", True), ("6", True)),
    ]


def test_a_file_may_list_the_turns_that_count(tmp_path):
    config = turns_of(tmp_path, train=[dialogue(n) for n in range(3)], test=[dialogue(6)])
    turns = [{"dialog_id": "6", "turn_id": 3, "rec": ["Seven  (1995)"]}]
    lines(tmp_path / "listed.jsonl", turns)
    listed = dataclasses.replace(config, listed=str(tmp_path / "listed.jsonl"))
    _, rows, _ = events_of(listed, "6")
    assert [row[:2] for row in rows if row[1]] == [("7", True)]
    assert [row[0] for row in rows] == ["7", "8", "7", "9", "6"]  # the others stay in histories
    assert events_of(listed, "1")[1] == [
        (*row[:-1], row[-1].replace("6-", "1-")) for row in events_of(config, "6")[1]
    ]
    for turn, message in (
        ({"dialog_id": "6"}, "line 1 lists no turn; give dialog_id"),
        ({"dialog_id": "6", "turn_id": True, "rec": []}, "line 1 lists no turn; give dialog_id"),
        ({"dialog_id": "6", "turn_id": 3, "rec": []}, r"data\.source\.listed=.* lists no item"),
        ({"dialog_id": "2", "turn_id": 3, "rec": ["Six"]}, "dialogue 2, which the test part lacks"),
        ({"dialog_id": "6", "turn_id": 3, "rec": ["Six"]}, "'Six', which turn 3 of dialogue 6 doe"),
        ({"dialog_id": "6", "turn_id": 99, "rec": ["Six"]}, "which turn 99 of dialogue 6 does not"),
    ):
        lines(tmp_path / "listed.jsonl", [turn])
        with pytest.raises(DataError, match=message):
            redial.load(listed)
    with pytest.raises(ConfigError, match="listed is of turns, and cut=mentions has none"):
        redial.load(dataclasses.replace(listed, cut="mentions"))


def test_real_turns_of_ievalm_are_all_there():
    folder = real("redial")
    found = redial.load(
        redial.Config(folder, listed=f"{folder}/eval_test_data_processed.jsonl.gz")
    ).interactions.filter(pl.col("split") == "test", "is_target")
    with gzip.open(f"{folder}/eval_test_data_processed.jsonl.gz") as file:
        turns = [json.loads(line) for line in file]
    assert found["moment"].n_unique() == len(turns) == 3341
    assert found.height == sum(len(turn["rec"]) for turn in turns) == 4499


def test_histories_end_before_the_turn_and_hold_what_both_named(tmp_path):
    config = turns_of(tmp_path, train=[dialogue(n) for n in range(3)], test=[dialogue(6)])
    found = redial.load(config)
    split = methods.make_split(found, "given")
    items = found.items["item"].to_list()
    histories = {}
    for case in split.list_cases(2):
        past = split.item[split.slice_history(int(case))]
        histories[items[split.item[case]]] = [items[row] for row in past]
    assert histories == {"7": ["7", "8"], "9": ["7", "8"], "6": ["7", "8", "7", "9"]}


def test_a_split_by_turn_is_refused(tmp_path):
    write(tmp_path, INFO, train=[dialogue(n) for n in range(3)])
    words = ["data.source=redial", f"data.source.path={tmp_path}", "data.split=leave_one_out"]
    with pytest.raises(ConfigError, match="hold out turns of dialogues whose other turns train"):
        compose_data(words)
    prepare_data(compose_data([*words, "data.source.cut=mentions"]).data)


def test_the_source_says_what_is_read_and_counted_apart():
    run = compose(["architecture=popularity", "data.source=redial", "data.source.path=x"])
    assert run.evaluation.repeated == "apart"
    old = ["architecture=popularity", "data.source=redial", "data.source.cut=mentions"]
    assert compose(old).evaluation.repeated == "alike"
    assert compose(["architecture=popularity"]).evaluation.repeated == "alike"


def test_real_turns_are_those_of_the_files():
    """3,671 turns and 4,969 targets of the test part; texts are the messages before each."""
    found = redial.load(redial.Config(real("redial")))
    test = found.interactions.filter(split="test")
    asked = test.filter("is_target")
    assert (asked["moment"].n_unique(), asked.height) == (3671, 4969)
    with gzip.open(f"{real('redial')}/test.jsonl.gz") as file:
        raw = {each["conversationId"]: each for each in map(json.loads, file)}
    moments = asked.unique("moment", maintain_order=True)
    for number, turn, said in moments.select("dialogue", "turn", "said").rows()[::40]:
        each = raw[number]
        sides = [m["senderWorkerId"] == each["initiatorWorkerId"] for m in each["messages"]]
        place = [0]
        for before, after in itertools.pairwise(sides):
            place.append(place[-1] + (before != after))
        past = " ".join(
            m["text"] for m, at in zip(each["messages"], place, strict=True) if at < turn
        )
        words = re.sub(r"@(\d+)", lambda mark, each=each: each["movieMentions"][mark[1]], past)
        assert re.findall("[a-z]{4,}", said) == re.findall(
            "[a-z]{4,}", words.replace("&quot;", '"').replace("&amp;", "&")
        )

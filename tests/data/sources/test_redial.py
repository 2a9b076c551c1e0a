"""Dialogues about films: events, parts, and texts that end before what they are asked about."""

import dataclasses
import gzip
import json
import re

import pytest

from recsys.config.compose import compose_data
from recsys.data import filters, prepare
from recsys.data.sources import redial
from recsys.data.splits import methods
from recsys.errors import ConfigError, DataError
from tests.data.samples import lines, make
from tests.data.sources.test_more_sources import real

TURNS = [
    (1, "Hi"),
    (2, "What do you like?"),
    (1, "I liked @7 and @8"),
    (2, "@7 is fine. Try @9"),
    (2, "or @404"),
    (1, "Seen it."),
    (1, "What about @9 or @8?"),
    (2, "Then @6"),
    (1, "Thanks, bye"),
]


def dialogue(number=5, seeker=1, turns=TURNS, **fields):
    return {
        "conversationId": str(number),
        "initiatorWorkerId": seeker,
        "respondentWorkerId": 2,
        "messages": [{"senderWorkerId": who, "text": text} for who, text in turns],
        "movieMentions": {"7": "Seven  (1995)", "8": "8 Women", "9": "Nine (2009)", "6": None},
        "initiatorQuestions": {
            "7": {"suggested": 0, "seen": 1, "liked": 1},
            "9": {"suggested": 1, "seen": 0, "liked": 2},
        },
        "respondentQuestions": {
            "7": {"suggested": 0, "seen": 1, "liked": 0},
            "8": {"suggested": 0, "seen": 2, "liked": 0},
        },
        **fields,
    }


def write(folder, info=None, **parts):
    folder.mkdir(exist_ok=True)
    for part, found in parts.items():
        lines(folder / f"{part}.jsonl", found)
    if info is not None:
        (folder / "id2info.json.gz").write_bytes(gzip.compress(json.dumps(info).encode()))
    return redial.Config(str(folder), cut="mentions")


INFO = {
    "7": {"name": "Seven (1995)", "genre": ["crime", "drama"], "plot": "Two detectives."},
    "6": {"name": "Six", "genre": [], "plot": None, "star": ["A", "B"]},
}


def test_a_dialogue_by_hand(tmp_path):
    silent = dialogue(4, turns=[(1, "Hi")])
    config = write(tmp_path, INFO, train=[dialogue()], valid=[silent], test=[dialogue(6)])
    found = redial.load(dataclasses.replace(config, held_out=0.4))
    first = found.interactions.filter(user="5")
    columns = ("item", "event", "rating", "by", "seen", "turn", "review")
    after = "I liked Seven (1995) and 8 Women"
    last = "Seven (1995) is fine. Try Nine (2009) or Seen it. What about Nine (2009) or 8 Women?"
    assert first.select(columns).rows() == [
        ("7", "liked", 1.0, "seeker", "seen", 2, ""),
        ("8", "disliked", 0.0, "seeker", "unsaid", 2, ""),
        ("9", "unsaid", 0.5, "recommender", "unseen", 3, after),
        ("6", "unsaid", 0.5, "recommender", "unsaid", 7, last),
    ]
    assert found.users.rows() == [("5", "Hi What do you like?"), ("6", "Hi What do you like?")]
    assert found.items.select("item", "text").rows() == [
        ("7", "Seven (1995); crime, drama; Two detectives."),
        ("6", "Six; A, B"),
        ("8", "8 Women"),
        ("9", "Nine (2009)"),
    ]
    assert any("2 marks stand for no film" in note for note in found.notes)
    alone = redial.load(dataclasses.replace(config, turns="seeker"))
    assert alone.users["text"].to_list() == ["Hi", "Hi"]
    assert alone.interactions["review"].to_list()[:4] == [
        *("", "", after),
        "Seen it. What about Nine (2009) or 8 Women?",
    ]


def test_films_without_a_name_are_left_out_and_counted(tmp_path):
    found = redial.load(write(tmp_path, train=[dialogue(n) for n in range(3)]))
    assert found.items["item"].to_list() == ["7", "8", "9"]
    said = " ".join(found.notes)
    assert "1 item has no text" in said
    assert "3 of 12 interactions" in said
    assert "no id2info.json" in said


def test_types_and_who_brought_it_up_can_be_chosen_and_weighed(tmp_path):
    found = redial.load(write(tmp_path, INFO, train=[dialogue(n) for n in range(3)]))
    left = filters.filter_tables(found, event_types={"liked": 1, "unsaid": 0.5}).interactions
    assert left["weight"].to_list() == [1, 0.5, 0.5] * 3
    left = filters.filter_tables(
        found, event_column="by", event_types={"recommender": 1}
    ).interactions
    assert left["item"].to_list() == ["9", "6"] * 3


def test_a_text_ends_before_the_turn_of_the_first_target(tmp_path):
    """The joined text for each N is that of the turns before the N-th film, made by hand."""
    config = make("redial", tmp_path)[1]
    words = [
        "data.source=redial",
        f"data.source.path={config.path}",
        "data.source.cut=mentions",
        "data.split=leave_one_out",
    ]
    ends = {0: 2, 1: 2, 2: 3, 3: 3}
    for count, end in ends.items():
        tables = prepare.prepare_data(compose_data([*words, f"data.user_reviews={count}"]).data)[0]
        for user, text in tables.users.select("user", "text").rows():
            row = 2 * int(user)
            own = [f"Film 10{(row + n) % 9} (2001)" for n in range(5)]
            said = ["Hello!", "Something fun.", own[0], f"No. {own[1]} or {own[2]}?"]
            assert text == " ".join(said[:end])
            films = tables.interactions.filter(user=user)["item"].to_list()
            assert len(films) == 5
            for film in films[count:]:
                assert count == 0 or f"Film {film} " not in text


def test_events_and_text_of_a_held_out_dialogue_are_in_its_part(tmp_path):
    found = redial.load(make("redial", tmp_path)[1])
    made = methods.make_split(found, "given")
    assert found.interactions.select("user", "split").unique(maintain_order=True).rows() == [
        *((str(n), "train") for n in range(4)),
        ("4", "val"),
        ("5", "test"),
    ]
    assert len(made.list_cases(2)) == 5


def parts_of(found):
    pairs = found.interactions.select("user", "split").unique(maintain_order=True).rows()
    return "".join(part[0] for _, part in pairs), [user for user, _ in pairs]


@pytest.mark.parametrize(
    ("files", "parts", "users"),
    [
        ({"train": range(8), "test": [9]}, "tttttt" + "vvt", [*range(8), 9]),
        ({"valid": [3, 2, 1, 0], "test": [9]}, "tttvt", [0, 1, 2, 3, 9]),
        ({"train_data": range(10)}, "tttttt" + "vvtt", list(range(10))),
        ({"train": [4, 0], "valid": [2, 1], "test": [3]}, "ttvvt", [0, 4, 1, 2, 3]),
        ({"train": [0, 1, 2], "valid": [2], "test": [1]}, "tvt", [0, 2, 1]),
    ],
)
def test_parts_that_are_missing_or_overlap(files, parts, users, tmp_path):
    config = write(tmp_path, INFO, **{k: [dialogue(n) for n in v] for k, v in files.items()})
    found = redial.load(dataclasses.replace(config, held_out=0.2))
    assert parts_of(found) == (parts, [str(user) for user in users])
    twice = sum(len(v) for v in files.values()) - len(users)
    assert any(f"{twice} dialogues come again" in note for note in found.notes) == (twice > 0)


def test_a_seeker_has_all_dialogues_in_their_order(tmp_path):
    turns = [(1, "Hi again"), (2, "Try @9"), (1, "ok")]
    train = [dialogue(12, turns=turns), dialogue(7), dialogue(9, seeker=3, turns=turns)]
    config = write(tmp_path, INFO, train=train, test=[dialogue(20)])
    found = redial.load(dataclasses.replace(config, user="seeker", held_out=0.3))
    own = found.interactions.filter(user="1")
    assert own["dialogue"].to_list() == ["7"] * 4 + ["12"] + ["20"] * 4
    assert own["split"].to_list() == ["train"] * 4 + ["val"] + ["test"] * 4
    assert own["review"][4] == "Hi again"
    assert found.users.rows() == [("1", "Hi What do you like?"), ("3", "Hi again")]
    methods.make_split(found, "given")


def test_dialogues_without_a_film_are_counted(tmp_path):
    empty = dialogue(8, turns=[(1, "Hi")], movieMentions=[], initiatorQuestions=[])
    found = redial.load(write(tmp_path, INFO, train=[dialogue(n) for n in range(3)], test=[empty]))
    assert "8" not in found.users["user"].to_list()
    assert any("1 dialogues name no film: left out" in note for note in found.notes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": None}, "dialogue 2 has no messages; mend or remove the line"),
        ({"messages": [{"text": "x"}]}, "has no messages with text and senderWorkerId"),
        ({"messages": [{"text": "x", "senderWorkerId": None}]}, "no messages with text and sende"),
        ({"conversationId": "x7"}, "a number as conversationId"),
        ({"initiatorWorkerId": None}, "has no initiatorWorkerId"),
    ],
)
def test_bad_dialogues_are_named(fields, message, tmp_path):
    config = write(tmp_path, train=[dialogue(), dialogue(6, **fields)])
    with pytest.raises(DataError, match=message):
        redial.load(config)


def test_folders_that_do_not_fit_are_refused(tmp_path):
    config = write(tmp_path / "a", test=[dialogue()])
    with pytest.raises(DataError, match=r"no train\.jsonl or valid\.jsonl; fetch"):
        redial.load(config)
    config = write(tmp_path / "b", train=[dialogue()])
    with pytest.raises(
        ConfigError, match=r"held_out is 0\.5, for val and test each; .* below 0\.5"
    ):
        redial.load(dataclasses.replace(config, held_out=0.5))
    config = write(tmp_path / "c", train=[dialogue(n, turns=[(1, "Hi")]) for n in range(3)])
    with pytest.raises(DataError, match="no dialogue names a film"):
        redial.load(config)


def test_real_redial():
    """Counts of the folder's own README; texts against the turns of the files themselves."""
    folder = real("redial")
    found = redial.load(redial.Config(folder, cut="mentions"))
    assert "redial: 2243 dialogues with 40349 turns." in found.notes  # 901 + 1342, 16397 + 23952
    assert found.interactions.filter(split="test")["user"].n_unique() == 1342
    assert found.items["plot"].is_not_null().sum() >= 6242
    texts = dict(found.users.select("user", "text").rows())
    per_user = found.interactions.partition_by("user", as_dict=True)
    with gzip.open(f"{folder}/test.jsonl.gz") as file:
        raw = [json.loads(line) for line in file]
    titles = {item: title for each in raw for item, title in each["movieMentions"].items()}
    for each in raw:
        events = per_user[(each["conversationId"],)]
        said = [message["text"] for message in each["messages"]]
        films = re.findall(r"@(\d+)", " ".join(said))
        assert events["item"].to_list() == list(dict.fromkeys(films))
        joined = texts[each["conversationId"]]
        for film, turn, review in events.select("item", "turn", "review").rows():
            joined = f"{joined} {review}".strip()
            before = " ".join(said[:turn])
            assert f"@{film}" not in re.findall(r"@\d+", before)
        want = re.sub(r"@(\d+)", lambda mark: titles[mark[1]], before)
        assert sorted(re.findall(r"[a-z]{3,}", joined)) == sorted(re.findall(r"[a-z]{3,}", want))

"""Dialogues of one's own: what is asked of whom, and lines that are none."""

import dataclasses

import pytest

from recsys.config.compose import compose_data
from recsys.data.__main__ import main as describe
from recsys.data.prepare import prepare_data
from recsys.data.sources import dialogues, redial
from recsys.errors import ConfigError, DataError
from tests.data.samples import lines
from tests.data.sources import test_redial as films

ITEMS = "item,title\n1,Alien\n2,The Thing\n3,The Fly\n4,Cube\n"
TURNS = [
    {"speaker": "User", "text": "Like  Alien?", "items": ["1"]},
    {"speaker": "Assistant", "text": "The Thing.", "items": ["2"]},
    {"speaker": "assistant", "text": "Or Alien!", "items": [1]},
    {"speaker": "User", "text": "Not for me.", "items": [{"item": "2", "liked": False}]},
    {"speaker": "Assistant", "text": "Cube or The Fly?", "items": ["4", {"item": "3"}]},
]


def talk(name="a", turns=TURNS, **fields):
    return {"dialogue": name, "turns": turns, **fields}


def write(folder, *found, items=ITEMS, **options):
    folder.mkdir(exist_ok=True)
    lines(folder / "d.jsonl", found)
    (folder / "i.csv").write_text(items)
    return dialogues.Config(str(folder / "d.jsonl"), str(folder / "i.csv"), **options)


def three(**fields):
    return [talk(name, split=part, **fields) for name, part in zip("abc", PARTS, strict=True)]


PARTS = ("train", "validation", "test")


def test_a_dialogue_by_hand(tmp_path):
    found = dialogues.load(write(tmp_path, *three()))
    columns = ("item", "is_target", "by", "event", "turn", "said")
    first = "Like Alien?"
    then = f"{first}\nThe Thing. Or Alien!"
    assert found.interactions.filter(user="a").select(columns).rows() == [
        ("1", False, "seeker", "unsaid", 0, ""),
        ("2", True, "recommender", "unsaid", 1, first),
        ("1", True, "recommender", "unsaid", 1, first),
        ("2", False, "seeker", "disliked", 2, then),
        ("4", True, "recommender", "unsaid", 3, f"{then}\nNot for me."),
        ("3", True, "recommender", "unsaid", 3, f"{then}\nNot for me."),
    ]
    assert found.users.filter(user="c")["said"][0].endswith("Not for me.\nCube or The Fly?")
    assert found.interactions.unique("user", maintain_order=True)["split"].to_list() == [
        *("train", "val", "test"),
    ]
    assert found.interactions["rating"].to_list()[:4] == [0.5, 0.5, 0.5, 0]


def test_what_is_disliked_is_known_from_then_on(tmp_path):
    config = write(tmp_path, *three())
    words = ["data.source=dialogues", f"data.source.path={config.path}"]
    words += [f"data.source.items={config.items}", "data.positive_from=0.5"]
    tables, split = prepare_data(compose_data(words).data)
    items = tables.items["item"].to_list()
    cases = {items[split.item[case]]: case for case in split.list_cases(2)}
    assert set(cases) == {"1", "2", "3", "4"}  # 2 is no target less, as it is disliked later
    past = split.slice_history(int(cases["4"]))
    assert (split.item[past].tolist(), split.label[past].tolist()) == ([0, 1, 0, 1], [1, 1, 1, 0])
    early = split.slice_history(int(cases["2"]))
    assert (split.item[early].tolist(), split.label[early].tolist()) == ([0], [1])


def test_the_same_dialogues_are_the_same_cases_as_in_redial(tmp_path):
    """One protocol, whatever the file: turns, targets, texts and histories are equal."""
    parts = {"train": [3, 4], "valid": [5], "test": [6]}
    made = {part: [films.dialogue(n) for n in numbers] for part, numbers in parts.items()}
    config = films.write(tmp_path / "r", films.INFO, **made)
    theirs = redial.load(dataclasses.replace(config, cut="he"))
    titles = {"7": "Seven (1995)", "6": "Six", "8": "8 Women", "9": "Nine (2009)"}
    own = []
    for part, numbers in parts.items():
        for n in numbers:
            turns = []
            for who, text in films.TURNS:
                named = [word for word in titles if f"@{word}" in text]
                named.sort(key=lambda word, text=text: text.index(f"@{word}"))
                for mark in (*titles, "404"):
                    text = text.replace(f"@{mark}", titles.get(mark, ""))
                speaker = ("seeker", "recommender")[who - 1]
                turns.append({"speaker": speaker, "text": text, "items": named})
            own.append(talk(n, turns, split=part))
    items = "item,title\n" + "".join(f"{item},{title}\n" for item, title in titles.items())
    ours = dialogues.load(write(tmp_path / "d", *own, items=items))
    columns = ["user", "item", "is_target", "by", "dialogue", "turn", "moment", "said", "split"]
    own = ours.interactions.select(columns).to_dicts()
    assert own == theirs.interactions.select(columns).to_dicts()
    assert ours.users.select("user", "said").equals(theirs.users.select("user", "said"))


def test_parts_that_are_not_given_are_the_last_dialogues(tmp_path):
    found = dialogues.load(write(tmp_path, *(talk(n) for n in range(10)), held_out=0.2))
    parts = found.interactions.unique("user", maintain_order=True)["split"].to_list()
    assert parts == ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    assert "dialogues: the last 2 dialogues of training are the part for test." in found.notes


def test_dialogues_that_are_odd_are_read(tmp_path):
    alone = [{"speaker": "assistant", "text": "Alien", "items": ["1"]}]
    other = [
        {"speaker": "Käufer", "text": "好看的电影 Что-нибудь смешное 🎬", "items": []},
        {"speaker": "assistant", "text": "इसे देखें", "items": ["2"]},
    ]
    long = [
        {"speaker": ("u", "system")[n % 2], "text": f"word{n} " * 5, "items": [str(1 + n % 4)]}
        for n in range(1000)
    ]
    silent = [{"speaker": "u", "text": "Hi"}]
    named = {"alone": alone, "other": other, "long": long, "silent": silent}
    found = dialogues.load(
        write(tmp_path, *(talk(k, v, split="train") for k, v in named.items()), talk(split="test"))
    )
    by = found.interactions.partition_by("user", as_dict=True)
    assert by["alone",].select("item", "said", "is_target").rows() == [("1", "", True)]
    assert by["other",]["said"].to_list() == ["好看的电影 Что-нибудь смешное 🎬"]
    assert by["long",].height == 500 + 2  # the seeker's are new once
    assert max(len(text.split()) for text in by["long",]["said"]) == 1000
    assert by["long",]["said"][-1].endswith(" word998")
    assert "dialogues: 1 name no item: left out." in found.notes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (talk(turns=[]), r"dialogue 4 \('a'\) has no turns; give them as in"),
        ({"turns": TURNS}, "dialogue 4 has no id; give each a dialogue"),
        (talk("z", split="dev2"), "has the split 'dev2'; use train, val or test"),
        (talk("z"), "dialogue 'z' has no split, and others have one"),
        (talk("a", split="test"), r"dialogue 4 has the id 'a' of dialogue 1 \(train and test\)"),
        (talk("z", [{"text": "Hi"}]), r"\('z'\): turn 1 has no speaker; give it one"),
        (talk("z", [TURNS[0], {"speaker": "u", "text": 3}]), "turn 2 needs a text and a list"),
        (talk("z", [{"speaker": "u", "items": [None]}]), "turn 1 names no item id"),
        (talk("z", [{"speaker": "u", "items": [{"item": "1", "liked": 1}]}]), "neither true nor"),
        (
            talk("z", [{"speaker": "u", "items": ["9"]}], split="train"),
            r"dialogue 'z' names the item '9', which has no row or no text in .*unknown=leave_out",
        ),
    ],
)
def test_lines_that_cannot_be_read_are_named(line, message, tmp_path):
    config = write(tmp_path, *three(), line)
    with pytest.raises(DataError, match=message):
        dialogues.load(config)
    if "unknown=" in message:
        found = dialogues.load(dataclasses.replace(config, unknown="leave_out"))
        assert any("1 of 19 interactions are with items" in note for note in found.notes)


def test_files_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"Set data\.source\.path to a file of dialogues"):
        dialogues.load(dialogues.Config())
    seeks = [{"speaker": "user", "text": "Alien", "items": ["1"]}]
    with pytest.raises(DataError, match="no turn is of a speaker who recommends"):
        dialogues.load(write(tmp_path, *(talk(n, seeks) for n in range(9))))
    quiet = [{"speaker": "system", "text": "Hi"}]
    with pytest.raises(DataError, match="no dialogue names an item"):
        dialogues.load(write(tmp_path, *(talk(n, quiet) for n in range(9))))
    with pytest.raises(ConfigError, match=r"'id' \(data\.source\.item\); set it to .* item, title"):
        dialogues.load(write(tmp_path, *three(), item="id"))
    message = r"i\.csv: set data\.source\.item_text to .* no column 'name' .*: item, title"
    with pytest.raises(ConfigError, match=message):
        dialogues.load(write(tmp_path, *three(), item_text="{name}"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.split=random", r"whole dialogues: leave data\.split out"),
        ("data.source.recommender=[]", r"recommender names no speaker.*=\[assistant\]"),
        ("data.source.recommender=null", "recommender"),
        ("data.source.recommender=['']", "recommender names no speaker"),
    ],
)
def test_options_that_do_not_fit_are_refused(word, message):
    with pytest.raises(ConfigError, match=message):
        compose_data(["data.source=dialogues", word])


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (1, {}, "val and test from 1 dialogue of training leaves nothing .*; give 3 or more"),
        (2, {}, "from 2 dialogues of training leaves nothing to train on; give 3 or more"),
        (
            4,
            {"held_out": 0.49},
            r"held_out=0\.49 is 2 of 4 dialogues .* for val and test each, .*; set it lower",
        ),
    ],
)
def test_what_is_held_out_leaves_some_to_train_on(count, options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        dialogues.load(write(tmp_path, *(talk(n) for n in range(count)), **options))
    found = dialogues.load(write(tmp_path, *(talk(n) for n in range(5)), **options))
    if not options:
        (note, _) = (note for note in found.notes if "the part for" in note)
        assert note == "dialogues: the last dialogue of training is the part for test."


def test_a_part_in_which_nothing_counts_is_refused(tmp_path, capsys):
    seeks = [{"speaker": "user", "text": "Alien", "items": ["1"]}, {"speaker": "system"}]
    first = [talk("a", split="train"), talk("b", split="val")]
    config = write(tmp_path, *first, talk("c", seeks, split="test"))
    words = [f"data.source.path={config.path}", f"data.source.items={config.items}"]
    assert describe(["source=dialogues", *words]) == 2
    said = capsys.readouterr().err
    assert "d.jsonl: no turn of a recommender in the dialogues of test names an item" in said
    assert "or set data.source.targets=all." in said
    assert describe(["source=dialogues", *words, "targets=all"]) == 0
    assert describe(["source=dialogues", *words, "targets=all", "query_column=nope"]) == 2
    assert "query_column=nope: the interactions have no such" in capsys.readouterr().err
    quiet = [{"speaker": "system", "text": "Hi"}]
    config = write(tmp_path, talk("a", quiet, split="train"), *first[1:], talk("c", split="test"))
    with pytest.raises(DataError, match="no dialogue of training names an item"):
        dialogues.load(config)

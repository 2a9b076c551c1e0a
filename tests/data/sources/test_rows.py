"""Rows of a history and its target: each event once, in the part that it belongs to."""

import dataclasses
import gzip
import json

import numpy as np
import pytest

from recsys.data.batches.examples import Examples
from recsys.data.sources import rows
from recsys.data.splits import methods
from recsys.data.tables import compute_fingerprint
from recsys.errors import ConfigError, DataError
from tests.data.sources.test_more_sources import real

PARTS = ("train", "val", "test")
LONG = 3  # items that a history keeps
CATALOG = {str(i): {"title": f"Thing {i}"} for i in range(5)}


def sequences(seed=0):
    """Users with items, many of them again, and the part of each but the first."""
    rng = np.random.default_rng(seed)
    out = {}
    for u in range(40):
        n = int(rng.integers(2, 12))
        items = [str(i) for i in rng.integers(0, len(CATALOG), n)]
        out[f"u{u}"] = items, sorted(PARTS[i] for i in rng.integers(0, 3, n - 1))
        out[f"u{u}"][1].sort(key=PARTS.index)
    return out


def table(users, parts=PARTS):
    """The rows of all users, part by part, as such files have them."""
    return [
        {"user_id": user, "history": items[:n][-LONG:], "target": items[n], "split": split}
        for part in parts
        for user, (items, splits_) in users.items()
        for n, split in enumerate(splits_, 1)
        if split == part
    ]


def write(folder, found, items=CATALOG):
    folder.mkdir(exist_ok=True)
    (folder / "items.json").write_text(json.dumps(items))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return rows.Config(str(folder))


def test_rows_that_overlap_count_each_event_once(tmp_path):
    users = sequences()
    found = rows.load(write(tmp_path, table(users)))
    want = {
        u: list(zip(items, ["train", *split], strict=True)) for u, (items, split) in users.items()
    }
    got = {u: [] for u in want}
    for user, item, split in found.interactions.rows():
        got[user].append((item, split))
    assert got == want
    made = methods.make_split(found, "given")
    assert len(made.list_cases(2)) == sum(row["split"] == "test" for row in table(users))


def test_without_training_rows_what_trains_is_what_lies_before_the_first_target(tmp_path):
    users = sequences(1)
    held = table(users, ("val", "test"))
    found = rows.load(write(tmp_path, held))
    made = methods.make_split(found, "given")
    first = {}
    for row in held:
        first.setdefault(row["user_id"], row["history"])
    trained = found.interactions.filter(split="train")
    for user, history in first.items():
        assert trained.filter(user=user)["item"].to_list() == history
    assert trained.height == sum(map(len, first.values()))
    for role, part in ((1, "val"), (2, "test")):
        at = made.list_cases(role)
        wanted = [(r["user_id"], r["target"]) for r in held if r["split"] == part]
        events = found.interactions[made.row[at]]
        assert sorted(events.select("user", "item").rows()) == sorted(wanted)
    examples = Examples(made, found.items.height, 20)
    assert examples.count_train_items().sum() == trained.height
    for event in examples.sample_epoch("random", 5, seed=0, epoch=0):
        assert made.role[event] == 0
    assert any("no training part" in note for note in found.notes)
    alone = sum(len(history) == 1 for history in first.values())
    assert any(note.startswith(f"rows: {alone} of them come first of all") for note in found.notes)


def test_histories_of_the_cases_are_those_of_the_rows(tmp_path):
    users = sequences(2)
    held = table(users, ("val", "test"))
    found = rows.load(write(tmp_path, held))
    made = methods.make_split(found, "given")
    names = found.items["item"].to_list()
    asked = [
        ([names[i] for i in made.item[made.slice_history(at)]][-LONG:], names[made.item[at]])
        for role in (1, 2)
        for at in made.list_cases(role)
    ]
    assert sorted(asked) == sorted((r["history"], r["target"]) for r in held)


@pytest.mark.parametrize("kind", ["csv", "folders", "gz", "ints", "test first"])
def test_every_layout_is_the_same_data(kind, tmp_path):
    users = sequences(3)
    whole = rows.load(write(tmp_path / "whole", table(users)))
    folder = tmp_path / kind
    config = write(folder, table(users))
    if kind in ("csv", "folders"):
        (folder / "rows.jsonl").unlink()
        for part, name in zip(PARTS, ("train", "valid", "test"), strict=True):
            path = folder / f"{name}.csv" if kind == "csv" else folder / name / "Office_5.csv"
            path.parent.mkdir(exist_ok=True)
            lines = [
                f'{r["user_id"]},"{r["history"]}",{r["target"]}\n' for r in table(users, (part,))
            ]
            path.write_text("user_id,history_item_id,item_id\n" + "".join(lines))
        config = dataclasses.replace(config, history="history_item_id", target="item_id")
    elif kind == "gz":
        for name in ("rows.jsonl", "items.json"):
            (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
            (folder / name).unlink()
    elif kind == "test first":
        config = write(folder, table(users, PARTS[::-1]))
    else:
        found = [
            {**r, "history": [int(i) for i in r["history"]], "target": int(r["target"])}
            for r in table(users)
        ]
        config = write(folder, found)
    assert compute_fingerprint(rows.load(config)) == compute_fingerprint(whole)


def test_what_only_a_later_history_tells_belongs_to_the_part_reached_by_then(tmp_path):
    found = [
        {"user_id": "u", "history": ["0", "1"], "target": "2", "split": "train"},
        {"user_id": "u", "history": ["0", "1", "2", "3"], "target": "4", "split": "valid"},
    ]
    tables = rows.load(write(tmp_path, found))
    assert tables.interactions["item"].to_list() == ["0", "1", "2", "3", "4"]
    assert tables.interactions["split"].to_list() == ["train"] * 4 + ["val"]
    assert any("1 events are told by a later history only" in note for note in tables.notes)


def changed(found, how):
    if how == "twice":
        return [*found, found[-1]]
    if how == "backwards":
        return found[::-1]
    return [{**row, "history": row["history"][::-1]} for row in found]


@pytest.mark.parametrize("how", ["twice", "backwards", "newest first"])
def test_rows_that_do_not_follow_each_other_are_refused(how, tmp_path):
    own = {"u": (["0", "1", "2", "3", "4"], ["train"] * 4)}
    with pytest.raises(DataError, match=r"row \d.*user 'u'.*sort them, or remove the row"):
        rows.load(write(tmp_path, changed(table(own), how)))


ROW = {"user_id": "u", "history": ["0"], "target": "1", "split": "test"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"split": "held"}, r"row 2 has no usable split \('held'\); mend or remove the row"),
        ({"user_id": None}, "row 2 has no usable user"),
        ({"target": None}, "row 2 has no usable target"),
        ({"history": None}, "row 2 has no usable history"),
    ],
)
def test_bad_rows_are_named(row, message, tmp_path):
    with pytest.raises(DataError, match=message):
        rows.load(write(tmp_path, [ROW, {**ROW, **row}]))


def test_files_that_do_not_fit_are_named(tmp_path):
    config = write(tmp_path, [ROW])
    with pytest.raises(ConfigError, match=r"no column 'uid' \(user\); the columns are user_id"):
        rows.load(dataclasses.replace(config, user="uid"))
    with pytest.raises(ConfigError, match="names no column 'colour'"):
        rows.load(dataclasses.replace(config, item_text="{colour}"))
    (tmp_path / "items.json").write_text("[1]")
    with pytest.raises(DataError, match="is no object by id"):
        rows.load(config)
    (tmp_path / "items.json").write_text('{"0": 1}')
    with pytest.raises(DataError, match="'0' holds no object of fields"):
        rows.load(config)
    (tmp_path / "items.json").write_text('{"0": ')
    with pytest.raises(DataError, match="is no JSON"):
        rows.load(config)
    (tmp_path / "items.json").unlink()
    with pytest.raises(DataError, match=r"holds no items\.json"):
        rows.load(config)
    (tmp_path / "rows.jsonl").unlink()
    for name in ("valid.csv", "dev.jsonl"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match="holds 2 files for val; leave one of them"):
        rows.load(config)


def test_descriptions_are_text_and_items_without_any_are_left_out(tmp_path):
    items = {
        "0": {"title": "Pen &amp; ink", "description": "['<b>Blue</b>', ' <!-- .x {a: 1} --> it']"},
        "1": {"title": "Box", "brand": "Acme", "description": "[not a list", "text": "kept"},
        "2": {"title": " ", "description": "[]"},
    }
    found = [ROW, {**ROW, "history": ["0", "1"], "target": "2"}]
    tables = rows.load(write(tmp_path, found, items))
    assert tables.items["text"].to_list() == ["Pen & ink; Blue it", "Box; Acme; [not a list"]
    assert tables.items["text_"].to_list() == [None, "kept"]
    assert tables.interactions["item"].to_list() == ["0", "1"]
    said = " ".join(tables.notes)
    assert "rows: 1 item has no text: left out." in said
    assert "1 of 3 interactions are with items that have no description" in said


def test_real_amazon_office():
    """Counts of the folder's own README."""
    found = rows.load(rows.Config(real("amazon-office")))
    assert (found.users.height, found.items.height) == (3231, 3459)
    assert (found.items["description"].str.len_chars() > 0).sum() >= 3190
    made = methods.make_split(found, "given")
    assert (len(made.list_cases(1)), len(made.list_cases(2))) == (4866, 4866)
    assert found.interactions.height == 22447


def test_a_share_of_the_valid_rows_trains(tmp_path):
    """The first ones of the file, as if they had been published as training rows."""
    users = sequences(1)
    held = table(users, ("val", "test"))
    valid = [row for row in held if row["split"] == "val"]
    test = [row for row in held if row["split"] == "test"]
    for share, moved in ((0.0, 0), (0.4, round(0.4 * len(valid))), (1.0, len(valid))):
        want = [{**row, "split": "train"} for row in valid[:moved]] + valid[moved:] + test
        config = write(tmp_path / str(share), held)
        found = rows.load(dataclasses.replace(config, train_share=share))
        same = rows.load(write(tmp_path / f"{share} want", want))
        assert found.interactions.equals(same.interactions)
        said = (
            f"rows: the first {moved} of {len(valid)} valid rows train (data.source.train_share)."
        )
        assert (said in found.notes) == (moved > 0)
    assert found.interactions.filter(split="val").is_empty()

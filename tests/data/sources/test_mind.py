"""MIND read in blocks of lines: the same events as line by line, whatever the sizes of pieces."""

import gzip
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from recsys.data import describe
from recsys.data.batches import impressions as shown
from recsys.data.batches.examples import TEST, TRAIN, Examples
from recsys.data.batches.impressions import (
    ImpressionSampler,
    drop_lone_clicks,
    make_impression_lists,
)
from recsys.data.columns.id_lookup import IdLookup
from recsys.data.readers import mind_behaviors, mind_events
from recsys.data.sources import mind
from recsys.data.splits import baskets, methods
from recsys.data.splits.history import CaseHistories
from recsys.data.tables import IdMap, Tables, compute_fingerprint
from recsys.errors import ConfigError, DataError

PARTS = {"train": "MINDlarge_train", "val": "MINDlarge_dev", "test": "MINDlarge_test"}
NEWS = 12  # N0 .. N11; those from N9 on have no text


def make(folder, seed=0, unlabelled=True, users=5):
    """Histories that change, unknown news, shared times, and parts that overlap in time.

    Returns:
        Part to rows: number, user, moment, history, shown.
    """
    rng = np.random.default_rng(seed)
    text = "".join(f"N{i}\tc\ts\t{'T' * (i < 9)}\t\tu\t[]\t[]\n" for i in range(NEWS))
    told = {u: rng.integers(0, NEWS, 4).tolist() for u in range(users)}
    told[0], rows = [], {}
    for day, part in enumerate(PARTS):
        rows[part] = []
        for number in range(40 if part == "train" else 20):
            user = int(rng.integers(users))
            moment = datetime(2019, 11, 9 + day, tzinfo=UTC)
            moment += timedelta(hours=int(rng.integers(72)))
            picks = rng.permutation(NEWS)[: rng.integers(1, 6)].tolist()
            clicks = rng.random(len(picks)) < 0.4
            if rng.random() < 0.15:
                told[user] = told[user][1:] + rng.integers(0, NEWS, 2).tolist()
            label = [f"-{int(c)}" for c in clicks]
            if part == "test" and unlabelled:
                label = [""] * len(picks)
            line = (
                str(number),
                f"U{user}",
                moment.strftime("%m/%d/%Y %I:%M:%S %p"),
                " ".join(f"N{n}" for n in told[user]),
                " ".join(f"N{n}{end}" for n, end in zip(picks, label, strict=True)),
            )
            rows[part].append(line)
        (folder / PARTS[part]).mkdir(parents=True)
        (folder / PARTS[part] / "news.tsv").write_text(text)
        lines = ["\t".join(line) + "\n" for line in rows[part]]
        (folder / PARTS[part] / "behaviors.tsv").write_text("".join(lines))
    return rows


def by_hand(rows, need_history):
    """Events in order, line by line, from what the docstrings promise."""
    known = {f"N{n}" for n in range(9)}
    lines = []
    for part, split in (("train", "train"), ("val", "val"), ("test", "test")):
        for number, user, moment, history, listed in rows[part]:
            time = datetime.strptime(moment, "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=UTC)
            told = [n for n in history.split() if n in known]
            pairs = [(n[:-2], n[-1] == "1") for n in listed.split() if n[:-2] in known]
            if {True, False} == {c for _, c in pairs} and (told or not need_history):
                at = int(time.timestamp() * 1000)
                lines.append((user, at, split, f"{part}-{number}", told, pairs))
    lines.sort(key=lambda line: line[:2])
    past, out, order = [], [], {"train": 0, "val": 1, "test": 2}
    for user in sorted({line[0] for line in lines}):
        had, before, reached = Counter(), 0, "train"
        for _, time, split, name, told, pairs in (line for line in lines if line[0] == user):
            left, new = Counter(had), []
            for n in told:
                left[n] -= 1
                if left[n] < 0:
                    new.append(n)
            for place, n in enumerate(new):
                moment = max(before, time - len(new) + place)
                past.append((user, n, moment, 1.0, None, reached))
            had += Counter(new) + Counter(n for n, c in pairs if c)
            reached, before = max(reached, split, key=order.get), time
            out += [(user, n, time, float(c), name, split) for n, c in pairs]
    return past + out


@pytest.mark.parametrize("need_history", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_events_are_those_of_reading_line_by_line(seed, need_history, tmp_path, monkeypatch):
    rows = make(tmp_path, seed, unlabelled=False)
    config = mind.Config(str(tmp_path), need_history=need_history)
    found = mind.load(config)
    assert found.interactions.rows() == by_hand(rows, need_history)
    users = list(dict.fromkeys(found.interactions["user"]))
    assert found.users["user"].to_list() == users
    monkeypatch.setattr(mind_events, "_PIECE", 3)
    assert compute_fingerprint(mind.load(config)) == compute_fingerprint(found)


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
@pytest.mark.parametrize("form", ["plain", "gz", "mark", "crlf", "open end", "blanks"])
def test_blocks_of_any_size_give_what_one_block_gives(form, size, tmp_path):
    make(tmp_path)
    files = {part: tmp_path / name / "behaviors.tsv" for part, name in PARTS.items()}
    known = pl.Series([f"N{n}" for n in range(9)])
    want = mind_behaviors.read_behaviors(files, known)
    assert want.frame.height == 60
    assert want.unlabelled == 20
    for part, path in files.items():
        raw = path.read_bytes()
        if form == "gz":
            files[part] = path.with_suffix(".tsv.gz")
            raw = gzip.compress(raw)
        change = {
            "mark": b"\xef\xbb\xbf" + raw,
            "crlf": raw.replace(b"\n", b"\r\n"),
            "open end": raw[:-1],
            "blanks": raw.replace(b" N", b"  N").replace(b"\tN", b"\t N"),
        }
        files[part].write_bytes(change.get(form, raw))
    found = mind_behaviors.read_behaviors(files, known, size)
    assert found.frame.equals(want.frame)
    for name in ("told", "shown", "clicked"):
        np.testing.assert_array_equal(getattr(found, name), getattr(want, name))
    assert (found.candidates, found.unlabelled) == (want.candidates, want.unlabelled)


def test_a_block_holds_little_more_than_it_may(tmp_path):
    rows = make(tmp_path)["train"]
    longest = max(len("\t".join(row)) + 1 for row in rows)
    found = list(mind_behaviors._read_blocks(tmp_path / PARTS["train"] / "behaviors.tsv", 300))
    assert len(found) > 5
    assert max(len(lines) for lines, _ in found) < 300 + longest
    assert [before for _, before in found] == [
        sum(lines.count(b"\n") for lines, _ in found[:n]) for n in range(len(found))
    ]


@pytest.mark.parametrize("size", [50, 1 << 20])
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"9\tU1\t11/12/2019 1:00:00 PM\tN1\tN1-1\tmore\n", "line 31 has 6 columns, not 5; fetch"),
        (b"9\tU1\t31/12/2019 1:00:00 PM\tN1\tN1-1\n", "line 31 has no time that can be read"),
        (b"9\t\t11/12/2019 1:00:00 PM\tN1\tN1-1\n", "line 31 has no user"),
        (b"\tU1\t11/12/2019 1:00:00 PM\tN1\tN1-1\n", "line 31 has no number"),
        (b"9\tU1\t11/12/2019 1:00:00 PM\tN\xff1\tN1-1\n", "line 31 is not UTF-8"),
        (b"9\tU1\n", "line 31 has 2 columns, not 5; fetch"),
        (b"9\tU1\t11/12/2019 1:00:00 PM\tN1\n", "line 31 has 4 columns, not 5; fetch"),
    ],
)
def test_a_damaged_line_is_named_by_file_and_number(line, sentence, size, tmp_path):
    make(tmp_path)
    path = tmp_path / PARTS["train"] / "behaviors.tsv"
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*rows[:30], line, *rows[30:]]))
    with pytest.raises(DataError, match=sentence) as caught:
        mind_behaviors.read_behaviors({"train": path}, pl.Series(["N1"]), size)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_empty_or_torn_file_is_named(tmp_path):
    known = pl.Series(["N1"])
    path = tmp_path / "behaviors.tsv"
    path.write_bytes(b"\n\n")
    with pytest.raises(DataError, match=r"behaviors\.tsv is empty; fetch it again"):
        mind_behaviors.read_behaviors({"train": path}, known)
    torn = tmp_path / "behaviors.tsv.gz"
    torn.write_bytes(gzip.compress(b"1\tU1\t11/12/2019 1:00:00 PM\tN1\tN1-1\n" * 99)[:-9])
    with pytest.raises(DataError, match=r"behaviors\.tsv\.gz cannot be read"):
        mind_behaviors.read_behaviors({"train": torn}, known)


def test_an_enumeration_has_the_fingerprint_of_its_texts(tmp_path):
    make(tmp_path)
    found = mind.load(mind.Config(str(tmp_path)))
    assert isinstance(found.interactions["split"].dtype, pl.Enum)
    plain = found.interactions.with_columns(pl.col("split").cast(pl.String))
    assert compute_fingerprint(Tables(plain, found.items, found.users)) == compute_fingerprint(
        found
    )
    other = plain.with_columns(pl.lit("train").alias("split"))
    assert compute_fingerprint(Tables(other, found.items, found.users)) != compute_fingerprint(
        found
    )


def test_codes_are_places_in_the_list(monkeypatch):
    rng = np.random.default_rng(0)
    ids = [f"{'long name ' * int(rng.integers(3))}{n}" for n in rng.permutation(500)]
    names = [*rng.choice(ids, 700).tolist(), "", "none", None, *ids]
    want = [ids.index(n) if n in ids else -1 for n in names]
    codes = IdLookup(pl.Series(ids))
    assert codes.find_rows(pl.Series(names)).tolist() == want
    monkeypatch.setattr("recsys.data.columns.id_lookup._PIECE", 13)
    assert codes.find_rows(pl.Series(names)).tolist() == want
    assert IdLookup(pl.Series([], dtype=pl.String)).find_rows(pl.Series(["a"])).tolist() == [-1]
    assert not len(codes.find_rows(pl.Series([], dtype=pl.String)))
    with pytest.raises(ValueError, match="given twice"):
        IdLookup(pl.Series(["a", "b", "a"]))
    with pytest.raises(DataError, match="No item has the id 'x'"):
        IdMap(["a", "b"], "item").get_rows(pl.Series(["b", "x", "y"]))


def test_two_ids_with_one_hash_are_parted_by_another_seed(monkeypatch):
    hashed = pl.Series.hash

    def alike(self, seed=0):
        return hashed(self, seed) if seed else pl.Series([7] * len(self), dtype=pl.UInt64)

    monkeypatch.setattr(pl.Series, "hash", alike)
    assert IdLookup(pl.Series(["a", "b"])).find_rows(pl.Series(["b", "c", "a"])).tolist() == [
        1,
        -1,
        0,
    ]


def drawn(seed, torn=0.0):
    """Events of impressions, some without one; `torn`: how many of them come later, mixed."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(6):
        for n in range(8):
            part = ["train", "val", "test"][n // 3]
            name = None if rng.random() < 0.3 else str(rng.integers(3) + 3 * n)
            for _ in range(int(rng.integers(1, 5))):
                time = 10 * n + int(9 * (rng.random() < torn))
                like = float(rng.random() < 0.5)
                if torn:
                    name = None if rng.random() < 0.3 else str(rng.integers(2) + 3 * n)
                rows.append((f"u{user}", f"i{rng.integers(9)}", time, like, name, part))
    columns = ["user", "item", "time", "rating", "impression", "split"]
    frame = pl.DataFrame([rows[i] for i in rng.permutation(len(rows))], columns, orient="row")
    items = pl.DataFrame({"item": [f"i{i}" for i in range(9)], "text": ["x"] * 9})
    users = pl.DataFrame({"user": [f"u{u}" for u in range(6)], "text": [""] * 6})
    return Tables(frame, items, users)


@pytest.mark.parametrize("piece", [3, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_an_impression_is_known_by_its_first_event(seed, piece, monkeypatch):
    """Among events that are torn apart too: the first of the same user and name."""
    monkeypatch.setattr(baskets, "_PIECE", piece)
    found = drawn(seed, torn=0.3)
    made = methods.split_by_column(found, "split", positive_from=1)
    names = found.interactions["impression"][made.row].to_list()
    first: dict[tuple[int, str], int] = {}
    want = [
        -1 if name is None else first.setdefault((user, name), event)
        for event, (user, name) in enumerate(
            zip(made.compute_user_rows().tolist(), names, strict=True)
        )
    ]
    assert made.shown.tolist() == want
    inside = [e for e in range(len(want)) if want[e] >= 0]
    apart = [e for e in inside if any(want[f] != want[e] for f in range(want[e], e))]
    assert apart
    with pytest.raises(DataError, match=f"event {apart[0]} of the sorted events"):
        make_impression_lists(made, TEST)


@pytest.mark.parametrize("seed", range(4))
def test_lists_and_negatives_are_those_of_a_search_through_all_events(seed):
    made = methods.split_by_column(drawn(seed), "split", positive_from=1)
    groups = {
        first: np.flatnonzero(made.shown == first)
        for first in np.unique(made.shown[(made.role == TEST) & (made.shown >= 0)]).tolist()
    }
    able = {f: e for f, e in groups.items() if 0 < made.label[e].sum() < len(e)}
    lists = make_impression_lists(made, TEST)
    assert lists.at.tolist() == list(able)
    for row, events in enumerate(able.values()):
        pad = lists.candidates.shape[1] - len(events)
        assert lists.candidates[row].tolist() == [*made.item[events].tolist(), *[-1] * pad]
        assert lists.labels[row].tolist() == [*made.label[events].tolist(), *[0] * pad]
    assert shown.count_impressions(made, TEST).impressions == len(groups)
    examples = drop_lone_clicks(Examples(made, 9, max_history=5))
    rows = examples.make_train_rows("all", examples.sample_epoch("all", 1, 0, 0))
    negatives = ImpressionSampler(made).sample(rows, 9, 0, 0)
    liked = np.flatnonzero(made.label > 0)
    for query, place in enumerate(rows.start[rows.row] + rows.prefix):
        events = np.flatnonzero(made.shown == made.shown[liked[place]])
        want = made.item[events[made.label[events] <= 0]].tolist()
        target = rows.candidates[query, 0]
        got = [i for i in negatives[query].tolist() if i >= 0]
        assert sorted(got) == sorted(i for i in want if i != target)


def test_a_split_that_cuts_an_impression_is_told_by_its_first_event():
    found = drawn(0)
    role = pl.Series(["train"] * 3 + ["test"])
    frame = found.interactions.head(4).with_columns(
        pl.lit("u0").alias("user"), pl.lit(5).alias("time"), pl.lit("1").alias("impression")
    )
    tables = Tables(frame.with_columns(role.alias("split")), found.items, found.users)
    made = methods.split_by_column(tables, "split")
    with pytest.raises(ConfigError, match=r"event 3 of the sorted events"):
        make_impression_lists(made, TEST)


def test_what_was_before_is_that_of_a_search_through_all_events(monkeypatch):
    made = methods.split_by_column(drawn(1), "split", positive_from=1)
    past, user = CaseHistories(made), made.compute_user_rows()
    cases = np.flatnonzero(made.label > 0)
    want = []
    for case in cases.tolist():
        end = case if made.shown[case] < 0 else int(made.shown[case])
        own = [e for e in range(end) if user[e] == user[case] and made.label[e] > 0]
        want.append(made.item[own].tolist())
    owner, items = past.list_items(cases)
    assert [items[owner == q].tolist() for q in range(len(cases))] == want
    assert past.count_events(cases).tolist() == [len(w) for w in want]
    trains = set(user[(made.label > 0) & (made.role == TRAIN)].tolist())
    assert past.is_cold(cases).tolist() == [u not in trains for u in user[cases].tolist()]
    pairs = list(zip(user.tolist(), made.item.tolist(), strict=True))
    again = [pair in pairs[:n] for n, pair in enumerate(pairs)]
    assert describe.find_repeats(made, 9).tolist() == again
    monkeypatch.setattr(describe, "_EVENTS", 1)
    assert describe.find_repeats(made, 9).tolist() == again

"""The rows of TALLRec's task and their AUC, which benchmarks/quality/decoders.py shows."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks" / "quality"


@pytest.fixture
def modules(monkeypatch):
    """`like_rows` and `pooled_auc`, which lie beside the package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import like_rows
    import pooled_auc

    yield like_rows, pooled_auc
    for name in ("like_rows", "pooled_auc"):
        del sys.modules[name]


def test_auc_is_that_of_scikit_learn_also_under_ties_and_weights(modules):
    _, pooled_auc = modules
    rng = np.random.default_rng(0)
    scores, liked = rng.integers(0, 9, 200).astype(float), rng.random(200) < 0.4
    assert pooled_auc.compute_auc(scores, liked) == pytest.approx(roc_auc_score(liked, scores))
    times = rng.integers(0, 4, 200)
    repeated = roc_auc_score(np.repeat(liked, times), np.repeat(scores, times))
    weighted = pooled_auc.compute_auc(scores, liked, times.astype(float))
    assert weighted == pytest.approx(repeated)
    assert np.isnan(pooled_auc.compute_auc(scores, np.ones(200, dtype=bool)))


def test_who_likes_much_tells_rows_apart_and_none_of_a_user(modules):
    """A score of the user alone: good over all rows, chance by user; users are what is drawn."""
    _, pooled_auc = modules
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(30), 10)
    rate = rng.random(30)
    liked = rng.random(300) < rate[user]
    rows = pooled_auc.LabelledRows(liked, user)
    found = rows.measure([rate[user]])
    assert found["pooled"].value == pytest.approx(roc_auc_score(liked, rate[user]))
    assert found["pooled"].low > 0.7
    assert tuple(found["by user"]) == (0.5, 0.5, 0.5)
    both = [len(set(liked[user == u])) == 2 for u in range(30)]
    noise = rng.random(300)
    own = [roc_auc_score(liked[user == u], noise[user == u]) for u in np.flatnonzero(both)]
    by_user = rows.measure([noise])["by user"]
    assert by_user.value == pytest.approx(np.mean(own))
    assert by_user.high - by_user.low == pytest.approx(
        2 * 1.96 * np.std(own) / np.sqrt(len(own)), rel=0.25
    )
    same = rows.compare([noise, rate[user]], [noise, rate[user]])
    assert tuple(same["pooled"]) == (0, 0, 0)
    # of two seeds the mean
    two = rows.measure([noise, rate[user]])["pooled"].value
    parts = [roc_auc_score(liked, scores) for scores in (noise, rate[user])]
    assert two == pytest.approx(np.mean(parts))


def write_films(folder):
    """Sixty users in an order of their own, many ratings at one moment; as ml-100k is laid out."""
    rng, lines = np.random.default_rng(2), []
    for user in rng.permutation(60):
        films = rng.permutation(40)[: rng.integers(8, 20)]
        moments = 880_000_000 + rng.integers(0, 6, len(films)) + 1_000 * user
        for film, moment in zip(films, moments, strict=True):
            lines.append(f"{user}\t{film}\t{rng.integers(1, 6)}\t{moment}")
    order = rng.permutation(len(lines))
    folder.mkdir()
    (folder / "u.data").write_text("\n".join(lines[i] for i in order) + "\n")
    films = [
        f"{n}|Film {n} (19{n:02d})|01-Jan-1995||http://x|" + "|".join("0" * 19) for n in range(40)
    ]
    (folder / "u.item").write_text("\n".join(films) + "\n", encoding="latin-1")
    (folder / "u.user").write_text("".join(f"{n}|30|F|writer|0\n" for n in range(60)))
    return [line.split("\t") for line in (folder / "u.data").read_text().splitlines()]


def make_plainly(lines):
    """TALLRec's rows, step by step."""
    users: dict[str, list] = {}
    for user, film, rating, moment in lines:
        users.setdefault(user, []).append((film, int(rating) > 3, moment))
    out = []
    for user, events in users.items():
        events = sorted(events, key=lambda event: event[2])
        for n in range(10, len(events)):
            before = events[n - 10 : n]
            out.append((user, [e[0] for e in before], [e[1] for e in before], *events[n][:2]))
    return out


def test_rows_are_those_of_tallrec(modules, tmp_path):
    like_rows, _ = modules
    expected = make_plainly(write_films(tmp_path / "ml-100k"))
    ratings, items = like_rows.read_ratings(tmp_path / "ml-100k")
    rows = like_rows.make_rows(ratings)
    assert rows.select("user", "items", "likes", "item", "liked").rows() == expected
    assert len(expected) > 100
    assert dict(items.iter_rows())["7"].startswith("Film 7")


def test_rates_are_of_other_users_and_by_time_of_earlier_ratings(modules, tmp_path, monkeypatch):
    like_rows, _ = modules
    write_films(tmp_path / "ml-100k")
    ratings, _ = like_rows.read_ratings(tmp_path / "ml-100k")
    monkeypatch.setattr(like_rows, "LATEST", 5)
    rows = like_rows.cut_by_time(like_rows.make_rows(ratings), ratings)
    moment = like_rows.find_cut(ratings)
    for name, early in (("tallrec", False), ("tallrec-by-time", True)):
        known = ratings.filter(pl.col("time") < moment) if early else ratings
        mean = known["liked"].mean()
        rates = like_rows.compute_like_rates(rows, ratings, name)
        for row, rate in zip(rows.iter_rows(named=True), rates, strict=True):
            of = known.filter((pl.col("item") == row["item"]) & (pl.col("user") != row["user"]))
            assert rate == pytest.approx((of["liked"].sum() + 10 * mean) / (len(of) + 10))
    parts = rows.partition_by("split", as_dict=True)
    train, val, test = (parts[name,] for name in ("train", "val", "test"))
    assert train["time"].max() <= val["time"].min()
    assert val["time"].max() < moment <= test["time"].min()
    assert test.group_by("user").len()["len"].max() == like_rows.ROWS_OF_USER


def test_a_table_holds_a_row_as_a_user(modules, tmp_path, monkeypatch):
    """What recsys reads: one event, ten films in the text, the floors beside it."""
    like_rows, _ = modules
    expected = make_plainly(write_films(tmp_path / "ml-100k"))
    monkeypatch.setattr(like_rows, "LATEST", 5)
    monkeypatch.setattr(like_rows, "TABLES", {"tallrec-by-time": "by time"})
    like_rows.write(tmp_path / "tables", tmp_path)
    folder = tmp_path / "tables" / "tallrec-by-time"
    events, users = (
        pl.read_parquet(folder / f"{name}.parquet") for name in ("interactions", "users")
    )
    assert events["user"].to_list() == users["user"].to_list()
    plain = {(row[0], row[3]): row for row in expected}
    for event, user in zip(events.iter_rows(named=True), users.iter_rows(named=True), strict=True):
        _, films, likes, _, liked = plain[user["rater"], event["item"]]
        assert event["rating"] == float(liked)
        assert user["share"] == pytest.approx(np.mean(likes))
        liked_line, other_line = user["text"].split("\n")
        assert liked_line.startswith("User Preference:")
        assert other_line.startswith("User Unpreference:")
        assert liked_line.count('"Film ') == sum(likes)
        assert other_line.count('"Film ') == 10 - sum(likes)
        assert f'"Film {films[0]} ' in (liked_line if likes[0] else other_line)
    floors = like_rows.score_floors(folder)
    assert len(floors) == (events["split"] == "test").sum()
    assert floors["both"].to_list() == (floors["share"] + 2 * floors["rate"]).to_list()

"""What cannot be had at the time of a case is not ranked, listed or suggested."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.examples import TEST, Examples
from recsys.data.batches.sampled_lists import make_sampled_lists
from recsys.data.splits.availability import AvailabilityWindows
from recsys.errors import ConfigError
from recsys.evaluation import ranking
from recsys.evaluation.evaluator import Evaluator
from recsys.fit.__main__ import main
from recsys.recommend.__main__ import main as recommend
from tests.evaluation.test_evaluator import COUNTS, Given, batch

EVER = np.iinfo(np.int64)


def windows(bounds, time=None):
    """Of (from, until) an item, None for no bound."""
    frame = pl.DataFrame(
        [(str(n), *pair) for n, pair in enumerate(bounds)],
        schema={"item": pl.String, "available_from": pl.Int64, "available_until": pl.Int64},
        orient="row",
    )
    return AvailabilityWindows.from_items(frame, None if time is None else np.array(time))


def drawn(items, events, seed=0):
    """Random windows, a third of the items without one or both bounds, and times of events."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 8, items)
    last = first + rng.integers(1, 8, items)
    opens = np.where(rng.random(items) < 0.3, EVER.min, first)
    closes = np.where(rng.random(items) < 0.3, EVER.max, last)
    return AvailabilityWindows(opens, closes, rng.integers(0, 12, events))


def test_the_first_moment_counts_and_the_last_does_not():
    found = windows([(None, None), (5, None), (None, 5), (3, 6), (6, 9)])
    assert found.bounded == 4
    for moment, closed in ((4, [1, 4]), (5, [2, 4]), (6, [2, 3]), (9, [2, 3, 4])):
        assert sorted(found.list_unavailable(moment).tolist()) == closed
    assert windows([(None, None)] * 3) is None
    assert AvailabilityWindows.from_items(pl.DataFrame({"item": ["a"]})) is None


def test_slices_of_sorted_bounds_are_what_comparing_every_pair_gives():
    found = drawn(40, 25)
    case = np.random.default_rng(1).permutation(25)
    moments = found.time[case][:, None]
    want = (moments < found.opens) | (moments >= found.closes)
    assert 0.2 < want.mean() < 0.9
    assert (found.make_mask(case, torch.device("cpu")).numpy() == want).all()
    item = np.arange(25) % 40
    assert (found.is_unavailable(case, item) == want[np.arange(25), item]).all()
    for row, number in enumerate(case):
        assert (
            sorted(found.list_unavailable_in(number).tolist()) == np.flatnonzero(want[row]).tolist()
        )


def ranked(scores, work, open_when, mask_history=True, keep=3):
    evaluator = Evaluator(
        "catalog", (1, 2), mask_history, COUNTS.new_ones(scores.shape[1]), windows=open_when
    )
    evaluator.keep = keep
    ranker = Given(scores)
    evaluator.start(ranker)
    evaluator.step(ranker, work)
    row = {name: column.tolist() for name, column in evaluator.rows[0].items()}
    return evaluator.end(), row


def test_a_rank_is_among_what_can_be_had_at_the_time_of_the_case():
    scores = torch.tensor([[1.0, 2, 3, 4]] * 3)
    work = batch([[0]] * 3, [[1.0]] * 3, seen=[[0, 1], [1, 1], [2, 1]])
    # Item 3 opens with the second case; item 2 closes with the third; the target only later.
    found = windows([(99, None), (None, None), (None, 30), (20, None)], time=[10, 20, 30])
    for mask_history, rank, size, top in (
        (False, [3, 4, 3], [3, 4, 3], [[2, 1, 0], [3, 2, 1], [3, 1, 0]]),
        (True, [2, 3, 2], [2, 3, 2], [[2, 0, -1], [3, 2, 0], [3, 0, -1]]),
    ):
        metrics, row = ranked(scores, work, found, mask_history)
        assert (row["rank"], row["size"], row["top"]) == (rank, size, top)
        assert not any(row["unreachable"])
        assert metrics["hr@2"] == sum(r <= 2 for r in rank) / 3
    assert ranked(scores, work, None, mask_history=False)[1]["rank"] == [4, 4, 4]
    seen = batch([[0]], [[1.0]], seen=[[0, 0]])
    assert ranked(scores[:1], seen, found)[1]["unreachable"] == [True]


def cases(items, count, seed=3):
    rng = np.random.default_rng(seed)
    target = torch.from_numpy(rng.integers(0, items, count))
    scores = torch.from_numpy(rng.integers(0, 9, (count, items))).float()
    seen = [[q, int(i)] for q in range(count) for i in rng.integers(0, items, 3)]
    work = batch(target[:, None].tolist(), [[1.0]] * count, seen=seen)
    every = torch.arange(items)
    return scores, dataclasses.replace(work, plan=dataclasses.replace(work.plan, items=every))


@pytest.mark.parametrize("mask_history", [True, False])
def test_it_is_what_a_mask_by_hand_gives_in_blocks_and_in_parts(monkeypatch, mask_history):
    """Also with the cases in two parts, as two ranks have them."""
    scores, work = cases(30, 11)
    found = drawn(30, 11)
    _, row = ranked(scores, work, found, mask_history)
    for q, target in enumerate(work.candidates[:, 0].tolist()):
        moment = found.time[q]
        left = (found.opens <= moment) & (moment < found.closes)
        left[target] = True
        own = work.seen[work.seen[:, 0] == q, 1].tolist() if mask_history else []
        left[[i for i in own if i != target]] = False
        others = scores[q][torch.from_numpy(left)]
        assert row["size"][q] == left.sum()
        assert row["unreachable"][q] == (target in own)
        if target not in own:
            assert row["rank"][q] == 1 + int((others > scores[q, target]).sum())
            assert row["ties"][q] == int((others == scores[q, target]).sum()) - 1
    monkeypatch.setattr(ranking, "BLOCK", 60)
    assert ranked(scores, work, found, mask_history)[1] == row
    parts = []
    for q in (slice(0, 5), slice(5, 11)):
        mine = (work.seen[:, 0] >= q.start) & (work.seen[:, 0] < q.stop)
        part = dataclasses.replace(
            work,
            **{
                n: getattr(work, n)[q] for n in ("users", "history", "candidates", "labels", "case")
            },
            weight=work.weight[q],
            query=torch.stack([torch.arange(q.stop - q.start), work.query[q, 1]], 1),
            seen=work.seen[mine] - torch.tensor([q.start, 0]),
        )
        parts.append(ranked(scores[q], part, found, mask_history)[1])
    for name in ("case", "target", "rank", "ties", "size", "top", "unreachable"):
        assert parts[0][name] + parts[1][name] == row[name]


def test_windows_that_are_always_open_change_nothing():
    scores, work = cases(30, 11)
    always = AvailabilityWindows(np.full(30, -5), np.full(30, 99), np.arange(11))
    assert always.bounded == 30
    metrics, row = ranked(scores, work, always)
    want = ranked(scores, work, None)
    assert metrics == pytest.approx(want[0], rel=0, abs=0, nan_ok=True)
    assert row == want[1]


@pytest.fixture
def seasons(shop, shop_words, tmp_path):
    """The shop; lamps are sold out before any event, and mirrors come after all of them."""
    items = pl.read_csv(shop / "items.csv", schema_overrides={"what": pl.String})
    name = pl.col("name")
    items.with_columns(
        available_from=pl.when(name.str.contains("mirror")).then(pl.lit("2022-01-01")),
        available_until=pl.when(name.str.contains("lamp")).then(pl.lit("2020-01-01")),
    ).write_csv(tmp_path / "items.csv")
    words = [w for w in shop_words if not w.startswith("data.source.items=")]
    return [*words, f"data.source.items={tmp_path / 'items.csv'}"]


def plain(words):
    return [w for w in words if not w.startswith(("encoder.", "optimizer."))]


def of_kind(made, kind):
    return set(made.tables.items["text"].str.contains(kind).arg_true().to_list())


def test_a_run_says_what_was_ranked_and_suggests_what_can_be_had(seasons, tmp_path, capsys):
    words = [*plain(seasons), "architecture=popularity", "evaluation.mask_history=false"]
    made = build.assemble(compose(words))
    away = of_kind(made, "lamp|mirror")
    target = made.split.item[made.split.list_cases(TEST)]
    outside = sum(int(i) in away for i in target)
    assert 0 < outside < 40
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"{outside} of 40 test targets lie outside of their own window" in said
    (folder,) = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["protocol"]["availability"] == {
        "bounded": 12,
        "targets": 40,
        "targets_outside": outside,
    }
    kept = pl.read_parquet(folder / "cases.parquet")
    assert sorted(kept["size"].to_list()) == [18] * (40 - outside) + [19] * outside
    # A floor of a run that trains ranks the same.
    floor = build.make_baseline("popularity", made.parts)
    assert floor.evaluate(made.datamodule.test_dataloader())["mrr"] == result["test"]["mrr"]
    assert next(r["size"].tolist() for r in floor.evaluator.rows) == kept["size"].to_list()
    for moment, gone in (([], "lamp"), (["at=2020-06-01"], "lamp|mirror")):
        assert recommend([f"run={folder}", "history=001", "k=30", *moment]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 30 - len(of_kind(made, gone)) - 1
        assert not any(word in line for word in gone.split("|") for line in lines)
    assert recommend([f"run={folder}", "user=u3", "at=soon"]) == 2
    assert "'soon', which is no time" in capsys.readouterr().err


def test_lists_hold_nothing_else_that_cannot_be_had(seasons):
    words = [*seasons, "tuning=frozen", "evaluation.protocol=candidates"]
    made = build.assemble(compose([*words, "evaluation.candidates=30"]))
    away = of_kind(made, "lamp|mirror")
    lists = made.datamodule.lists[TEST]
    target = made.split.item[lists.at]
    assert (lists.labels.sum(1) == 1).all()
    for row, wanted, inserted in zip(lists.candidates, target, lists.inserted, strict=True):
        filled = row[row >= 0].tolist()
        assert row[: len(filled)].tolist() == filled
        assert len(set(filled)) == len(filled) <= 19
        assert set(filled) & away <= {int(wanted)}
        assert inserted == (int(wanted) in away)
    short = build.assemble(compose([*words, "evaluation.candidates=5"])).datamodule.lists[TEST]
    assert (short.candidates >= 0).all()
    assert ((short.candidates == target[:, None]).sum(1) == 1).all()
    rows = make_sampled_lists(made.examples, lists.at, 8, "uniform", mask_history=True).candidates
    assert not set(rows[:, 1:].ravel().tolist()) & away
    with pytest.raises(ConfigError, match="has only"):
        make_sampled_lists(made.examples, lists.at, 18, "uniform", mask_history=False)


def test_without_windows_lists_are_as_before_and_without_times_it_is_said(seasons, shop_words):
    made = build.assemble(compose([*plain(shop_words), "architecture=popularity"]))
    assert made.split.windows is None
    assert made.parts.windows is None
    assert not any("availability" in note for note in made.split.notes)
    words = [w for w in plain(seasons) if not w.startswith("data.source.time=")]
    made = build.assemble(compose([*words, "data.source.time=''", "architecture=popularity"]))
    assert made.split.windows is None
    assert any("no times" in note for note in made.split.notes)
    always = dataclasses.replace(
        made.split,
        windows=AvailabilityWindows(
            np.full(30, -5), np.full(30, 99), np.zeros(200, dtype=np.int64)
        ),
    )
    at = made.split.list_cases(TEST)
    for by in ("uniform", "popularity"):
        found = [
            make_sampled_lists(Examples(s, 30, 9), at, 6, by, mask_history=True).candidates
            for s in (made.split, always)
        ]
        assert (found[0] == found[1]).all()


@pytest.mark.parametrize("way", ["drawn", "hard"])
def test_no_negative_of_training_could_not_be_had_when_it_was_asked(way, shop_words):
    """Some close before, some open after a query; without windows the draws are the same."""
    words = [*shop_words, "tuning=frozen", "objective=sampled_softmax", "objective.negatives=8"]
    words += [f"data.negatives={way}", *(["data.hard_top=12"] if way == "hard" else [])]
    made = build.assemble(compose(words))
    examples, split = made.examples, made.split
    rows = examples.make_train_rows("random", examples.sample_epoch("random", 3, 0, 0))
    sampler = made.datamodule.sampler
    free = sampler.sample(rows, 8, 0, 1)
    found = AvailabilityWindows(*drawn_bounds(split.time), split.time)
    if way == "hard":
        sampler = dataclasses.replace(
            sampler, drawn=dataclasses.replace(sampler.drawn, windows=found)
        )
    kept = dataclasses.replace(sampler, windows=found).sample(rows, 8, 0, 1)
    moment = split.time[rows.event][:, None]
    shut = (moment < found.opens[kept]) | (moment >= found.closes[kept])
    assert not (shut & (kept >= 0)).any()
    assert (kept >= 0).any(1).mean() > 0.5
    gone = (moment < found.opens[free]) | (moment >= found.closes[free])
    assert (gone & (free >= 0)).mean() > 0.1
    if way == "drawn":
        assert (kept == np.where(gone, -1, free)).all()


def drawn_bounds(time, items=30):
    """A third of the items open late, a third close early."""
    third, middle = np.arange(items) % 3, int(np.median(time))
    opens = np.where(third == 0, middle, EVER.min)
    return opens, np.where(third == 1, middle, EVER.max)

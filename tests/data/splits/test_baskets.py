"""Baskets: what is bought at once is no past of itself, no wrong answer, and has no order."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

from recsys.assembly import build
from recsys.assembly.candidates import make_candidate_lists
from recsys.config.compose import compose
from recsys.data.batches.examples import NOTHING, TEST, TRAIN, VAL, Examples
from recsys.data.batches.sampled_lists import make_sampled_lists
from recsys.data.describe import describe_split, find_repeats
from recsys.data.reviews import add_reviews
from recsys.data.splits.history import CaseHistories
from recsys.data.splits.methods import leave_one_out, make_split, split_by_time
from recsys.data.tables import Tables, compute_fingerprint
from recsys.runs import provenance
from recsys.runtime.store import Store
from tests.data.splits.test_availability import ranked

ITEMS = 12
FINGERPRINT = "148bdddc905451b67b730526781f285a8049f66feaeb034baaf557cd443281f9"
ROLES = [
    "baed5955362dee098ac567b9b17ce5f9621c8e082550507c5a4dd7d5b75e7277",
    "3990459aeb223d132b2dbdf92f7ee55ead0e8dcd89acc85e117965ef155a9f08",
]
SIZES = np.ones(ITEMS, dtype=np.int64)


def tills(seed, timed=True, users=5, baskets=6):
    """Baskets of 1 to 4 lines, some with an item twice; two baskets can share a moment."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(baskets):
        for user in range(users):
            for item in rng.integers(0, ITEMS, rng.integers(1, 5)):
                rows.append((f"u{user}", f"i{item}", 10 * (n // 2), f"b{user}-{n}"))
    frame = pl.DataFrame(rows, ["user", "item", "time", "basket"], orient="row")
    items = pl.DataFrame({"item": [f"i{i}" for i in range(ITEMS)], "text": ["x"] * ITEMS})
    names = pl.DataFrame({"user": [f"u{u}" for u in range(users)], "text": [""] * users})
    return Tables(frame if timed else frame.drop("time"), items, names)


def permuted(tables, seed):
    """The same with the lines of each basket in another order, in the places they had."""
    frame = tables.interactions.with_row_index("at")
    rng = np.random.default_rng(seed)
    parts = [
        part.with_columns(pl.Series("at", rng.permutation(part["at"].to_numpy())))
        for part in frame.partition_by("basket", maintain_order=True)
    ]
    return dataclasses.replace(tables, interactions=pl.concat(parts).sort("at").drop("at"))


def asked(split, role=None):
    """Per target: user, basket, item, and the whole history in its order."""
    at = np.arange(len(split.item)) if role is None else split.list_cases(role)
    user = split.compute_user_rows()
    return sorted(
        (
            int(user[e]),
            int(split.basket[e]),
            int(split.item[e]),
            split.item[split.slice_history(e)].tolist(),
        )
        for e in at.tolist()
    )


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_lines_changes_no_history_and_no_part(seed, timed):
    found = tills(seed, timed)
    for method in ("leave_one_out", "time") if timed else ("leave_one_out",):
        split, again = (
            make_split(t, method, val_fraction=0.3, test_fraction=0.3)
            for t in (found, permuted(found, seed + 9))
        )
        assert asked(split) == asked(again)
        for role in (VAL, TEST):
            assert asked(split, role) == asked(again, role)
        examples = [
            Examples(s, ITEMS, 4).make_train_rows("all", np.arange(5)) for s in (split, again)
        ]
        assert (examples[0].prefix == examples[1].prefix).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_history_is_what_lies_in_earlier_baskets(seed):
    """Against the rows of the file, for cases, for each way of training, and for what is hidden."""
    found = tills(seed)
    split = split_by_time(found, 0.2, 0.2)
    basket = found.interactions["basket"].gather(split.row).to_list()
    user, past = split.compute_user_rows(), CaseHistories(split)
    examples = Examples(split, ITEMS, 50)
    for event in range(len(basket)):
        first = basket.index(basket[event])
        want = [e for e in range(first) if user[e] == user[event]]
        assert list(range(*split.slice_history(event).indices(len(user)))) == want
        assert past.count_events(np.array([event])).tolist() == [len(want)]
        rows = examples.make_case_rows(np.array([event]))
        assert (rows.stop - rows.start).tolist() == [len(want)]
        batch = examples.make_batch(rows, SIZES, with_seen=True)
        assert batch.seen[:, 1].tolist() == split.item[want].tolist()
        others = {int(split.item[e]) for e in range(len(user)) if basket[e] == basket[event]}
        assert set(batch.basket_items[:, 1].tolist()) == others - {int(split.item[event])}
    again = [(user[e], split.item[e]) for e in range(len(user))]
    want = [again[e] in again[: basket.index(basket[e])] for e in range(len(user))]
    assert find_repeats(split, ITEMS).tolist() == want
    rows = examples.make_train_rows("all", np.arange(5))
    trained = np.flatnonzero((split.role == TRAIN) & (past.count_events(np.arange(len(user))) > 0))
    assert rows.event.tolist() == trained.tolist()
    assert rows.prefix.tolist() == past.count_events(trained).tolist()


def test_a_basket_that_goes_on_after_another_began_shows_neither_too_much():
    rows = [("u", "i0", 0, "a"), ("u", "i1", 1, "b"), ("u", "i2", 2, "c"), ("u", "i3", 3, "b")]
    rows += [("u", "i4", 4, "d"), ("u", "i5", 5, "e")]
    frame = pl.DataFrame(rows, ["user", "item", "time", "basket"], orient="row")
    found = tills(0)
    split = leave_one_out(Tables(frame, found.items, pl.DataFrame({"user": ["u"], "text": [""]})))
    assert [split.slice_history(e).stop for e in range(6)] == [0, 1, 2, 1, 4, 5]
    rows = Examples(split, ITEMS, 9).make_train_rows("all", np.array([0]))
    assert rows.prefix.tolist() == [1, 2, 1]
    assert (rows.stop - rows.start).tolist() == [2]
    none = dataclasses.replace(split, basket=np.full(6, -1))
    assert [none.slice_history(e).stop for e in range(6)] == list(range(6))


def test_the_rest_of_a_basket_is_no_wrong_answer():
    found = tills(1)
    split = split_by_time(found, 0.2, 0.2)
    examples = Examples(split, ITEMS, 9)
    at = split.list_cases(TEST)
    work = examples.make_batch(examples.make_case_rows(at), SIZES, with_seen=True)
    every = torch.arange(ITEMS)
    target = torch.from_numpy(split.item[at].astype(np.int64))
    work = dataclasses.replace(
        work,
        plan=dataclasses.replace(work.plan, items=every),
        candidates=target[:, None],
    )
    assert len(work.basket_items) > 5
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(len(at), ITEMS))).float()
    for mask_history in (False, True):
        _, row = ranked(scores, work, None, mask_history)
        for q in range(len(at)):
            apart = set(work.basket_items[work.basket_items[:, 0] == q, 1].tolist())
            had = set(work.seen[work.seen[:, 0] == q, 1].tolist()) if mask_history else set()
            left = set(range(ITEMS)) - apart - (had - {int(target[q])})
            assert row["size"][q] == len(left)
            if int(target[q]) not in had:
                assert (
                    row["rank"][q]
                    == sum(bool(scores[q, i] > scores[q, target[q]]) for i in left) + 1
                )
    lists = make_sampled_lists(examples, at, 3, "uniform", mask_history=False)
    basket = examples.list_basket_items(at)
    for q, apart in basket.tolist():
        assert apart not in lists.candidates[q].tolist()
    assert (examples.list_basket_items(np.full(2, -1)) == NOTHING).all()


def test_disliked_lines_of_a_basket_are_ranked():
    found = tills(2)
    rating = pl.Series("rating", [float(n % 3 > 0) for n in range(found.interactions.height)])
    rated = dataclasses.replace(found, interactions=found.interactions.with_columns(rating))
    split = leave_one_out(rated, 1)
    examples = Examples(split, ITEMS, 9)
    pairs = zip(split.basket.tolist(), split.item.tolist(), strict=True)
    every = np.arange(len(split.item))
    liked = {pair for pair, label in zip(pairs, split.label, strict=True) if label}
    place, item = examples.list_basket_items(every).T
    found_ = list(zip(split.basket[place].tolist(), item.tolist(), strict=True))
    assert set(found_) <= liked
    assert 0 < len(found_) < len(Examples(leave_one_out(found), ITEMS, 9).list_basket_items(every))


@pytest.fixture
def invoices(shop, shop_words, tmp_path):
    """The shop; two purchases after each other are of one invoice, the last one is alone."""
    frame = pl.read_csv(shop / "events.csv", infer_schema=False).with_row_index("n")
    line = pl.col("n") % 5 // 2
    basket = pl.concat_str(["who", line.cast(pl.String)], separator="-")
    frame.with_columns(basket.alias("basket")).drop("n").write_csv(tmp_path / "events.csv")
    words = [w for w in shop_words if not w.startswith("data.source.interactions=")]
    return [*words, f"data.source.interactions={tmp_path / 'events.csv'}"]


def test_a_run_says_what_baskets_do_and_lists_hold_none_of_the_rest(invoices, tmp_path):
    words = [*invoices, "data.split=time", "data.val_fraction=0.25", "data.test_fraction=0.25"]
    made = build.assemble(compose([*words, "tuning=frozen"]))
    assert made.split.name.endswith(", baskets)")
    (said,) = [note for note in made.split.notes if note.startswith("baskets:")]
    assert "baskets: 160 of 200 events, and 40 of 50 test targets, share a basket" in said
    at = made.split.list_cases(TEST)
    makers = [build.make_baseline(name, made.parts) for name in ("popularity", "tfidf")]
    lists = make_candidate_lists(made.examples, at, makers, 30, False, Store(tmp_path / "kept"), {})
    basket = made.examples.list_basket_items(at)
    assert len(basket) == 40
    full = (lists.candidates >= 0).sum(1)
    for q in range(len(at)):
        rest = basket[basket[:, 0] == q, 1].tolist()
        assert not set(rest) & set(lists.candidates[q].tolist())
        assert full[q] == 30 - len(rest)
    floor = build.make_baseline("popularity", made.parts)
    floor.evaluate(made.datamodule.test_dataloader())
    sizes = {}
    for row in floor.evaluator.rows:
        sizes |= dict(zip(row["case"].tolist(), row["size"].tolist(), strict=True))
    for q, case in enumerate(at.tolist()):
        had = made.split.item[made.split.slice_history(case)].tolist()
        assert sizes[case] == 30 - len(set(had) | set(basket[basket[:, 0] == q, 1].tolist()))
    batch = next(iter(made.datamodule.test_dataloader()))
    assert len(batch.basket_items)
    assert next(iter(made.datamodule.train_dataloader())).basket_items is None


def test_leave_one_out_says_that_a_basket_is_cut():
    split = leave_one_out(tills(1))
    (note,) = [n for n in split.notes if "holds out events, not baskets" in n]
    test = split.list_cases(TEST)
    held = split.basket[split.role < TEST]
    assert f"{int(np.isin(split.basket[test], held).sum())} of {len(test)} test targets" in note
    assert describe_split(split, ITEMS).rows[0] == ("split", split.name)


def test_a_review_of_a_basket_that_is_asked_about_is_not_read():
    found = tills(3)
    marks = pl.Series("review", [f"row{n}." for n in range(found.interactions.height)])
    found = dataclasses.replace(found, interactions=found.interactions.with_columns(marks))
    split = leave_one_out(found)
    for count in (1, 2, 3, 99):
        texts = add_reviews(found, split, count).users["text"].to_list()
        read = {int(word[3:-1]) for text in texts for word in text.split()}
        examples = Examples(split, ITEMS, 9, profile_events=count)
        targets = [
            *examples.sample_epoch("random", 50, 0, 0),
            *split.list_cases(VAL),
            *split.list_cases(TEST),
        ]
        baskets = {int(split.basket[e]) for e in targets}
        events = [e for e in range(len(split.item)) if int(split.row[e]) in read]
        assert not baskets & {int(split.basket[e]) for e in events}
        assert count == 99 or events


def test_without_baskets_events_parts_and_names_are_as_they_were():
    """Golden: of the same data before there were baskets."""
    found = tills(0)
    plain = dataclasses.replace(found, interactions=found.interactions.drop("basket"))
    assert compute_fingerprint(plain) == FINGERPRINT
    time, last = split_by_time(plain, 0.2, 0.2), leave_one_out(plain)
    assert time.name == "time(val=0.2, test=0.2, positive_from=None)"
    assert [
        provenance.compute_data_digests(each, {})["roles_sha256"] for each in (time, last)
    ] == ROLES
    assert time.basket is None
    assert not any("basket" in note for note in (*time.notes, *last.notes))
    named = pl.Series("basket", [""] * plain.interactions.height)
    empty = dataclasses.replace(plain, interactions=plain.interactions.with_columns(named))
    assert (split_by_time(empty, 0.2, 0.2).row == time.row).all()
    examples = Examples(time, ITEMS, 9)
    rows = examples.make_case_rows(time.list_cases(TEST))
    assert examples.make_batch(rows, SIZES, with_seen=True).basket_items is None

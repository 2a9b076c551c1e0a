"""Nothing that is held out, and nothing later, reaches a training example: for every source."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from recsys.data.batches.examples import TRAIN, Examples
from recsys.data.reviews import add_reviews
from recsys.data.splits import methods as splits
from tests.data.batches.training import allowed, kinds, split_by, trained
from tests.data.samples import MAKERS, make

READ = 2  # reviews of a user that its profile is made of
EVERY = pytest.mark.parametrize("source", list(MAKERS))


def loaded(source, folder):
    """Tables with a review in each row that tells which row it is, and the splits they allow."""
    module, config = make(source, folder)
    tables = module.load(config)
    events = tables.interactions
    marks = pl.Series("review", [f"row{n}." for n in range(events.height)])
    tables = dataclasses.replace(tables, interactions=events.with_columns(marks))

    return tables, allowed(tables, config.default_split)


def apart(tables, method):
    """The tables, without baskets where one event of a basket alone is held out.

    Which of them that is, is drawn from the items of the whole basket, and moves with each of them.
    """
    if method != "leave_one_out" or "basket" not in tables.interactions.columns:
        return tables
    return dataclasses.replace(tables, interactions=tables.interactions.drop("basket"))


@EVERY
def test_other_held_out_events_change_nothing_in_training(source, tmp_path):
    found, methods = loaded(source, tmp_path)
    for method in methods:
        tables = apart(found, method)
        before = split_by(tables, method)
        events = tables.interactions
        held = np.zeros(events.height, dtype=bool)
        held[before.row[before.role != TRAIN]] = True
        assert 0 < held.sum() < len(held)
        names = tables.items["item"].to_list()
        turned = {name: names[(n + 1) % len(names)] for n, name in enumerate(names)}
        other = events.with_columns(
            pl.when(pl.Series(held))
            .then(pl.col("item").replace(turned))
            .otherwise("item")
            .alias("item"),
            pl.when(pl.Series(held)).then(pl.lit("held out")).otherwise("review").alias("review"),
        )
        changed = dataclasses.replace(tables, interactions=other)
        after = split_by(changed, method)
        assert (after.role == before.role).all()
        assert (after.item != before.item).any()
        for reviews in (0, READ):
            assert trained(changed, after, reviews) == trained(tables, before, reviews)
        read, unread = add_reviews(changed, after, READ), add_reviews(tables, before, READ)
        assert read.users.equals(unread.users)
        assert not read.users["text"].str.contains("held out").any()


@EVERY
def test_a_history_and_a_profile_lie_before_the_target(source, tmp_path):
    """In training; every review tells its row, and the rows of the split tell their place."""
    found, methods = loaded(source, tmp_path)
    for method in methods:
        tables = apart(found, method)  # with a basket, too few events are left for a target
        made = split_by(tables, method)
        texts = add_reviews(tables, made, READ).users["text"].to_list()
        assert any("row" in text for text in texts)
        place = np.empty(len(made.row), dtype=np.int64)
        place[made.row] = np.arange(len(made.row))
        for examples, _ in kinds(tables, made, READ).values():
            targets = 0
            for queries in ("last", "random"):
                for event in examples.sample_epoch(queries, 5, seed=0, epoch=0).tolist():
                    lies_before(made, examples, queries, event, texts, place)
                    targets += 1
            assert targets


def lies_before(made, examples, queries, event, texts, place):
    rows = examples.make_train_rows(queries, np.array([event]))
    user = int(rows.user[0])
    own = made.slice_history(event)
    past = np.arange(own.start, made.compute_history_starts()[event])
    assert made.compute_user_rows()[event] == user
    assert (made.role[past] == TRAIN).all()
    assert made.role[event] == TRAIN
    liked = past[made.label[past] > 0]
    assert rows.stop[0] - rows.start[0] == min(20, len(liked))
    said = [int(word[3:-1]) for word in texts[user].split() if word.startswith("row")]
    assert all(place[row] < event for row in said)
    assert made.time is None or (made.time[past] <= made.time[event]).all()


def test_without_giving_up_targets_a_review_would_be_that_of_a_target(tmp_path):
    """What the second test is there for."""
    tables, methods = loaded("amazon_2018", tmp_path)
    made = split_by(tables, methods[0])
    examples = Examples(made, tables.items.height, 20)
    place = np.arange(len(made.item)) - made.offsets[made.compute_user_rows()]
    assert (place[examples.sample_epoch("random", 20, seed=0, epoch=0)] < READ).any()


def test_a_clicked_news_item_of_dev_is_no_training_event(tmp_path):
    module, config = make("mind", tmp_path)
    tables = module.load(config)
    dev = tables.interactions.filter(pl.col("impression").str.starts_with("val-"))
    assert dev["split"].unique().to_list() == ["test"]
    made = splits.make_split(tables, "given", positive_from=1)
    trained_rows = made.row[made.role == TRAIN]
    assert not tables.interactions[trained_rows]["impression"].str.starts_with("val-").any()


def test_popularity_of_a_candidate_list_is_that_of_training(tmp_path):
    """The floors and lists count what `count_train_items` counts: no held-out event is in it."""
    tables, methods = loaded("movielens", tmp_path)
    made = split_by(tables, methods[0])
    examples = Examples(made, tables.items.height, 20)
    counted = np.bincount(made.item[made.role == TRAIN], minlength=tables.items.height)
    assert examples.count_train_items().tolist() == counted.tolist()
    assert counted.sum() < len(made.item)

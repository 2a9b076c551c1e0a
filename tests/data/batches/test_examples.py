import dataclasses

import numpy as np
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.examples import TEST, VAL, Examples
from recsys.data.batches.negatives import PoolSampler
from recsys.data.batches.rows import make_label_lists
from recsys.data.splits.split import Split


@pytest.fixture
def examples():
    """Three users; user 0 has a disliked item 9 in the middle."""
    items = [[0, 1, 9, 2, 3, 4], [5, 1, 6], [7, 8, 2, 0]]
    roles = [[0, 0, 0, 0, 1, 2], [0, 1, 2], [0, 0, 1, 2]]
    labels = np.ones(13, dtype=np.float32)
    labels[2] = 0
    split = Split(
        offsets=np.cumsum([0, *map(len, items)]),
        item=np.concatenate(items).astype(np.int32),
        time=None,
        label=labels,
        weight=labels,
        role=np.concatenate(roles).astype(np.int8),
        name="made",
        notes=(),
    )
    return Examples(split, items=10, max_history=2)


def read(examples, batch):
    """Per query: user, history and target as catalog rows."""
    plan = batch.plan.items
    out = []
    for (row, prefix), target in zip(batch.query, batch.candidates[:, 0], strict=True):
        had = [int(plan[i]) for i in batch.history[row][:prefix] if i >= 0]
        out.append((int(batch.users[row]), had, int(plan[target])))
    return sorted(out)


SIZES = np.arange(10)


@pytest.mark.parametrize(
    ("role", "want"),
    [
        (VAL, [(0, [1, 2], 3), (1, [5], 1), (2, [7, 8], 2)]),
        (TEST, [(0, [2, 3], 4), (1, [5, 1], 6), (2, [8, 2], 0)]),
    ],
)
def test_a_case_sees_the_last_liked_events_before_its_target(examples, role, want):
    batch = examples.make_batch(examples.make_case_rows(examples.select_cases(role)), SIZES)
    assert read(examples, batch) == want
    plan = batch.plan.items.tolist()
    assert len(plan) == len(set(plan))
    assert batch.plan.sizes == tuple(plan)
    # Targets come first, so that they can be encoded alone.
    asked = batch.plan.select_candidates()
    assert asked.items.tolist() == sorted({target for _, _, target in want})
    assert asked.sizes == tuple(asked.items.tolist())
    assert set(plan) == {item for _, had, target in want for item in [*had, target]}


def test_last_trains_on_the_last_training_event_and_needs_one_before_it(examples):
    at = examples.sample_epoch("last", 1, seed=0, epoch=0)
    batch = examples.make_batch(examples.make_train_rows("last", at), SIZES)
    assert read(examples, batch) == [(0, [0, 1], 2), (2, [7], 8)]


def test_all_trains_on_every_position_of_the_window(examples):
    at = examples.sample_epoch("all", 1, seed=0, epoch=0)
    batch = examples.make_batch(examples.make_train_rows("all", at), SIZES)
    assert read(examples, batch) == [(0, [0], 1), (0, [0, 1], 2), (2, [7], 8)]
    assert len(batch.users) == 2


def test_random_draws_training_targets_only_and_differs_by_epoch(examples):
    seen = set()
    for epoch in range(20):
        at = examples.sample_epoch("random", 2, seed=0, epoch=epoch)
        found = read(examples, examples.make_batch(examples.make_train_rows("random", at), SIZES))
        assert len(found) == 4
        seen |= {(user, target) for user, _, target in found}
    assert seen == {(0, 1), (0, 2), (2, 8)}


def test_negatives_were_seen_in_training_and_do_not_depend_on_the_batch(examples):
    at = examples.sample_epoch("random", 3, seed=0, epoch=0)
    rows = examples.make_train_rows("random", at)
    sampler = PoolSampler(examples.get_pool("uniform"))
    drawn = sampler.sample(rows, 50, seed=1, epoch=2)
    assert set(np.unique(drawn)) <= {-1, 0, 1, 2, 5, 7, 8}
    assert not (drawn == rows.candidates).any()
    one = sampler.sample(examples.make_train_rows("random", at[2:3]), 50, 1, 2)
    assert (one[0] == drawn[2]).all()
    batch = examples.make_batch(rows, SIZES, drawn)
    back = np.where(batch.candidates >= 0, batch.plan.items[batch.candidates], -1)
    assert (back[:, 1:] == drawn).all()


def test_train_counts_leave_out_held_out_and_disliked_events(examples):
    assert examples.count_train_items().tolist() == [1, 1, 1, 0, 0, 1, 0, 1, 1, 0]


def test_a_label_list_holds_what_was_held_out_with_its_labels():
    split = Split(
        offsets=np.array([0, 4, 7]),
        item=np.array([0, 1, 2, 3, 4, 5, 6], dtype=np.int32),
        time=None,
        label=np.array([1, 0, 1, 0, 0, 1, 0], dtype=np.float32),
        weight=np.full(7, 3, dtype=np.float32),
        role=np.array([0, 0, 2, 2, 0, 2, 2], dtype=np.int8),
        name="made",
        notes=(),
    )
    examples = Examples(split, items=7, max_history=5, targets="labelled")
    lists = make_label_lists(examples.split, TEST)
    assert lists.candidates.tolist() == [[2, 3], [5, 6]]
    assert lists.labels.tolist() == [[1, 0], [1, 0]]
    batch = examples.make_batch(examples.make_list_rows(lists), SIZES)
    assert batch.query.tolist() == [[0, 1], [1, 0]]
    train = examples.sample_epoch("random", 40, 0, 0)
    batch = examples.make_batch(examples.make_train_rows("random", np.unique(train)), SIZES)
    pairs = zip(batch.plan.items[batch.candidates[:, 0]], batch.weight[:, 0], strict=True)
    assert {(int(i), float(w)) for i, w in pairs} == {(0, 3), (1, 0), (4, 0)}


def test_a_sample_of_users_or_cases_is_the_same_each_time(examples):
    few = Examples(examples.split, items=10, max_history=2, train_users=1, seed=5)
    again = Examples(examples.split, items=10, max_history=2, train_users=1, seed=5)
    assert len(few.sample_epoch("last", 1, 0, 0)) == 1
    assert (
        few.sample_epoch("last", 1, 0, 0).tolist() == again.sample_epoch("last", 1, 0, 0).tolist()
    )
    some = examples.select_cases(TEST, limit=2, seed=1)
    assert len(some) == 2
    assert set(some) <= set(examples.select_cases(TEST))


def test_runs_of_several_seeds_see_the_same_samples(shop_words):
    """Users that train, cases that are ranked: a sample has a seed of its own."""
    words = [*shop_words, "architecture=popularity", "data.train_users=7", "evaluation.max_cases=9"]

    def seen(*more):
        made = build.assemble(compose([*words, *more]))
        cases = torch.cat([b.case for b in made.datamodule.test_dataloader()])
        trained = made.examples.sample_epoch("last", 1, 0, 0).tolist()
        return sorted(trained), sorted(cases[cases >= 0].tolist())

    first = seen("seed=0")
    assert seen("seed=5") == first
    other = seen("seed=0", "data.sample_seed=5")
    assert other[0] != first[0]
    assert other[1] != first[1]


def test_other_targets_have_weights_relative_to_themselves(examples):
    weight = np.arange(1.0, 14.0, dtype=np.float32)
    whole = Examples(dataclasses.replace(examples.split, weight=weight), 10, max_history=2)
    targets = whole.list_target_events("random")
    before = whole.importance.copy()
    assert before[targets].mean() == pytest.approx(1)
    part = whole.replace_targets(targets[:2], "a note")
    assert part.importance[targets[:2]].mean() == pytest.approx(1)
    assert part.notes == (*whole.notes, "a note")
    assert set(part.sample_epoch("random", 9, 0, 0)) == set(targets[:2])
    assert whole.list_target_events("random").tolist() == targets.tolist()
    assert (whole.importance == before).all()
    assert part.count_train_items().tolist() == whole.count_train_items().tolist()

"""Training histories that are changed: targets stay, and nothing held out is seen."""

import dataclasses

import numpy as np
import pytest

from recsys.assembly import build
from recsys.assembly.augmentation import find_co_occurring, find_text_neighbours
from recsys.config.compose import compose
from recsys.data.augmentation.draws import draw_uniform
from recsys.data.augmentation.histories import HistoryAugmentation
from recsys.data.batches.examples import TRAIN, Examples
from recsys.data.splits.split import Split

ITEMS = 400
KINDS = ("crop", "mask", "reorder", "substitute")
QUERIES = ("last", "random", "all")


@pytest.fixture(scope="module")
def examples():
    """60 users with 2 to 31 events, none of an item twice, the last two held out."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(4, 32, 60)
    roles = [np.r_[np.zeros(n - 2), 1, 2] for n in sizes]
    one = np.ones(sizes.sum(), dtype=np.float32)
    split = Split(
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        item=np.concatenate([rng.permutation(ITEMS)[:n] for n in sizes]).astype(np.int32),
        time=None,
        label=one,
        weight=one,
        role=np.concatenate(roles).astype(np.int8),
        name="made",
        notes=(),
    )
    return Examples(split, items=ITEMS, max_history=20)


def make_neighbours():
    """Each item has the two rows behind it, but for every fifth, which has none."""
    item = np.arange(ITEMS)[:, None]
    out = (item + np.array([[1, 2]])) % ITEMS
    out[::5] = -1
    return out.astype(np.int32)


def make(seed=0, **shares):
    given = dict.fromkeys(KINDS, 0.0) | shares
    return HistoryAugmentation(seed, neighbours=make_neighbours, **given)


def changed(examples, queries, augmentation, epoch=0, at=None):
    """Target, and history before and after, of each query of an epoch."""
    at = examples.sample_epoch(queries, 2, seed=0, epoch=epoch) if at is None else at
    rows = examples.make_train_rows(queries, at)
    history = examples.list_histories(rows)
    before = history.copy()
    new = augmentation.augment(rows, history, epoch)
    assert np.array_equal(history, before)  # what is given is not written to
    for name in ("candidates", "labels", "weight", "case", "event"):
        assert np.array_equal(getattr(rows, name), getattr(new.rows, name))
    assert np.array_equal(rows.user[rows.row], new.rows.user[new.rows.row])
    assert np.array_equal(new.origin[new.rows.row], rows.row)
    # No place between two items is empty.
    assert ((new.history >= 0).cumsum(1) == np.arange(1, new.history.shape[1] + 1))[
        new.history >= 0
    ].all()
    return [
        (
            int(rows.candidates[q, 0]),
            history[rows.row[q], : rows.prefix[q]].tolist(),
            new.history[new.rows.row[q], : new.rows.prefix[q]].tolist(),
        )
        for q in range(len(rows.row))
    ]


def is_part(short, long):
    return any(long[i : i + len(short)] == short for i in range(len(long) - len(short) + 1))


def is_subsequence(short, long):
    rest = iter(long)
    return all(item in rest for item in short)


@pytest.mark.parametrize("queries", QUERIES)
def test_a_crop_is_a_contiguous_part_of_what_the_query_saw(examples, queries):
    found = changed(examples, queries, make(crop=0.5))
    assert all(new and is_part(new, had) for _, had, new in found)
    cut = [(had, new) for _, had, new in found if new != had]
    assert 0.1 < len(cut) / len(found) < 0.6
    assert any(new[0] != had[0] for had, new in cut)
    assert any(new[-1] != had[-1] for had, new in cut)
    every = changed(examples, "last", make(crop=1.0))
    assert np.mean([new != had for _, had, new in every if len(had) > 1]) > 0.8


@pytest.mark.parametrize("queries", QUERIES)
def test_a_mask_leaves_out_a_share_and_never_all(examples, queries):
    found = changed(examples, queries, make(mask=0.3))
    assert all(new and is_subsequence(new, had) for _, had, new in found)
    left = sum(len(new) for *_, new in found) / sum(len(had) for _, had, _ in found)
    assert left == pytest.approx(0.7, abs=0.06)
    assert {len(new) for *_, new in changed(examples, "last", make(mask=1.0))} == {1}


@pytest.mark.parametrize("queries", QUERIES)
def test_a_reordered_history_has_the_same_items_and_a_shuffled_span(examples, queries):
    found = changed(examples, queries, make(reorder=1.0))
    assert all(sorted(new) == sorted(had) for _, had, new in found)
    assert any(new != had for _, had, new in found)
    # A query within the span still sees what came before it, and not its own target.
    assert all(target not in new for target, _, new in found)


@pytest.mark.parametrize("queries", QUERIES)
def test_a_substitute_is_a_neighbour_and_no_target(examples, queries):
    found = changed(examples, queries, make(substitute=0.4))
    pairs = [(a, b) for _, had, new in found for a, b in zip(had, new, strict=True)]
    other = [(a, b) for a, b in pairs if a != b]
    assert {(b - a) % ITEMS for a, b in other} == {1, 2}
    assert not any(a % 5 == 0 for a, _ in other)
    assert len(other) / len(pairs) == pytest.approx(0.4 * 0.8, abs=0.06)
    assert all(target not in new for target, _, new in found)


def test_a_neighbour_that_is_asked_about_never_stands_in_the_history(examples):
    rows = examples.make_train_rows("last", examples.sample_epoch("last", 1, 0, 0))
    history = examples.list_histories(rows)
    targets = np.full((ITEMS, 1), -1, dtype=np.int32)
    for row in range(len(history)):  # each item's only neighbour is the target of its history
        targets[history[row][history[row] >= 0], 0] = rows.candidates[row, 0]
    given = dict.fromkeys(KINDS, 0.0) | {"substitute": 1.0}
    augmentation = HistoryAugmentation(0, neighbours=lambda: targets, **given)
    new = augmentation.augment(rows, history, 0)
    assert (new.history != rows.candidates[:, :1]).all()
    assert (new.history != history).any()  # items of several users have the target of one


@pytest.mark.parametrize("queries", QUERIES)
def test_together_they_show_no_query_its_target_or_what_came_later(examples, queries):
    shares = {"crop": 0.5, "mask": 0.2, "reorder": 0.5}
    for epoch in range(3):
        for target, had, new in changed(examples, queries, make(**shares), epoch):
            assert new
            assert target not in new
            assert set(new) <= set(had)
        for target, _, new in changed(examples, queries, make(**shares, substitute=0.3), epoch):
            assert new
            assert target not in new


@pytest.mark.parametrize("queries", QUERIES)
def test_what_is_drawn_depends_on_seed_epoch_and_example_alone(examples, queries):
    shares = dict.fromkeys(KINDS, 0.4)
    at = examples.sample_epoch(queries, 2, seed=0, epoch=3)
    whole = changed(examples, queries, make(**shares), 3, at)
    again = [
        query
        for part in (at[:1], at[1:8], at[8:])  # other batches, as of other sizes or ranks
        for query in changed(examples, queries, make(**shares), 3, part)
    ]
    assert again == whole
    backwards = changed(examples, queries, make(**shares), 3, at[::-1])
    assert sorted(backwards) == sorted(whole)
    assert changed(examples, queries, make(**shares), 4, at) != whole
    assert changed(examples, queries, make(1, **shares), 3, at) != whole


@pytest.mark.parametrize("queries", QUERIES)
def test_events_with_labels_and_queries_without_a_history_keep_what_they_ask(examples, queries):
    """A disliked event is a target and never in a history; a first one has a text to go by."""
    split = examples.split
    label = (np.random.default_rng(1).random(len(split.item)) < 0.7).astype(np.float32)
    labelled = Examples(
        dataclasses.replace(split, label=label),
        items=ITEMS,
        max_history=20,
        targets="labelled",
        worded=np.ones(len(split.item), dtype=bool),
    )
    found = changed(labelled, queries, make(**dict.fromkeys(KINDS, 0.4)))
    assert all(bool(new) == bool(had) and target not in new for target, had, new in found)
    assert any(new != had for _, had, new in found)
    assert queries == "last" or any(not had for _, had, _ in found)


def test_nothing_drawn_is_nothing_changed(examples):
    for queries in QUERIES:
        assert all(had == new for _, had, new in changed(examples, queries, make()))


def test_draws_are_uniform_and_do_not_depend_on_what_is_drawn_beside_them():
    numbers = draw_uniform(7, 1, np.arange(1000)[:, None], np.arange(50)[None, :])
    assert numbers.shape == (1000, 50)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert ((counts - 2500) ** 2 / 2500).sum() < 50  # 99.9 % of such sums are below 43.8
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.1
    assert draw_uniform(7, 1, 12, 34)[0] == numbers[12, 34]
    assert len({draw_uniform(*key)[0] for key in ((1, 2), (2, 1), (0, 3), (3, 0), (3,))}) == 5


@pytest.fixture
def words(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return [*shop_words, "tracking.wandb=off", "trainer.batch_size=6"]


def read(made, epochs=2):
    """What each query of some epochs is trained from, whatever batches it came in."""
    out = []
    for epoch in range(epochs):
        for at in made.datamodule.plan.make_batches(epoch):
            batch = made.datamodule.make_train_batch(at, epoch)
            plan = batch.plan.items.tolist()
            for (row, prefix), target in zip(
                batch.query.tolist(), batch.candidates[:, 0].tolist(), strict=True
            ):
                had = [plan[i] for i in batch.history[row][:prefix].tolist()]
                out.append((epoch, int(batch.users[row]), plan[target], had))
    return sorted(out)


ALL = "data.augment={crop: .5, mask: .2, reorder: .5, substitute: .3}"


def test_zeros_leave_every_batch_as_it_was(words):
    plain = build.assemble(compose(words)).datamodule
    zeros = ["data.augment={crop: 0, mask: 0, reorder: 0, substitute: 0}"]
    same = build.assemble(compose([*words, *zeros])).datamodule
    assert same.augmentation is None
    for at in plain.plan.make_batches(1):
        one, two = (data.make_train_batch(at, 1) for data in (plain, same))
        for field in dataclasses.fields(one):
            a, b = getattr(one, field.name), getattr(two, field.name)
            if hasattr(a, "shape"):
                assert a.equal(b), field.name


@pytest.mark.parametrize("queries", QUERIES)
def test_batches_of_any_size_train_from_the_same_histories(words, queries):
    asked = [*words, ALL, f"data.queries={queries}"]
    found = read(build.assemble(compose(asked)))
    assert found != read(build.assemble(compose([*words, f"data.queries={queries}"])))
    assert found == read(build.assemble(compose([*asked, "trainer.batch_size=17"])))
    tokens = build.assemble(compose([*asked, "trainer.batch_tokens=44"]))
    assert found == read(tokens)
    # A batch holds no more than its budget of what is trained from: substitutes count.
    for at in tokens.datamodule.plan.make_batches(0):
        plan = tokens.datamodule.make_train_batch(at, 0).plan
        assert tokens.datamodule.costs[plan.items.numpy()].sum() <= 44 or len(at) == 1


def test_cases_are_never_changed(words):
    plain, asked = (build.assemble(compose(w)).datamodule for w in (words, [*words, ALL]))
    for loader in ("val_dataloader", "test_dataloader"):
        for one, two in zip(getattr(plain, loader)(), getattr(asked, loader)(), strict=True):
            assert one.history.equal(two.history)
            assert one.query.equal(two.query)
            assert one.plan.items.equal(two.plan.items)


@pytest.mark.parametrize("by", ["co_occurrence", "text"])
def test_what_is_held_out_changes_no_history(words, by, shop, tmp_path):
    """Held-out events of other items give the same batches, substitutes included."""
    header, *events = (shop / "events.csv").read_text().splitlines()
    rows = [line.split(",") for line in events]
    for n, row in enumerate(rows):
        if n % 5 >= 3:  # the last two of each user's five
            row[1] = f"0{(n * 7) % 30:02d}"
    (tmp_path / "events.csv").write_text("\n".join([header, *(",".join(r) for r in rows)]) + "\n")
    other = [w for w in words if not w.startswith("data.source.interactions")]
    other.append(f"data.source.interactions={tmp_path / 'events.csv'}")
    asked = ["data.augment={substitute: 1, crop: .5}", f"data.augment.substitute_by={by}"]
    first, second = (build.assemble(compose([*w, *asked])) for w in (words, other))
    assert not np.array_equal(first.split.item, second.split.item)
    assert read(first) == read(second)


def test_neighbours_are_items_of_training_that_share_users_or_words(words):
    made = build.assemble(compose(words))
    split, shown = made.split, set()
    for event in np.flatnonzero(split.role == TRAIN):
        shown.add(int(split.item[event]))
    for find in (
        lambda: find_co_occurring(made.examples),
        lambda: find_text_neighbours(made.examples, made.parts.texts),
    ):
        found = find()
        assert found.shape == (30, 10)
        assert (found >= 0).any()
        for item, row in enumerate(found):
            near = row[row >= 0].tolist()
            assert item not in near
            assert len(set(near)) == len(near)
            assert set(near) <= shown
            assert item in shown or not near
    # Each user likes one colour, and rows of five items share one.
    near = find_co_occurring(made.examples)
    assert all(a // 5 == b // 5 for a, row in enumerate(near) for b in row[row >= 0])
    words_of = [set(text.split()) for text in made.parts.texts]
    text = find_text_neighbours(made.examples, made.parts.texts)
    assert all(words_of[a] & words_of[b] for a, row in enumerate(text) for b in row[row >= 0])

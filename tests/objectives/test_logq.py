"""What logQ takes for the chance of an item is how often real epochs draw it."""

import numpy as np
import polars as pl
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.examples import Examples
from recsys.data.batches.impressions import drop_lone_clicks
from recsys.data.splits.split import Split

USERS, ITEMS = 400, 40


def events():
    """Users of 3 to 30 events that begin with some items and end with others.

    So an item's share of the positives says little of how often it is a target.
    """
    rng = np.random.default_rng(0)
    sizes = rng.integers(3, 31, USERS)
    early = 1 / np.arange(1, ITEMS + 1)
    items = []
    for size in sizes:
        late = np.linspace(0, 1, size)[:, None]
        weights = early * (1 - late) + early[::-1] * late
        noise = rng.gumbel(size=(size, ITEMS))
        chosen = []
        for log_odds in np.log(weights) + noise:  # without repeats
            log_odds[chosen] = -np.inf
            chosen.append(int(log_odds.argmax()))
        items.append(chosen)
    return items


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skewed")
    bought = events()
    rows = [(f"u{u}", i, t) for u, items in enumerate(bought) for t, i in enumerate(items)]
    pl.DataFrame(rows, ["user", "item", "time"], orient="row").write_csv(folder / "events.csv")
    names = [(i, f"red {'lamp' if i % 2 else 'chair'}") for i in range(ITEMS)]
    pl.DataFrame(names, ["item", "name"], orient="row").write_csv(folder / "items.csv")
    return folder


def assembled(files, tiny_bert, *more):
    return build.assemble(
        compose(
            [
                "data.source=tables",
                f"data.source.interactions={files / 'events.csv'}",
                f"data.source.items={files / 'items.csv'}",
                "data.source.user=user",
                "data.source.item=item",
                "data.source.time=time",
                "data.source.item_text='{name}'",
                "data.split=leave_one_out",
                f"encoder.model={tiny_bert}",
                "encoder.max_length=32",
                "tuning=frozen",
                "data.max_history=8",
                "trainer.batch_size=16",
                *more,
            ]
        )
    )


QUERIES = {
    "last": ["data.queries=last"],
    "random": ["data.queries=random", "data.queries_per_user=2"],
    "all": ["data.queries=all"],
    "some_users": ["data.queries=all", "data.train_users=150"],
}


@pytest.mark.parametrize("name", QUERIES)
def test_an_item_stands_in_the_pool_as_often_as_logq_assumes(
    files, tiny_bert, tmp_path, monkeypatch, name
):
    """Counted in the batches that the loader plans."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))
    made = assembled(files, tiny_bert, *QUERIES[name])
    around = made.recommender.get_objective_context()
    found, assumed = np.zeros(ITEMS), np.zeros(ITEMS)
    every = torch.arange(ITEMS)
    for epoch in range(40 if name != "some_users" else 80):
        for at in made.datamodule.plan.make_batches(epoch):
            targets = made.examples.make_train_rows(made.datamodule.queries, at).candidates[:, 0]
            found[np.unique(targets)] += 1
            assumed += around.compute_log_inclusion(every, len(targets)).double().exp().numpy()
    often = found > 60  # else chance would decide
    assert often.sum() > ITEMS / 2
    # Draws are without replacement, and a user's targets differ: an eighth is allowed for that.
    assert np.abs(np.log(found[often] / assumed[often])).max() < np.log(1.125)
    # The share of the positives, which is what was taken before, is something else.
    _, items = made.examples.get_train_pairs()
    share = np.bincount(items, minlength=ITEMS) / len(items)
    plain = np.exp(around.log_miss.double().numpy())
    if name != "some_users":
        apart = np.abs(np.log(share[often] / (1 - plain[often]))).max()
        assert apart > np.log(1.2 if name == "random" else 1.5)


def test_negatives_by_frequency_are_drawn_as_often_as_logq_assumes(
    files, tiny_bert, tmp_path, monkeypatch
):
    """They come from all positives, whatever the targets are."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))
    more = ["objective=sampled_softmax", "objective.sampling=frequency", "objective.logq=1"]
    made = assembled(files, tiny_bert, *more, "objective.negatives=16", "data.queries=last")
    share = made.recommender.get_objective_context().log_share.double().exp().numpy()
    assert share.sum() == pytest.approx(1)
    data = made.datamodule
    found, missing = np.zeros(ITEMS), np.zeros(ITEMS)
    for epoch in range(12):
        rows = made.examples.make_train_rows("last", data.make_epoch_order(epoch))
        drawn = data.sampler.sample(rows, data.negatives, data.seed, epoch)
        found += np.bincount(drawn[drawn >= 0], minlength=ITEMS)
        # A draw of the target itself is left out.
        missing += np.bincount(rows.candidates[:, 0], minlength=ITEMS)
    possible = (
        len(made.examples.make_train_rows("last", data.make_epoch_order(0)).row) * 12 - missing
    )
    often = found > 400
    assert often.sum() > ITEMS / 2
    ratio = found[often] / (possible[often] * data.negatives * share[often])
    assert np.abs(ratio - 1).max() < 0.15


def made_split(bought, shown=False):
    """Of lists of items; with impressions of three, of which the first is clicked."""
    sizes = [len(items) for items in bought]
    offsets = np.cumsum([0, *sizes])
    item = np.concatenate(bought).astype(np.int32)
    label = np.ones(len(item), dtype=np.float32)
    places = np.concatenate([np.arange(size) for size in sizes])
    first = None
    if shown:
        label[places % 3 > 0] = 0
        first = np.arange(len(item)) - places % 3
    return Split(
        offsets=offsets,
        item=item,
        time=None,
        label=label,
        weight=label,
        role=np.zeros(len(item), dtype=np.int8),
        name="made",
        shown=first,
    )


@pytest.mark.parametrize("queries", ["last", "random", "all"])
@pytest.mark.parametrize("kind", ["liked", "labelled", "profiles", "shown", "one_user"])
def test_expected_targets_are_those_of_real_epochs(kind, queries):
    split = made_split(events(), shown=kind in ("shown", "labelled"))
    if kind == "shown":
        examples = drop_lone_clicks(Examples(split, ITEMS, 4))
    elif kind == "labelled":
        examples = Examples(split, ITEMS, 4, targets="labelled")
    elif kind == "one_user":
        examples = Examples(split, ITEMS, 4, train_users=1)
    else:
        examples = Examples(split, ITEMS, 4, profile_events=2 if kind == "profiles" else 0)
    epochs = 300 if queries == "random" else 2
    found = np.zeros(ITEMS)
    for epoch in range(epochs):
        at = examples.sample_epoch(queries, 3, seed=0, epoch=epoch)
        targets = examples.make_train_rows(queries, at).candidates[:, 0]
        found += np.bincount(targets, minlength=ITEMS)
    expected = examples.count_targets(queries, 3) * epochs
    assert expected.sum() == pytest.approx(found.sum())
    if queries == "random":
        assert np.abs(found - expected).max() < 5 * np.sqrt(expected.max())
        assert (np.abs(found - expected) <= 5 * np.sqrt(expected) + 1e-9).all()
    else:
        assert found.tolist() == expected.tolist()


def test_what_is_cold_and_popular_is_still_the_datas(files, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))
    counts = [
        assembled(files, tiny_bert, *more).recommender.parts.counts
        for more in (QUERIES["last"], QUERIES["all"])
    ]
    assert torch.equal(*counts)
    seen = [
        assembled(files, tiny_bert, *QUERIES[q]).recommender.get_objective_context().seen
        for q in QUERIES
    ]
    assert torch.equal(seen[0], seen[1])
    assert seen[0].sum() >= seen[3].sum()

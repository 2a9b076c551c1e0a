"""All that training is made of, as plain values, so that two data sets can be compared."""

import numpy as np

from recsys.data.batches.examples import Examples
from recsys.data.batches.hard_negatives import (
    HardNegatives,
    HardNegativeSampler,
    list_excluded_items,
)
from recsys.data.batches.impressions import ImpressionSampler, drop_lone_clicks
from recsys.data.batches.negatives import PoolSampler
from recsys.data.splits import methods
from recsys.errors import ConfigError

QUERIES = ("last", "random", "all")


def allowed(tables, default):
    """The splits that a data set allows, that of its source first."""
    columns = tables.interactions.columns
    # Dialogues are held out whole: where only some events may be asked for, others do not fit.
    there = {
        "leave_one_out": "is_target" not in columns,
        "time": "time" in columns,
        "given": "split" in columns,
    }
    assert there[default]
    return [default, *(name for name, able in there.items() if able and name != default)]


def split_by(tables, method):
    positive = 1 if "impression" in tables.interactions.columns else None
    return methods.make_split(tables, method, positive_from=positive)


def kinds(tables, split, profile_events=0):
    """Examples and negatives of every kind that the data and its split allow, by name."""
    size = tables.items.height
    plain = Examples(split, size, 20, profile_events=profile_events)
    drawn = PoolSampler(plain.get_pool("uniform"), split.windows)
    asked = plain.list_target_events("random")
    query, item = list_excluded_items(plain, asked)
    able = np.ones((len(asked), size), dtype=bool)
    able[query, item] = False
    # What a miner that likes the items in their order would find.
    best = np.where(able, np.arange(size), -1)[:, ::-1].astype(np.int32)
    hard = HardNegativeSampler(drawn, HardNegatives(asked, best), 0.5, split.windows)
    out = {"plain": (plain, drawn), "hard": (plain, hard)}
    if split.shown is not None:
        try:
            out["shown"] = drop_lone_clicks(plain), ImpressionSampler(split)
        except ConfigError:
            assert split.name.startswith("leave_one_out")  # which cuts impressions
    return out


def trained(tables, split, profile_events=0, draws=True):
    """What each kind of examples gives training, with ids in the place of row numbers.

    Args:
        draws: Also the negatives, whose seeds hold the numbers of events.
    """
    ids, users = (np.array([*tables[key], "-"]) for tables, key in _ids(tables))
    out = {}
    for kind, (examples, sampler) in kinds(tables, split, profile_events).items():
        counts = examples.count_train_items()
        out[kind, "counts"] = {ids[row]: int(counts[row]) for row in np.flatnonzero(counts)}
        who, what = examples.get_train_pairs()
        out[kind, "pairs"] = list(zip(users[who].tolist(), ids[what].tolist(), strict=True))
        out[kind, "weights"] = examples.get_train_weights().tolist()
        for name in ("uniform", "frequency"):
            out[kind, name] = sorted(ids[examples.get_pool(name)].tolist())
        for queries in QUERIES:
            for epoch in range(3):
                at = examples.sample_epoch(queries, 3, seed=0, epoch=epoch)
                rows = examples.make_train_rows(queries, at)
                drawn = sampler.sample(rows, 4, seed=0, epoch=epoch)
                sizes = np.ones(tables.items.height, dtype=np.int64)
                batch = examples.make_batch(rows, sizes, drawn if draws else None)
                plan = np.append(batch.plan.items.numpy(), -1)
                out[kind, queries, epoch] = [
                    ids[plan[batch.candidates]].tolist(),
                    ids[plan[batch.history]].tolist(),
                    batch.query.tolist(),
                    users[batch.users].tolist(),
                ]
    return out


def _ids(tables):
    return (tables.items, "item"), (tables.users, "user")

"""What the files tell of held-out events reaches no text, count or example of training.

Sources make texts of events (a product has the description of its first sale), parts of rows, and
catalogs of both. So the files are written again, with held-out events that are other ones, none, or
more, and read again: for every source.
"""

import dataclasses
import pkgutil

import numpy as np
import pytest

from recsys.data import sources
from recsys.data.batches.examples import TRAIN
from recsys.data.reviews import add_reviews
from recsys.data.splits.methods import collect_events
from recsys.data.splits.split import TEST
from tests.data.batches.training import allowed, split_by, trained
from tests.data.samples import MAKERS, USERS, Story, make

READ = 2  # reviews of a user that its profile is made of
EVERY = pytest.mark.parametrize("source", list(MAKERS))
# Parts that a file gives: how many events of each user train, the history of MIND's included.
GIVEN = {
    "rows": [3] * 6,
    "redial": [5, 5, 5, 5, 0, 0],
    "dialogues": [5, 5, 5, 5, 0, 0],
    "mind": [10, 10, 10, 8, 8, 8],
}

# Who first sold or named an item describes it: without times, that may be someone's last event.
NAMED_BY_EVENTS = ("online_retail", "redial")
WHOLE = ("dialogues",)  # held out whole, and never by turn


def number(user):
    return int("".join(c for c in user if c.isdigit()))


def turn(source, user, events):
    """The day of a user on which its event of that number falls."""
    if source == "mind":  # two clicks of a history, then a click and another item a day
        return 1 + (events - 2) // 2
    return events if source in ("redial", "dialogues") else 5 * events + user


def train_sizes(tables, split):
    """How many events of each user train."""
    counts = np.bincount(
        split.compute_user_rows()[split.role == TRAIN], minlength=tables.users.height
    )
    return {number(u): n for u, n in zip(tables.users["user"], counts.tolist(), strict=True)}


def learned(tables, split, draws):
    """Examples, texts of their items, and texts of the users that train."""
    out = trained(tables, split, draws=draws)
    seen = out["plain", "counts"]
    out["items"] = [row for row in tables.items.select("item", "text").rows() if row[0] in seen]
    train = np.unique(split.compute_user_rows()[split.role == TRAIN]).tolist()
    out["users"] = tables.users[train].select("user", "text").rows()
    if "review" in tables.interactions.columns:
        read = add_reviews(tables, split, READ)
        out["readers"] = read.users[train].select("user", "text").rows()
        out["read"] = trained(read, split, READ, draws=draws)
    return out


@EVERY
def test_other_files_of_the_held_out_change_nothing_in_training(source, tmp_path):
    module, config = make(source, tmp_path / "first", Story(by_time=True))
    tables = module.load(config)
    for method in allowed(tables, config.default_split):
        if method == "leave_one_out" and source in (*NAMED_BY_EVENTS, *WHOLE):
            continue
        before = split_by(tables, method)
        train = train_sizes(tables, before)
        if method == "given":
            assert train == dict(enumerate(GIVEN[source]))
        turns = {user: turn(source, user, n) for user, n in train.items()}
        for how in ("other", "more", "fewer"):
            if how == "fewer" and source in ("mind", "redial", "dialogues"):
                continue  # without a part the last of training stand in for it
            module, config = make(source, tmp_path / method / how, Story(turns, how, by_time=True))
            changed = module.load(config)
            assert not changed.interactions.equals(tables.interactions)
            if how == "other":
                after = split_by(changed, method)
                assert train_sizes(changed, after) == train
            else:
                after = cut(changed, before, train)
            # Seeds of draws hold the numbers of events.
            draws = how == "other"
            want, got = learned(tables, before, draws), learned(changed, after, draws)
            assert got.keys() == want.keys()
            for what in want:
                assert got[what] == want[what], (method, how, what)


def cut(tables, like, train):
    """A split in which the first events of each user train, as many as in another."""
    split = collect_events(tables)
    user = split.compute_user_rows()
    place = np.arange(len(user)) - split.offsets[user]
    size = np.array([train[number(name)] for name in tables.users["user"]])
    role = np.where(place < size[user], TRAIN, TEST).astype(np.int8)
    label = split.label
    if "impression" in tables.interactions.columns:
        label = tables.interactions["rating"].to_numpy()[split.row].astype(np.float32)
    return dataclasses.replace(split, role=role, label=label, name=like.name)


def test_every_source_has_a_sample(tmp_path):
    made = {make(name, tmp_path)[0].__name__.rpartition(".")[2] for name in MAKERS}
    assert made == {module.name for module in pkgutil.iter_modules(sources.__path__)}


def test_the_stories_differ_after_the_turn_only():
    turns = dict.fromkeys(range(USERS), 15)
    past = [e for e in Story(by_time=True).events() if e[2] < 15]
    for how in ("other", "more", "fewer"):
        told = Story(turns, how, by_time=True).events()
        assert [e for e in told if e[2] < 15] == past
        assert told != Story(by_time=True).events()
        assert any("held out" in e[3] for e in told) == (how != "fewer")

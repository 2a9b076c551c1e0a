"""Which events training predicts, and how many users and events that leaves out."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from recsys.data.columns.arrays import Ints
from recsys.data.splits.split import TRAIN, Split

Flags = npt.NDArray[np.bool_]
Targets = Literal["liked", "labelled"]


def select_targets(
    split: Split,
    predictable: Flags,
    targets: Targets,
    profile_events: int,
    repeated: Flags | None = None,
) -> tuple[Flags, tuple[str, ...]]:
    """What training predicts.

    Args:
        split: The events.
        predictable: (N,) whether there is something that each event can be predicted from.
        targets: Liked events, or every event with its own label, which may rest on the item alone.
        profile_events: First events of a user that are in the user's text, and so no targets.
        repeated: (N,) events that are no targets as the user had their items before; None: none.

    Returns:
        Whether each event is a target (N,), and notes for the log on what that leaves out.
    """
    user, part = split.compute_user_rows(), (split.role == TRAIN) & split.is_target()
    if targets == "liked":
        part &= split.label > 0
    said: tuple[str, ...] = ()
    if repeated is not None and (again := int((part & repeated).sum())):
        said += (
            f"training: {again} of {int(part.sum())} events are with items that their users had "
            "before, and no targets (evaluation.repeated=apart).",
        )
        part &= ~repeated
    late = split.compute_history_starts() - split.offsets[user] >= profile_events
    able = part & late if targets == "labelled" else part & late & predictable
    if early := int((part & ~late).sum()):
        said += (f"training: {early} first events of users are in their texts, and no targets.",)
    if bare := int((part & late & ~able).sum()):
        said += (
            f"training: {bare} of {int(part.sum())} liked events are no targets, as nothing comes "
            "before them that they could be predicted from.",
        )
    users = len(split.offsets) - 1
    has, trains = (np.bincount(user[x], minlength=users) > 0 for x in (part, able))
    if without := int((has & ~trains).sum()):
        said += (f"training: {without} of {int(has.sum())} users do not train for that.",)
    return able, said


def describe_unpredictable(predictable: Flags, at: Ints, part: str, answer: str) -> tuple[str, ...]:
    """A note on the cases that have nothing to be predicted from; empty where there are none.

    Args:
        predictable: As for `select_targets`.
        at: (n,) events of the cases.
        part: What they are called.
        answer: What ranks for them.
    """
    bare = int((~predictable[at]).sum())
    if not bare:
        return ()
    return (f"{part}: {bare} of {len(at)} cases have nothing before them: {answer}.",)

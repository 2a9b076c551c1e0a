"""Settings that change nothing in a run, or let nothing change, and why."""

from __future__ import annotations

import dataclasses

from recsys.config.compose import RunConfig

KEYS = (
    "optimizer.encoder_lr",
    "optimizer.table_lr",
    "regularization.dropout",
    "data.queries_per_user",
)
"""Shared keys that mean something for some methods only."""


def explain_inactivity(run: RunConfig, key: str) -> str:
    """Why a shared key changes nothing in a run's training; empty where it does."""
    moves, rates = "nothing" if run.tuning is None else run.tuning.moves, run.optimizer
    if key == "optimizer.encoder_lr" and moves != "encoder":
        return "no pretrained weight trains"
    if key == "optimizer.table_lr" and run.trainer.encoder_updates == "every_step":
        return "there is no item table"
    if key == "regularization.dropout" and moves == "nothing":
        return "no layer of the encoder trains"
    own = moves == "tuned" or (moves == "encoder" and rates.encoder_lr is None)
    if key == "optimizer.lr" and not own and rates.head_lr is not None:
        return "encoder and heads have rates of their own"
    if key == "data.queries_per_user" and run.data.queries != "random":
        return f"data.queries is {run.data.queries}"
    texts = key in ("data.augment.drop_words", "data.augment.drop_fields")
    if texts and moves == "nothing" and run.encoder.cache:
        return "what a frozen encoder gives of whole texts is kept (encoder.cache=true)"
    return ""


def find_inactive_settings(run: RunConfig) -> list[str]:
    """A sentence for each key that was set and changes nothing, and for each rate of 0."""
    if not run.architecture.trains:  # then all keys of training are refused
        return []
    found = []
    for key in KEYS:
        group, _, name = key.partition(".")
        options = getattr(run, group)
        (field,) = (f for f in dataclasses.fields(options) if f.name == name)
        why = explain_inactivity(run, key)
        if why and getattr(options, name) != field.default:
            found.append(f"{key} changes nothing: {why}.")
    augment = run.data.augment
    # No reason against searching it: what is searched beside it may be the share.
    if not augment.substitute and augment.substitute_by != type(augment)().substitute_by:
        found.append("data.augment.substitute_by changes nothing: data.augment.substitute is 0.")
    return [*found, *_find_zero_rates(run)]


def _find_zero_rates(run: RunConfig) -> list[str]:
    """A sentence for each learning rate of 0, which trains nothing and looks like a bad method."""
    moves, rates = "nothing" if run.tuning is None else run.tuning.moves, run.optimizer
    used = []  # what trains, the key of its rate, and the rate
    if moves == "encoder" and rates.encoder_lr is not None:
        used.append(("pretrained weights", "optimizer.encoder_lr", rates.encoder_lr))
    elif moves != "nothing":
        what = "pretrained weights" if moves == "encoder" else "tuned parameters"
        used.append((what, "optimizer.lr", rates.lr))
    if rates.head_lr is None:
        used.append(("heads", "optimizer.lr", rates.lr))
    else:
        used.append(("heads", "optimizer.head_lr", rates.head_lr))
    if run.trainer.encoder_updates != "every_step":
        used.append(("vectors of the item table", "optimizer.table_lr", rates.table_lr))
    still: dict[str, list[str]] = {}
    for what, key, rate in used:
        if rate == 0 and run.trainer.max_steps != 0:
            still.setdefault(key, []).append(what)
    return [
        f"{key} is 0: {' and '.join(whats)} stay as they are at the start."
        for key, whats in still.items()
    ]

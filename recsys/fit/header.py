"""What a run says of itself: a header, and a line a validation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from recsys.assembly.assembled import Assembly
from recsys.config.compose import RunConfig
from recsys.data.splits.split import TEST, VAL
from recsys.evaluation.evaluator import SEVERAL
from recsys.runtime.progress import format_duration


def describe_run(run: RunConfig, made: Assembly) -> list[str]:
    """What a run is made of: data, device and what trains.

    Args:
        run: Its configuration, every `auto` decided.
        made: What was made of it.
    """
    model, options = made.recommender, run.trainer
    users, items = made.tables.users.height, made.tables.items.height
    active = int((np.diff(made.split.offsets) > 0).sum())
    known = f"{users:,} users" + (f" ({active:,} with events)" if active < users else "")
    events = f"{known}, {items:,} items, {len(made.split.item):,} events"
    cases = [_describe_cases(run, made, VAL, "validation")]
    if run.evaluation.test:
        cases.append(_describe_cases(run, made, TEST, "test"))
    every, count = model.count_parameters()
    trains = "nothing trains"
    if count and options.max_steps != 0:
        trains = f"{count:,} of {every:,} parameters train ({count / every:.2%})"
    several = f"{options.devices} x " if options.processes > 1 else ""
    if options.nodes > 1:
        several = f"{options.nodes} nodes x {several}"
    return [
        f"data: {events}; {made.split.name.partition('(')[0]}: {', '.join(cases)}",
        f"on: {several}{options.accelerator}, {options.precision}; {trains}",
    ]


def _describe_cases(run: RunConfig, made: Assembly, role: int, name: str) -> str:
    """How many cases a part has, and how many of them ask for a cold item."""
    at = made.datamodule.list_case_events(role)
    if run.evaluation.protocol in SEVERAL:  # a case has no single target
        return f"{len(at):,} {name} cases"
    cold = int((made.examples.count_train_items()[made.split.item[at]] == 0).sum())
    return f"{len(at):,} {name} cases ({cold:,} cold)"


def format_validation(
    at: str, monitor: str, metrics: Mapping[str, float], best: bool, left: float | None
) -> str:
    """What a validation found, in percent; cold items beside the total where there are any.

    Args:
        at: Where in the training it is, as in "epoch 2/5".
        monitor: The metric that decides.
        metrics: Of the validation.
        best: Whether it is the best of several.
        left: Seconds to the result, if that is known.
    """
    parts = [at, f"val {monitor} {100 * metrics[monitor]:.2f}{' (best)' if best else ''}"]
    cold = metrics[f"cold/{monitor.rpartition('/')[2]}"]
    if not math.isnan(cold):
        parts.append(f"cold {100 * cold:.2f}")
    if left is not None:
        parts.append(f"left {format_duration(left)}")
    return "  ".join(parts)

"""What the reader of a closing table should not miss: sentences under it, and in `result.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from recsys.assembly.protocols import REVERSED
from recsys.config.compose import RunConfig
from recsys.runs.validation_log import ValidationRecord


def describe_shortfalls(
    monitor: str,
    test: Mapping[str, float],
    floors: Mapping[str, Mapping[str, float]],
    start: str,
    cases: pl.DataFrame,
) -> list[str]:
    """Where a run is below its own start or below a baseline, in total and for cold items.

    Args:
        monitor: The metric to judge by.
        test: Test metrics of the run.
        floors: Those of the baselines and of the start.
        start: Name of the start among them.
        cases: A row a test case.
    """
    cold = int(cases["cold"].sum())
    said = []
    for name, of in ((monitor, ""), (f"cold/{monitor}", f" for the {cold:,} cold test cases")):
        own = test[name]
        above = {
            f"its own start ({floor})" if floor == start else floor: value[name]
            for floor, value in floors.items()
            # No one wants the rarest items first; a figure without a value is above nothing.
            if floor != REVERSED and value[name] - own > 1e-9
        }
        if above:
            listed = ", ".join(f"{floor} {100 * value:.2f}" for floor, value in above.items())
            said.append(f"caution: {monitor} of {100 * own:.2f}{of} is below {listed}.")
    return said


def describe_training(run: RunConfig, lines: Sequence[ValidationRecord]) -> list[str]:
    """Whether training helped, and whether it should have gone on.

    Args:
        run: The configuration.
        lines: The validations, that before the first step included.
    """
    if len(lines) < 2:
        return []
    values, options = [line.value for line in lines], run.trainer
    if values[-1] > max(values[:-1]):
        longer = f"trainer.epochs={2 * options.epochs}"
        if options.max_steps is not None:
            longer = f"trainer.max_steps={2 * options.max_steps}"
        return [f"still rising at the last validation: train longer ({longer})."]
    if run.checkpoint.pick == "best" and values[0] >= max(values[1:]):
        return ["the best validation was before the first step: training did not help."]
    return []

"""What methods are beside accuracy: variety, novelty, popularity and calibration of their lists."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.compare.finished_runs import FinishedRun

TITLES = {
    "coverage": "coverage",
    "gini": "Gini",
    "novelty": "novelty, bits",
    "popularity": "popularity, events",
    "popularity_lift": "popularity lift",
    "diversity": "diversity",
    "calibration": "calibration, nats",
}
"""Head of the column of each measure."""


def list_measures(runs: Sequence[FinishedRun]) -> list[str]:
    """The measures that any run has, as `coverage@10`, in the order of `result.json`."""
    found = (name for run in runs for name in run.result.get("beyond") or {} if "@" in name)
    return list(dict.fromkeys(found))


def find_measure(run: FinishedRun, name: str) -> float | None:
    """A measure of a run; None where it did not look, or the measure is not defined."""
    value = (run.result.get("beyond") or {}).get(name)
    return None if value is None or value != value else float(value)


def select_at_cutoff(known: Sequence[str], metric: str) -> list[str]:
    """The measures to show: those at the cut-off of a metric, else at the first that is there."""
    cut = metric.partition("@")[2]
    cuts = [name.partition("@")[2] for name in known]
    chosen = cut if cut in cuts else next(iter(cuts), "")
    return [name for name in known if name.partition("@")[2] == chosen]


def collect_notes(runs: Sequence[FinishedRun]) -> list[str]:
    """That calibration is by other columns in some runs, so that it says nothing of the methods."""
    there = [run for run in runs if any(n.startswith("calibration@") for n in list_measures([run]))]
    columns = {str(run.config["evaluation"]["category"]) for run in there}
    if len(columns) < 2:
        return []
    return [f"Calibration may not be compared: it is by {', '.join(sorted(columns))}."]

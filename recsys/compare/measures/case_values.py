"""The value of a metric for each case of a run, from what its row says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.compare.finished_runs import FinishedRun
from recsys.compare.methods import Method
from recsys.config.compose import nearest
from recsys.errors import ConfigError, DataError
from recsys.metrics.names import REPEATED, list_metric_names
from recsys.words import parse_count

Array = NDArray[np.float64]

TOLERANCE = 1e-5
"""Largest difference between a mean over rows and the run's own figure: single precision."""


def find_prefix(run: FinishedRun) -> str:
    """What stands before each metric where it is no plain one, as in `sampled100-ndcg@10`."""
    names = [name for name in run.result["test"] if name.endswith("mrr") and "/" not in name]
    return names[0].removesuffix("mrr") if names else ""


def has_single_positives(run: FinishedRun) -> bool:
    """Whether each case has one positive, so that its rank tells every metric."""
    return bool((run.cases["positives"] == 1).all())


def check_metric(metric: str, runs: Sequence[FinishedRun]) -> None:
    """Refuses a metric that cannot be had case by case.

    Raises:
        ConfigError: It has no such name, or the rows do not tell it.
    """
    before = find_prefix(runs[0])
    k = metric.partition("@")[2]
    known = list_metric_names([parse_count(k, least=1) or 10])
    named = [f"{before}{name}" for name in known]
    if before and metric in known:
        raise ConfigError(
            f"metric: the metrics of these runs are called {before}..., which {metric} does not "
            f"say; set metric={before}{metric}."
        )
    apart = metric.removeprefix(f"{REPEATED}/")
    if apart != metric:
        raise ConfigError(
            f"metric: {metric} is of cases that are counted apart, which compare does not test; "
            f"set metric={apart}, and read the others in each run's result.json."
        )
    if metric not in named:
        raise ConfigError(
            f"metric: '{metric}' is not a metric of these runs.{nearest(metric, named)}"
        )
    for run in runs:
        if not has_per_case(run, metric):
            if metric.removeprefix(before) == "auc":
                why, there = "no AUC is kept", [f"{before}ndcg@10"]
            else:
                why = "cases have several positives, and this cut-off is not kept"
                there = [f"{before}{name}" for name in run.cases.columns if name in _KEPT]
                there += [f"{before}{name}" for name in run.cases.columns if "@" in name]
            raise ConfigError(
                f"{run.folder}: {metric} cannot be told case by case ({why}); set metric= to one "
                f"of {', '.join(there) or 'none'}."
            )


_KEPT = ("auc", "mrr", "mrr_all")


def choose_default_metric(runs: Sequence[FinishedRun]) -> str:
    """ndcg@10, or auc where the rows do not tell that."""
    name = f"{find_prefix(runs[0])}ndcg@10"
    return name if all(has_per_case(run, name) for run in runs) else "auc"


def has_per_case(run: FinishedRun, metric: str) -> bool:
    """Whether the rows of a run tell a metric case by case.

    They do not where no AUC was kept, and where cases have several positives, of which a row
    knows the first one's rank only, unless it keeps the metric itself.

    Args:
        run: The run.
        metric: As `compute_per_case` takes it.
    """
    name = metric.removeprefix(find_prefix(run))
    return name in run.cases.columns or (name != "auc" and has_single_positives(run))


def compute_per_case(run: FinishedRun, metric: str) -> Array | None:
    """(N,) float64 values in the order of the cases, NaN where undefined.

    Args:
        run: The run.
        metric: A name as `recsys.metrics.functional.list_metric_names` gives them, after the run's
            `find_prefix`.

    Returns:
        None where the rows do not tell the metric.
    """
    if not has_per_case(run, metric):
        return None
    import torch

    from recsys.metrics.functional import compute_from_counts

    name = metric.removeprefix(find_prefix(run))
    if name in run.cases.columns:
        return run.cases[name].to_numpy().astype(np.float64)
    k = name.partition("@")[2]
    above = torch.from_numpy(run.cases["rank"].to_numpy().astype(np.int64) - 1)
    equal = torch.from_numpy(run.cases["ties"].to_numpy().astype(np.int64))
    found: Array = compute_from_counts(above, equal, [int(k) if k else 10])[name].numpy()
    return found


def stack_per_case(method: Method, metric: str) -> Array:
    """(S, N) values of a method's runs, a row a seed.

    Raises:
        DataError: The rows of a run do not give the figure of its `result.json`.
    """
    rows = []
    for run in method.runs:
        values = compute_per_case(run, metric)
        if values is None:
            raise ValueError(f"{metric} was not checked")
        said = run.result["test"].get(metric)
        if said is not None and abs(np.nanmean(values) - said) > TOLERANCE:
            raise DataError(
                f"{run.folder}: cases.parquet gives {metric} = {np.nanmean(values):.6f}, and "
                f"result.json says {said:.6f}; the files are not of one run, run fit again."
            )
        rows.append(values)
    return np.stack(rows)


def compute_mean(run: FinishedRun, name: str) -> float | None:
    """The mean of a metric over a run's cases, or over its warm or cold ones.

    From the rows, in double precision; where they do not tell it, from `result.json`.

    Args:
        run: The run.
        name: A metric, or `warm/` or `cold/` and a metric.

    Returns:
        None where neither file has it, or no case counts.
    """
    part, _, metric = name.rpartition("/")
    values = compute_per_case(run, metric)
    if values is None:
        said = run.result["test"].get(name)
        return None if said is None or np.isnan(said) else float(said)
    if part:
        cold = run.cases["cold"].to_numpy()
        values = values[cold if part == "cold" else ~cold]
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def make_clusters(run: FinishedRun) -> NDArray[np.int64]:
    """(N,) a number a user, in the order of the cases."""
    users = run.cases["user"].cast(str).to_numpy()
    found: NDArray[np.int64] = np.unique(users, return_inverse=True)[1].astype(np.int64)
    return found

"""The old run and the new one on the same later cases, and whether the new one is not worse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from recsys.compare.finished_runs import read_run
from recsys.compare.measures.case_values import check_metric, compute_per_case, make_clusters
from recsys.config.compose import RunConfig
from recsys.errors import DataError

if TYPE_CHECKING:
    from recsys.assembly.assembled import Assembly
    from recsys.types import Batch

LEVEL = 0.95
LEAST_USERS = 20
"""Below it an interval says too little to decide by."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison of two runs on later cases found; metrics are shares of 1.

    Attributes:
        metric: What was compared.
        old: The old run's mean.
        new: The new run's mean.
        difference: New minus old.
        low: Lower end of its interval over users.
        high: Upper end.
        level: Coverage of the interval.
        margin: How much worse still counts as not worse.
        cases: Cases.
        users: Users among them.
        promoted: Whether the new run is not worse: the interval lies above minus the margin.
    """

    metric: str
    old: float
    new: float
    difference: float
    low: float
    high: float
    level: float
    margin: float
    cases: int
    users: int
    promoted: bool

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def evaluate_old(config: RunConfig, folder: Path) -> tuple[dict[str, float], pl.DataFrame]:
    """Tests a finished run on the test part of other data, with what it had learned.

    Args:
        config: Its configuration, with the data.
        folder: Of the run.

    Returns:
        Its metrics and a row a case.

    Raises:
        ConfigError: A file of the run is missing or does not fit.
    """
    import torch

    from recsys.assembly import build
    from recsys.assembly.device import select_device
    from recsys.assembly.stored_runs import drop_hard_negatives, restore
    from recsys.fit.command import silence_libraries
    from recsys.recommender.trainable import require_trainable
    from recsys.runs.results import make_cases_frame
    from recsys.runtime.files import BEST

    if config.architecture.loads_models:
        silence_libraries()
    made = build.assemble(drop_hard_negatives(config))
    model = made.recommender
    if config.architecture.trains and config.architecture.learns_rows:
        require_trainable(model).load_trained(folder / BEST, grown=True)
    else:
        restore(model, config, folder)
    device = select_device(config) or torch.device("cpu")
    with torch.no_grad():
        metrics = model.to(device).evaluate(_load_test(made, device))
    return metrics, make_cases_frame(model.evaluator.rows, made.tables)


def _load_test(made: Assembly, device: object) -> Iterator[Batch]:
    """The test's batches on a device."""
    import torch

    assert isinstance(device, torch.device)
    for batch in made.datamodule.test_dataloader():
        yield batch.to(device)


def judge(
    new: Path, metrics: Mapping[str, float], cases: pl.DataFrame, metric: str, margin: float
) -> Verdict:
    """Compares a finished run with another one's cases.

    Args:
        new: Folder of the new run.
        metrics: The old run's test metrics on its cases.
        cases: The old run's rows.
        metric: What to compare.
        margin: How much worse still counts as not worse, as a share of 1.

    Raises:
        ConfigError: The metric cannot be told case by case.
        DataError: The cases differ.
    """
    from recsys.compare.statistics.contrasts import compute_contrast

    ours = read_run(new)
    theirs = replace(ours, cases=cases, result={**ours.result, "test": dict(metrics)})
    if not ours.cases.select("user", "target").equals(cases.select("user", "target")):
        raise DataError(f"{new}: its test has other cases than that of the old run; refresh again.")
    check_metric(metric, [ours, theirs])
    a, b = compute_per_case(ours, metric), compute_per_case(theirs, metric)
    assert a is not None
    assert b is not None
    clusters = make_clusters(ours)
    contrast = compute_contrast(a[None], b[None], clusters, level=LEVEL)
    enough = contrast.clusters >= LEAST_USERS
    return Verdict(
        metric,
        float(metrics[metric]),
        float(ours.result["test"][metric]),
        contrast.difference,
        contrast.low,
        contrast.high,
        LEVEL,
        margin,
        contrast.cases,
        contrast.clusters,
        enough and contrast.low >= -margin,
    )

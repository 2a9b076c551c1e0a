"""Makes a comparison of methods: differences, slices, users and curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from recsys.compare.finished_runs import FinishedRun
from recsys.compare.measures import beyond_accuracy
from recsys.compare.measures import slices as slicing
from recsys.compare.measures.case_values import compute_mean
from recsys.compare.measures.cost import CostBasis, choose_basis, compute_costs, find_unlike
from recsys.compare.measures.users import compare_users
from recsys.compare.methods import Method, choose_method
from recsys.compare.outcome import (
    BaselineDifference,
    Comparison,
    ComparisonSettings,
    LearningCurve,
    MeanStd,
    MethodRow,
    SliceResult,
)
from recsys.compare.paired import LEAST_BEYOND, MOST_DRAWS, PairedStatistics
from recsys.compare.statistics.contrasts import adjust_holm
from recsys.config.schema import EvaluationOptions
from recsys.runs import display
from recsys.runtime.files import METRICS


def compare_methods(found: Sequence[Method], question: ComparisonSettings) -> Comparison:
    """Compares methods.

    Args:
        found: Methods whose runs may be compared.
        question: What is asked; its metric was checked.

    Raises:
        ConfigError: The baseline or a slice is unknown.
        DataError: Files of a run do not belong together.
    """
    base = choose_method(question.baseline, found)
    runs = [run for method in found for run in method.runs]
    # Those of the closing table, at the cut-off in question: auc and MIND's where there are lists.
    options = EvaluationOptions(**runs[0].config["evaluation"])
    columns = display.list_columns(replace(options, monitor=question.metric))
    statistics = PairedStatistics(found, question)
    differences = _compute_differences(found, base, statistics)
    curve_metric, curves = _read_curves(found, question.metric)
    measures = beyond_accuracy.list_measures(runs)
    rows = [_make_row(method, columns, measures, statistics) for method in found]
    unlike, by = find_unlike(found), choose_basis(found)
    return Comparison(
        question=question,
        held=_collect_shared(runs),
        columns=columns,
        rows=[*rows, *_make_baseline_rows(found, rows, columns)],
        differences=differences,
        parts=_compute_slices(found, base, statistics, question.slices),
        users=compare_users(found, base, statistics.values, statistics.clusters),
        curve_metric=curve_metric,
        curves=curves,
        basis=by,
        front=_select_front(rows, question.metric, by.key),
        front_kept=_select_kept_front(rows, question.metric, by),
        unlike=unlike,
        notes=_collect_notes(found, question, unlike, by),
    )


def _make_row(
    method: Method, columns: Sequence[str], measures: Sequence[str], statistics: PairedStatistics
) -> MethodRow:
    """A method with its figures."""
    return MethodRow(
        label=method.label,
        seeds=method.seeds,
        runs=[run.folder.name for run in method.runs],
        trains=method.trains,
        metrics={
            name: _compute_spread([compute_mean(run, name) for run in method.runs])
            for name in columns
        },
        interval=statistics.estimate_mean(method.label),
        cost=compute_costs(method),
        beyond={
            name: _compute_spread([beyond_accuracy.find_measure(run, name) for run in method.runs])
            for name in measures
        },
    )


def _compute_spread(figures: Sequence[float | None]) -> MeanStd | None:
    """Over runs; None where one of them has no figure."""
    values = [figure for figure in figures if figure is not None]
    if len(values) < len(figures) or not values:
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return MeanStd(float(np.mean(values)), deviation)


def _make_baseline_rows(
    found: Sequence[Method], rows: Sequence[MethodRow], columns: Sequence[str]
) -> list[MethodRow]:
    """What runs measured on the way, where no run of its own tells more; equals once."""
    own = [[row.metrics[column] for column in columns] for row in rows if not row.trains]
    same: dict[tuple[object, ...], tuple[str, list[Mapping[str, float]], list[str]]] = {}
    for method in found:
        for name in method.runs[0].result["floors"]:
            taken = [run.result["floors"].get(name, {}) for run in method.runs]
            means = [
                _compute_spread([_find_figure(each, column) for each in taken])
                for column in columns
            ]
            # Sums in another order, as with other batches, differ in the last digits.
            key = (name, *(None if m is None else round(m.mean, 8) for m in means))
            if not any(_has_same_means(means, other) for other in own):
                _, figures, labels = same.setdefault(key, (name, [], []))
                figures += taken
                labels.append(method.label)
    names = [name for name, _, _ in same.values()] + [row.label for row in rows]
    return [
        MethodRow(
            label=name if names.count(name) == 1 else f"{name} of {_format_labels(labels)}",
            seeds=[],
            runs=[],
            trains=False,
            metrics={
                column: _compute_spread([_find_figure(each, column) for each in figures])
                for column in columns
            },
            interval=None,
            cost={},
            floor=True,
        )
        for name, figures, labels in same.values()
    ]


def _has_same_means(floor: Sequence[MeanStd | None], own: Sequence[MeanStd | None]) -> bool:
    """Whether a row has all means of a floor, up to the order of their sums.

    A floor lacks what its run did not compute, as another cut-off.
    """
    return all(
        a is None or (b is not None and abs(a.mean - b.mean) < 1e-7)
        for a, b in zip(floor, own, strict=True)
    )


def _format_labels(labels: Sequence[str]) -> str:
    """The first of some methods, which stands in no other group, and how many more there are."""
    return labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} more"


def _find_figure(metrics: Mapping[str, float], name: str) -> float | None:
    value = metrics.get(name)
    return None if value is None or value != value else float(value)


def _compute_differences(
    found: Sequence[Method], base: Method, statistics: PairedStatistics
) -> list[BaselineDifference]:
    """Every method against the baseline, corrected within the family."""
    others = [method.label for method in found if method is not base]
    contrasts = [statistics.compute_contrast(label, base.label) for label in others]
    corrected = adjust_holm([c.p for c in contrasts])
    tests = [c.equivalent for c in contrasts if c.equivalent is not None]
    equivalent: list[float | None] = list(adjust_holm(tests)) if tests else [None] * len(others)
    return [
        BaselineDifference(label, c, p, e)
        for label, c, p, e in zip(others, contrasts, corrected, equivalent, strict=True)
    ]


def _compute_slices(
    found: Sequence[Method], base: Method, statistics: PairedStatistics, asked: Sequence[str] | None
) -> list[SliceResult]:
    """Slices by what any run knows of the cases, which are the same in all."""
    out = []
    for column, frame in slicing.select_columns([run for m in found for run in m.runs], asked):
        cut = slicing.slice_cases(frame, column)
        if asked is None and len(cut) == 1:
            continue  # nobody asked for it, and it is the whole once more
        for part in cut:
            rows = [
                statistics.make_slice_row(method.label, base.label, part.mask) for method in found
            ]
            known = [row for row in rows if row is not None]
            if len(known) == len(rows):
                out.append(SliceResult(column, part.label, int(part.mask.sum()), known))
    return out


def _collect_shared(runs: Sequence[FinishedRun]) -> dict[str, object]:
    """What all runs have in common."""
    first = runs[0]
    out: dict[str, object] = {
        "data": first.result["data"]["fingerprint"],
        "split": first.result["data"]["split"],
        "protocol": first.result["protocol"]["name"],
        "mask_history": first.result["protocol"]["mask_history"],
        "catalog": first.result["protocol"]["catalog"],
        "cases": len(first.cases),
        "users": first.cases["user"].n_unique(),
        "cold cases": int(first.cases["cold"].sum()),
    }
    for name in ("candidates", "candidates_from", "inserted", "missed", "list_recall"):
        if name in first.result["protocol"]:
            out[name] = first.result["protocol"][name]
    return out


def _read_curves(found: Sequence[Method], metric: str) -> tuple[str, list[LearningCurve]]:
    """The metric along each training, else the one that picked the checkpoints of all."""
    logs = [
        (method.label, run.seed, _read_log(run)) for method in found if method.trains
        for run in method.runs
    ]  # fmt: skip
    monitors = {
        str(run.config["evaluation"]["monitor"])
        for method in found if method.trains
        for run in method.runs
    }  # fmt: skip
    names = [metric, *(sorted(monitors) if len(monitors) == 1 else [])]
    for name in names:
        curves = [
            LearningCurve(label, seed, *_select_points(rows, f"val/{name}"))
            for label, seed, rows in logs
        ]
        if curves and all(curve.seconds for curve in curves):
            return name, curves
    return "", []


def _read_log(run: FinishedRun) -> list[dict[str, str]]:
    """The rows of a run's log; none where it has no log."""
    path = run.folder / METRICS
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _select_points(rows: Sequence[Mapping[str, str]], name: str) -> tuple[list[float], list[float]]:
    """Seconds and values of a column where both stand."""
    kept = [row for row in rows if row.get(name) and row.get("seconds")]
    return [float(row["seconds"]) for row in kept], [float(row[name]) for row in kept]


def _select_front(rows: Sequence[MethodRow], metric: str, cost_key: str) -> list[str]:
    """Methods that no other one beats or equals in both, and beats in one."""
    points = [
        (row.label, spread.mean, cost)
        for row in rows
        if (spread := row.metrics[metric]) is not None and (cost := row.cost[cost_key]) is not None
    ]
    return [
        label
        for label, value, cost in points
        if not any(v >= value and c <= cost and (v > value or c < cost) for _, v, c in points)
    ]


def _select_kept_front(rows: Sequence[MethodRow], metric: str, by: CostBasis) -> list[str]:
    """The front by the cost with what is kept between runs, where all know it."""
    if not by.kept or any(row.cost[by.kept] is None for row in rows):
        return []
    return _select_front(rows, metric, by.kept)


def _collect_notes(
    found: Sequence[Method], question: ComparisonSettings, unlike: Sequence[str], by: CostBasis
) -> list[str]:
    """What a reader should know of the circumstances."""
    runs = [run for method in found for run in method.runs]
    notes = beyond_accuracy.collect_notes(runs)
    if len(found) == 1:
        notes.append(
            f"Nothing is compared: there is one method, {found[0].label}, of {len(runs)} "
            f"run{'s' if len(runs) > 1 else ''}; name the runs of another one as well."
        )
    if len({tuple(method.seeds) for method in found if method.trains}) > 1:
        notes.append("The methods were not all run with the same seeds.")
    if any(run.result.get("code", {}).get("dirty") for run in runs):
        notes.append("Some runs were made with uncommitted changes in the code.")
    if len({run.result.get("code", {}).get("commit") for run in runs}) > 1:
        notes.append("The runs were made with different commits of the code.")
    if unlike:
        notes.append(f"Seconds may not be compared: the runs differ in {', '.join(unlike)}.")
    elif by.note:
        notes.append(by.note)
    for label, name in _list_borrowers(found):
        notes.append(
            f"{label} has one seed: its spread over seeds is taken from {name}, which need not "
            "hold for it."
        )
    if len(found) > 1 and (few := _list_two_seeds(found)):
        notes.append(
            f"Two seeds of {'; '.join(few)}: two runs may agree by chance, so that intervals are "
            "wide and little can be shown; a third seed narrows them most."
        )
    if question.slices is None and not any("popularity" in run.cases.columns for run in runs):
        notes.append("There is no slice by popularity: the runs are of an older version.")
    asked = question.alpha / max(len(found) - 1, 1)
    if asked * MOST_DRAWS < LEAST_BEYOND:
        notes.append(
            f"p is of {MOST_DRAWS:,} draws of the users and so never under {1 / MOST_DRAWS:g}; "
            f"Holm over {len(found) - 1} contrasts asks for {asked:.1g} at first: compare fewer "
            "methods, or choose a lower level."
        )
    return notes


def _list_two_seeds(found: Sequence[Method]) -> list[str]:
    """Methods that train and have two seeds."""
    return [method.label for method in found if method.trains and len(method.runs) == 2]


def _list_borrowers(found: Sequence[Method]) -> list[tuple[str, str]]:
    """Methods of one seed, and those whose spread over seeds stands in for theirs."""
    several = [method.label for method in found if method.trains and len(method.runs) > 1]
    lonely = [method.label for method in found if method.trains and len(method.runs) == 1]
    return [(label, "; ".join(several)) for label in lonely] if several else []

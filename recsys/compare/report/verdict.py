"""The first thing that a comparison says: which method, and whether it beats what needs none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recsys.compare.outcome import BaselineDifference, Comparison, MethodRow
from recsys.compare.report.sentences import format_points, is_equivalent, is_significant
from recsys.compare.short_names import shorten_label

BETTER, WORSE, APART = "better", "worse", "not told apart"


def describe_verdict(comparison: Comparison, names: Mapping[str, str] | None = None) -> str:
    """One to three sentences; differences as they are tested, baselines by the means.

    Args:
        comparison: All but its verdict.
        names: Short names of methods by their labels; None for the labels.
    """
    brief = names or {}
    parts = [_describe_contrasts(comparison, brief), _describe_baselines(comparison, brief)]
    return " ".join(part for part in parts if part)


def _describe_contrasts(comparison: Comparison, brief: Mapping[str, str]) -> str:
    """Which methods differ from the baseline of the contrasts."""
    question = comparison.question
    base = brief.get(question.baseline, question.baseline)
    if not comparison.differences:
        (row, *_) = comparison.rows
        spread = row.metrics.get(question.metric)
        value = "" if spread is None else f", {format_points(spread.mean)} {question.metric}"
        return f"One method: {brief.get(row.label, row.label)}{value}."
    if len(comparison.differences) == 1:
        return _describe_contrast(comparison, brief, base)
    groups: dict[str, list[str]] = {}
    for each in sorted(comparison.differences, key=lambda d: -d.found.difference):
        size = format_points(each.found.difference, True)
        name = f"{brief.get(each.label, each.label)} ({size})"
        groups.setdefault(_classify_difference(comparison, each), []).append(name)
    told = "; ".join(f"{finding}: {', '.join(found)}" for finding, found in groups.items())
    return f"By {question.metric}, against {base}: {told}."


def _describe_contrast(comparison: Comparison, brief: Mapping[str, str], base: str) -> str:
    """What one contrast shows."""
    (difference,) = comparison.differences
    question, finding = comparison.question, _classify_difference(comparison, difference)
    name, size = brief.get(difference.label, difference.label), difference.found.difference
    if finding in (BETTER, WORSE):
        points = format_points(abs(size))
        return f"{name} is {finding} than {base} by {points} points of {question.metric}."
    if finding == APART:
        return (
            f"{name} and {base} are not told apart ({format_points(size, True)} {question.metric})."
        )
    return f"{name} and {base} are {finding} of {question.metric} ({format_points(size, True)})."


def _classify_difference(comparison: Comparison, difference: BaselineDifference) -> str:
    if is_significant(difference, comparison.alpha):
        return BETTER if difference.found.difference > 0 else WORSE
    if is_equivalent(difference, comparison.alpha):
        margin = comparison.question.margin
        return f"within {margin:g} point{'' if margin == 1 else 's'}"
    return APART


def _join_names(names: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _describe_baselines(comparison: Comparison, brief: Mapping[str, str]) -> str:
    """Which trained methods are above the best of what does not train."""
    metric = comparison.question.metric
    trained = [
        (row, mean) for row in comparison.rows if row.trains for mean in _find_mean(row, metric)
    ]
    others = [
        (row, mean) for row in comparison.rows if not row.trains for mean in _find_mean(row, metric)
    ]
    if not trained or not others:
        return ""
    best, least = max(others, key=lambda each: each[1])
    which = f"{shorten_label(best.label, brief)} ({format_points(least)})"
    best_of = which if len(others) == 1 else f"the best baseline, {which}"
    above = [row for row, mean in trained if mean > least]
    below = [row for row, mean in trained if mean <= least]
    names = {row.label: brief.get(row.label, row.label) for row, _ in trained}
    if not below:
        who = {1: names[above[0].label], 2: "Both"}.get(len(above), f"All {len(above)}")
        text = f"{who} {'is' if len(above) == 1 else 'are'} above {best_of}, by the means"
    elif not above:
        who = {1: names[below[0].label], 2: "Neither"}.get(len(below), f"None of the {len(below)}")
        text = f"{who} is{' not' if len(below) == 1 else ''} above {best_of}, by the means"
    else:
        over, under = (_join_names([names[row.label] for row in rows]) for rows in (above, below))
        verb = "is" if len(above) == 1 else "are"
        text = f"{over} {verb} above {best_of}, by the means; {under} {_format_negation(below)}"
    close = [
        f"{names[row.label]} ({format_points(row.interval.low)} to "
        f"{format_points(row.interval.high)})"
        for row, _ in trained
        if row.interval is not None
        and row.interval.low <= least <= row.interval.high
        and not _is_tested(comparison, row, best)
    ]
    if close:
        percent, s = f"{100 * comparison.question.level:g} %", "s" if len(close) > 1 else ""
        text += (
            f". The {format_points(least)} of {shorten_label(best.label, brief)} lies within the "
            f"{percent} "
            f"interval{s} of {_join_names(close)}: not shown to differ by "
            f"{'these' if s else 'this'}"
        )
    return f"{text}."


def _is_tested(comparison: Comparison, row: MethodRow, best: MethodRow) -> bool:
    """Whether a contrast of the two, which is told before, says more than one's interval."""
    return not best.floor and comparison.question.baseline in (row.label, best.label)


def _format_negation(rows: Sequence[MethodRow]) -> str:
    return "is not" if len(rows) == 1 else "are not"


def _find_mean(row: MethodRow, metric: str) -> list[float]:
    """The mean of a row, or nothing where it has none."""
    spread = row.metrics.get(metric)
    return [] if spread is None else [spread.mean]

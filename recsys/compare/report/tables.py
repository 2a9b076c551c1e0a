"""The tables of a comparison, as texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from recsys.compare.measures import beyond_accuracy as beyond
from recsys.compare.measures.cost import COSTS, format_plain
from recsys.compare.measures.users import UserComparison
from recsys.compare.outcome import BaselineDifference, Comparison, MeanStd, MethodRow, SliceRow
from recsys.compare.report.sentences import (
    describe_test_size,
    format_p,
    format_points,
    is_equivalent,
    is_out_of_reach,
    is_significant,
)
from recsys.compare.report.table import TextTable
from recsys.compare.short_names import shorten_label

NONE = "-"


def format_spread(value: MeanStd | None, seeds: bool = True) -> str:
    """Mean and standard deviation in percent.

    Args:
        value: The figure.
        seeds: Whether it is of seeds; equal ones of floors are one figure.
    """
    if value is None:
        return NONE
    text = f"{100 * value.mean:.2f}"
    if value.deviation is None or (value.deviation < 1e-9 and not seeds):
        return text
    return f"{text} \N{PLUS-MINUS SIGN} {100 * value.deviation:.2f}"


def make_summary_table(comparison: Comparison, names: Mapping[str, str]) -> TextTable:
    """One line a method and a floor: quality, its difference and its cost.

    Args:
        comparison: What was found.
        names: Short names of the methods by their labels.
    """
    question, cost = comparison.question, comparison.basis
    found = {each.label: each for each in comparison.differences}
    metric, sampled = question.metric, _find_prefix(question.metric)
    cold = f"cold/{metric}"
    has_cold = any(row.metrics.get(cold) is not None for row in comparison.rows)
    kept = any(row.cost.get(cost.kept) is not None for row in comparison.rows if cost.kept)
    counts = {len(row.seeds) for row in comparison.rows if row.trains}
    head = ["method", *(["seeds"] if len(counts) > 1 else []), metric.replace(sampled, "")]
    head += ["cold"] if has_cold else []
    base = names.get(question.baseline, question.baseline)
    head += [f"minus {base} ({100 * question.level:g} %)", "p"] if found else []
    head += [cost.unit.replace("seconds", "s"), *(["with kept"] if kept else [])]
    rows = []
    for row in sorted(comparison.rows, key=lambda row: _make_sort_key(row, metric)):
        if row.floor and row.metrics.get(metric) is None:  # nothing to show but dashes
            continue
        line = [shorten_label(row.label, names)]
        line += [str(len(row.seeds)) if row.seeds else NONE] if len(counts) > 1 else []
        line.append(format_spread(row.metrics.get(metric), not row.floor))
        line += [format_spread(row.metrics.get(cold), not row.floor)] if has_cold else []
        if found:
            own = None if row.floor else found.get(row.label)
            line += (
                [NONE, NONE]
                if own is None
                else [_format_interval(own), format_p(own.p_holm).replace(" ", "")]
            )
        costs = [row.cost.get(key) for key in (cost.key, *([cost.kept] if kept else []))]
        line += [NONE if value is None else format_plain(value) for value in costs]
        rows.append(line)
    methods = sum(not row.floor for row in comparison.rows)
    note = f"Baseline: {base}. " if found else ""
    if len(found) > 1:
        note += f"Interval: of one contrast alone. p: after Holm over {len(found)}. "
    what = "whole command" if cost.note else "method"
    note += f"{cost.unit.replace('seconds', 's')}: of the {what}"
    note += "; with kept: and of what runs share on disk, and of runs built on." if kept else "."
    if comparison.unlike:
        note += f" Seconds may not be compared: the runs differ in {', '.join(comparison.unlike)}."
    title = f"{metric} in percent, {comparison.held['cases']:,} cases"
    if len(counts) == 1 and (each := counts.pop()) > 1:
        title += f", mean \N{PLUS-MINUS SIGN} standard deviation over {each} seeds"
    return TextTable(title, head, rows, note, rules=(methods,))


def _format_interval(difference: BaselineDifference) -> str:
    found = difference.found
    low, high = format_points(found.low), format_points(found.high)
    return f"{format_points(found.difference, True)} ({low} to {high})"


def _make_sort_key(row: MethodRow, metric: str) -> tuple[bool, float]:
    """Methods before floors, the best first."""
    found = row.metrics.get(metric)
    return row.floor, 0.0 if found is None else -found.mean


def make_quality_table(comparison: Comparison) -> TextTable:
    """Methods and floors, mean and spread over seeds."""
    question = comparison.question
    rows = [
        [
            _format_name(row, question.baseline),
            str(len(row.seeds)) if row.seeds else NONE,
            *(format_spread(row.metrics[name], not row.floor) for name in comparison.columns),
        ]
        for row in comparison.rows
    ]
    methods = sum(not row.floor for row in comparison.rows)
    note = "Mean \N{PLUS-MINUS SIGN} standard deviation over seeds."
    if methods < len(rows):
        note += " Rows below the line were measured on the way: means only."
    held, sampled = comparison.held, _find_prefix(comparison.question.metric)
    # Said once: a reader of ten columns looks for what tells them apart.
    named = f" ({sampled}...)" if sampled else ""
    return TextTable(
        f"Test metrics in percent: {held['protocol']}{named}, {held['cases']:,} cases of "
        f"{held['users']:,} users",
        ["method", "seeds", *(name.replace(sampled, "") for name in comparison.columns)],
        rows,
        note,
        rules=(methods,),
        name="quality",
    )


def _find_prefix(metric: str) -> str:
    """What stands before a metric that is no plain one, as `sampled100-`; else empty."""
    before, dash, _ = metric.rpartition("-")
    return before + dash


def _format_name(row: MethodRow, baseline: str) -> str:
    return f"{row.label} (baseline)" if row.label == baseline and not row.floor else row.label


def make_differences_table(comparison: Comparison) -> TextTable:
    """Every method against the baseline."""
    question = comparison.question
    head = [
        "method",
        "difference",
        f"{100 * question.level:g} % interval",
        "p",
        "p (Holm)",
        "effect",
        "can be shown",
    ]
    if question.margin is not None:
        head.append(f"within {question.margin:g}: p (Holm)")
    head += ["finding", "about"]
    rows = [_format_difference(comparison, difference) for difference in comparison.differences]
    return TextTable(
        f"{question.metric} minus that of {question.baseline}, in percent points; "
        f"family '{question.family}'",
        head,
        rows,
        "Interval: the true differences that the test of this contrast alone does not reject, over "
        f"seeds and users; not corrected{_describe_uncorrected(comparison)}. p: sign-flip test "
        "with the "
        "runs drawn anew, two-sided; Holm within the family. Effect: mean of the users' "
        "differences over their standard deviation. Can be shown: the true difference that is "
        f"found in about 80 % of repetitions or more, {describe_test_size(comparison)}"
        f"{_describe_undetectable(comparison)}. Finding: a difference is shown where p (Holm) is "
        "under "
        f"{comparison.alpha:g}. About models: the "
        "spread over seeds of a side is unknown.",
        name="differences",
    )


def _format_detectable(comparison: Comparison, difference: BaselineDifference) -> str:
    """The true difference that would be found, or that none would."""
    if is_out_of_reach(comparison, difference):
        return "none"
    smallest = difference.found.smallest
    return NONE if smallest is None else format_points(smallest)


def _describe_undetectable(comparison: Comparison) -> str:
    """What `none` means, where it stands."""
    if not any(is_out_of_reach(comparison, each) for each in comparison.differences):
        return ""
    return "; none: not one that the metric leaves room for, up or down"


def _describe_uncorrected(comparison: Comparison) -> str:
    """What follows for a reader where several contrasts are corrected."""
    count = len(comparison.differences)
    if count < 2:
        return ""
    return f", so that it may leave out 0 where Holm over {count} contrasts does not reject"


def _format_difference(comparison: Comparison, difference: BaselineDifference) -> list[str]:
    found, alpha = difference.found, comparison.alpha
    cells = [
        difference.label,
        format_points(found.difference, True),
        f"{format_points(found.low, True)} to {format_points(found.high, True)}",
        format_p(found.p),
        format_p(difference.p_holm),
        f"{found.effect:+.3f}",
        _format_detectable(comparison, difference),
    ]
    if comparison.question.margin is not None:
        value = difference.equivalent_holm
        cells.append(NONE if value is None else format_p(value))
    finding = "not shown to differ"
    if found.low > 0 or found.high < 0:
        finding += " after Holm" if len(comparison.differences) > 1 else ""
    if is_significant(difference, alpha):
        finding = "better" if found.difference > 0 else "worse"
    if is_equivalent(difference, alpha):
        close = "within the margin"
        finding = close if not is_significant(difference, alpha) else f"{finding}, {close}"
    return [*cells, finding, found.about]


def make_cost_table(comparison: Comparison) -> TextTable:
    """Mean cost of a run of each method; kinds that no method has are left out."""
    rows = [row for row in comparison.rows if not row.floor]
    kinds = [kind for kind in COSTS if any(row.cost[kind.key] is not None for row in rows)]
    cells = [
        [
            _format_name(row, comparison.question.baseline),
            *(
                NONE if (value := row.cost[kind.key]) is None else kind.show(value)
                for kind in kinds
            ),
        ]
        for row in rows
    ]
    there = {kind.key for kind in kinds}
    note = (
        "Trained: of the parameters. CPU and whole run: the command from the start of its process "
        "(older runs: without imports), with floors, training and evaluation; in runs that built "
        "the cache, with that."
    )
    if there & {"method_cpu_seconds", "method_seconds"}:
        note += (
            " Method: without floors, the test before the first step, tracking and building caches."
        )
    if there & {"method_kept_cpu_seconds", "method_kept_seconds"}:
        note += (
            " With what is kept: and with what runs share on disk (tokens, vectors and states of "
            "the catalog), whichever run built it, and with the runs that a run builds on."
        )
    if "cache_build_seconds" in there:
        note += " Cache building: mean over those runs."
    if "peak_mb" in there:
        note += " Memory: the largest of samples of anonymous memory, summed over processes."
    if comparison.unlike:
        note += f" Seconds may not be compared: the runs differ in {', '.join(comparison.unlike)}."
    return TextTable(
        "Cost of one run, mean over seeds",
        ["method", *(kind.title for kind in kinds)],
        cells,
        note,
        name="cost",
    )


def make_report_tables(comparison: Comparison) -> list[TextTable]:
    """All tables but the examples, as a terminal shows them."""
    measures = make_beyond_table(comparison)
    return [
        make_quality_table(comparison),
        *([make_differences_table(comparison)] if comparison.differences else []),
        make_cost_table(comparison),
        *([replace(measures, note="")] if measures is not None else []),  # the report explains them
        *make_slice_tables(comparison),
        *([make_users_table(comparison)] if comparison.users else []),
    ]


def make_beyond_table(comparison: Comparison) -> TextTable | None:
    """Measures beyond accuracy of each method; None where no run looked at them."""
    rows = [row for row in comparison.rows if not row.floor]
    names = beyond.select_at_cutoff(list(rows[0].beyond), comparison.question.metric)
    if not names:
        return None
    cut = names[0].partition("@")[2]
    kinds = [name.partition("@")[0] for name in names]
    return TextTable(
        f"Beyond accuracy: the best {cut} of each case, mean over seeds",
        ["method", *(beyond.TITLES.get(kind, kind) for kind in kinds)],
        [
            [
                _format_name(row, comparison.question.baseline),
                *(_format_measure(row.beyond[name]) for name in names),
            ]
            for row in rows
        ],
        "Mean \N{PLUS-MINUS SIGN} standard deviation over seeds; not tested. Coverage: share of "
        "the catalog that is recommended at all. Gini: 0 if all items are shown alike. Popularity: "
        "training events of what is recommended; lift: in histories of those who get it. "
        "Calibration: divergence from the categories of the history, 0 is none.",
        name="beyond",
    )


def _format_measure(value: MeanStd | None) -> str:
    """A measure in its own unit."""
    if value is None:
        return NONE
    text = f"{value.mean:.4g}"
    return text if value.deviation is None else f"{text} \N{PLUS-MINUS SIGN} {value.deviation:.2g}"


def make_slice_tables(comparison: Comparison) -> list[TextTable]:
    """A table for each column that the cases were sliced by."""
    labels = [row.label for row in comparison.rows if not row.floor]
    out = []
    for column in dict.fromkeys(part.column for part in comparison.parts):
        own = [part for part in comparison.parts if part.column == column]
        rows = [
            [part.label, f"{part.cases:,}", *(_format_slice(row) for row in part.rows)]
            for part in own
        ]
        out.append(
            TextTable(
                f"{comparison.question.metric} in percent by {TITLES.get(column, column)}; in "
                f"brackets minus {comparison.question.baseline}, with interval",
                [TITLES.get(column, column), "cases", *labels],
                rows,
                "Not corrected: to look at, not to prove with. Parts of few users have means only.",
                name=f"slices-{column}",
            )
        )
    return out


TITLES = {
    "cold": "target seen in training or not",
    "cold_user": "user seen in training or not",
    "history": "length of the history",
    "popularity": "popularity of the target in training",
}
"""What a column says."""


def _format_slice(row: SliceRow) -> str:
    text = f"{100 * row.mean:.2f}"
    if row.found is None:
        return text
    low, high = format_points(row.found.low, True), format_points(row.found.high, True)
    return f"{text} ({format_points(row.found.difference, True)}, {low} to {high})"


def make_users_table(comparison: Comparison) -> TextTable:
    """How many users each method serves better or worse."""
    return TextTable(
        f"Users by {comparison.question.metric} against {comparison.question.baseline}, means "
        "over seeds",
        ["method", "better", "worse", "equal"],
        [[s.label, f"{s.better:,}", f"{s.worse:,}", f"{s.equal:,}"] for s in comparison.users],
    )


def make_example_tables(comparison: Comparison) -> list[TextTable]:
    """The largest wins and losses of each method, to read."""
    return [
        _make_example_table(comparison, side)
        for side in comparison.users
        if side.gains or side.losses
    ]


def _make_example_table(comparison: Comparison, side: UserComparison) -> TextTable:
    base, metric = comparison.question.baseline, comparison.question.metric
    shown = (*side.gains, *side.losses)
    # Without texts the column would be empty; with them it is so for a user without history.
    told = any(example.title for example in shown)
    head = ["user", "target", *(["liked before, latest first"] if told else [])]
    return TextTable(
        f"{side.label} against {base}: the largest wins and losses",
        [*head, f"rank with {side.label}", f"rank with {base}", f"{metric}, points"],
        [
            [
                example.user,
                f"{example.target} {example.title}".rstrip(),
                *(["; ".join(f"{own} {text}" for own, text in example.history)] if told else []),
                f"{example.rank:.1f}",
                f"{example.base_rank:.1f}",
                format_points(example.gain, True),
            ]
            for example in shown
        ],
        side.note,
        words=len(head),
        rules=(len(side.gains),),
    )

"""What a comparison says in plain words, and never more than its statistics do."""

from __future__ import annotations

from recsys.compare.outcome import BaselineDifference, Comparison

FEW = 4
"""Contrasts up to which nobody needs a summary of their sentences."""


def format_p(p: float) -> str:
    """A p value as it is written: .012, or < .001."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def format_equals_p(p: float) -> str:
    """`p = .012`, or `p < .001`."""
    shown = format_p(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def format_points(share: float, sign: bool = False) -> str:
    """A share in percent points, with two places, or more for a small one.

    Args:
        share: A metric or a difference of metrics.
        sign: Write a plus before what is above zero.
    """
    value = 100 * share
    digits = 2 if not value or abs(value) >= 0.095 else 3
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text if float(text) else f"{0:.{digits}f}"


def is_significant(difference: BaselineDifference, alpha: float) -> bool:
    """Whether a difference is shown: its interval leaves out 0 and its corrected test rejects."""
    found = difference.found
    return (found.low > 0 or found.high < 0) and difference.p_holm < alpha


def is_equivalent(difference: BaselineDifference, alpha: float) -> bool:
    """Whether the method is shown to be within the margin of the baseline."""
    return difference.equivalent_holm is not None and difference.equivalent_holm < alpha


def describe_comparison(comparison: Comparison) -> list[str]:
    """One sentence or two for each contrast, then the Pareto front; many are summed up first.

    Args:
        comparison: All but its sentences.
    """
    out = [_describe_contrast(comparison, difference) for difference in comparison.differences]
    if len(out) > FEW:
        out.insert(0, _describe_groups(comparison))
    if comparison.front and comparison.differences and not comparison.unlike:
        out.append(_describe_front(comparison))
    return out


def _describe_groups(comparison: Comparison) -> str:
    """Which methods are better, worse, alike, or not told apart, the largest difference first."""
    names = ("better", "worse", "within the margin", "not shown to differ")
    groups: dict[str, list[str]] = {name: [] for name in names}
    for difference in sorted(comparison.differences, key=lambda d: -d.found.difference):
        if is_significant(difference, comparison.alpha):
            name = "better" if difference.found.difference > 0 else "worse"
        elif is_equivalent(difference, comparison.alpha):
            name = "within the margin"
        else:
            name = "not shown to differ"
        size = format_points(difference.found.difference, True)
        groups[name].append(f"{difference.label} ({size})")
    told = "; ".join(f"{name}: {', '.join(found)}" for name, found in groups.items() if found)
    question = comparison.question
    return (
        f"In points of {question.metric} against {question.baseline} "
        f"({_describe_correction(comparison)}): {told}."
    )


def _describe_contrast(comparison: Comparison, difference: BaselineDifference) -> str:
    """What one contrast shows, of what it holds, and what it costs."""
    question, found, alpha = comparison.question, difference.found, comparison.alpha
    name, base = difference.label, question.baseline
    percent = f"{100 * found.level:g} %"
    interval = (
        f"{percent} interval {format_points(found.low, True)} to {format_points(found.high, True)}"
    )
    by = f"{format_points(abs(found.difference))} points of {question.metric}"
    summed = len(comparison.differences) > FEW  # then the summary says what was corrected
    corrected = " after Holm" if summed else f", {_describe_correction(comparison)}"
    test = f"{format_equals_p(difference.p_holm)}{corrected}"
    close = is_equivalent(difference, alpha)
    within = ""
    if question.margin is not None:
        within = f"{question.margin:g} point{'' if question.margin == 1 else 's'}"
    if is_significant(difference, alpha):
        side = "better" if found.difference > 0 else "worse"
        text = f"{name} is {side} than {base} by {by} ({interval}; {test})"
        if close:
            text += f", and by less than {within} ({_describe_equivalence(difference)})"
    elif close:
        text = (
            f"{name} and {base} differ by less than {within} of {question.metric} "
            f"({_describe_equivalence(difference)}); the difference measured is "
            f"{format_points(found.difference, True)} ({interval})"
        )
    else:
        text = (
            f"{name} is not shown to differ from {base} in {question.metric}: "
            f"{format_points(found.difference, True)} points ({interval}; {test}"
            f"{_describe_conflict(comparison, difference)})"
        )
        if question.margin is not None:
            text += f", nor to be within {within} of it"
        text += _describe_power(comparison, difference)
    return (
        f"{text}.{_describe_scope(comparison, difference)}{_describe_cost(comparison, difference)}"
    )


def _describe_conflict(comparison: Comparison, difference: BaselineDifference) -> str:
    """Why a difference is not shown whose interval leaves out 0: the correction, by name."""
    found = difference.found
    if found.low <= 0 <= found.high:
        return ""
    count = len(comparison.differences)
    if count == 1:
        return "; the interval leaves out 0, but the test does not reject"
    return (
        "; the interval is of this contrast alone and leaves out 0, but the test corrected for "
        f"{count} contrasts does not reject"
    )


def _describe_power(comparison: Comparison, difference: BaselineDifference) -> str:
    """What would have been found."""
    if difference.found.smallest is None:
        return ""
    if is_out_of_reach(comparison, difference):
        return (
            "; no difference that the metric leaves room for would be found with these seeds and "
            f"users in about 80 % of repetitions ({describe_test_size(comparison)})"
        )
    smallest = format_points(difference.found.smallest)
    if len(comparison.differences) > FEW:
        return f"; {smallest} points would be found in about 80 % of repetitions or more after Holm"
    return (
        f"; these seeds and users find a true difference of {smallest} points in about 80 % of "
        f"repetitions or more ({describe_test_size(comparison)}), and a smaller one less often"
    )


def is_out_of_reach(comparison: Comparison, difference: BaselineDifference) -> bool:
    """Whether what would be found is more than there is room for, up to 100 % and down to 0."""
    base = comparison.find_row(comparison.question.baseline).metrics[comparison.question.metric]
    smallest = difference.found.smallest
    return base is not None and smallest is not None and smallest > max(base.mean, 1 - base.mean)


def describe_test_size(comparison: Comparison) -> str:
    """The error rate of the test that a smallest difference speaks of."""
    count, percent = len(comparison.differences), 100 * comparison.alpha
    if count == 1:
        return f"tested at {percent:g} %"
    return f"after Holm: tested at {percent:g} % / {count}"


def _describe_correction(comparison: Comparison) -> str:
    count = len(comparison.differences)
    if count == 1:
        return "one contrast"
    return f"Holm over the {count} contrasts of the family '{comparison.question.family}'"


def _describe_equivalence(difference: BaselineDifference) -> str:
    value = difference.equivalent_holm
    return "" if value is None else f"equivalence, {format_equals_p(value)}"


def _describe_scope(comparison: Comparison, difference: BaselineDifference) -> str:
    """The limit of a claim from one seed."""
    names = (difference.label, comparison.question.baseline)
    rows = [comparison.find_row(name) for name in names]
    lonely = " and ".join(row.label for row in rows if row.trains and len(row.seeds) == 1)
    if not lonely:
        return ""
    if difference.found.about == "methods":
        return f" One seed of {lonely}: its spread over seeds is taken from other methods."
    return (
        " This holds for the trained models at hand, not for the methods (one seed of "
        f"{lonely}); run more seeds to tell."
    )


def format_ratio(value: float) -> str:
    """How many times, with one place, or two figures of a small one."""
    if value >= 9.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.195 else f"{value:.2g}"


def _describe_cost(comparison: Comparison, difference: BaselineDifference) -> str:
    """The seconds beside, where they may be compared, with and without what runs share."""
    basis, name = comparison.basis, comparison.question.baseline
    costs = comparison.find_row(difference.label).cost, comparison.find_row(name).cost
    mine, base = (cost[basis.key] for cost in costs)
    if comparison.unlike or not mine or not base:
        return ""
    times = format_ratio(mine / base)
    took = f"{times} of the" if mine < base else f"{times} times the"
    text = f" {difference.label} took {took} {basis.unit} of {name}"
    if times == "1.0":
        text = f" {difference.label} took as many {basis.unit} as {name}"
    if not basis.kept:
        return f"{text}."
    mine, base = (cost[basis.kept] for cost in costs)
    if not mine or not base:
        return f"{text}, without what is kept between runs."
    times = format_ratio(mine / base)
    took = "as many" if times == "1.0" else f"{times} {'of them' if mine < base else 'times'}"
    return f"{text}, and {took} with what is kept between runs."


def _describe_front(comparison: Comparison) -> str:
    names = "; ".join(comparison.front)  # a name may have commas
    text = (
        f"No other method has both a better mean of {comparison.question.metric} and fewer "
        f"{comparison.basis.unit} than: {names} (by the means; their differences are tested above "
        f"against {comparison.question.baseline} only)."
    )
    if not comparison.front_kept:
        return text
    if comparison.front_kept == comparison.front:
        return f"{text} The same holds with what is kept between runs."
    return f"{text} With what is kept between runs: {'; '.join(comparison.front_kept)}."

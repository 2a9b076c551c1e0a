"""Parts of the cases by what a column holds: numbers by size, texts by how frequent they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Mask = npt.NDArray[np.bool_]

PARTS = 4
"""Parts of about equal size that a column of numbers is cut into."""
FEW = 8
"""Different numbers up to which each of them is a part of its own."""
_CODE = r"^[+-]?0\d"
"""How a code begins that looks like a number, as a postal code may."""


@dataclass(frozen=True)
class CaseSlice:
    """Some of the cases.

    Attributes:
        label: What they have in common.
        mask: (N,) which they are.
    """

    label: str
    mask: Mask


def slice_by_column(values: pl.Series, most: int) -> list[CaseSlice]:
    """Parts by what a column of a table holds, whatever type its file gave it.

    Numbers, also those written as text, are cut into quantiles whose labels say their ranges; few
    different ones are kinds, in their order. All else is text.

    Args:
        values: (N,) what the column says of each case.
        most: Parts of texts at most.
    """
    numbers = _parse_numbers(values)
    if numbers is None:
        return slice_by_text(values, most)
    if numbers.drop_nulls().n_unique() > FEW:
        return slice_by_number(numbers)
    found = numbers.to_numpy()
    # -0.0 is 0, and its name too.
    kinds = [
        CaseSlice(f"{kind + 0.0:.17g}", found == kind)
        for kind in np.unique(found[~np.isnan(found)])
    ]
    missing = CaseSlice("none", np.isnan(found))
    return [missing, *kinds] if missing.mask.any() else kinds


def _parse_numbers(values: pl.Series) -> pl.Series | None:
    """(N,) the column as numbers, null where it is empty; None where it holds anything else.

    What begins with a nought before another digit is a code: as a number it would lose it.
    """
    if values.dtype.is_numeric():
        return values.cast(pl.Float64).fill_nan(None)
    if values.dtype != pl.String:
        return None
    texts = values.str.strip_chars().replace("", None)
    numbers = texts.cast(pl.Float64, strict=False)
    if texts.is_null().all() or texts.str.contains(_CODE).any():
        return None
    wrong = texts.is_not_null() & ~numbers.is_finite().fill_null(False)
    return None if wrong.any() else numbers


def slice_by_number(values: pl.Series, apart: bool = False) -> list[CaseSlice]:
    """Parts of about equal size, smallest numbers first; equal numbers stay together.

    Args:
        values: (N,) numbers.
        apart: Give 0, an item that training never shows, a part of its own.

    Returns:
        Those without a number as "none", then 0 if it is apart, then the others; none is empty.
    """
    numbers = values.cast(pl.Float64).to_numpy()
    missing = np.isnan(numbers)
    zero = (numbers == 0) & apart
    first = [CaseSlice("none", missing), CaseSlice("0 (cold)", zero)]
    rest = ~missing & ~zero
    masks: list[Mask] = []
    if rest.any():
        shares = np.arange(1, PARTS) / PARTS
        edges = np.unique(np.quantile(numbers[rest], shares, method="inverted_cdf"))
        place = np.searchsorted(edges, numbers, side="left")
        masks = [rest & (place == at) for at in np.unique(place[rest])]
    spans = [(numbers[mask].min(), numbers[mask].max()) for mask in masks]
    labels = [_format_span(low, high, 6) for low, high in spans]
    if len(set(labels)) < len(labels):  # large numbers that differ in their last digits only
        labels = [_format_span(low, high, 17) for low, high in spans]
    found = [*first, *(CaseSlice(*pair) for pair in zip(labels, masks, strict=True))]
    return [part for part in found if part.mask.any()]


def _format_span(low: float, high: float, digits: int) -> str:
    return f"{low:.{digits}g}" if low == high else f"{low:.{digits}g} to {high:.{digits}g}"


def slice_by_text(values: pl.Series, most: int) -> list[CaseSlice]:
    """The most frequent kinds, and the rest as "other", last; a missing text is "none".

    A text names several kinds as `a|b`, and its case then stands in the part of each.

    Args:
        values: (N,) anything that can be written as text.
        most: Parts at most, the rest among them.

    Returns:
        Parts that together hold every case; "other" are the cases none of whose kinds has a part.
    """
    texts, place = np.unique(
        values.cast(pl.String).fill_null("none").to_numpy().astype(np.str_), return_inverse=True
    )
    named = [list(dict.fromkeys(filter(None, map(str.strip, t.split("|"))))) or [t] for t in texts]
    counts: Counter[str] = Counter()
    for kinds, count in zip(named, np.bincount(place).tolist(), strict=False):
        counts.update(dict.fromkeys(kinds, count))
    order = sorted(counts, key=lambda kind: (-counts[kind], kind))
    kept = order if len(order) <= most else order[: most - 1]
    found = [
        CaseSlice(kind, np.array([kind in kinds for kinds in named], dtype=np.bool_)[place])
        for kind in kept
    ]
    other = np.array([not set(kinds) & set(kept) for kinds in named], dtype=np.bool_)[place]
    # A kind may be "other" itself: it is among the rest then, as a label names one part.
    same = [part for part in found if part.label == "other"]
    if same and other.any():
        other = other | same[0].mask
        found.remove(same[0])
    return [*found, CaseSlice("other", other)] if other.any() else found

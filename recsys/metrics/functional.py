"""Ranking metrics as pure functions: one float64 value a case, NaN where a metric is undefined.

Candidates with the same score have no order. A metric here is its exact expectation when every
order within each group of equals is as likely as any other, so that constant scores are worth
what a random order is worth. Nothing is sampled and no half ranks are used: a half rank is wrong
wherever the cut-off k falls inside a group of equals.

Names: `hr@k`, `recall@k`, `ndcg@k` (gain 0 or 1, discount 1/log2(rank + 1), Järvelin and Kekäläinen
2002), `map@k` (average precision cut at k, over min(k, positives)), `mrr` (first positive),
`mrr_all` (mean of 1/rank over all positives, as MIND's evaluation does, Wu et al. 2020) and `auc`
(per case, an equal pair counts half).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.errors import DataError
from recsys.metrics.names import list_metric_names

_SHOWN = 5  # numbers listed in a message before it is cut short
_CACHED = 1 << 19  # scores that are counted at a time, so that a CPU's cache holds them


def compute_from_counts(
    greater: Tensor, equal: Tensor, ks: Sequence[int], size: Tensor | None = None
) -> dict[str, Tensor]:
    """Metrics of lists with exactly one positive each, from where that positive stands.

    Args:
        greater: (Q,) number of candidates scored strictly higher than the positive.
        equal: (Q,) number of other candidates scored the same as the positive.
        ks: Cut-offs.
        size: (Q,) number of candidates, the positive included. Only `auc` needs it: without
            sizes, `auc` is not among the results.

    Returns:
        (Q,) float64 by name; `auc` is NaN where the positive is the only candidate.

    Raises:
        ConfigError: A cut-off is not a positive whole number, or is there twice.
        DataError: Counts are negative, differ in shape or do not fit into the list's size.
    """
    names = list_metric_names(ks, auc=size is not None)
    _check_counts(greater, equal, size)
    above = greater.long()
    tied = equal.long() + 1
    out: dict[str, Tensor] = {}
    for k in ks:
        # The positive is equally likely at each of the ranks above + 1 ... above + tied: sums over
        # a stretch of ranks are differences of prefix sums, which end at k.
        start, end = above.clamp(max=k), (above + tied).clamp(max=k)
        ranks = torch.arange(1, k + 1, dtype=torch.float64, device=greater.device)
        out[f"hr@{k}"] = (end - start).double() / tied
        out[f"recall@{k}"] = out[f"hr@{k}"].clone()
        for metric, worth in (("ndcg", _compute_discount(ranks)), ("map", ranks.reciprocal())):
            prefix = torch.cat([worth.new_zeros(1), worth.cumsum(0)])
            out[f"{metric}@{k}"] = (prefix[end] - prefix[start]) / tied
    first = (above + 1).double()
    # Differences of the digamma function are sums of 1/rank without a table as long as the
    # catalog; alone in its group the positive has a plain reciprocal, free of cancellation.
    harmonic = torch.digamma(first + tied) - torch.digamma(first)
    out["mrr"] = torch.where(tied == 1, first.reciprocal(), harmonic / tied)
    out["mrr_all"] = out["mrr"].clone()
    if size is not None:
        # 0/0 gives the NaN of a list without negatives.
        negatives = (size.long() - 1).double()
        out["auc"] = (negatives - greater.double() - 0.5 * equal.double()) / negatives
    return {name: out[name] for name in names}


def compute_from_lists(
    scores: Tensor,
    labels: Tensor,
    valid: Tensor,
    ks: Sequence[int],
    cases: Tensor | None = None,
) -> dict[str, Tensor]:
    """Metrics of lists with any number of positives.

    Args:
        scores: (Q, C) scores; only their order counts, and infinite scores are fine.
        labels: (Q, C) 1 for a positive, else 0.
        valid: (Q, C) bool, False where a place holds no candidate; what stands there is ignored.
        ks: Cut-offs.
        cases: (Q,) numbers by which an error names the cases; row numbers where None.

    Returns:
        (Q,) float64 by name. All are NaN for a case without a positive, and `auc` is NaN for a
        case without a negative as well.

    Raises:
        ConfigError: A cut-off is not a positive whole number, or is there twice.
        DataError: A valid place holds a NaN score or a label other than 0 and 1, or shapes differ.
    """
    names = list_metric_names(ks)
    _check_lists(scores, labels, valid, cases)
    places = _group_ties(scores, labels, valid)
    positives = (labels.bool() & valid).sum(1).double()
    negatives = valid.sum(1).double() - positives
    ranks = torch.arange(1, scores.shape[1] + 1, dtype=torch.float64, device=scores.device)
    chance = places.group_positives / places.group_size
    # E[positive here x positives up to here]: given a positive here, each other place of the
    # group before it holds one of the remaining m - 1 positives among n - 1 places.
    others = places.offset * (places.group_positives - 1) / (places.group_size - 1).clamp(min=1)
    hits = chance * (places.positives_above + 1 + others)
    none_yet = _compute_miss_chance(places)

    out: dict[str, Tensor] = {}
    for k in ks:
        ideal_ranks = torch.arange(1, k + 1, dtype=torch.float64, device=scores.device)
        ideal = _compute_discount(ideal_ranks).cumsum(0)[positives.long().clamp(1, k) - 1]
        out[f"hr@{k}"] = 1 - none_yet[:, min(k, scores.shape[1])]
        out[f"recall@{k}"] = chance[:, :k].sum(1) / positives
        out[f"ndcg@{k}"] = (chance * _compute_discount(ranks))[:, :k].sum(1) / ideal
        out[f"map@{k}"] = (hits / ranks)[:, :k].sum(1) / positives.clamp(max=k)
    out["mrr"] = ((none_yet[:, :-1] - none_yet[:, 1:]) / ranks).sum(1)
    out["mrr_all"] = (chance / ranks).sum(1) / positives
    negatives_above = places.start - places.positives_above
    negatives_equal = places.group_size - places.group_positives
    won = negatives[:, None] - negatives_above - 0.5 * negatives_equal
    out["auc"] = (chance * won).sum(1) / (positives * negatives)
    undefined = positives == 0
    return {name: out[name].masked_fill(undefined, torch.nan) for name in names}


def count_ranks(
    scores: Tensor, target: Tensor, mask: Tensor, cases: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Where one target a row stands in a whole catalog, by counting instead of sorting.

    The target's score is read from `scores` itself, never computed a second time: a second
    product may differ in the last bit and would turn a tie into a win or a loss.

    Args:
        scores: (Q, N) scores of all columns.
        target: (Q,) column of the target.
        mask: (Q, N) bool, True where a column is excluded, or (S, 2) int64 row and column of each
            exclusion, which may repeat and is quicker where few are; the target counts even there.
        cases: (Q,) numbers by which an error names the cases; row numbers where None.

    Returns:
        `greater`, `equal` and `size`, each (Q,) int64: columns scored strictly higher, other
        columns scored the same, and columns ranked, the target included.

    Raises:
        DataError: A ranked column's score is NaN, a target is no column, or shapes differ.
    """
    _check_shapes("scores", scores, 2, target=(target, scores.shape[:1]))
    sparse = mask.dtype == torch.int64
    _check_shapes("scores", scores, 2, mask=(mask, (len(mask), 2) if sparse else scores.shape))
    if not sparse:
        _check_bool("mask", mask)
    _check_cases(cases, scores.shape[0])
    column = target.long()[:, None]
    outside = (column < 0) | (column >= scores.shape[1])
    _check_none_wrong(
        outside[:, 0],
        cases,
        f"The target is not one of the {scores.shape[1]} columns",
        "give the target's column in the scores",
    )
    own = scores.gather(1, column)
    # What is excluded is NaN from here on: neither above nor equal to anything.
    if sparse:
        ranked = scores.index_put((mask[:, 0], mask[:, 1]), scores.new_tensor(torch.nan))
    else:
        ranked = scores.masked_fill(mask, torch.nan)
    # A sum reads each score once, and NaN in it is rare: only then is it asked where NaN stands.
    if scores.sum(1).isnan().any():
        places = ~mask if not sparse else torch.ones_like(scores, dtype=torch.bool)
        if sparse:
            places[mask[:, 0], mask[:, 1]] = False
        _check_nan(scores, places.scatter(1, column, True), cases)
    rows = scores.shape[0]
    if scores.device.type == "cpu":
        rows = max(1, _CACHED // max(1, scores.shape[1]))
    pieces = zip(torch.split(ranked, rows), torch.split(own, rows), strict=True)
    greater, equal, size = torch.cat([_count_columns(*piece) for piece in pieces]).unbind(1)
    # The target is equal to itself, unless it is excluded, and always ranked.
    excluded = ranked.gather(1, column)[:, 0].isnan().long()
    return greater, equal - 1 + excluded, size + excluded


def _count_columns(ranked: Tensor, own: Tensor) -> Tensor:
    """(Q, 3) columns above `own` (Q, 1), equal to it, and ranked at all, which are not NaN.

    The flags are floats: summing bools is several times slower on a CPU. Whole numbers stay exact
    in them up to 2^24 columns in single precision.
    """
    exact = torch.float32 if ranked.shape[1] <= 1 << 24 else torch.float64
    flags = torch.empty(ranked.shape, dtype=exact, device=ranked.device)
    found = [torch.gt(ranked, own, out=flags).sum(1), torch.eq(ranked, own, out=flags).sum(1)]
    found.append(torch.eq(ranked, ranked, out=flags).sum(1))
    return torch.stack(found, dim=1).long()


@dataclass(frozen=True)
class _TiedRanks:
    """What is known of each rank of a list, best first; all (Q, C) float64.

    Attributes:
        start: Number of candidates scored strictly higher than the group at this rank.
        offset: Place within the group, from 0.
        group_size: Candidates in the group.
        group_positives: Positives in the group; 0 in the group of places without a candidate.
        positives_above: Positives scored strictly higher than the group.
    """

    start: Tensor
    offset: Tensor
    group_size: Tensor
    group_positives: Tensor
    positives_above: Tensor


def _group_ties(scores: Tensor, labels: Tensor, valid: Tensor) -> _TiedRanks:
    """Sorts each list and describes its groups of equals; places without candidate come last."""
    # Two stable sorts rather than filling with -inf: -inf is a score that a candidate may have.
    values, order = scores.masked_fill(~valid, 0).sort(dim=1, descending=True, stable=True)
    last = (~valid).gather(1, order).long().argsort(dim=1, stable=True)
    order, values = order.gather(1, last), values.gather(1, last)
    present = valid.gather(1, order)
    positive = (labels.bool() & valid).gather(1, order).long()

    opens = torch.ones_like(present)
    opens[:, 1:] = (values[:, 1:] != values[:, :-1]) | (present[:, 1:] != present[:, :-1])
    group = opens.long().cumsum(1) - 1
    sizes = torch.zeros_like(group).scatter_add(1, group, torch.ones_like(group))
    hits = torch.zeros_like(group).scatter_add(1, group, positive)
    start = (sizes.cumsum(1) - sizes).gather(1, group)
    rank = torch.arange(scores.shape[1], device=scores.device)
    return _TiedRanks(
        start=start.double(),
        offset=(rank - start).double(),
        group_size=sizes.gather(1, group).double(),
        group_positives=hits.gather(1, group).double(),
        positives_above=(hits.cumsum(1) - hits).gather(1, group).double(),
    )


def _compute_miss_chance(places: _TiedRanks) -> Tensor:
    """(Q, C + 1) probability that the first r ranks hold no positive, r from 0 to C.

    Within a group of n with m positives it is the hypergeometric C(n - m, o) / C(n, o) after o
    draws, here as a running product of "the next one is no positive either". The product reaches
    0 within the first group that holds a positive, hence later groups need no special case.
    """
    left = places.group_size - places.offset
    misses = ((left - places.group_positives) / left).clamp(min=0)
    ones = misses.new_ones(misses.shape[0], 1)
    return torch.cat([ones, misses.cumprod(1)], dim=1)


def _compute_discount(ranks: Tensor) -> Tensor:
    """What a positive at each rank (from 1) adds to the discounted cumulative gain."""
    return torch.log2(ranks + 1).reciprocal()


def _check_counts(greater: Tensor, equal: Tensor, size: Tensor | None) -> None:
    """Refuses counts that no list could have."""
    _check_shapes("greater", greater, 1, equal=(equal, greater.shape))
    wrong = (greater < 0) | (equal < 0)
    if size is not None:
        _check_shapes("greater", greater, 1, size=(size, greater.shape))
        wrong = wrong | (greater + equal + 1 > size)
    _check_none_wrong(
        wrong,
        None,
        "The counts of higher and equal scores are negative or exceed the list's size",
        "take greater, equal and size from rank_counts",
    )


def _check_lists(scores: Tensor, labels: Tensor, valid: Tensor, cases: Tensor | None) -> None:
    """Refuses lists that have no meaning."""
    _check_shapes("scores", scores, 2, labels=(labels, scores.shape), valid=(valid, scores.shape))
    _check_bool("valid", valid)
    _check_cases(cases, scores.shape[0])
    graded = (labels != 0) & (labels != 1) & valid
    _check_none_wrong(
        graded.any(1), cases, "A label is neither 0 nor 1", "make graded labels binary beforehand"
    )
    _check_nan(scores, valid, cases)


def _check_shapes(
    name: str, first: Tensor, dims: int, **others: tuple[Tensor, Sequence[int]]
) -> None:
    """Refuses tensors whose shapes do not belong together."""
    if first.dim() != dims:
        raise DataError(f"{name} has shape {tuple(first.shape)}; give it {dims} dimension(s).")
    for other, (tensor, shape) in others.items():
        if tuple(tensor.shape) != tuple(shape):
            raise DataError(
                f"{other} has shape {tuple(tensor.shape)}, but {name} has {tuple(first.shape)}; "
                f"give {other} the shape {tuple(shape)}."
            )


def _check_bool(name: str, mask: Tensor) -> None:
    """Refuses a mask of numbers: `~` of 0 and 1 would be -1 and -2, both true."""
    if mask.dtype != torch.bool:
        raise DataError(f"{name} has dtype {mask.dtype}; give it as torch.bool.")


def _check_cases(cases: Tensor | None, rows: int) -> None:
    """Refuses case numbers that do not match the rows."""
    if cases is not None and tuple(cases.shape) != (rows,):
        raise DataError(f"cases has shape {tuple(cases.shape)}; give one number for {rows} row(s).")


def _check_nan(scores: Tensor, places: Tensor, cases: Tensor | None) -> None:
    """Refuses NaN scores: every comparison with NaN is false, which would look like rank one."""
    _check_none_wrong(
        (scores.isnan() & places).any(1),
        cases,
        "The model gave NaN as a score",
        "look for a diverged loss or an empty text, or lower the learning rate",
    )


def _check_none_wrong(wrong: Tensor, cases: Tensor | None, what: str, remedy: str) -> None:
    """Raises a DataError that names the cases (or rows) where `wrong` (Q,) is True."""
    rows = wrong.nonzero()[:, 0]
    if rows.numel() == 0:
        return
    unit, numbers = ("row", rows) if cases is None else ("case", cases[rows])
    shown = ", ".join(str(number) for number in numbers[:_SHOWN].tolist())
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    raise DataError(f"{what} in {unit} {shown}{more}; {remedy}.")

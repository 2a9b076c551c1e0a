"""MaxSim: what the tokens of one text find in another, without a loop over pairs.

The late interaction of ColBERT (Khattab and Zaharia, ColBERT: Efficient and Effective Passage
Search via Contextualized Late Interaction over BERT, SIGIR 2020, section 3.3): every token of the
asking text takes its largest product with a token of the other. Here the mean over the asking
tokens, so that long titles do not weigh more, and texts of any length in flat storage.

Texts are padded inside a block only, by repeating their last token, which changes no maximum and
no gradient; texts of like lengths come together, so that little is padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recsys.types import Ragged, upload

BLOCK = 1 << 20
"""Products of tokens that are held at a time; a single query that has more goes alone."""

KEPT = 1 << 26
"""Numbers that blocks may keep for backward; above it, each block is computed again there."""

_COLUMNS = 1 << 12  # tokens of the other texts that a block of all pairs takes


def score_lists(
    asking: Ragged,
    other: Ragged,
    history: Tensor,
    weights: Tensor,
    candidates: Tensor,
    block: int = BLOCK,
) -> Tensor:
    """Scores of each query's own candidates: the weighted mean of the MaxSim of its texts.

    Args:
        asking: Token vectors (sum of L, D) of U texts where they stand in a history; none empty.
        other: The same for U texts where they are candidates.
        history: (Q, H) texts of each query, on the host, -1 for none anywhere.
        weights: (Q, H) weight of each, on the device of the vectors; those of -1 do not count.
        candidates: (Q, C) texts on the host; -1 stands for text 0, its score means nothing.
        block: Products that are held at a time.

    Returns:
        (Q, C); 0 for a query without a text.
    """
    if not candidates.numel() or not other.sizes:
        return weights.new_zeros(candidates.shape)
    candidates = candidates.clamp(min=0)
    first, second = torch.tensor(asking.sizes), torch.tensor(other.sizes)
    lengths = torch.where(history >= 0, first[history.clamp(min=0)], 0)
    # Each query's candidates from short to long: then a column's width is near all its lengths.
    theirs, order = second[candidates].sort(dim=1, stable=True)
    candidates = candidates.gather(1, order)
    starts = _compute_starts(first), _compute_starts(second)
    parts = list(_plan_blocks(lengths.sum(1), theirs, block))
    numbers = sum(
        len(rows) * (int(lengths[rows].sum(1).max()) + int(theirs[rows].amax(0).sum()))
        for rows in parts
    )
    again = torch.is_grad_enabled() and numbers * asking.values.shape[1] > KEPT and len(parts) > 1
    device, out = asking.values.device, []
    for rows in parts:
        mine, slot, share = _lay_out_histories(starts[0], lengths[rows], history[rows])
        theirs_at, widths = _lay_out_candidates(starts[1], theirs[rows], candidates[rows])
        at = upload(rows, device)
        share = share.to(weights.dtype)
        taken = weights[at].gather(1, upload(slot, device)) * upload(share, device)
        run = partial(_score_block, widths=widths)
        args = asking.values, other.values, upload(mine, device), upload(theirs_at, device), taken
        out.append(checkpoint(run, *args, use_reentrant=False) if again else run(*args))
    back = upload(torch.cat(parts).argsort(), device)
    return torch.cat(out)[back].gather(1, upload(order.argsort(1), device))


def score_all_pairs(asking: Ragged, other: Ragged, block: int = BLOCK) -> Tensor:
    """MaxSim of every asking text with every other: (U, N).

    Args:
        asking: Token vectors (sum of L, D) of U texts, none empty.
        other: The same of N texts.
        block: Products that are held at a time.
    """
    values = asking.values
    if not asking.sizes or not other.sizes:
        return values.new_zeros(len(asking.sizes), len(other.sizes))
    columns = max(1, min(_COLUMNS, block // 64))
    rows = list(_group_texts(torch.tensor(asking.sizes), max(1, block // columns)))
    others = list(_group_texts(torch.tensor(other.sizes), columns))
    padded = [_pad_texts(asking, texts) for texts in rows]
    found = []
    for texts in others:
        keys = _pad_texts(other, texts)[0]
        wide = keys.shape[1]
        bands = []
        for queries, lengths in padded:
            # Tokens first, texts last: the maximum then runs over whole rows of memory.
            products = keys.flatten(0, 1) @ queries.transpose(0, 1).flatten(0, 1).T
            best = _compute_maximum(products.view(len(texts), wide, -1), 1)
            place = torch.arange(queries.shape[1], device=values.device)[:, None]
            share = (place < lengths).to(best.dtype) / lengths
            bands.append((best.view(len(texts), -1, len(lengths)) * share).sum(1))
        found.append(torch.cat(bands, dim=1))
    scores = torch.cat(found).T
    back = [upload(torch.cat(x).argsort(), values.device) for x in (rows, others)]
    return scores[back[0]][:, back[1]]


def _score_block(
    asking: Tensor, other: Tensor, mine: Tensor, theirs: Tensor, taken: Tensor, widths: list[int]
) -> Tensor:
    """Scores (B, C) of a block of queries.

    Args:
        asking: (T, D) token vectors.
        other: (T', D) token vectors.
        mine: (B, M) places of each query's tokens.
        theirs: (B, sum of widths) places of its candidates' tokens.
        taken: (B, M) weight of each token.
        widths: Tokens of each column of candidates, ascending.
    """
    products = F.embedding(theirs, other) @ F.embedding(mine, asking).transpose(1, 2)
    best, begin = [], 0
    for width, same in groupby(widths):  # columns of one width at a time
        count = len(list(same))
        part = products[:, begin : begin + count * width]
        best.append(_compute_maximum(part.view(len(part), count, width, -1), 2))
        begin += count * width
    return (torch.cat(best, dim=1) @ taken[:, :, None]).squeeze(-1)


def _compute_maximum(x: Tensor, dim: int) -> Tensor:
    """Maximum over a dimension; for backward it keeps one place each and not all that it saw."""
    return x.max(dim).values if torch.is_grad_enabled() and x.requires_grad else x.amax(dim)


def _compute_starts(sizes: Tensor) -> Tensor:
    return sizes.cumsum(0) - sizes


def _plan_blocks(own: Tensor, theirs: Tensor, block: int) -> Iterator[Tensor]:
    """Queries of each block (B,), those with few tokens first.

    Args:
        own: (Q,) tokens of each query's history.
        theirs: (Q, C) tokens of its candidates, ascending.
        block: Products that a block may hold.
    """
    order = own.argsort(stable=True)
    lengths, columns = own[order].clamp(min=1).numpy(), theirs[order].numpy()
    begin = 0
    while begin < len(order):
        # No more would fit if all were as small as the first.
        end = begin + max(1, block // int(lengths[begin] * columns[begin].sum()))
        widths = np.maximum.accumulate(columns[begin:end]).sum(1)
        held = np.arange(1, len(widths) + 1) * lengths[begin:end] * widths
        count = max(1, int(np.searchsorted(held, block, side="right")))
        yield order[begin : begin + count]
        begin += count


def _lay_out_histories(
    starts: Tensor, lengths: Tensor, history: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens of the histories of a block, each (B, M): place, which text of the query, share.

    The share is one over the tokens of the text, and zero in the padding, of which there is at
    least one: so that a block without any history still asks something.
    """
    ends = lengths.cumsum(1)
    place = torch.arange(max(1, int(ends[:, -1].max()))).expand(len(ends), -1).contiguous()
    slot = torch.searchsorted(ends, place, right=True).clamp(max=lengths.shape[1] - 1)
    length = lengths.gather(1, slot)
    inside = place < ends[:, -1:]
    text = history.gather(1, slot).clamp(min=0)
    at = starts[text] + place - (ends - lengths).gather(1, slot)
    share = inside.double() / length.clamp(min=1)
    return torch.where(inside, at, 0), slot, share


def _lay_out_candidates(
    starts: Tensor, lengths: Tensor, candidates: Tensor
) -> tuple[Tensor, list[int]]:
    """Places (B, sum of widths) of the tokens of candidates (B, C), and the widths (C,)."""
    widths = lengths.amax(0)
    column = torch.repeat_interleave(torch.arange(len(widths)), widths)
    step = torch.arange(len(column)) - _compute_starts(widths)[column]
    last = lengths[:, column] - 1
    return starts[candidates][:, column] + torch.minimum(step, last), widths.tolist()


def _group_texts(sizes: Tensor, tokens: int) -> Iterator[Tensor]:
    """Texts from short to long, in groups of no more padded tokens, or of one text."""
    order = sizes.argsort(stable=True)
    lengths, begin = sizes[order].tolist(), 0
    for at in range(1, len(order)):
        if (at + 1 - begin) * lengths[at] > tokens:
            yield order[begin:at]
            begin = at
    yield order[begin:]


def _pad_texts(texts: Ragged, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Token vectors (N, L, D) of some texts, the last one repeated, and their lengths (N,)."""
    sizes = torch.tensor(texts.sizes)
    lengths = sizes[rows]
    step = torch.arange(int(lengths.max()))
    at = _compute_starts(sizes)[rows][:, None] + torch.minimum(step, lengths[:, None] - 1)
    device = texts.values.device
    return F.embedding(upload(at, device), texts.values), upload(lengths, device)

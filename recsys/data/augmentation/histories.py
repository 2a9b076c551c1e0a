"""Training histories that are cropped, masked, reordered, or hold substitutes.

After CL4SRec (Xie et al., Contrastive Learning for Sequential Recommendation, ICDE 2022: crop, mask
and reorder) and CoSeRec (Liu et al., Contrastive Self-supervised Sequential Recommendation with
Robust Augmentation, 2021: substitutes of correlated items). There they make the views of a
contrastive loss; here a query is trained from its changed history, as if the user had had that one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from recsys.data.augmentation.draws import Doubles, draw_uniform
from recsys.data.batches.rows import BatchRows
from recsys.data.columns.arrays import Ints

Flags = npt.NDArray[np.bool_]
Neighbours = npt.NDArray[np.int32]
_Draw = Callable[..., Doubles]

_CROP, _CROP_SIZE, _CROP_START = 1, 2, 3
_SUBSTITUTE, _NEIGHBOUR = 4, 5
_MASK = 6
_REORDER, _SPAN_SIZE, _SPAN_START, _SPAN_ORDER = 7, 8, 9, 10
"""What is drawn, as a part of the key: no two share a stream."""
_LONGEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class AugmentedRows:
    """Rows of a batch with the histories that its queries are trained from.

    Attributes:
        rows: As before, but for rows, prefixes and whose they are; targets, labels, weights and
            their order are the same.
        history: (B, H) catalog rows, -1 for none (at the end).
        origin: (B,) the row, before, that each comes from.
    """

    rows: BatchRows
    history: Ints
    origin: Ints


@dataclass
class Windows:
    """Histories while they are changed, and what each query sees of which.

    Attributes:
        items: (B, H) catalog rows, -1 for none (at the end).
        origin: (B,) the row, at first, that each comes from.
        row: (Q,) the row of a query.
        prefix: (Q,) how many items of it the query sees.
    """

    items: Ints
    origin: Ints
    row: Ints
    prefix: Ints

    @property
    def sizes(self) -> Ints:
        """(B,) how many items each holds."""
        sizes: Ints = (self.items >= 0).sum(axis=1)
        return sizes

    def branch(self, chosen: Flags, least: Ints) -> tuple[Ints, Ints]:
        """Gives queries that see enough of a row a copy of it, which may then be changed.

        The other queries keep the row: where all positions of a history train at once, some would
        else see a change that reaches past their target, and with it the target.

        Args:
            chosen: (B,) rows that are to be changed.
            least: (B,) how many items a query has to see.

        Returns:
            Rows to change and the rows that they come from, each (N,): copies, but for a row whose
            queries all see enough, which is changed in its place.
        """
        moves = chosen[self.row] & (self.prefix >= least[self.row])
        stays = np.zeros(len(chosen), dtype=np.bool_)
        stays[self.row[~moves]] = True
        moved = np.zeros(len(chosen), dtype=np.bool_)
        moved[self.row[moves]] = True
        twice = np.flatnonzero(moved & stays)
        place = np.arange(len(chosen))
        place[twice] = len(chosen) + np.arange(len(twice))
        self.row = np.where(moves, place[self.row], self.row)
        self.items = np.concatenate([self.items, self.items[twice]])
        self.origin = np.concatenate([self.origin, self.origin[twice]])
        return place[moved], np.flatnonzero(moved)

    def keep(self, kept: Flags) -> None:
        """Leaves out the items (B, H) that are not kept; each query sees those that are left."""
        kept = kept & (self.items >= 0)
        count = np.concatenate([np.zeros((len(kept), 1), dtype=np.int64), kept.cumsum(1)], axis=1)
        self.prefix = count[self.row, self.prefix]
        order = np.argsort(~kept, axis=1, kind="stable")
        width = max(1, int(count[:, -1].max(initial=0)))
        self.items = np.take_along_axis(np.where(kept, self.items, -1), order, axis=1)[:, :width]

    def mask(self, noise: Doubles, share: float) -> None:
        """Leaves out items whose number is below the share, but never all that a query sees.

        Args:
            noise: (B, H) numbers from 0 to below 1.
            share: Of the items.
        """
        kept = noise >= share
        shortest = np.full(len(self.items), _LONGEST)
        np.minimum.at(shortest, self.row, np.where(self.prefix > 0, self.prefix, _LONGEST))
        first = (np.arange(self.items.shape[1]) < shortest[:, None]) & (self.items >= 0)
        none = first.any(1) & ~(kept & first).any(1)
        best = np.where(first, noise, -1.0).argmax(axis=1)
        kept[none, best[none]] = True
        self.keep(kept)


class HistoryAugmentation:
    """Changes the histories of training queries, never their targets.

    A history is cropped, then some of its items are substituted, then some masked, then a span is
    reordered. Everything is drawn from the seed, the epoch, the user and the end of the window. At
    least one item stays, and no substitute is a target of its own row.

    Args:
        seed: Of the run.
        crop: Probability that a history is cut to a random contiguous part.
        mask: Share of items that are left out.
        reorder: Probability that a random contiguous span is shuffled.
        substitute: Share of items in whose place a neighbour stands.
        neighbours: Makes (I, K) catalog rows of the neighbours of each item, -1 at the end for
            none; asked for at the first batch.
    """

    def __init__(
        self,
        seed: int,
        *,
        crop: float,
        mask: float,
        reorder: float,
        substitute: float,
        neighbours: Callable[[], Neighbours],
    ) -> None:
        self.seed = seed
        self.crop, self.mask, self.reorder, self.substitute = crop, mask, reorder, substitute
        self._make_neighbours = neighbours

    @cached_property
    def neighbours(self) -> Neighbours:
        """(I, K) catalog rows of each item's neighbours, -1 at the end for none."""
        return self._make_neighbours()

    @cached_property
    def _counts(self) -> Ints:
        """(I,) how many neighbours each item has."""
        counts: Ints = (self.neighbours >= 0).sum(axis=1)
        return counts

    def augment(self, rows: BatchRows, history: Ints, epoch: int) -> AugmentedRows:
        """The rows of a batch with changed histories.

        Where a row has queries at several places, each sees what its place saw, changed: an item
        that is left out of the window is one that the later queries see less, and what is cut off
        or shuffled concerns those alone for whom it all lies before their target. For these the row
        stands in the batch again.

        Args:
            rows: The rows and queries of some of an epoch's examples.
            history: (B, H) their histories as catalog rows, -1 for none (at the end).
            epoch: Number of the epoch.
        """
        at = Windows(history, np.arange(len(history)), rows.row, rows.prefix)
        draw = partial(_draw_rows, at, self.seed, epoch, rows)
        if self.crop:
            self._crop(at, draw)
        if self.substitute:
            self._substitute(at, draw, rows.candidates[:, 0])
        if self.mask:
            at.mask(draw(_MASK, at.items.shape[1]), self.mask)
        if self.reorder:
            self._reorder(at, draw)
        changed = dataclasses.replace(
            rows,
            user=rows.user[at.origin],
            start=rows.start[at.origin],
            stop=rows.stop[at.origin],
            row=at.row,
            prefix=at.prefix,
        )
        return AugmentedRows(changed, at.items, at.origin)

    def _crop(self, at: Windows, draw: _Draw) -> None:
        """Cuts some rows to a contiguous part, for the queries that see some of it."""
        sizes = at.sizes
        length = 1 + _scale(draw(_CROP_SIZE), sizes)
        start = _scale(draw(_CROP_START), sizes - length + 1)
        chosen = (draw(_CROP) < self.crop) & (sizes > 1)
        cut, source = at.branch(chosen, start + 1)
        begin, stop = np.zeros(len(at.items), dtype=np.int64), at.sizes
        begin[cut], stop[cut] = start[source], (start + length)[source]
        place = np.arange(at.items.shape[1])
        at.keep((place >= begin[:, None]) & (place < stop[:, None]))

    def _substitute(self, at: Windows, draw: _Draw, targets: Ints) -> None:
        """Puts neighbours in the place of some items; (Q,) targets are none."""
        item = np.maximum(at.items, 0)
        counts = self._counts[item]
        which = _scale(draw(_NEIGHBOUR, at.items.shape[1]), counts)
        other = self.neighbours[item, which].astype(np.int64)
        # a neighbour that is asked about in the same row would stand there as its own answer
        base = len(self.neighbours)
        mine = np.arange(len(at.items))[:, None] * base + other
        asked = np.isin(mine, at.row * base + targets)
        chosen = draw(_SUBSTITUTE, at.items.shape[1]) < self.substitute
        at.items = np.where(chosen & (at.items >= 0) & (counts > 0) & ~asked, other, at.items)

    def _reorder(self, at: Windows, draw: _Draw) -> None:
        """Shuffles a span of some rows, for the queries that see all of it."""
        sizes = at.sizes
        length = 2 + _scale(draw(_SPAN_SIZE), np.maximum(sizes - 1, 0))
        start = _scale(draw(_SPAN_START), np.maximum(sizes - length + 1, 0))
        chosen = (draw(_REORDER) < self.reorder) & (sizes > 1)
        noise = draw(_SPAN_ORDER, at.items.shape[1])
        rows, source = at.branch(chosen, start + length)
        begin, span = start[source][:, None], length[source][:, None]
        place = np.arange(at.items.shape[1])[None, :]
        inside = (place >= begin) & (place < begin + span)
        # sorted, numbers between the places around the span stay within it
        order = np.where(inside, begin - 0.5 + span * noise[source], place)
        order = np.argsort(order, axis=1, kind="stable")
        at.items[rows] = np.take_along_axis(at.items[rows], order, axis=1)


def _draw_rows(
    at: Windows, seed: int, epoch: int, rows: BatchRows, kind: int, width: int | None = None
) -> Doubles:
    """(B,) numbers from 0 to below 1, one a row, or (B, H) one a place.

    Args:
        at: The rows as they are now.
        seed: Of the run.
        epoch: Number of the epoch.
        rows: The rows as they were at first: user and end of the window name an example.
        kind: What is drawn.
        width: H, or None.
    """
    user, stop = rows.user[at.origin], rows.stop[at.origin]
    if width is None:
        return draw_uniform(seed, epoch, user, stop, kind)
    return draw_uniform(seed, epoch, user[:, None], stop[:, None], kind, np.arange(width)[None, :])


def _scale(numbers: Doubles, counts: Ints) -> Ints:
    """Whole numbers from 0 to below some counts, of numbers from 0 to below 1; 0 for no count."""
    return (numbers * counts).astype(np.int64)

"""Item texts as an epoch of training reads them: without some fields, and some words."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.augmentation.draws import draw_uniform
from recsys.data.batches.catalog import Catalog
from recsys.data.columns.arrays import Ints, expand_sizes
from recsys.types import Ragged

_FIELD, _WORD = 11, 12
"""What is drawn, as a part of the key; the numbers below are those of histories."""


class TrainingTexts:
    """The tokens of item texts of which each epoch of training leaves out another part.

    An item has one text in an epoch, wherever it stands: a step encodes it once. What it lacks is
    drawn from the seed, the epoch and the item. No text loses all of its fields, or all words.

    Args:
        catalog: Tokens of the items' texts, and behind them those of their texts without fields.
        seed: Of the run.
        drop_words: Share of words that are left out.
        words: (sum of tokens,) number of each token's word, -1 for one that stays; None where
            words stay.
        drop_fields: Probability that a field is left out.
        rows: (I, 2^F) which text an item has without the fields of a number's bits; None where
            fields stay.
    """

    def __init__(
        self,
        catalog: Catalog,
        seed: int,
        *,
        drop_words: float,
        words: npt.NDArray[np.int32] | None,
        drop_fields: float,
        rows: Ints | None,
    ) -> None:
        self.catalog, self.seed = catalog, seed
        self.drop_words, self._words = drop_words, words
        self.drop_fields, self._rows = drop_fields, rows

    def count_tokens(self, items: Tensor, epoch: int) -> tuple[int, ...]:
        """Raw tokens of the texts of catalog rows (U,) in an epoch."""
        return self._select(items, epoch)[1]

    def gather_tokens(
        self, items: Tensor, epoch: int, device: torch.device | None = None
    ) -> Ragged:
        """Raw token ids, int64, of the texts of catalog rows (U,) on the host in an epoch.

        Args:
            items: Catalog rows.
            epoch: Number of the epoch.
            device: Where the ids are to lie; None: on the host.
        """
        places, sizes = self._select(items, epoch)
        return self.catalog.gather_places(places, sizes, device)

    def _select(self, items: Tensor, epoch: int) -> tuple[Ints, tuple[int, ...]]:
        """Places (N,) of the tokens that are read among those of all texts; each text's number."""
        item = items.numpy()
        row = self._choose_rows(item, epoch)
        starts, sizes = self.catalog.locate_rows(torch.from_numpy(row))
        owner, place = expand_sizes(sizes)
        places = starts[owner] + place
        if self._words is None or not self.drop_words or not len(places):
            return places, tuple(sizes.tolist())
        word = self._words[places].astype(np.int64)
        noise = draw_uniform(self.seed, epoch, item[owner], _WORD, word)
        # of the words that may go, the last one to go stays
        noise[word < 0] = -1.0
        most = np.full(len(item), -1.0)
        np.maximum.at(most, owner, noise)
        kept = (word < 0) | (noise >= self.drop_words) | (noise == most[owner])
        left = np.bincount(owner[kept], minlength=len(item))
        return places[kept], tuple(left.tolist())

    def _choose_rows(self, item: Ints, epoch: int) -> Ints:
        """(U,) which of its texts each item has in an epoch."""
        if self._rows is None:
            return item
        fields = np.arange(self._rows.shape[1].bit_length() - 1)
        drawn = draw_uniform(self.seed, epoch, item[:, None], _FIELD, fields[None, :])
        number = ((drawn < self.drop_fields) << fields).sum(axis=1)
        chosen: Ints = self._rows[item, number]
        return chosen

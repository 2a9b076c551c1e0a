"""What augmentation may go with, and the neighbours that stand in for an item."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from recsys.config.choices import get_choice_name
from recsys.config.schema import RunConfig
from recsys.data.augmentation.histories import HistoryAugmentation
from recsys.data.augmentation.masks import HistoryMasks
from recsys.data.columns.words import split_words
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_matrix

    from recsys.data.batches.examples import Examples

NEIGHBOURS = 10
"""How many neighbours of an item one is drawn from: more are less and less alike."""
SHRINK = 20.0
"""Added to the product of both norms where users make neighbours: doubts what few users had."""


def check_augmentation(run: RunConfig) -> None:
    """Refuses augmentation where there is nothing that it could change.

    Raises:
        ConfigError: The architecture does not train, or a key has nothing to work with.
    """
    options = run.data.augment
    if not run.architecture.trains and (options.changes_histories or options.test_masks):
        raise ConfigError(
            f"data.augment changes what is trained on, and architecture "
            f"{get_choice_name(run.architecture)} does not train; leave it out."
        )
    if options.test_masks and not options.mask:
        raise ConfigError(
            f"data.augment.test_masks={options.test_masks} averages over histories that lack a "
            "share of their items, and data.augment.mask is 0; set it to that share, or "
            "data.augment.test_masks=0."
        )


def make_history_augmentation(
    run: RunConfig, examples: Examples, texts: Sequence[str]
) -> HistoryAugmentation | None:
    """What changes the histories of training queries, or None where nothing does.

    Args:
        run: The options.
        examples: The training events; no other event has a part in it.
        texts: Text of every item.
    """
    options = run.data.augment
    if not options.changes_histories:
        return None

    def make_neighbours() -> npt.NDArray[np.int32]:
        if options.substitute_by == "text":
            return find_text_neighbours(examples, texts)
        return find_co_occurring(examples)

    return HistoryAugmentation(
        run.seed,
        crop=options.crop,
        mask=options.mask,
        reorder=options.reorder,
        substitute=options.substitute,
        neighbours=make_neighbours,
    )


def make_history_masks(run: RunConfig) -> HistoryMasks | None:
    """What masks the histories of cases, or None where they are read as they are."""
    options = run.data.augment
    if not options.test_masks:
        return None
    return HistoryMasks(run.seed, options.test_masks, options.mask)


def find_co_occurring(examples: Examples) -> npt.NDArray[np.int32]:
    """(I, K) the items that most of the same users had in training, -1 at the end for none."""
    from scipy.sparse import csr_matrix

    users, items = examples.get_train_pairs()
    _, rows = np.unique(users, return_inverse=True)
    shape = (int(rows.max(initial=-1)) + 1, examples.items)
    matrix = csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, items)), shape=shape)
    matrix.data[:] = 1  # the constructor has added up repeats
    return _select_neighbours(matrix, SHRINK)


def find_text_neighbours(examples: Examples, texts: Sequence[str]) -> npt.NDArray[np.int32]:
    """(I, K) the items with the most similar texts among those of training, -1 at the end for none.

    Words are weighted over all texts, as `tfidf` has it; an item that training does not show has
    no neighbour and is none.
    """
    from scipy.sparse import diags
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, tokenizer=split_words, token_pattern=None)
    vectors = vectorizer.fit_transform(texts).astype(np.float32)
    shown = np.zeros(examples.items, dtype=np.float32)
    shown[examples.get_pool("uniform")] = 1
    return _select_neighbours((diags(shown) @ vectors).T.tocsr(), 0.0)


def _select_neighbours(matrix: csr_matrix, shrink: float) -> npt.NDArray[np.int32]:
    """(I, K) the columns with the largest cosine of each column, best first, -1 for none."""
    from recsys.layers.item_item import compute_cosine_neighbours

    matrix.eliminate_zeros()
    alike = compute_cosine_neighbours(matrix, NEIGHBOURS, shrink)
    alike.sort_indices()
    out = np.full((matrix.shape[1], NEIGHBOURS), -1, dtype=np.int32)
    owner = np.repeat(np.arange(matrix.shape[1]), np.diff(alike.indptr))
    place = np.arange(len(owner)) - alike.indptr[owner]
    out[owner, place] = alike.indices
    return out

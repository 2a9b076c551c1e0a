"""What augmentation may go with, and the neighbours that stand in for an item."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from recsys.config.choices import get_choice_name
from recsys.config.schema import RunConfig
from recsys.data.augmentation.histories import HistoryAugmentation
from recsys.data.columns.words import split_words
from recsys.errors import ConfigError
from recsys.training.phases import EVERY_STEP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_matrix

    from recsys.data.augmentation.masks import HistoryMasks
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
    changes = options.changes_histories or options.changes_texts or options.test_masks
    if changes and not run.architecture.trains:
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
    if options.changes_texts:
        _check_texts(run)


def _check_texts(run: RunConfig) -> None:
    """Refuses to leave something out of texts that a step does not read.

    Raises:
        ConfigError: No text is read, or vectors or a table stand for it.
    """
    architecture, frozen = run.architecture, run.tuning is None or run.tuning.moves == "nothing"
    if not architecture.reads_tokens:
        raise ConfigError(
            f"{_name_text_keys(run)} leaves something out of item texts, and architecture "
            f"{get_choice_name(architecture)} with these options reads none; leave it out."
        )
    if run.trainer.encoder_updates != EVERY_STEP:
        raise ConfigError(
            f"{_name_text_keys(run)} leaves something out of the texts that a step reads, and with "
            f"trainer.encoder_updates={run.trainer.encoder_updates} vectors of a table stand for "
            f"them; set trainer.encoder_updates={EVERY_STEP}."
        )
    if frozen and run.encoder.cache and architecture.reads_item_vectors:
        check_texts_are_read(run)
    if run.data.augment.drop_fields and run.data.source.item_template is None:
        raise ConfigError(
            "data.augment.drop_fields leaves out a field of the template of an item's text, and "
            f"data.source={get_choice_name(run.data.source)} has no item_text; leave it out."
        )


def _name_text_keys(run: RunConfig) -> str:
    """The keys that leave something out of texts, as they are set."""
    options = run.data.augment
    return " and ".join(
        f"data.augment.{name}={share:g}"
        for name, share in (
            ("drop_words", options.drop_words),
            ("drop_fields", options.drop_fields),
        )
        if share
    )


def check_texts_are_read(run: RunConfig) -> None:
    """Raises an error where item texts are to change and what they give is kept.

    Raises:
        ConfigError: That is so.
    """
    if run.data.augment.changes_texts:
        raise ConfigError(
            f"{_name_text_keys(run)} leaves something else out of a text in each epoch, and what "
            "the encoder's frozen layers give of whole texts is kept; set encoder.cache=false to "
            "read the texts in every step."
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
    from recsys.data.augmentation.masks import HistoryMasks

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

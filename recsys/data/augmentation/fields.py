"""Texts of items without some of the fields of their template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.data.columns.arrays import Ints
from recsys.data.readers.templates import fill_template, list_template_columns
from recsys.errors import ConfigError

MOST = 6
"""Fields of a template: an item has up to two to that power of texts, and all are tokenised."""


@dataclass(frozen=True)
class FieldVariants:
    """The texts of items with and without each of their fields.

    Attributes:
        texts: Those of the catalog in its order, and behind them all others, each item's once.
        fields: F, how many fields the template has.
        rows: (I, 2^F) which text an item has without the fields of a number's bits; the whole one
            where nothing else would be left.
    """

    texts: tuple[str, ...]
    fields: int
    rows: Ints


def make_field_variants(
    items: pl.DataFrame, template: str | None, barred: Sequence[str]
) -> FieldVariants:
    """Fills a template without each set of its fields.

    Args:
        items: The catalog, with its texts and the columns that they were made of.
        template: What made them; None where nothing did.
        barred: Columns that hold kinds with bars between them, as `fill_template` has it.

    Raises:
        ConfigError: There is no template, it has one field, or too many; or its columns no longer
            make the texts.
    """
    key = "data.augment.drop_fields"
    fields = [] if template is None else list_template_columns(template)
    if template is None or len(fields) < 2:
        raise ConfigError(
            f"{key} leaves out a field of the items' texts, and these are made of "
            f"{'one column' if fields else 'no template'}; set data.source.item_text to a template "
            f"of several columns, or {key}=0."
        )
    if len(fields) > MOST:
        raise ConfigError(
            f"{key} makes a text for each set of fields, and data.source.item_text has "
            f"{len(fields)}; name {MOST} at most, or set {key}=0."
        )
    whole = items["text"].to_list()
    known = set(fields) <= set(items.columns)
    if not known or fill_template(items, template, barred).to_list() != whole:
        raise ConfigError(
            f"{key}: the columns of the items no longer make the texts that this source gave them; "
            f"set {key}=0, and leave words out with data.augment.drop_words."
        )
    texts: list[str] = list(whole)
    rows: npt.NDArray[np.int64] = np.empty((len(whole), 1 << len(fields)), dtype=np.int64)
    places = [{text: row} for row, text in enumerate(whole)]
    for number in range(1 << len(fields)):
        left_out = [name for bit, name in enumerate(fields) if number >> bit & 1]
        bare = items.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in left_out)
        for row, text in enumerate(fill_template(bare, template, barred).to_list()):
            place = places[row].setdefault(text, len(texts)) if text else row
            if place == len(texts):
                texts.append(text)
            rows[row, number] = place
    return FieldVariants(tuple(texts), len(fields), rows)

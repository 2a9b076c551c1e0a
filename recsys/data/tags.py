"""Tags of items, as codes of a vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recsys.data.tables import WINDOWS
from recsys.errors import ConfigError

ALONE = 0.9
"""Share of different tags among the items of a column above which it names single items."""


_DECIMAL = re.compile(r"[-+]?\d*\.\d+([eE][-+]?\d+)?")


def encode_tags(
    items: pl.DataFrame, columns: Sequence[str], numbered: pl.DataFrame | None = None
) -> Tensor:
    """(I, T) number of each tag of each item from 1, 0 for none; tags of all columns together.

    A text names several, as `a|b` or `a, b`; a number or a truth value is one tag. The same word
    in two columns is two tags, and one that an item names twice counts once.

    Args:
        items: The items.
        columns: Theirs.
        numbered: Items whose tags have the numbers; a tag that none of them has is left out. None:
            the same.

    Raises:
        ConfigError: A column is missing, holds measures or names of single items, or no tag at all.
    """
    present = [name for name in items.columns if name not in ("item", "text", *WINDOWS)]
    numbers: dict[tuple[str, str], int] = {}
    out: list[list[int]] = [[] for _ in range(len(items))]
    for name in columns:
        if name not in present:
            raise ConfigError(
                f"architecture.categories: the items have no column '{name}' of tags (there are: "
                f"{', '.join(present) or 'none'})."
            )
        found = _split_tags(items[name])
        _check_kinds(name, found)
        for tags in found if numbered is None else _split_tags(numbered[name]):
            for tag in tags:
                numbers.setdefault((name, tag), len(numbers) + 1)
        for row, tags in enumerate(found):
            out[row] += [numbers[name, tag] for tag in tags if (name, tag) in numbers]
    if not numbers:
        raise ConfigError(
            f"architecture.categories: no item has a tag in {', '.join(columns)}; leave it out."
        )
    return pad_sequence([torch.tensor(x, dtype=torch.long) for x in out], batch_first=True)


def _check_kinds(name: str, tags: Sequence[Sequence[str]]) -> None:
    """Raises an error for what would be ids or measures under another name.

    Raises:
        ConfigError: Nearly each item has a tag of its own, or all tags are decimal numbers.
    """
    kinds, tagged = {tag for of_item in tags for tag in of_item}, sum(map(bool, tags))
    if kinds and all(_DECIMAL.fullmatch(tag) for tag in kinds):
        raise ConfigError(
            f"architecture.categories: item column '{name}' holds measures, such as "
            f"{min(kinds)}; make kinds of them first, or leave it out."
        )
    # Of a handful of items all tags may differ without being names.
    if tagged > 10 and len(kinds) > ALONE * tagged:
        raise ConfigError(
            f"architecture.categories: item column '{name}' has {len(kinds)} tags for {tagged} "
            "items and names single items rather than kinds of them; architecture.item=text+id "
            "learns a vector for each item."
        )


def _split_tags(column: pl.Series) -> list[list[str]]:
    """The tags of each item, each once, in order.

    Raises:
        ConfigError: The column holds measures rather than tags.
    """
    if column.dtype != pl.String and not column.dtype.is_integer() and column.dtype != pl.Boolean:
        raise ConfigError(
            f"architecture.categories: item column '{column.name}' is {column.dtype}; tags are "
            "texts, whole numbers or truth values."
        )
    texts = column.cast(pl.String).fill_null("").to_list()
    parts = [text.replace(", ", "|").split("|") for text in texts]
    return [list(dict.fromkeys(p.strip() for p in part if p.strip())) for part in parts]

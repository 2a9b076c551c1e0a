"""A made-up catalog with the columns that people speak of."""

import numpy as np
import polars as pl

from recsys.trained.conversation.columns import ItemColumns
from recsys.trained.conversation.language.grammar import Setting
from recsys.trained.conversation.titles import TitleFinder

ITEMS = pl.DataFrame(
    {
        "item": ["f1", "f2", "f3", "f4", "f5", "f6"],
        "title": ["Alien", "Matrix, The", "War", "No Country for Old Men", "Love, Action", "Café"],
        "year": ["1979", "1999", "2001", "2007", "1985", None],
        "genres": ["Horror|Sci-Fi", "Action|Sci-Fi", "War|Drama", "Drama", "Comedy", "Comedy|War"],
        "studio": ["Fox", "Warner", "Fox", "Warner", "War", "War"],
        "price": ["$9.99", "$12.00", "$5", "$1,200.50", "$7", ""],
        "pages": [100, 300, None, 250, 90, 120],
        "text": ["a", "b", "c", "d", "e", "f"],
    }
)


def make_setting(items=ITEMS, length=5):
    counts = np.arange(len(items), dtype=float)
    return Setting(ItemColumns(items, counts), TitleFinder(items, counts), length)

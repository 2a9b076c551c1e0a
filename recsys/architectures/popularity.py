"""The floor of every table: items by how often training shows them, of late or ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import BaselineConfig


@dataclass
class Config(BaselineConfig):
    """Which events count, and how much.

    Ages are counted back from the last event of training, not from the case: no event that is
    held out counts, and every case gets the same ranking.
    """

    kind: Literal["all_time", "recent", "decay", "reversed", "equal"] = option(
        "all_time",
        "every training event; those of the last days before training ends; each with a weight "
        "that halves every so many days; the items with fewest events first, which no one wants "
        "and which shows whether lists tell a target by their making; or all items alike, which is "
        "chance",
    )
    days: float = option(30.0, "of the window of recent, or the half-life of decay", above=0)


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.popularity")

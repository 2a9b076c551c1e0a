"""Items that the same users had, or had near each other: item-item similarities, no training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import BaselineConfig, RunConfig
from recsys.errors import ConfigError


@dataclass
class Config(BaselineConfig):
    """How items are compared, and a history with them."""

    neighbours: int = option(500, "similar items that each item keeps", least=1)
    shrink: float = option(20.0, "added to the product of both norms: doubts rare items", least=0)
    binary: bool = option(True, "a repeated event counts once")
    recency: float = option(0.3, "decay a step back in the history; 0: none", least=0)
    window: int | None = option(
        None,
        "steps that two events of a user may be apart to be a pair; null: any number",
        least=1,
    )
    gap: Literal["equal", "inverse"] = option(
        "equal", "with a window, what a pair weighs: all alike, or 1 / steps apart"
    )
    backward: float = option(
        1.0,
        "with a window, what a pair weighs for the item that came first, in proportion to the one "
        "that came after it; 0: only the order of events counts",
        least=0,
    )

    def check(self, run: RunConfig) -> None:
        """Refuses weights of pairs where there is no window."""
        if self.window is None:
            for name, default in (("gap", Config.gap), ("backward", Config.backward)):
                if getattr(self, name) != default:
                    raise ConfigError(
                        f"architecture.{name} weighs pairs within a window, and "
                        "architecture.window=null; set architecture.window to a number of steps, "
                        "or leave it out."
                    )


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.item_knn")

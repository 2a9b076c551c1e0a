"""Items that the same users had, or had near each other, and items of similar texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import (
    ENCODER,
    BaselineConfig,
    GridValue,
    RunConfig,
    grid_option,
)
from recsys.errors import ConfigError

NONE = "none"
"""`vectors` of what counts events only."""


@dataclass
class Config(BaselineConfig):
    """How items are compared, and a history with them."""

    neighbours: int = option(500, "similar items that each item keeps", least=1)
    shrink: GridValue = grid_option(
        20.0, "added to the product of both norms: doubts rare items", (20.0, 100.0), least=0
    )
    binary: bool = option(True, "a repeated event counts once")
    recency: GridValue = grid_option(
        0.3, "decay a step back in the history; 0: none", (0.1, 0.3, 1.0), least=0
    )
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
    vectors: str = option(
        NONE,
        f"whose item vectors say which items are similar, cold ones too: {NONE}; {ENCODER}, the "
        "pretrained one; or the folder of a finished run of two towers",
    )
    text_neighbours: int = option(
        50, "with vectors, nearest items that each item of a history leads to", least=1
    )
    text_weight: GridValue = grid_option(
        None,
        "with vectors, their share in a score; 0: none, 1: all",
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8),
        least=0,
        most=1,
    )

    @property
    def item_vectors_from(self) -> str | None:
        """The encoder, or the run that is named."""
        return None if self.vectors == NONE else self.vectors

    def check(self, run: RunConfig) -> None:
        """Refuses weights of pairs without a window, and of texts without vectors."""
        window = "weighs pairs within a window", "window=null", "window to a number of steps"
        texts = "is of item vectors", f"vectors={NONE}", f"vectors={ENCODER} or a run's folder"
        for name in ("gap", "backward") if self.window is None else ():
            self._check_default(name, *window)
        for name in ("text_neighbours", "text_weight") if self.vectors == NONE else ():
            self._check_default(name, *texts)

    def _check_default(self, name: str, does: str, as_it_is: str, remedy: str) -> None:
        if getattr(self, name) != getattr(Config, name):
            raise ConfigError(
                f"architecture.{name} {does}, and architecture.{as_it_is}; set "
                f"architecture.{remedy}, or leave it out."
            )


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.item_knn")

"""EASE: a linear item-item autoencoder in closed form, pulled towards item vectors if asked."""

from __future__ import annotations

from dataclasses import dataclass

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import (
    ENCODER,
    BaselineConfig,
    GridValue,
    RunConfig,
    grid_option,
    list_grid,
)
from recsys.errors import ConfigError

NONE = "none"
"""`vectors` of the plain EASE, which reads no text."""

MOST = 4
"""Penalties to choose among: each costs a factorisation of the matrix of all items."""


@dataclass
class Config(BaselineConfig):
    """The penalty, the pull towards item vectors, and what a catalog may cost."""

    vectors: str = option(
        NONE,
        f"item vectors that the weights are pulled towards: {NONE}; {ENCODER}, the pretrained one; "
        "or the folder of a finished run of two towers",
    )
    l2: GridValue = grid_option(
        300.0,
        f"strength of the L2 penalty (mu); at most {MOST} to choose among, as each costs a "
        "factorisation",
        (100.0, 300.0, 1000.0),
        above=0,
    )
    rho: GridValue = grid_option(
        None,
        "with vectors, the pull towards the weights that these give alone; 0: none",
        (0.0, 50.0, 200.0, 500.0, 1000.0),
        least=0,
    )
    text_l2: GridValue = grid_option(
        None, "with vectors, the L2 penalty of the weights that these give", (0.3, 10.0), above=0
    )
    recency: GridValue = grid_option(
        0.0, "decay a step back in the history; 0: none", (0.0, 0.1, 0.3), least=0
    )
    limit_gb: float = option(
        4.0, "largest size of the dense matrix of all items seen in training", least=0
    )

    @property
    def item_vectors_from(self) -> str | None:
        """The encoder, or the run that is named."""
        return None if self.vectors == NONE else self.vectors

    def check(self, run: RunConfig) -> None:
        """Refuses a pull towards nothing, and more penalties than are worth their time."""
        for name in ("rho", "text_l2"):
            if self.item_vectors_from is None and getattr(self, name) is not None:
                raise ConfigError(
                    f"architecture.{name} is of the pull towards item vectors, and "
                    f"architecture.vectors={NONE}; set architecture.vectors={ENCODER} or a run's "
                    "folder, or leave it out."
                )
        count = len(list_grid(self, "l2"))
        if count > MOST:
            raise ConfigError(
                f"architecture.l2 has {count} penalties to choose among, and each costs a "
                f"factorisation of the matrix of all items; give {MOST} at most."
            )


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.ease")

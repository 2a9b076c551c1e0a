"""Late interaction: the tokens of the user's last titles, or text, look for theirs in an item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import WIDEST, ArchitectureConfig, Output
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.config.compose import RunConfig


@dataclass
class Config(ArchitectureConfig):
    """Options of the late interaction."""

    gives: ClassVar[frozenset[Output]] = frozenset({"scores"})
    shares_passes: ClassVar[bool] = True

    user: Literal["history", "text"] = option(
        "history",
        "the user's tokens from the last titles of the history, or from profile and titles, or a "
        "dialogue so far, as one text",
    )
    titles: int = option(3, "last items of the history whose tokens are the user's", least=1)
    width: int | None = option(
        None, "of a token vector, by a map that trains; null: the encoder's", least=1, most=WIDEST
    )
    special_tokens: bool = option(False, "whether the states of special tokens take part")
    heads: bool = option(True, "residual heads on both sides' tokens, zero at first")
    temperature: float = option(0.05, "of the mean cosine at the start", above=0)
    recency: float = option(0.3, "decay a step back in the history, at the start")
    keep_gb: float = option(
        2.0, "largest size of a catalog's token states kept in memory, in GB (10^9 bytes)", least=0
    )

    @property
    def reads_user_texts(self) -> bool:
        """Whether a query is the user's text."""
        return self.user == "text"

    def check(self, run: RunConfig) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: A pooling that is never asked, or a table of item vectors, of which there
                are none.
        """
        if run.encoder.pooling == "attention":
            raise ConfigError(
                "late_interaction pools nothing, so that encoder.pooling=attention would never "
                "train; set it to mean."
            )
        if run.trainer.encoder_updates != "every_step":
            raise ConfigError(
                "late_interaction has many vectors an item, and trainer.encoder_updates trains "
                "one; set it to every_step."
            )


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.late_interaction")

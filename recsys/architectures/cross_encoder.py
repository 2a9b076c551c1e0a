"""One joint pass over the user's text and a candidate's text, one score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import WIDEST, ArchitectureConfig, Output
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.config.compose import RunConfig


@dataclass
class Config(ArchitectureConfig):
    """Options of the cross-encoder."""

    gives: ClassVar[frozenset[Output]] = frozenset({"scores"})
    shares_passes: ClassVar[bool] = True
    reads_user_texts: ClassVar[bool] = True
    reads_item_vectors: ClassVar[bool] = False
    reads_context_texts: ClassVar[bool] = True

    context: list[str] = option(
        [],
        "what the user's text begins with, as in 'device: phone': hour and weekday (UTC) of the "
        "target, and columns of the interactions that are known before it",
    )
    temperature: float = option(0.05, "of the cosine of both spans at the start", above=0)
    hidden: int = option(256, "width of the head, which is zero at first", least=1, most=WIDEST)

    @property
    def reads_context(self) -> list[str]:
        """What of a query's context stands in its text: hour, weekday or columns."""
        return self.context

    def check(self, run: RunConfig) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: A pooling that the joint pass leaves out, or more joint passes than any
                run can pay for.
        """
        if run.evaluation.protocol == "catalog":
            raise ConfigError(
                "cross_encoder would need a joint pass for every user and item; set "
                "evaluation.protocol=candidates."
            )
        if run.data.queries == "all":
            raise ConfigError(
                "data.queries=all would cost cross_encoder a joint pass for each candidate of "
                "every position of a history; set data.queries=random or last."
            )
        if run.encoder.pooling == "attention":
            raise ConfigError(
                "cross_encoder takes the mean of each span, so that encoder.pooling=attention "
                "would never train; set it to mean."
            )


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.cross_encoder")

"""Two towers: items from their texts, the user from item vectors or from a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from recsys import lazy
from recsys.config.compose import get_choice_name, option
from recsys.config.schema import WIDEST, ArchitectureConfig, Output
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.config.compose import RunConfig


@dataclass
class Config(ArchitectureConfig):
    """Options of the two towers."""

    gives: ClassVar[frozenset[Output]] = frozenset({"queries", "scores", "table"})
    shares_passes: ClassVar[bool] = True

    user: Literal["history", "text", "text+history"] = option(
        "history",
        "the user from the history's item vectors, from profile and titles or a dialogue so far as "
        "a text, or from the sum of both, of which the history's share is learned",
    )
    towers: Literal["shared", "separate"] = option(
        "shared", "one encoder for both, or one for items and one for users"
    )
    item: Literal["text", "id", "text+id"] = option(
        "text", "items from their texts, from vectors learned by row, or from the sum of both"
    )
    id_dropout: float = option(
        0.0,
        "with item=text+id: probability that a training step leaves an item's learned vector out, "
        "so that texts learn to do without it, as they must for a cold item (DropoutNet)",
        least=0,
        below=1,
    )
    id_shrinkage: float = option(
        0.0,
        "with item=text+id: an item with n training events has n / (n + this) of its learned "
        "vector, a cold one exactly nothing; 0: all of it",
        least=0,
    )
    width: int = option(64, "of the vectors of item=id", least=1, most=WIDEST)
    categories: list[str] = option(
        [],
        "item columns whose tags add learned vectors to an item (as words they go into "
        "data.source.item_text)",
    )
    context: list[str] = option(
        [],
        "what a query is asked with: hour and weekday (UTC) of the target, and columns of the "
        "interactions that are known before it",
    )
    context_as: Literal["embedding", "text"] = option(
        "embedding",
        "learned vectors that are added to the user's, or words before a text user's profile, as "
        "in 'device: phone'",
    )
    history: Literal["mean", "recency", "attention", "causal", "gru"] = option(
        "recency",
        "how a history's item vectors become the user's; causal, gru: recency plus a causal "
        "Transformer (transformer is the same) or gated recurrent units",
        also={"transformer": "causal"},
    )
    mix: bool = option(
        True, "add the recency mix to causal and gru; false: they alone, as SASRec and GRU4Rec"
    )
    score: Literal["cosine", "dot", "mlp"] = option(
        "cosine", "learned temperature, plain product, or cosine plus an MLP on both vectors"
    )
    popularity: bool = option(
        False, "add a learned multiple of the log of an item's training events to its scores"
    )
    popularity_cold: bool = option(
        False,
        "with popularity: judge items that training never shows by their count of 0; false: they "
        "get the mean of those that it shows",
    )
    temperature: float = option(0.05, "of the cosine at the start", above=0)
    recency: float = option(0.3, "decay a step back in the history, at the start")
    layers: int = option(2, "of history=causal and gru", least=1, most=256)
    attention_heads: int = option(4, "of a layer of history=causal; they divide the width", least=1)
    dropout: float = option(0.2, "in history=causal and gru", least=0, below=1)
    heads: bool = option(True, "residual heads on item and user vectors, zero at first")
    hidden: int = option(256, "width of the MLP", least=1, most=WIDEST)
    vectors_as: Literal["fp32", "int8", "binary", "binary+int8"] = option(
        "fp32",
        "how the vectors of items are stored outside of training: int8 a number; binary, its sign; "
        "binary+int8, a pool by signs that is scored again by int8",
    )
    pool: int = option(
        200,
        "with vectors_as=binary+int8: items of a query that are scored again, those included that "
        "are left out since the user had them",
        least=1,
    )

    @property
    def reads_tokens(self) -> bool:
        """Whether an encoder reads texts, so that it is loaded and they are tokenised."""
        return self.item != "id"

    @property
    def reads_user_texts(self) -> bool:
        """Whether user texts have to be tokenised."""
        return self.user != "history"

    @property
    def learns_rows(self) -> bool:
        """Whether what it has learned belongs to single items, tags or contexts of its data."""
        extra = self.popularity or self.reads_tags or self.reads_context
        return self.item != "text" or bool(extra)

    @property
    def reads_tags(self) -> list[str]:
        """Item columns of tags."""
        return self.categories

    @property
    def reads_context(self) -> list[str]:
        """What of a query's context its vector is made of: hour, weekday or columns."""
        return self.context

    @property
    def reads_context_texts(self) -> bool:
        """Whether that stands in the user's text."""
        return self.context_as == "text"

    @property
    def stores_vectors_as(self) -> str:
        """How vectors of items are stored where they are ranked."""
        return self.vectors_as

    def check(self, run: RunConfig) -> None:
        """Refuses values that cannot be.

        Raises:
            ConfigError: Options exclude each other.
        """
        if self.history in ("causal", "gru") and self.user == "text":
            raise ConfigError(
                f"architecture.history={self.history} reads item vectors and architecture.user="
                "text none; set architecture.user=history."
            )
        if not self.mix and self.history not in ("causal", "gru"):
            raise ConfigError(
                f"architecture.mix=false leaves nothing of history={self.history}; it goes with "
                "causal and gru."
            )
        if self.user == "text+history" and run.trainer.encoder_updates != "every_step":
            raise ConfigError(
                "trainer.encoder_updates gives item vectors alone a table, and architecture.user="
                "text+history reads texts of users beside them; set trainer.encoder_updates="
                "every_step."
            )
        if self.context_as == "text":
            self._check_context()
        if self.item == "id":
            self._check_ids(run)
        self._check_rows_beside_texts()
        self._check_stored()
        if self.popularity_cold and not self.popularity:
            raise ConfigError(
                "architecture.popularity_cold=true says what the popularity prior gives to cold "
                "items, and there is none; set architecture.popularity=true or leave it out."
            )
        shared = self.towers == "shared"
        if run.trainer.encoder_updates != "every_step" and shared is (self.user == "text"):
            raise ConfigError(
                "trainer.encoder_updates gives item vectors alone a table; let architecture.user="
                "history go with towers=shared, and user=text with towers=separate."
            )

    def _check_context(self) -> None:
        """Refuses context as text where there is none of either.

        Raises:
            ConfigError: There is no user text, or no context.
        """
        if not self.reads_user_texts:
            raise ConfigError(
                "architecture.context_as=text writes the context into the user's text, and "
                f"architecture.user={self.user} has none; set architecture.user=text, or "
                "architecture.context_as=embedding."
            )
        if not self.context:
            raise ConfigError(
                "architecture.context_as=text has no context to write; name it, as in "
                "architecture.context=[hour,weekday], or leave it out."
            )

    def _check_stored(self) -> None:
        """Refuses to store vectors in few bits where a score is more than their product.

        Raises:
            ConfigError: It is, or items have two vectors.
        """
        if self.vectors_as == "fp32":
            return
        odd = {
            "architecture.score=mlp": self.score == "mlp",
            "architecture.popularity=true": self.popularity,
            "architecture.towers=separate": self.towers == "separate" and self.user != "text",
        }
        for name, asked in odd.items():
            if asked:
                raise ConfigError(
                    f"architecture.vectors_as={self.vectors_as} stores one vector an item, by "
                    f"whose product alone it is found, and {name} asks for more; leave one of "
                    "them out."
                )

    def _check_rows_beside_texts(self) -> None:
        """Refuses to leave out or to shrink learned vectors where they are all or nothing.

        Raises:
            ConfigError: Items have no text beside them, or no learned vector.
        """
        for key, value in (("id_dropout", self.id_dropout), ("id_shrinkage", self.id_shrinkage)):
            if value and self.item != "text+id":
                has = "nothing else" if self.item == "id" else "no learned vectors"
                raise ConfigError(
                    f"architecture.{key}={value:g} takes from the learned vectors that stand "
                    f"beside a text, and architecture.item={self.item} has {has}; set "
                    f"architecture.item=text+id, or leave {key} out."
                )

    def _check_ids(self, run: RunConfig) -> None:
        """Refuses what asks for texts where items have none.

        Raises:
            ConfigError: Something asks for them.
        """
        alone = "architecture.item=id loads no encoder and reads no text"
        if run.tuning is not None and run.tuning.moves != "nothing":
            raise ConfigError(
                f"{alone}: there is nothing for tuning={get_choice_name(run.tuning)} to adapt; set "
                "tuning=frozen."
            )
        wrong = {
            f"architecture.user={self.user}": self.reads_user_texts,
            "architecture.towers=separate": self.towers == "separate",
            "trainer.batch_tokens": run.trainer.batch_tokens is not None,
            "trainer.encoder_updates": run.trainer.encoder_updates != "every_step",
            "profile=true": run.profile,
        }
        for name, asked in wrong.items():
            if asked:
                raise ConfigError(f"{alone}, and {name} needs one; leave that out.")


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.two_tower")

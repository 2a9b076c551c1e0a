"""A decoder with its language-model head: user and item in a prompt, the score its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import ArchitectureConfig, Output, PromptOptions
from recsys.data.prompts.template import DEFAULT, DISLIKES, PromptTemplate
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.config.compose import RunConfig


@dataclass
class Config(ArchitectureConfig):
    """Options of the prompt."""

    gives: ClassVar[frozenset[Output]] = frozenset({"scores"})
    reads_user_texts: ClassVar[bool] = True
    reads_item_vectors: ClassVar[bool] = False
    reads_context_texts: ClassVar[bool] = True

    template: str = option(
        DEFAULT,
        "the prompt: likes and dislikes are titles of the history, user the user's text, context "
        "what is known of the moment, candidate the item, yes and no the answers, and each name in "
        "architecture.context is a field too; a line whose fields are all empty is left out",
    )
    yes: str = option("Yes", "answer that speaks for the item, one token")
    no: str = option("No", "answer that speaks against it, one token")
    separator: str = option("; ", "what stands between the titles of a list")
    chat: bool = option(True, "use the chat template of a tokenizer that has one")
    context: list[str] = option(
        [],
        "what the prompt may say of the moment: hour and weekday (UTC) of the target, and columns "
        "of the interactions that are known before it",
    )
    share_prefix: bool = option(
        True, "read what comes before the item once for all items of a query; scores stay the same"
    )
    residual: bool = option(
        True, "add a linear map of the last state to the score, which is zero at first and trains"
    )

    @property
    def reads_context(self) -> list[str]:
        """What of a query's context may stand in its prompt: hour, weekday or columns."""
        return self.context

    @property
    def prompt(self) -> PromptOptions:
        """How a query and an item make a prompt."""
        return PromptOptions(self.template, self.yes, self.no, self.separator, self.chat)

    @property
    def reads_dislikes(self) -> bool:
        """Whether it reads what a user did not like, where the data says so."""
        template = PromptTemplate.parse(self.template, self.yes, self.no, self.context)
        return DISLIKES in template.fields

    def check(self, run: RunConfig) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: A template that cannot be read, more prompts than any run can pay for, or
                nothing that would train.
        """
        template = PromptTemplate.parse(self.template, self.yes, self.no, self.context)
        if run.evaluation.protocol == "catalog":
            raise ConfigError(
                "prompt would have to read every item for every user; set "
                "evaluation.protocol=candidates."
            )
        if run.data.queries == "all":
            raise ConfigError(
                "data.queries=all would cost prompt a sequence for every position of a history; "
                "set data.queries=random or last."
            )
        if run.encoder.attention == "bidirectional":
            raise ConfigError(
                "encoder.attention=bidirectional lets tokens see those that follow, and "
                "architecture=prompt reads the answer behind the last one; leave it out."
            )
        augment = run.data.augment
        if augment.changes_texts:
            raise ConfigError(
                "data.augment.drop_words and drop_fields leave something out of texts, and prompt "
                "reads them whole; leave them out."
            )
        if DISLIKES in template.fields and (augment.changes_histories or augment.test_masks):
            raise ConfigError(
                "data.augment changes what a user liked, and not the {dislikes} of "
                "architecture.template; leave out either."
            )
        moves = None if run.tuning is None else run.tuning.moves
        if moves == "nothing" and not self.residual and run.trainer.max_steps != 0:
            raise ConfigError(
                "nothing would train: architecture.residual=false with a tuning that moves "
                "nothing; set trainer.max_steps=0 for the model as it is, or either of the two."
            )


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.prompt")

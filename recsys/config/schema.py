"""The typed schema of a run: what choices of each axis tell the rest, and all of its options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

from recsys.config.groups import (
    WIDEST,
    AugmentOptions,
    CheckpointOptions,
    EncoderOptions,
    EvaluationOptions,
    GridValue,
    OptimizerOptions,
    PromptOptions,
    RegularizationOptions,
    TrackingOptions,
    TrainerOptions,
    grid_option,
    list_grid,
    option,
)

__all__ = [
    "ENCODER",
    "WIDEST",
    "ArchitectureConfig",
    "AugmentOptions",
    "BaselineConfig",
    "CheckpointOptions",
    "Choice",
    "DataOptions",
    "EncoderOptions",
    "EvaluationOptions",
    "GridValue",
    "Moves",
    "NegativeSpec",
    "ObjectiveConfig",
    "OptimizerOptions",
    "Output",
    "PromptOptions",
    "RegularizationOptions",
    "Repeated",
    "RunConfig",
    "Sampling",
    "SourceConfig",
    "SplitMethod",
    "TrackingOptions",
    "TrainerOptions",
    "TuningConfig",
    "grid_option",
    "list_grid",
    "option",
]

Output = Literal["scores", "queries", "table"]
"""What an architecture gives an objective: scores of candidates, query vectors, item vectors."""
Moves = Literal["nothing", "encoder", "tuned"]
"""What a tuning method trains: nothing, pretrained weights, or parameters that it adds."""
ENCODER = "encoder"
"""Where item vectors may come from: the pretrained encoder of the run."""
Sampling = Literal["uniform", "frequency", "similar"]
SplitMethod = Literal["leave_one_out", "random", "time", "given"]
Repeated = Literal["alike", "apart"]


@dataclass
class Choice(ABC):  # noqa: B024 - what is abstract differs by axis
    """What the `Config` of any choice may say of itself.

    What is fixed is a class variable in a choice, what its settings decide a property.

    Attributes:
        example: Settings with which it runs, where its defaults alone are refused, as words such
            as `method=vera`.
    """

    example: ClassVar[tuple[str, ...]] = ()


@dataclass
class SourceConfig(Choice):
    """What the `Config` of every source says of itself."""

    @property
    @abstractmethod
    def default_split(self) -> SplitMethod:
        """How its events are held out, where `data.split` names no way."""

    text_lists: ClassVar[tuple[str, ...]] = ()
    """Item columns of kinds with bars between them, which a text has with commas."""

    @property
    def repeated(self) -> Repeated:
        """How cases whose item the user had before count, with evaluation.repeated=default."""
        return "alike"

    @property
    def item_template(self) -> str | None:
        """Template of an item's text over the item columns: the option `item_text`, if it has one.

        None where texts are given whole.
        """
        template = vars(self).get("item_text")
        return template if isinstance(template, str) else None

    def leave_out_unknown(self) -> Self:
        """The source as it is, but for events of unknown items: it leaves out what it refused."""
        return self

    @property
    def query_column(self) -> str | None:
        """Column of what a user said up to an event, where `data.query_column` names none."""
        return None

    def apply_data_options(self, data: DataOptions) -> None:
        """Settles what the source leaves to the shared options; most leave nothing."""


@dataclass
class TuningConfig(Choice):
    """What the `Config` of every tuning method says of itself."""

    @property
    @abstractmethod
    def moves(self) -> Moves:
        """What trains, and so which learning rate holds: optimizer.encoder_lr or optimizer.lr."""


@dataclass
class ArchitectureConfig(Choice):
    """What the `Config` of every architecture says of itself."""

    shares_passes: ClassVar[bool] = False
    """Whether texts reach the model by the encoder's own calls alone, so that processes which hold
    parts of its weights can agree on their passes (trainer.strategy=fsdp)."""

    @property
    @abstractmethod
    def gives(self) -> frozenset[Output]:
        """What an objective may ask of it."""

    @property
    def trains(self) -> bool:
        """Whether there are steps of training, and so a tuning method and an objective."""
        return True

    @property
    def reads_tokens(self) -> bool:
        """Whether an encoder reads texts, so that it is loaded and they are tokenised."""
        return True

    @property
    def reads_user_texts(self) -> bool:
        """Whether a query is the user's text."""
        return False

    @property
    def reads_item_vectors(self) -> bool:
        """Whether items pass the encoder on their own, so that their states can be kept."""
        return True

    @property
    def reads_tags(self) -> Sequence[str]:
        """Item columns of tags."""
        return ()

    @property
    def reads_context(self) -> Sequence[str]:
        """What it knows of a query: hour, weekday or columns of the interactions."""
        return ()

    @property
    def reads_context_texts(self) -> bool:
        """Whether that stands in the user's text."""
        return False

    @property
    def prompt(self) -> PromptOptions | None:
        """How a query and an item make a prompt of a language model with its head, or None."""
        return None

    @property
    def reads_dislikes(self) -> bool:
        """Whether it reads what a user did not like, where the data says so."""
        return False

    @property
    def stores_vectors_as(self) -> str:
        """How vectors of items are stored where they are ranked, a `quantization.Precision`."""
        return "fp32"

    @property
    def item_vectors_from(self) -> str | None:
        """Whose vectors of all items it is handed: `ENCODER`, the folder of a run, None: nobody's.

        An option that names them is called `vectors`.
        """
        return None

    @property
    def query_vectors_from(self) -> str | None:
        """Whose vectors of queries it is handed: as `item_vectors_from`, by the same option."""
        return None

    @property
    def vectors_from(self) -> str | None:
        """Whose vectors it is handed, of items or of queries."""
        return self.item_vectors_from or self.query_vectors_from

    @property
    def reads_training_queries(self) -> bool:
        """Whether it is handed what training asks about, query by query."""
        return False

    @property
    def member_runs(self) -> Sequence[str]:
        """Folders of finished runs whose scores it is handed, from an option called `members`."""
        return ()

    def replace_member_runs(self, folders: Sequence[str]) -> None:
        """Names them by what their words stand for: a glob, or a folder of seeds."""

    @property
    def loads_models(self) -> bool:
        """Whether a pretrained model is loaded: its own, or one of a run that it builds on."""
        return self.trains or self.vectors_from is not None or bool(self.member_runs)

    @property
    def learns_rows(self) -> bool:
        """Whether what it has learned belongs to single items, tags or contexts of its data."""
        return False

    @property
    def scores_new_items(self) -> bool:
        """Whether an item that came after the fit has a score by its text, its members aside."""
        return self.reads_tokens or self.item_vectors_from is not None

    def check(self, run: RunConfig) -> None:
        """Refuses settings that do not go with each other or with the run's others; here none.

        Args:
            run: The whole run, of which this is the architecture.

        Raises:
            ConfigError: They do not; the sentence names both keys.
        """


@dataclass
class BaselineConfig(ArchitectureConfig):
    """What the `Config` of every architecture that does not train says of itself."""

    gives: ClassVar[frozenset[Output]] = frozenset()
    trains: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = False
    reads_item_vectors: ClassVar[bool] = False
    learns_rows: ClassVar[bool] = True


@dataclass(frozen=True)
class NegativeSpec:
    """Which negatives an objective asks the loader for.

    Attributes:
        count: Negatives beside each target.
        sampling: How they are drawn where they are drawn among all items.
        corrects: The setting by which the loss allows for how they were drawn, as in
            "objective.logq=1"; None where it takes negatives of any origin.
        drawable: Whether they may be drawn among all items.
    """

    count: int = 0
    sampling: Sampling = "uniform"
    corrects: str | None = None
    drawable: bool = True


@dataclass
class ObjectiveConfig(Choice):
    """What the `Config` of every objective says of itself."""

    @property
    @abstractmethod
    def needs(self) -> Output:
        """What the architecture must give."""

    @property
    def reads_labels(self) -> bool:
        """Whether an observed event may be a negative."""
        return False

    @property
    def draws(self) -> NegativeSpec:
        """The negatives that it asks for."""
        return NegativeSpec()

    @property
    def needs_unliked(self) -> bool:
        """Whether it learns nothing where all events are liked and no negative is drawn."""
        return False

    @property
    def predicts_weights(self) -> bool:
        """Whether a score is to be the event's weight, which else is how much its loss counts."""
        return False

    @property
    def encodes_catalog(self) -> bool:
        """Whether every step may encode all items with an encoder that trains."""
        return False

    def check(self, run: RunConfig) -> None:
        """Refuses settings that do not go with each other or with the run's others; here none.

        Args:
            run: The whole run, of which this is the objective.

        Raises:
            ConfigError: They do not; the sentence names both keys.
        """


if TYPE_CHECKING:
    _Source: TypeAlias = SourceConfig
    _Tuning: TypeAlias = TuningConfig | None
    _Architecture: TypeAlias = ArchitectureConfig
    _Objective: TypeAlias = ObjectiveConfig | None
else:  # for OmegaConf, a node of any keys: `compose` makes the Config of its choice of it
    _Source = _Tuning = _Architecture = _Objective = Any


@dataclass
class DataOptions:
    """Which interactions and texts, how they are split, and what a training query is."""

    source: _Source = option({"name": "quickstart"}, "where the tables come from (axis)")
    split: Literal["default", "leave_one_out", "random", "time", "given"] = option(
        "default",
        "how events are held out; default: what the source names; random: one of each user, for "
        "data without times, of which nothing can then be said about time",
    )
    val_fraction: float = option(
        0.1, "share of events between the two cuts of a time split", least=0
    )
    test_fraction: float = option(
        0.1, "share of events after the second cut of a time split", least=0
    )
    positive_from: float | None = option(None, "lowest rating that counts as liked; null: all")
    queries: Literal["last", "random", "all"] = option(
        "random",
        "training queries of a user in an epoch: the last event, random ones, or the latest "
        "max_history positions",
    )
    queries_per_user: int = option(1, "how many, with queries=random", least=1)
    targets: Literal["liked", "labelled"] = option(
        "liked", "train on liked events, or on every event with its own label"
    )
    negatives: Literal["drawn", "impression", "hard"] = option(
        "drawn",
        "where an objective's negatives come from: drawn among items, what was shown with the "
        "target and not clicked, or in part what another method ranks high (hard)",
    )
    hard_from: str = option(
        "tfidf", "who ranks for negatives=hard: tfidf, or the folder of a finished run"
    )
    hard_top: int = option(
        100, "its best items for a training query, without what the user liked there", least=1
    )
    hard_skip: int = option(0, "of these the first, left out as likely to be liked", least=0)
    hard_share: float = option(
        0.5, "share of a query's negatives that are hard; the others are drawn", least=0, most=1
    )
    max_history: int = option(20, "how many of the latest events a user's history keeps", least=1)
    max_tokens: int = option(64, "raw tokens kept of an item's text", least=1)
    max_users: int | None = option(None, "keep a seeded sample of users, for a quick look", least=1)
    train_users: int | None = option(None, "train on a seeded sample of so many users", least=1)
    sample_seed: int = option(
        0,
        "of max_users, train_users, evaluation.max_cases and split=random; not the run's seed, so "
        "that several seeds see the same data",
        least=0,
    )
    max_items: int | None = option(None, "keep the most frequent items, for a quick look", least=1)
    event_column: str = option("event", "column of the type of an event")
    event_types: dict[str, float] = option(
        {}, "event types to keep, each with its weight in the loss: {click: 1, buy: 3}; {}: all"
    )
    since: str | None = option(None, "first moment to keep, an ISO date or time (UTC)", blank=True)
    until: str | None = option(
        None, "first moment not to keep, an ISO date or time (UTC)", blank=True
    )
    min_rating: float | None = option(None, "lowest rating to keep; lower ones are left out")
    repeats: Literal["keep", "first", "last"] = option(
        "keep", "of several events of a user with one item: all, the first or the last"
    )
    min_text: int | None = option(
        None,
        "fewest words of an item's text (Chinese, Japanese: characters), else it goes",
        least=1,
    )
    k_core: int | None = option(
        None, "fewest events of a user and an item, counted until nothing changes", least=1
    )
    user_reviews: int = option(
        0,
        "reviews of a user's first training events that join the user's text; those events are "
        "no targets",
        least=0,
    )
    query_column: str | None = option(
        None,
        "column of the interactions with what the user said or searched for before each event, "
        "which begins the text of its query; null: what the source names, if any; none: no column",
        blank=True,
    )
    augment: AugmentOptions = field(default_factory=AugmentOptions)


@dataclass
class RunConfig:
    """Everything that one run needs.

    Attributes:
        tuning: None where the architecture does not train.
        objective: As tuning.
    """

    experiment: str | None = option(
        None, "name of a file in experiments/, here or shipped, or path/to/own.yaml", blank=True
    )
    output: str = option("runs", "folder in which the run's own folder is made")
    seed: int = option(0, "of initial weights, queries and negatives", least=0, most=2**32 - 1)
    start_from: str | None = option(
        None,
        "folder of a finished run of the same tuning and architecture, from whose weights training "
        "starts; items that it did not have start as new",
        blank=True,
    )
    profile: bool = option(False, "measure where the time goes; changes no weight or metric")
    data: DataOptions = field(default_factory=DataOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    tuning: _Tuning = option({"name": "lora"}, "how the encoder is adapted (axis)")
    architecture: _Architecture = option({"name": "two_tower"}, "how a score is made (axis)")
    objective: _Objective = option({"name": "in_batch"}, "the loss (axis)")
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    regularization: RegularizationOptions = field(default_factory=RegularizationOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)

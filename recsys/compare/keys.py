"""What each key of a run's configuration is to a comparison: every key is in one of three tables.

Runs that differ in neutral keys and in their seed alone are pooled as one method. So a key is
neutral only where it changes no weight and no rank, or no more than the order of a sum does, or
draws anew what another seed draws anew as well. A key of which that is not sure makes a method: two
methods that are one are seen at a glance, and one method that is two is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class NeutralKey:
    """A key that changes no result.

    Attributes:
        reason: Why it does not.
        seconds: Of which runs it changes the seconds: of none, all, or those with an encoder.
    """

    reason: str
    seconds: Literal["none", "all", "encoder"] = "none"


_PLACE = "names a place or a label"
_ROUNDING = "the same numbers up to the order of sums"
_AFTERWARDS = "cuts or counts the test once it is ranked"

NEUTRAL: Mapping[str, NeutralKey] = {
    "seed": NeutralKey("tells the runs of a method apart"),
    "experiment": NeutralKey("what the file says stands in the keys themselves"),
    "output": NeutralKey(_PLACE),
    "profile": NeutralKey("measures, and draws nothing", "all"),
    "tracking.wandb": NeutralKey(_PLACE),
    "tracking.project": NeutralKey(_PLACE),
    "tracking.group": NeutralKey(_PLACE),
    "tracking.tags": NeutralKey(_PLACE),
    "tracking.name": NeutralKey(_PLACE),
    "tracking.kind": NeutralKey(_PLACE),
    "tracking.labels": NeutralKey(_PLACE),
    "tracking.tensorboard": NeutralKey(_PLACE),
    "tracking.checkpoint_artifact": NeutralKey("copies what is kept"),
    "checkpoint.every_minutes": NeutralKey("a run goes on as if it had not been stopped"),
    "checkpoint.requeue": NeutralKey("a run goes on as if it had not been stopped"),
    "trainer.threads": NeutralKey(_ROUNDING, "all"),
    "trainer.devices": NeutralKey(
        f"batch_size counts over all: {_ROUNDING}; dropout is drawn anew, as by a seed", "all"
    ),
    "trainer.nodes": NeutralKey("as trainer.devices", "all"),
    "trainer.strategy": NeutralKey(f"weights in parts or whole: {_ROUNDING}", "all"),
    "trainer.accelerator": NeutralKey(
        f"{_ROUNDING}, as the precision and compile that it decides are keys of their own", "all"
    ),
    "trainer.deterministic": NeutralKey(_ROUNDING),
    "trainer.log_every": NeutralKey("says when a row is written, and when a lost run is noticed"),
    "encoder.cache": NeutralKey(f"kept in fp32 it is exact: {_ROUNDING}", "encoder"),
    "encoder.cache_gb": NeutralKey("decides whether there is a cache, as encoder.cache", "encoder"),
    "encoder.cache_place": NeutralKey("the same numbers from another place", "encoder"),
    "encoder.chunk_tokens": NeutralKey(
        f"other padding, which is masked: {_ROUNDING}; dropout is drawn anew", "encoder"
    ),
    "encoder.packing": NeutralKey(
        f"no padding, and another attention: {_ROUNDING}; dropout is drawn anew", "encoder"
    ),
    "encoder.checkpoint_chunks": NeutralKey("computes the same a second time", "encoder"),
    "evaluation.k": NeutralKey("ranks are kept, and every cut-off is told from them", "all"),
    "evaluation.slices": NeutralKey(_AFTERWARDS),
    "evaluation.beyond": NeutralKey(_AFTERWARDS, "all"),
    "evaluation.category": NeutralKey(_AFTERWARDS),
    "evaluation.batch_size": NeutralKey(_ROUNDING, "all"),
    "evaluation.test": NeutralKey("runs without a test are refused"),
}
"""Keys that change no weight and no rank."""

HELD: Mapping[str, str] = {
    "data.source": "the fingerprint of the tables",
    "data.split": "the split's name and the checksum of the roles",
    "data.val_fraction": "the split's name",
    "data.test_fraction": "the split's name",
    "data.positive_from": "the split's name",
    "data.max_users": "the fingerprint of the tables",
    "data.max_items": "the fingerprint of the tables",
    "evaluation.protocol": "protocol.name",
    "evaluation.candidates": "protocol.candidates and the checksums of the lists",
    "evaluation.candidates_from": "the checksums of the lists",
    "evaluation.sampled_negatives": "the names of the metrics",
    "evaluation.sampled_by": "the names of the metrics",
    "evaluation.mask_history": "protocol.mask_history",
    "evaluation.hit_by": "the names of the metrics",
    "evaluation.repeated": "protocol.repeated",
}
"""Keys whose effect `comparable.check_comparable` compares in the results, and by what."""

METHOD = (
    "tuning",
    "architecture",
    "objective",
    "start_from",
    "data.queries",
    "data.queries_per_user",
    "data.targets",
    "data.negatives",
    "data.hard_from",
    "data.hard_top",
    "data.hard_skip",
    "data.hard_share",
    "data.augment.crop",
    "data.augment.mask",
    "data.augment.reorder",
    "data.augment.substitute",
    "data.augment.substitute_by",
    "data.augment.test_masks",
    "data.augment.drop_words",
    "data.augment.drop_fields",
    "data.max_history",
    "data.max_tokens",
    "data.query_column",
    "data.train_users",
    # Where the test has fewer cases than max_cases, both still draw those of the validation, which
    # picks the parameters that are kept.
    "data.sample_seed",
    "evaluation.max_cases",
    "data.event_column",
    "data.event_types",
    "data.since",
    "data.until",
    "data.min_rating",
    "data.repeats",
    "data.min_text",
    "data.k_core",
    "data.user_reviews",
    "encoder.model",
    "encoder.revision",
    "encoder.sha256",
    "encoder.pooling",
    "encoder.attention",
    "encoder.query_prompt",
    "encoder.item_prompt",
    "encoder.max_length",
    "encoder.width",
    "encoder.dtype",
    "encoder.quantize",
    # An error of one in two thousand, through every step: no order of a sum.
    "encoder.cache_dtype",
    # Fused kernels round otherwise in half precision, and draw dropout otherwise.
    "encoder.compile",
    # A state of eight bits rounds each step; it is in fp32 where it is only paged.
    "optimizer.kind",
    "optimizer.lr",
    "optimizer.encoder_lr",
    "optimizer.head_lr",
    "optimizer.table_lr",
    "optimizer.schedule",
    "optimizer.warmup",
    "optimizer.clip",
    "optimizer.betas",
    "optimizer.schedule_steps",
    "regularization.weight_decay",
    "regularization.l2_sp",
    "regularization.cold_distillation",
    "regularization.dropout",
    "trainer.epochs",
    "trainer.max_steps",
    "trainer.batch_size",
    "trainer.batch_tokens",
    "trainer.accumulate",
    "trainer.precision",
    "trainer.patience",
    "trainer.encoder_updates",
    "evaluation.monitor",
    # Other parameters are kept: those of the best validation, or of the last step.
    "checkpoint.pick",
)
"""Keys, and whole axes, that make a method: two values are two methods."""

TRAINING = (
    "encoder",
    "optimizer",
    "regularization",
    "trainer",
    "checkpoint",
    "data.queries",
    "data.queries_per_user",
    "data.targets",
    "data.augment",
    "data.max_tokens",
    "data.train_users",
    "data.sample_seed",
    "evaluation.max_cases",
    "evaluation.monitor",
)
"""Keys and groups that do nothing where the architecture does not train."""

FITTING = ("data.sample_seed", "evaluation.max_cases", "evaluation.monitor")
"""Those of them that decide where validation cases choose at once, without steps of training."""

READING = ("encoder", "data.max_tokens")
"""Those of them that decide where an encoder reads the items, without steps of training."""


def is_within(key: str, names: Collection[str]) -> bool:
    """Whether a dotted key is one of some keys, or lies in one of some groups."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def list_timing_keys(which: Literal["all", "encoder"]) -> tuple[str, ...]:
    """Neutral keys that change the seconds of all runs, or of those with an encoder."""
    return tuple(key for key, neutral in NEUTRAL.items() if neutral.seconds == which)

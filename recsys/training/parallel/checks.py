"""What cannot be trained with its weights spread over processes; told before anything is loaded."""

from __future__ import annotations

from recsys.config.choices import get_choice_name
from recsys.config.schema import RunConfig
from recsys.errors import ConfigError
from recsys.training.phases import EVERY_STEP

_INSTEAD = "or set trainer.strategy=ddp"


def check_sharding(run: RunConfig) -> None:
    """Refuses runs whose encoder cannot be spread, or where nothing of it trains.

    Raises:
        ConfigError: trainer.strategy=fsdp beside what it does not go with.
    """
    if not run.trainer.shards or not run.architecture.trains:
        return
    asked = "trainer.strategy=fsdp"
    name = get_choice_name(run.architecture)
    if not run.architecture.reads_tokens:
        raise ConfigError(
            f"{asked} spreads the weights of an encoder, and architecture={name} reads no texts; "
            "set trainer.strategy=ddp."
        )
    if not run.architecture.shares_passes:
        raise ConfigError(
            f"{asked}: architecture={name} runs its model in a way that processes which hold parts "
            "of it cannot follow; take two_tower, late_interaction or cross_encoder, "
            f"{_INSTEAD}."
        )
    if run.tuning is None or run.tuning.moves == "nothing":
        tuning = "none" if run.tuning is None else get_choice_name(run.tuning)
        raise ConfigError(
            f"{asked} spreads what trains, and tuning={tuning} trains nothing of the encoder; "
            "choose another tuning, or set trainer.strategy=ddp."
        )
    for key, value, why in _list_conflicts(run):
        raise ConfigError(
            f"{asked} does not go with {key}={value}: {why}; leave it out, {_INSTEAD}."
        )


def _list_conflicts(run: RunConfig) -> list[tuple[str, object, str]]:
    """Keys that are set as they cannot be, their values, and why."""
    distils = run.regularization.cold_distillation
    out: list[tuple[str, object, str]] = []
    if run.trainer.precision == "fp16-mixed":
        out.append(
            ("trainer.precision", "fp16-mixed", "its loss scale would differ between processes")
        )
    if run.trainer.encoder_updates != EVERY_STEP:
        out.append(
            (
                "trainer.encoder_updates",
                run.trainer.encoder_updates,
                "the encoder follows a table by passes of one process",
            )
        )
    if run.encoder.quantize != "none":
        out.append(
            ("encoder.quantize", run.encoder.quantize, "codes are no weights that can be spread")
        )
    if run.encoder.compile == "on":
        out.append(("encoder.compile", "on", "a compiled layer is not put together again"))
    if run.profile:
        out.append(("profile", "true", "it listens inside layers that every process runs in part"))
    if distils:
        out.append(
            (
                "regularization.cold_distillation",
                f"{distils:g}",
                "it exchanges weights of which each process has a part",
            )
        )
    if run.objective is not None and run.objective.encodes_catalog:
        out.append(
            (
                "objective.encode_catalog",
                "true",
                "it runs the encoder within the backward pass, where processes cannot agree",
            )
        )
    return out

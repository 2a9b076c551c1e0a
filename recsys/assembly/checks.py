"""Which combinations of choices make sense, checked before data is read."""

from __future__ import annotations

from recsys.assembly import protocols
from recsys.config.compose import RunConfig, get_choice_name
from recsys.errors import ConfigError
from recsys.metrics.names import check_monitor
from recsys.training.phases import EVERY_STEP, count_phase_steps


def check_pairs(run: RunConfig) -> None:
    """Refuses combinations that make no sense.

    Raises:
        ConfigError: The objective needs what the architecture cannot give, or what one run
            cannot do yet was asked for.
    """
    architecture, objective = run.architecture, run.objective
    protocols.check_negatives(run)
    check_monitor(run.evaluation)
    if objective is None:
        return
    architecture.check(run)
    _check_steps(run)
    if run.trainer.batch_tokens is not None and architecture.reads_user_texts:
        raise ConfigError(
            "trainer.batch_tokens counts the tokens of item texts, and this architecture reads "
            "users as texts too; leave it out and set trainer.batch_size."
        )
    _check_item_table(run)
    if objective.needs not in architecture.gives:
        raise ConfigError(
            f"objective {get_choice_name(objective)} needs {objective.needs}, and architecture "
            f"{get_choice_name(architecture)} gives {', '.join(sorted(architecture.gives))}."
        )
    _check_catalog_encoding(run)
    if run.data.targets == "labelled" and not objective.reads_labels:
        raise ConfigError(
            f"data.targets=labelled needs an objective that reads labels (bce, mse), and "
            f"{get_choice_name(objective)} takes every target for a positive."
        )
    if (
        run.data.targets == "liked"
        and get_choice_name(objective) == "bce"
        and not objective.draws.count
    ):
        raise ConfigError(
            "objective bce without negatives sees liked events only; set objective.negatives, or "
            "data.targets=labelled for the observed ones."
        )


def _check_steps(run: RunConfig) -> None:
    """Refuses a schedule that ends before the training, and to stop by what decides nothing."""
    laid_out, most = run.optimizer.schedule_steps, run.trainer.max_steps
    if laid_out is not None and most is not None and laid_out < most:
        raise ConfigError(
            f"optimizer.schedule_steps={laid_out} ends before trainer.max_steps={most}; set it to "
            f"{most} or more."
        )
    if run.checkpoint.pick == "last" and run.trainer.patience is not None:
        raise ConfigError(
            "checkpoint.pick=last keeps the last step whatever validations say, and "
            "trainer.patience stops by what they say; set trainer.patience=null or "
            "checkpoint.pick=best."
        )


def _check_item_table(run: RunConfig) -> None:
    """Refuses runs in which a table would be wrong or of no use.

    Raises:
        ConfigError: Several processes, fp16, nothing to distil, or no item vectors.
    """
    if not count_phase_steps(run.trainer.encoder_updates, 1):
        return
    asked = f"trainer.encoder_updates={run.trainer.encoder_updates}"
    if run.trainer.devices > 1:
        raise ConfigError(
            f"{asked} trains on one device, because the encoder gets no gradient in a step; set "
            "trainer.devices=1 or trainer.encoder_updates=every_step."
        )
    if run.trainer.precision == "fp16-mixed":
        raise ConfigError(
            f"{asked} does not scale losses as fp16-mixed needs it; set trainer.precision to "
            "bf16-mixed or fp32."
        )
    if get_choice_name(run.tuning) == "frozen":
        raise ConfigError(
            f"{asked} distils the encoder, and tuning=frozen trains none of it; choose another "
            "tuning or trainer.encoder_updates=every_step."
        )
    if not run.architecture.reads_item_vectors:
        raise ConfigError(
            f"{asked} needs an architecture with item vectors, and "
            f"{get_choice_name(run.architecture)} has none; set trainer.encoder_updates=every_step."
        )


def _check_catalog_encoding(run: RunConfig) -> None:
    """Refuses to encode the whole catalog in every step, unless it was asked for.

    Raises:
        ConfigError: The objective reads all item vectors, and the encoder that makes them trains.
    """
    if (
        run.objective is None
        or run.objective.needs != "table"
        or get_choice_name(run.tuning) == "frozen"
    ):
        return
    if run.trainer.encoder_updates != EVERY_STEP:
        return
    if not run.objective.encodes_catalog:
        name = get_choice_name(run.objective)
        raise ConfigError(
            f"objective {name} reads the vectors of all items in every step, and tuning "
            f"{get_choice_name(run.tuning)} changes the encoder that makes them; set "
            "tuning=frozen, "
            "trainer.encoder_updates=half_epoch, or objective.encode_catalog=true to encode the "
            "whole catalog in every step."
        )

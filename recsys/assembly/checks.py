"""Which settings go together, and with which data: what no one choice can check by itself.

What an architecture or an objective asks of the rest of a run stands in its own `check`. All but
`check_columns`, `check_weights` and `check_labels` is checked before data is read, and before torch
is loaded: nothing here imports it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.assembly.augmentation import check_augmentation
from recsys.config.choices import get_choice_name, import_choice, list_choices
from recsys.config.compose import read_config
from recsys.config.schema import ENCODER, ObjectiveConfig, RunConfig
from recsys.data.batches.hard_negatives import count_hard_negatives
from recsys.data.splits.split import TEST, Split
from recsys.data.tables import Tables
from recsys.encoders.weights.library import require_bitsandbytes
from recsys.errors import ConfigError, nearest
from recsys.metrics.beyond_accuracy import parse_categories
from recsys.metrics.names import check_monitor
from recsys.runs.folder import check_is_run
from recsys.runtime.files import CONFIG
from recsys.training.parallel.checks import check_sharding
from recsys.training.phases import EVERY_STEP, count_phase_steps

if TYPE_CHECKING:
    from recsys.data.batches.examples import Examples


def check_pairs(run: RunConfig) -> None:
    """Refuses combinations that make no sense.

    Raises:
        ConfigError: The objective needs what the architecture cannot give, or what one run
            cannot do yet was asked for.
    """
    architecture, objective = run.architecture, run.objective
    _check_negatives(run)
    check_augmentation(run)
    _check_hits(run)
    _check_retriever(run)
    check_monitor(run.evaluation)
    architecture.check(run)
    _check_runs(run)
    if architecture.reads_tokens and run.encoder.quantize != "none":
        require_bitsandbytes(f"encoder.quantize={run.encoder.quantize}")
    if (
        run.encoder.width is not None
        and architecture.reads_tokens
        and "table" not in architecture.gives
    ):
        raise ConfigError(
            f"encoder.width={run.encoder.width} cuts the vector of a text, and architecture "
            f"{get_choice_name(architecture)} compares none; leave it out."
        )
    if objective is None:
        return
    objective.check(run)
    _check_optimizer(run)
    _check_steps(run)
    if run.trainer.batch_tokens is not None and architecture.reads_user_texts:
        raise ConfigError(
            "trainer.batch_tokens counts the tokens of item texts, and this architecture reads "
            "users as texts too; leave it out and set trainer.batch_size."
        )
    _check_item_table(run)
    check_sharding(run)
    _check_cold_distillation(run)
    if objective.needs not in architecture.gives:
        raise ConfigError(
            f"objective {get_choice_name(objective)} needs {objective.needs}, and architecture "
            f"{get_choice_name(architecture)} gives {', '.join(sorted(architecture.gives))}."
        )
    _check_catalog_encoding(run, objective)
    _check_targets(run, objective)


def _check_hits(run: RunConfig) -> None:
    """Refuses hits by a column where none is looked at, or that no metric can be named after."""
    column, protocol = run.evaluation.hit_by, run.evaluation.protocol
    if column is None:
        return
    if protocol != "catalog":
        raise ConfigError(
            f"evaluation.hit_by={column} is of the whole catalog, and evaluation.protocol="
            f"{protocol} ranks lists; leave it out, or set evaluation.protocol=catalog."
        )
    if not column.isidentifier():
        raise ConfigError(
            f"evaluation.hit_by='{column}' gives metrics their name; rename the column to letters, "
            "digits and underscores."
        )


def can_rank_catalog(run: RunConfig) -> bool:
    """Whether a run can score all items for many queries, and not lists alone."""
    own = run.architecture
    # An ensemble over lists may have members that read user and item together.
    listed = bool(own.member_runs) and run.evaluation.protocol != "catalog"
    return not listed and (own.reads_item_vectors or not own.trains)


def _check_retriever(run: RunConfig) -> None:
    """Refuses a run that cannot make candidate lists, or whose own figures are of another task."""
    folder, own = run.evaluation.candidates_from, run.evaluation
    if folder is None:
        return
    key = f"evaluation.candidates_from={folder}"
    if own.protocol != "candidates":
        raise ConfigError(
            f"{key} makes candidate lists, and evaluation.protocol={own.protocol} ranks none; set "
            "evaluation.protocol=candidates, or leave it out."
        )
    check_is_run("evaluation.candidates_from", folder)
    other = read_config(Path(folder) / CONFIG)
    if not can_rank_catalog(other):
        raise ConfigError(
            f"{key} reads user and item together and cannot rank the whole catalog for every case; "
            "name a run of two towers, of a baseline, or of a hybrid."
        )
    if other.evaluation.mask_history != own.mask_history:
        raise ConfigError(
            f"{key} has evaluation.mask_history={str(other.evaluation.mask_history).lower()} and "
            f"this run {str(own.mask_history).lower()}, so that its figures are not of the same "
            "lists; give both the same."
        )


def _check_runs(run: RunConfig) -> None:
    """Refuses what is no finished run where the architecture builds on some."""
    named = run.architecture.vectors_from
    if named is not None and named != ENCODER:
        check_is_run("architecture.vectors", named, f"{ENCODER} or ")
    for folder in run.architecture.member_runs:
        check_is_run("architecture.members", folder)


def _check_targets(run: RunConfig, objective: ObjectiveConfig) -> None:
    """Refuses targets from which the objective learns nothing, or the wrong thing."""
    name = get_choice_name(objective)
    if run.data.targets == "labelled" and not objective.reads_labels:
        known = _list_objectives(lambda config: config.reads_labels)
        raise ConfigError(
            f"data.targets=labelled needs an objective that reads labels ({known}), and {name} "
            "takes every target for a positive."
        )
    if run.data.targets == "liked" and objective.needs_unliked and not objective.draws.count:
        raise ConfigError(
            f"objective {name} without negatives sees liked events only; set objective.negatives, "
            "or data.targets=labelled for the observed ones."
        )


def _list_objectives(fits: Callable[[ObjectiveConfig], bool]) -> str:
    """Names of the shipped objectives that fit with their defaults, for a sentence."""
    configs = {name: import_choice("objective", name)() for name in list_choices("objective")}
    return ", ".join(name for name, config in configs.items() if fits(config))


def _trains_encoder(run: RunConfig) -> bool:
    """Whether the encoder's output changes in training."""
    return run.tuning is not None and run.tuning.moves != "nothing"


def _check_optimizer(run: RunConfig) -> None:
    """Refuses an optimiser that cannot be had here.

    Raises:
        ConfigError: Its library is missing, or it needs a GPU or whole weights.
    """
    asked = f"optimizer.kind={run.optimizer.kind}"
    if run.optimizer.kind == "adamw":
        return
    require_bitsandbytes(asked)
    if run.optimizer.kind.startswith("paged") and run.trainer.accelerator == "cpu":
        raise ConfigError(
            f"{asked} moves its state between a GPU and the host, and this run trains on a CPU; "
            "set optimizer.kind=adamw, or adamw_8bit for a smaller state."
        )
    if run.trainer.shards:
        raise ConfigError(
            f"{asked} steps whole weights, and trainer.strategy=fsdp spreads them; set "
            "optimizer.kind=adamw or trainer.strategy=ddp."
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


def _check_negatives(run: RunConfig) -> None:
    """Refuses a source of negatives where it makes no sense.

    Raises:
        ConfigError: The architecture, the objective, its sampling or the targets do not go with
            it, or a key speaks of hard negatives where there are none.
    """
    data, way = run.data, f"data.negatives={run.data.negatives}"
    if data.negatives != "hard":
        for field in dataclasses.fields(data):
            if field.name.startswith("hard_") and getattr(data, field.name) != field.default:
                raise ConfigError(
                    f"data.{field.name} speaks of hard negatives, and {way}; set "
                    "data.negatives=hard or leave it out."
                )
    drawn = data.negatives == "drawn"
    if run.objective is None:
        if drawn:
            return
        raise ConfigError(
            f"{way} is for training, and this architecture does not train; leave it out."
        )
    name, draws = get_choice_name(run.objective), run.objective.draws
    if drawn:
        if draws.count and not draws.drawable:
            raise ConfigError(
                f"objective.negatives={draws.count} of {name} stand beside those that the batch "
                f"gives, and {way}; set data.negatives=hard or impression, or leave it out."
            )
        return
    if not draws.count:
        known = _list_objectives(lambda config: config.draws.count > 0 or not config.draws.drawable)
        raise ConfigError(
            f"{way} goes with an objective that sets negatives beside a target ({known}) and "
            f"objective.negatives of 1 or more, not with {name}"
            f"{'' if draws.drawable else ' and 0'}."
        )
    if draws.corrects is not None:
        raise ConfigError(
            f"{draws.corrects} allows for negatives that are drawn among all items, and {way} "
            f"gives others; set it to 0, or leave out {way}."
        )
    if data.negatives == "hard":
        _check_hard(run, draws.count)
    else:
        _check_impressions(run, draws.sampling)


def _check_impressions(run: RunConfig, sampling: str) -> None:
    if sampling != "uniform":
        raise ConfigError(
            "objective.sampling says how negatives are drawn among all items, and "
            "data.negatives=impression takes them from impressions; leave it out."
        )
    if run.data.targets != "liked":
        raise ConfigError(
            "data.targets=labelled already trains on what was not clicked; leave out "
            "data.negatives=impression."
        )


def _check_hard(run: RunConfig, negatives: int) -> None:
    data = run.data
    if not count_hard_negatives(negatives, data.hard_share):
        raise ConfigError(
            f"data.hard_share={data.hard_share:g} of objective.negatives={negatives} is less than "
            "one item; raise either, or set data.negatives=drawn."
        )
    if data.hard_skip >= data.hard_top:
        raise ConfigError(
            f"data.hard_skip={data.hard_skip} leaves nothing of data.hard_top={data.hard_top}; "
            "make it smaller."
        )
    if data.hard_from != "tfidf":
        check_is_run("data.hard_from", data.hard_from, "tfidf or ")


def _check_item_table(run: RunConfig) -> None:
    """Refuses runs in which a table would be wrong or of no use.

    Raises:
        ConfigError: Several processes, fp16, nothing to distil, or no item vectors.
    """
    if not count_phase_steps(run.trainer.encoder_updates, 1):
        return
    asked = f"trainer.encoder_updates={run.trainer.encoder_updates}"
    if run.trainer.processes > 1:
        raise ConfigError(
            f"{asked} trains on one device, because the encoder gets no gradient in a step; set "
            "trainer.devices=1 or trainer.encoder_updates=every_step."
        )
    if run.trainer.precision == "fp16-mixed":
        raise ConfigError(
            f"{asked} does not scale losses as fp16-mixed needs it; set trainer.precision to "
            "bf16-mixed or fp32."
        )
    if not _trains_encoder(run):
        raise ConfigError(
            f"{asked} distils the encoder, and tuning={get_choice_name(run.tuning)} trains none of "
            "it; choose another tuning or trainer.encoder_updates=every_step."
        )
    if not run.architecture.reads_item_vectors:
        raise ConfigError(
            f"{asked} needs an architecture with item vectors, and "
            f"{get_choice_name(run.architecture)} has none; set trainer.encoder_updates=every_step."
        )


def _check_cold_distillation(run: RunConfig) -> None:
    """Refuses to distil scores of cold items where nothing knows them before training.

    Raises:
        ConfigError: Items have no texts, or queries no vectors; or an item table stands for texts.
    """
    if not run.regularization.cold_distillation:
        return
    key = f"regularization.cold_distillation={run.regularization.cold_distillation:g}"
    of = run.architecture
    if not of.reads_tokens or "queries" not in of.gives:
        raise ConfigError(
            f"{key} needs query vectors, and items that have texts before training; architecture "
            f"{get_choice_name(of)} has not both here: set architecture=two_tower with "
            "architecture.item=text or text+id, or leave it out."
        )
    if count_phase_steps(run.trainer.encoder_updates, 1):
        raise ConfigError(
            f"{key} compares with the encoder's start in every step; set "
            "trainer.encoder_updates=every_step."
        )


def _check_catalog_encoding(run: RunConfig, objective: ObjectiveConfig) -> None:
    """Refuses to encode the whole catalog in every step, unless it was asked for.

    Raises:
        ConfigError: The objective reads all item vectors, and the encoder that makes them trains.
    """
    changes = run.data.augment.changes_texts
    if objective.needs != "table" or not (_trains_encoder(run) or changes):
        return
    if run.trainer.encoder_updates != EVERY_STEP:
        return
    if not objective.encodes_catalog:
        name = get_choice_name(objective)
        if changes:
            raise ConfigError(
                f"objective {name} reads the vectors of all items in every step, and data.augment "
                "changes the texts that they are made of; set objective.encode_catalog=true to "
                "encode the whole catalog in every step, or leave out data.augment.drop_words and "
                "drop_fields."
            )
        raise ConfigError(
            f"objective {name} reads the vectors of all items in every step, and tuning "
            f"{get_choice_name(run.tuning)} changes the encoder that makes them; set "
            "tuning=frozen, trainer.encoder_updates=half_epoch, or objective.encode_catalog=true "
            "to encode the whole catalog in every step."
        )


def check_columns(run: RunConfig, tables: Tables) -> None:
    """Refuses item columns that cannot be used, before anything is computed.

    Raises:
        ConfigError: `evaluation.slices`, `category` or `hit_by` names none, or one of lists; or
            `category` one with more values than there can be categories.
    """
    known = [name for name in tables.items.columns if name not in ("item", "text")]
    asked = [("evaluation.slices", name) for name in run.evaluation.slices]
    for key in ("category", "hit_by"):
        if getattr(run.evaluation, key) is not None:
            asked.append((f"evaluation.{key}", getattr(run.evaluation, key)))
    for key, name in asked:
        if name not in known:
            raise ConfigError(f"{key}: the items have no column '{name}'.{nearest(name, known)}")
        if tables.items[name].dtype.is_nested():
            raise ConfigError(
                f"{key}: the column '{name}' of the items holds {tables.items[name].dtype}; make "
                "it text, as in 'a|b' for two categories."
            )
    if run.evaluation.category is not None:
        parse_categories(tables.items[run.evaluation.category])


def check_weights(objective: ObjectiveConfig, examples: Examples) -> None:
    """Refuses weights that no loss can use, and to regress on a constant.

    Raises:
        ConfigError: All are 0, or those that the objective predicts are equal.
    """
    events = examples.get_event_weights()
    if len(events) and not events.any():
        raise ConfigError(
            "the events that training predicts all weigh 0, and there is nothing to learn; mend "
            "the source's weight column."
        )
    weights = examples.get_train_weights()
    if objective.predicts_weights and len(weights) and weights.min() == weights.max():
        raise ConfigError(
            f"objective {get_choice_name(objective)} needs observed weights that differ, and all "
            f"are {weights[0]:g}; give the source a weight column, or set data.targets=labelled "
            "and data.positive_from."
        )


def check_labels(split: Split, role: int) -> None:
    """Refuses lists in which everything is liked: any order of them is perfect.

    Args:
        split: The events.
        role: The part whose lists are ranked.

    Raises:
        ConfigError: Every event of the part is liked.
    """
    if (split.label[split.role == role] > 0).all():
        part = "test" if role == TEST else "validation"
        raise ConfigError(
            "evaluation.protocol=labels ranks liked events above the user's others, and every "
            f"{part} event counts as liked, so that any order would be perfect; set "
            "data.positive_from to the lowest rating that is liked, or use another protocol."
        )

"""Makes a finished run smaller: a new run, tested on the same cases."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from recsys.architectures.two_tower import Config as TwoTowerConfig
from recsys.assembly import build
from recsys.assembly.assembled import Assembly, StoredRun
from recsys.assembly.stored_runs import DataIdentity, drop_hard_negatives, open_run
from recsys.config.choices import import_choice
from recsys.config.compose import RunConfig, format_config, get_choice_name
from recsys.errors import ConfigError
from recsys.evaluation.quantization import count_bytes
from recsys.fit.baseline import BaselineExecutor, Validation
from recsys.fit.command import resolve, silence_libraries
from recsys.fit.result import FinalTest, TrainingProgress
from recsys.recommender.parameters import ENCODERS
from recsys.recommender.trainable import TrainableRecommender, require_trainable
from recsys.recommender.training_counts import TrainingCounts
from recsys.runs.folder import lock_folder, make_folder
from recsys.runtime import command, excluded_time
from recsys.runtime.files import ENCODER_FOLDER
from recsys.runtime.progress import print_status
from recsys.runtime.signals import SignalHandler
from recsys.runtime.stopwatch import EVALUATION
from recsys.trained.compression.folder import write_folder
from recsys.trained.compression.settings import CompressionSettings, check_compressible
from recsys.trained.compression.students import Origin, make_student
from recsys.trained.compression.teacher import read_teacher
from recsys.trained.exports.opened import open_for_export
from recsys.trained.exports.source import ExportSource

NAME = "compressed"
"""How the folder of such a run is called."""

BEFORE = "before"
"""Row of the closing table with the figures of the run that it was made of."""


def compress(run: ExportSource, settings: CompressionSettings, output: str) -> Path:
    """Makes a run smaller.

    Args:
        run: A finished run of two towers on texts.
        settings: How small.
        output: Where the new run's folder is made.

    Returns:
        The folder of a finished run.

    Raises:
        ConfigError: The run cannot be made so, or its data has changed.
        DataError: A file cannot be read or written.
    """
    started, excluded = excluded_time.begin_run(), excluded_time.get_excluded_total()
    check_compressible(run.config, settings, str(run.folder))
    print_status(f"{run.folder}: loading libraries")
    silence_libraries()
    startup = excluded_time.exclude_startup(started)
    with SignalHandler() as signals, ExitStack() as held, signals.raise_interruption():
        opened = open_for_export(run)
        _check_width(settings, opened.vectors.shape[1], run.folder)
        _check_foldable(opened.made, run)
        identity = DataIdentity.compute(run.config, opened.made.split, opened.made.fingerprint)
        source = open_run("run", str(run.folder), identity, "make it smaller")
        teacher = read_teacher(opened)
        heads = _read_heads(require_trainable(opened.made.recommender))
        _fold(opened.made)
        output_folder = Path(output)
        state = output_folder / f".{NAME}-{source.digest[:12]}-{_name_state(settings)}.ckpt"
        student = make_student(teacher, settings, Origin(source.digest, state))
        folder = make_folder(output, NAME, lambda path: _format(run, settings, path))
        try:
            held.enter_context(lock_folder(folder))
            print_status("writing the encoder")
            turn = teacher.make_turn(settings.width, settings.vectors)
            write_folder(folder / ENCODER_FOLDER, teacher, student, turn)
            config = resolve(_make_config(run.config, settings, folder))
            made = build.assemble(config)
            fill_heads(require_trainable(made.recommender), heads, turn, settings.distils)
            command.set_report_folder(folder)
            job = CompressionExecutor(config, folder, made, signals)
            job.source, job.settings = source, settings
            return job.execute(started, excluded, startup)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _name_state(settings: CompressionSettings) -> str:
    """What tells the states of two distillations apart."""
    return f"{settings.layers}-{settings.steps}-{settings.batch}-{settings.lr:g}-{settings.seed}"


def _check_width(settings: CompressionSettings, width: int, folder: Path) -> None:
    """Refuses a width that is none below the run's.

    Raises:
        ConfigError: It is not.
    """
    if settings.width is not None and settings.width >= width:
        raise ConfigError(
            f"width={settings.width}: the vectors of {folder} have {width} numbers; give fewer, or "
            "leave width out for all."
        )


def _check_foldable(made: Assembly, run: ExportSource) -> None:
    """Refuses what a tuning method or a pooling added for good.

    Raises:
        ConfigError: It cannot be part of a plain encoder.
    """
    assert made.encoding is not None, "what was checked reads texts"
    if run.config.encoder.width is not None:
        raise ConfigError(
            f"{run.folder} keeps encoder.width={run.config.encoder.width} numbers of its encoder's "
            "vectors, which a smaller encoder cannot follow; name a run without it, and give "
            "width= here."
        )
    tuned, pooling = made.encoding.tuned, made.encoding.encoder.pooling
    learned = any(True for _ in pooling.parameters())
    if learned or (tuned.added and tuned.merge is None):
        what = "encoder.pooling=attention"
        if not learned:
            what = f"tuning={get_choice_name(run.config.tuning)}"
        raise ConfigError(
            f"{run.folder} has {what}, which adds parameters that cannot be folded into the "
            "weights of an encoder; name a run of lora, full, top_layers, bitfit or frozen."
        )


def _fold(made: Assembly) -> None:
    """Makes what was learned in the encoder a part of its weights."""
    assert made.encoding is not None
    made.encoding.encoder.restore_precision()
    if made.encoding.tuned.merge is not None:
        with torch.no_grad():
            made.encoding.tuned.merge()


def _make_config(run: RunConfig, settings: CompressionSettings, folder: Path) -> RunConfig:
    """The configuration of the new run: the old one over another encoder, which does not train."""
    own = cast(TwoTowerConfig, run.architecture)
    run = drop_hard_negatives(run)
    pool = own.pool if settings.pool is None else settings.pool
    precision = run.trainer.precision
    return replace(
        run,
        experiment=None,
        output=str(folder.parent),
        seed=settings.seed,
        start_from=None,
        tuning=import_choice("tuning", "frozen")(),
        architecture=replace(own, vectors_as=settings.vectors, pool=pool),
        encoder=replace(
            run.encoder,
            model=str((folder / ENCODER_FOLDER).resolve()),
            revision=None,
            sha256=None,
            pooling="auto",
            dtype="fp32",
            quantize="none",
        ),
        data=replace(run.data, augment=replace(run.data.augment, drop_words=0.0, drop_fields=0.0)),
        regularization=replace(run.regularization, dropout=None, l2_sp=0.0, cold_distillation=0.0),
        trainer=replace(
            run.trainer,
            devices=1,
            nodes=1,
            strategy="auto",
            encoder_updates="every_step",
            # What it writes is in fp32.
            precision="bf16-mixed" if precision == "bf16-true" else precision,
        ),
    )


def _format(run: ExportSource, settings: CompressionSettings, folder: Path) -> str:
    return format_config(_make_config(run.config, settings, folder))


def _read_heads(model: TrainableRecommender) -> dict[str, Tensor]:
    """What trained outside of the encoder, by name."""
    return {
        name: value.detach().clone()
        for name, value in model.get_saved_parameters().items()
        if not name.startswith(ENCODERS)
    }


@torch.no_grad()
def fill_heads(
    model: TrainableRecommender, heads: Mapping[str, Tensor], turn: Tensor | None, learned: bool
) -> None:
    """Gives a run that is made smaller what the old one learned outside of its encoder.

    The head of the items is part of the new encoder, where that is another one. Maps of vectors are
    turned into the new basis.

    Args:
        model: The new run's.
        heads: By name.
        turn: (W, D) what `Teacher.make_turn` gave.
        learned: Whether the new encoder learned from the old one.
    """
    for name, parameter in model.get_saved_parameters().items():
        value = heads[name]
        if name.startswith("item_head.") and (learned or turn is not None):
            value = torch.zeros_like(parameter)
        elif turn is not None:
            if value.ndim == 2:
                value = turn @ value @ turn.T
            elif value.ndim == 1:
                value = turn @ value
        parameter.copy_(value)


class CompressionExecutor(BaselineExecutor):
    """A run that learned elsewhere: its validation and its test.

    Attributes:
        source: The run that it was made of.
        settings: How.
    """

    source: StoredRun
    settings: CompressionSettings

    def _run(self) -> None:
        """Keeps what was learned, ranks the cases, and finishes."""
        require_trainable(self.made.recommender).save_trained(self.weights)
        self.best = Validation(f"val/{self.run.evaluation.monitor}")
        logs = self._open_logs()
        self.csv.rewind(-1)
        self.watch.end_startup()
        with self.watch.time_stage(EVALUATION):
            validated = self._evaluate("validation")
            metrics = self._evaluate("test")
        self._log(logs, "test/", metrics)
        self._tell_validation(validated)
        self._finish({**self._list_sources(metrics), self.folder.name: metrics}, TrainingProgress())

    def _list_sources(self, metrics: Mapping[str, float]) -> dict[str, Mapping[str, float]]:
        """Test metrics of the baselines, and of the run that this was made of."""
        test = self.source.result["test"]
        own = {name: float(test[name]) for name in metrics if name in test}
        return {**self.start.floors, BEFORE: own}

    def _make_result(
        self, tested: FinalTest | None, progress: TrainingProgress, counts: TrainingCounts
    ) -> dict[str, object]:
        """As of any run, with what it was made of and how large it is."""
        result = super()._make_result(tested, progress, counts)
        made_of = {**self.source.summarize(), "compression": self.settings.summarize()}
        return {
            **result,
            "built_on": [made_of],
            "compression": {
                **self.settings.summarize(),
                "seed": self.settings.seed,
                **self._measure_size(),
            },
        }

    def _measure_size(self) -> dict[str, Any]:
        """Megabytes (10^6) of encoder and index."""
        folder = self.folder / ENCODER_FOLDER
        weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        architecture = cast(TwoTowerConfig, self.run.architecture)
        assert self.made.encoding is not None
        width = self.made.encoding.encoder.vector_width
        each = count_bytes(architecture.vectors_as, width)
        return {
            "vector_width": width,
            "encoder_layers": self.made.encoding.encoder.depth,
            "encoder_mb": weights / 1e6,
            "index_mb": each * len(self.made.tables.items) / 1e6,
        }

    def _list_remarks(self, tested: FinalTest | None) -> list[str]:
        """How small it is, and what that cost."""
        size, before = self._measure_size(), self.source.result["test"]
        metric = self.run.evaluation.metric
        lines = [
            f"{self.settings.describe()}: encoder {size['encoder_mb']:.1f} MB, index "
            f"{size['index_mb']:.2f} MB"
        ]
        if tested is not None and metric in before and before[metric]:
            share = tested.test[metric] / float(before[metric])
            lines.append(f"{metric} is {share:.1%} of that of {self.source.folder}")
        return lines

"""What the command does, as functions: the words to a pretraining, and that to its folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from recsys.config.choices import get_choice_name
from recsys.config.compose import compose_pretraining, format_config, read_pretraining
from recsys.config.groups import TrackingOptions
from recsys.config.pretraining import PretrainConfig
from recsys.errors import raise_file_error
from recsys.runs.folder import lock_folder, make_folder, reopen_root
from recsys.runtime import command, excluded_time
from recsys.runtime.files import PRETRAINING, remove_temporary_files
from recsys.runtime.progress import print_status
from recsys.runtime.signals import Interrupted, SignalHandler
from recsys.words import drop_words, find_value

KIND = "pretrain"
"""Its job type at Weights & Biases, and how its folder is called where nothing else is said."""


@raise_file_error()
def find_pretraining(words: Sequence[str]) -> tuple[PretrainConfig, Path | None]:
    """The pretraining that the words name, and its folder where it has one already.

    Raises:
        RecsysError: A word is wrong, or there is no such pretraining.
    """
    name = find_value(words, "resume")
    if name is None:
        return compose_pretraining(words), None
    return reopen_root(name, drop_words(words, ["resume"]), PRETRAINING, read_pretraining)


@raise_file_error()
def pretrain(run: PretrainConfig, folder: Path | None = None) -> Path:
    """Trains an encoder on item texts.

    Args:
        run: The configuration.
        folder: Where it goes on after a stop; None for a new pretraining.

    Returns:
        Its folder, which `encoder.model` takes.

    Raises:
        RecsysError: The configuration or the data cannot be used, the training diverged, or the
            memory did not suffice.
        Interrupted: SIGTERM or SIGINT came.
    """
    started, excluded = excluded_time.begin_run(), excluded_time.get_excluded_total()
    from recsys.pretrain.checks import check_pretraining

    check_pretraining(run)
    name = run.experiment or f"{KIND}_{get_choice_name(run.pretraining)}"
    print_status(f"{name}: loading libraries")
    import torch

    from recsys.fit.command import resolve_options, silence_libraries
    from recsys.pretrain.assemble import assemble
    from recsys.pretrain.run import PretrainingExecutor
    from recsys.runs.failures import raise_out_of_memory

    silence_libraries()
    startup = excluded_time.exclude_startup(started)
    with SignalHandler() as signals, ExitStack() as held:
        try:
            with signals.raise_interruption():
                if folder is not None:
                    held.enter_context(lock_folder(folder, PRETRAINING))
                    remove_temporary_files(folder)
                resolve_options(run.trainer, run.encoder, run.tracking)
                if run.tracking.kind == TrackingOptions().kind:
                    run.tracking.kind = KIND
                if run.trainer.threads is not None:
                    torch.set_num_threads(run.trainer.threads)
                with raise_out_of_memory():
                    made = assemble(run)
                if folder is None:
                    folder = make_folder(run.output, name, format_config(run), PRETRAINING)
                    held.enter_context(lock_folder(folder, PRETRAINING))
                command.set_report_folder(folder)
                job = PretrainingExecutor(run, folder, made, signals)
                return job.execute(started, excluded, startup)
        except Interrupted as leave:
            after = f"; go on with: python -m recsys.pretrain resume={folder}" if folder else ""
            print(f"stopped by {leave.name}{after}", file=sys.stderr)
            raise

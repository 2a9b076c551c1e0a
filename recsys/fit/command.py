"""What the command does, as functions: the words to a run, and the run to its folder."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from recsys.config.compose import RunConfig, compose, format_config, get_choice_name
from recsys.config.groups import EncoderOptions, TrackingOptions, TrainerOptions
from recsys.errors import ConfigError, raise_file_error
from recsys.fit.seeds import SeedPlan, find_last_unfinished, make_plan
from recsys.runs.folder import find_member_runs, lock_folder, make_folder, reopen
from recsys.runs.jobs import note_job
from recsys.runs.launch import adopt_launch
from recsys.runs.state import find_inherited_run
from recsys.runtime import command, excluded_time
from recsys.runtime.files import SEEDS, remove_temporary_files
from recsys.runtime.launching import slurm
from recsys.runtime.launching.rendezvous import Rendezvous
from recsys.runtime.progress import print_status
from recsys.runtime.ranks import get_launch, get_rank
from recsys.runtime.signals import Interrupted, SignalHandler
from recsys.words import drop_words, find_value, split_words


@raise_file_error()
def find_seeds(words: Sequence[str], planning: bool) -> SeedPlan | None:
    """The seeds that the words ask for or go on with, or None for a single run.

    Args:
        words: Of the command.
        planning: Whether new seeds get their folder; else they are as one run.

    Raises:
        RecsysError: A word is wrong, or there is no such folder.
    """
    if find_inherited_run() is not None:
        return None  # a rank is told its run, and `last` would be another one for it
    values = split_words(words)
    if "resume" in values:
        if "seeds" in values:
            raise ConfigError("seeds and resume exclude each other: the folder knows its seeds.")
        folder = Path(values["resume"])
        if values["resume"] == "last":
            folder = find_last_unfinished(values.get("output", "runs"))
        if not (folder / SEEDS).is_file():
            return None
        more = sorted(set(values) - {"resume", "output"})
        if more:
            raise ConfigError(f"{more[0]} cannot change when seeds go on; start a new command.")
        return SeedPlan.read(folder)
    return make_plan(words) if planning and "seeds" in values else None


@raise_file_error()
def find_run(words: Sequence[str]) -> tuple[RunConfig, Path | None]:
    """The run that the words name, and its folder where it has one already.

    Raises:
        RecsysError: A word is wrong, or there is no such run.
    """
    handed = find_inherited_run()
    if handed is not None:
        return handed
    name = find_value(words, "resume")
    if name is None:
        return compose(words), None
    return reopen(name, drop_words(words, ["resume"]))


@raise_file_error()
def fit(run: RunConfig, folder: Path | None = None, meeting: Rendezvous | None = None) -> Path:
    """Trains and tests one run.

    Args:
        run: Its configuration.
        folder: Where it goes on after a stop; None for a new run.
        meeting: Where other processes, that another launcher has started, wait for the run.

    Returns:
        The result folder.

    Raises:
        RecsysError: The configuration or the data cannot be used, the training diverged, or the
            memory did not suffice.
        Interrupted: SIGTERM or SIGINT came.
    """
    started, excluded = excluded_time.begin_run(), excluded_time.get_excluded_total()
    from recsys.assembly.checks import check_pairs  # loads polars, which help needs not wait for

    asked = format_config(run)
    if find_inherited_run() is None:
        adopt_launch(run.trainer, get_launch(), resumes=folder is not None)
    members = [each for word in run.architecture.member_runs for each in find_member_runs(word)]
    run.architecture.replace_member_runs(members)
    check_pairs(run)
    print_status(f"{run.experiment or get_choice_name(run.architecture)}: loading libraries")
    import torch

    from recsys.assembly import build
    from recsys.assembly.stored_runs import open_start
    from recsys.fit.baseline import BaselineExecutor
    from recsys.fit.run import RunExecutor
    from recsys.runs.failures import raise_out_of_memory

    executor: type[RunExecutor] = BaselineExecutor
    if run.architecture.trains:
        # Lightning and transformers take longer to import than a baseline takes to run.
        from recsys.fit.training import TrainingExecutor as executor
    if run.architecture.loads_models:
        silence_libraries()
    startup = excluded_time.exclude_startup(started)
    wanted = slurm.list_requeue_signals(run.checkpoint.requeue)
    with SignalHandler(wanted) as signals, ExitStack() as held:
        try:
            with signals.raise_interruption():
                if folder is not None and get_rank() == 0:
                    held.enter_context(lock_folder(folder))
                    remove_temporary_files(folder)
                run = resolve(run)
                _check_command(run)
                if meeting is not None and get_rank() == 0 and run.trainer.processes == 1:
                    meeting.dismiss()
                open_start(run)  # refused before the data is read
                if run.trainer.threads is not None:
                    torch.set_num_threads(run.trainer.threads)
                with raise_out_of_memory():
                    made = build.assemble(run)
                if folder is None:
                    name = run.experiment or get_choice_name(run.architecture)
                    folder = make_folder(run.output, name, format_config(run))
                    note_job(folder, asked)
                    held.enter_context(lock_folder(folder))
                command.set_report_folder(folder)
                job = executor(run, folder, made, signals, meeting)
                return job.execute(started, excluded, startup)
        except Interrupted as leave:
            if get_rank() == 0:
                after = f"; go on with: python -m recsys.fit resume={folder}" if folder else ""
                print(f"stopped by {leave.name}{after}", file=sys.stderr)
                if leave.signum in wanted:
                    _requeue()
            raise


def _requeue() -> None:
    """Has SLURM queue the job again, whose next start goes on; says where it does not."""
    job = slurm.find_job()
    if job is None:
        return
    why = slurm.requeue_job(job)
    if why is None:
        print(f"job {job} is queued again", file=sys.stderr)
    else:
        print(f"warning: job {job} is not queued again: {why}", file=sys.stderr)


def _check_command(run: RunConfig) -> None:
    """Refuses several processes where the program is another: each of them would run that again.

    Raises:
        ConfigError: More than one device in a program that is not this command.
    """
    spec = sys.modules["__main__"].__spec__
    name = "" if spec is None else spec.name.removesuffix(".__main__")  # of a package's command
    if get_launch() is None and run.trainer.devices > 1 and name != "recsys.fit":
        raise ConfigError(
            f"trainer.devices={run.trainer.devices} starts the command again for each device; "
            "run it as python -m recsys.fit."
        )


def resolve(run: RunConfig) -> RunConfig:
    """The run with every `auto` decided, so that all ranks and a later resume agree.

    Raises:
        ConfigError: This machine has not what was asked for.
    """
    if run.trainer.processes > 1 and not run.architecture.trains:
        asked = f"trainer.devices={run.trainer.devices}"
        if run.trainer.nodes > 1:
            asked = f"trainer.nodes={run.trainer.nodes} {asked}"
        print(
            f"note: {asked} changes nothing: "
            f"{get_choice_name(run.architecture)} does not train, and one process tests it",
            file=sys.stderr,
        )
        run.trainer.devices = run.trainer.nodes = 1
    if run.trainer.shards and run.architecture.trains:
        _settle_sharding(run)
    resolve_options(run.trainer, run.encoder, run.tracking)
    if run.encoder.compile == "on" and run.profile:
        raise ConfigError(
            "profile=true listens inside the layers, which encoder.compile makes one piece; leave "
            "one of them out."
        )
    return run


def _settle_sharding(run: RunConfig) -> None:
    """Sets what an encoder whose weights are spread over processes cannot have."""
    if run.encoder.compile == "auto":
        run.encoder.compile = "off"
    if run.encoder.cache:
        print(
            "note: encoder.cache is off with trainer.strategy=fsdp: what it keeps of the lower "
            "layers is read by a part of the model, which processes do not put together",
            file=sys.stderr,
        )
        run.encoder.cache = False


def resolve_options(
    trainer: TrainerOptions, encoder: EncoderOptions, tracking: TrackingOptions
) -> None:
    """Decides every `auto` of these options, in place.

    Raises:
        ConfigError: This machine has not what was asked for.
    """
    from recsys.runtime.hardware import (
        choose_accelerator,
        choose_compilation,
        choose_precision,
        count_gpus,
    )
    from recsys.tracking.wandb_log import choose_wandb_mode

    trainer.accelerator = choose_accelerator(trainer.accelerator)
    on_gpu, there = trainer.accelerator == "gpu", count_gpus()
    if on_gpu and not there:
        raise ConfigError(
            "trainer.accelerator=gpu, and torch finds no GPU here; set trainer.accelerator=cpu."
        )
    launch = get_launch()
    if on_gpu and trainer.devices > there and launch is not None:
        raise ConfigError(
            f"{launch.launcher} has started {trainer.devices} processes on this machine, and each "
            f"sees {there} GPUs; let each of them see all GPUs of its machine (in SLURM "
            "--gpus-per-node or --gres, without --gpus-per-task and --gpu-bind)."
        )
    if on_gpu and trainer.devices > there:
        raise ConfigError(
            f"trainer.devices={trainer.devices} is more than the GPUs that torch finds here; "
            f"set it to {there} or less."
        )
    if not on_gpu and trainer.precision == "fp16-mixed":
        raise ConfigError(
            "trainer.precision=fp16-mixed needs a GPU; on a CPU set trainer.precision=fp32 or "
            "bf16-mixed."
        )
    trainer.precision = choose_precision(trainer.precision, trainer.accelerator)
    if trainer.precision == "bf16-true":
        encoder.dtype = "bf16"
    encoder.compile = choose_compilation(encoder.compile, trainer.accelerator)
    tracking.wandb = choose_wandb_mode(tracking.wandb)
    odd = [tag for tag in tracking.tags if not 0 < len(tag) <= 64]
    if odd:
        raise ConfigError(
            f"tracking.tags: '{odd[0]}' has {len(odd[0])} characters, and a tag has 1 to 64."
        )


def silence_libraries() -> None:
    """Turns off what libraries print that a user of this command cannot act on."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    # peft imports bitsandbytes where that is installed; it misses kernels that nothing asks for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric).*")
    # What it names in its place is private, and newer than the oldest torch that is supported.
    warnings.filterwarnings("ignore", message="torch.distributed.nn.functional.all_gather")

"""What the command does, as functions: the words to a run, and the run to its folder."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from recsys.config.compose import Run, choice_name, compose, to_yaml
from recsys.errors import ConfigError, system_told
from recsys.fit.seeds import PLAN, Plan, last_begun, planned
from recsys.runs.folder import Leave, Signals, inherited, locked, new_folder, reopen
from recsys.runtime import command, excluded_time
from recsys.runtime.files import clear_asides
from recsys.runtime.progress import say
from recsys.runtime.ranks import rank


@system_told()
def find_seeds(words: Sequence[str], planning: bool) -> Plan | None:
    """The seeds that the words ask for or go on with, or None for a single run.

    Args:
        words: Of the command.
        planning: Whether new seeds get their folder; else they are as one run.

    Raises:
        RecsysError: A word is wrong, or there is no such folder.
    """
    if inherited() is not None:  # a rank is told its run, and `last` would be another one for it
        return None
    asked = dict(word.partition("=")[::2] for word in words)
    if "resume" in asked:
        if "seeds" in asked:
            raise ConfigError("seeds and resume exclude each other: the folder knows its seeds.")
        folder = Path(asked["resume"])
        if asked["resume"] == "last":
            folder = last_begun(asked.get("output", "runs"))
        if not (folder / PLAN).is_file():
            return None
        more = sorted(set(asked) - {"resume", "output"})
        if more:
            raise ConfigError(f"{more[0]} cannot change when seeds go on; start a new command.")
        return Plan.read(folder)
    return planned(words) if planning and "seeds" in asked else None


@system_told()
def find_run(words: Sequence[str]) -> tuple[Run, Path | None]:
    """The run that the words name, and its folder where it has one already.

    Raises:
        RecsysError: A word is wrong, or there is no such run.
    """
    handed = inherited()
    if handed is not None:
        return handed
    names = [word.partition("=")[2] for word in words if word.startswith("resume=")]
    if not names:
        return compose(words), None
    return reopen(names[-1], [word for word in words if not word.startswith("resume=")])


@system_told()
def fit(run: Run, folder: Path | None = None) -> Path:
    """Trains and tests one run.

    Args:
        run: Its configuration.
        folder: Where it goes on after a stop; None for a new run.

    Returns:
        The result folder.

    Raises:
        RecsysError: The configuration or the data cannot be used, the training diverged, or the
            memory did not suffice.
        Leave: SIGTERM or SIGINT came.
    """
    started, beside = excluded_time.begin(), excluded_time.spent()
    say(f"{run.experiment or choice_name(run.architecture)}: loading libraries")
    import torch

    from recsys.assembly import build
    from recsys.fit.run import Job
    from recsys.runs.failures import memory_told

    startup = excluded_time.ready(started)
    silence_libraries()
    with Signals() as signals, ExitStack() as held:
        try:
            with signals.not_swallowed():
                if folder is not None and rank() == 0:
                    held.enter_context(locked(folder))
                    clear_asides(folder)
                _check_command(run)
                run = resolve(run)
                if run.trainer.threads is not None:
                    torch.set_num_threads(run.trainer.threads)
                with memory_told():
                    made = build.assemble(run)
                if folder is None:
                    name = run.experiment or choice_name(run.architecture)
                    folder = new_folder(run.output, name, to_yaml(run))
                    held.enter_context(locked(folder))
                command.leave_reports_in(folder)
                job = Job(run, folder, made, signals)
                return job.run_all(started, beside, startup)
        except Leave as leave:
            if rank() == 0:
                after = f"; go on with: python -m recsys.fit resume={folder}" if folder else ""
                print(f"stopped by {leave.name}{after}", file=sys.stderr)
            raise


def _check_command(run: Run) -> None:
    """Refuses several processes where the program is another: each of them would run that again.

    Raises:
        ConfigError: More than one device in a program that is not this command.
    """
    spec = sys.modules["__main__"].__spec__
    name = "" if spec is None else spec.name.removesuffix(".__main__")  # of a package's command
    if run.trainer.devices > 1 and name != "recsys.fit":
        raise ConfigError(
            f"trainer.devices={run.trainer.devices} starts the command again for each device; "
            "run it as python -m recsys.fit."
        )


def resolve(run: Run) -> Run:
    """The run with every `auto` decided, so that all ranks and a later resume agree.

    Raises:
        ConfigError: This machine has not what was asked for.
    """
    from recsys.runtime.hardware import accelerator, compiled, gpus, precision
    from recsys.tracking.logs import wandb_mode

    run.trainer.accelerator = accelerator(run.trainer.accelerator)
    on_gpu, there = run.trainer.accelerator == "gpu", gpus()
    if on_gpu and not there:
        raise ConfigError(
            "trainer.accelerator=gpu, and torch finds no GPU here; set trainer.accelerator=cpu."
        )
    if on_gpu and run.trainer.devices > there:
        raise ConfigError(
            f"trainer.devices={run.trainer.devices} is more than the GPUs that torch finds here; "
            f"set it to {there} or less."
        )
    if not on_gpu and run.trainer.precision == "fp16-mixed":
        raise ConfigError(
            "trainer.precision=fp16-mixed needs a GPU; on a CPU set trainer.precision=fp32 or "
            "bf16-mixed."
        )
    run.trainer.precision = precision(run.trainer.precision, run.trainer.accelerator)
    run.encoder.compile = compiled(run.encoder.compile, run.trainer.accelerator)
    if run.encoder.compile == "on" and run.profile:
        raise ConfigError(
            "profile=true listens inside the layers, which encoder.compile makes one piece; leave "
            "one of them out."
        )
    run.tracking.wandb = wandb_mode(run.tracking.wandb)
    odd = [tag for tag in run.tracking.tags if not 0 < len(tag) <= 64]
    if odd:
        raise ConfigError(
            f"tracking.tags: '{odd[0]}' has {len(odd[0])} characters, and a tag has 1 to 64."
        )
    return run


def silence_libraries() -> None:
    """Turns off what libraries print that a user of this command cannot act on."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric).*")

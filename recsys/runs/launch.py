"""The run of processes that another launcher has started: srun, or torchrun."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from recsys.config.compose import RunConfig, format_config, read_config
from recsys.config.groups import TrainerOptions
from recsys.errors import ConfigError
from recsys.runs.folder import reopen
from recsys.runs.jobs import find_job_folder
from recsys.runtime.files import CONFIG, RESULT, SEEDS
from recsys.runtime.launching.launches import Launch
from recsys.runtime.launching.rendezvous import Rendezvous
from recsys.words import find_value


def check_words(words: Sequence[str]) -> None:
    """Refuses what processes that were started together cannot share.

    Raises:
        ConfigError: Several seeds, which are runs one after the other.
    """
    named = find_value(words, "resume")
    if find_value(words, "seeds") is not None or (named and (Path(named) / SEEDS).is_file()):
        raise ConfigError(
            "seeds: several runs, one after the other, are started by one process; give each seed "
            "a job of its own (seed=N), or start one process a node (srun --ntasks=1)."
        )


@contextmanager
def meet(launch: Launch | None) -> Iterator[Rendezvous | None]:
    """Where the processes of a launch meet, while a block lasts; None without a launch.

    However the block ends on the first one, the others do not wait for it any longer.
    """
    if launch is None:
        yield None
        return
    meeting = Rendezvous(launch)
    try:
        yield meeting
    finally:
        if launch.rank == 0:
            meeting.dismiss()


def await_run(meeting: Rendezvous) -> tuple[RunConfig, Path] | None:
    """The run that the first process has made; None where there is nothing to do for this one."""
    folder = meeting.wait(lambda path: (path / CONFIG).is_file())
    if folder is None:
        return None
    run = read_config(folder / CONFIG)
    # A run may go on with another number of processes than that of its configuration.
    run.trainer.nodes, run.trainer.devices = meeting.launch.nodes, meeting.launch.devices
    return run, folder


def find_earlier(run: RunConfig, meeting: Rendezvous | None) -> Path | None:
    """The folder of the same run, where a launcher starts its processes again.

    Args:
        run: As it is asked for, before any `auto` is decided.
        meeting: Where the processes of this start meet, or None.
    """
    found = find_job_folder(run.output, format_config(run))
    return found if found is not None or meeting is None else meeting.find_earlier()


def go_on(folder: Path) -> tuple[RunConfig, Path] | None:
    """A run that an earlier start has left; None where that finished it."""
    return None if (folder / RESULT).is_file() else reopen(str(folder), ())


def adopt_launch(options: TrainerOptions, launch: Launch | None, resumes: bool) -> None:
    """Has a run be trained by the processes that were started for it.

    Args:
        options: Of the run; its machines and devices are set where they are 1.
        launch: How the processes were started; None: one alone.
        resumes: Whether a stopped run goes on, which any number of processes may do.

    Raises:
        ConfigError: Several machines are asked for and only one process is there, or others than
            were started.
    """
    if launch is None:
        if options.nodes > 1:
            raise ConfigError(
                f"trainer.nodes={options.nodes}: no process of another machine is in sight; start "
                "this command on all of them by srun (sbatch --nodes=N --ntasks-per-node=DEVICES) "
                "or by torchrun --nnodes=N --nproc-per-node=DEVICES."
            )
        return
    asked, started = (options.nodes, options.devices), (launch.nodes, launch.devices)
    if not resumes and asked not in ((1, 1), started):
        raise ConfigError(
            f"trainer.nodes={options.nodes} trainer.devices={options.devices} is not what "
            f"{launch.launcher} has started, {launch.nodes} x {launch.devices}; leave both out, or "
            "start as many."
        )
    options.nodes, options.devices = started

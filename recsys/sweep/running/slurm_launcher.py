"""Trials as jobs of SLURM, submitted by submitit; the driver asks squeue what became of them."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.config.groups import TrainerOptions
from recsys.errors import ConfigError, OutOfMemoryError, RecsysError
from recsys.sweep.running import slurm_task

if TYPE_CHECKING:
    from submitit import SlurmExecutor
    from submitit.core.core import Job

PACE = 10.0
"""Seconds between two questions to squeue."""

GONE = 3
"""Answers without a job after which it has ended; one that was just submitted may be late."""

_DEFAULTS: Mapping[str, object] = {"time": 24 * 60}
_OWN = ("nodes", "ntasks_per_node", "signal_delay_s", "use_srun", "array_parallelism", "num_gpus")


def import_submitit() -> Any:  # noqa: ANN401 (a module)
    """The library.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError(
            "launcher=slurm needs submitit, which is not installed: pip install 'recsys[slurm]'."
        ) from None
    return submitit


def check_slurm(parameters: Mapping[str, object]) -> None:
    """Refuses what cannot be submitted; before the sweep begins.

    Args:
        parameters: Of every job, as `slurm=` names them.

    Raises:
        ConfigError: There is no SLURM here, or a parameter is unknown.
    """
    import_submitit()
    for name in ("sbatch", "srun", "squeue", "scancel"):
        if shutil.which(name) is None:
            raise ConfigError(
                f"launcher=slurm: there is no {name} on this machine; run the sweep where jobs are "
                "submitted, or leave launcher out."
            )
    from submitit.slurm.slurm import _get_default_parameters

    known = sorted(set(_get_default_parameters()) - set(_OWN))
    for name in parameters:
        if name in _OWN:
            raise ConfigError(
                f"slurm.{name} follows from the trial's trainer.nodes and trainer.devices; leave "
                "it out."
            )
        if name not in known:
            raise ConfigError(
                f"slurm: '{name}' is no parameter of a job. There are: {', '.join(known)}; others "
                "of sbatch go into additional_parameters."
            )


class SlurmTrial:
    """A trial that runs as a job, or waits for its turn.

    Attributes:
        stopping: Whether its end was asked for, by `terminate` or `kill`.
    """

    def __init__(self, launcher: SlurmLauncher, job: Job[int]) -> None:
        self._launcher, self._job = launcher, job
        self._result = job.task(0).paths.result_pickle
        self._deadline: float | None = None
        self._code: int | None = None
        self._missed, self._looked = 0, -math.inf
        self.stopping = False

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or None while it waits or runs."""
        if self._code is None:
            self._code = self._find_code()
        if self._code is None and self._deadline is not None and time.monotonic() > self._deadline:
            self.kill()
        return self._code

    def _find_code(self) -> int | None:
        if self._result.is_file():
            return _read_code(self._result)
        states = self._launcher.list_states()
        if states is None or self._job.job_id in states:
            self._missed = 0
            return None
        if self._launcher.asked == self._looked:
            return None  # the same answer as before
        self._looked, self._missed = self._launcher.asked, self._missed + 1
        if self._missed < GONE:
            return None
        if self._result.is_file():  # a shared disk may show it late
            return _read_code(self._result)
        return -signal.SIGTERM if self.stopping else _ask_why(self._job.job_id)

    def terminate(self, grace: float) -> None:
        """Asks it to save and leave, and has it cancelled by a later `poll`.

        Args:
            grace: Seconds that it has.
        """
        self.stopping = True
        if self._deadline is None:
            self._deadline = time.monotonic() + grace
            state = (self._launcher.list_states() or {}).get(self._job.job_id)
            if state == "PENDING":
                self.kill()
            else:
                _run_quietly("scancel", "--signal=TERM", self._job.job_id)

    def kill(self) -> None:
        """Cancels it; `poll` tells when it is gone."""
        self.stopping = True
        self._deadline = None
        _run_quietly("scancel", self._job.job_id)

    def wait(self, timeout: float) -> int | None:
        """Its exit code, or None where it still runs after some seconds."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
        return code


class SlurmLauncher:
    """Submits trials as jobs.

    Args:
        folder: Where scripts and what jobs print lie; all machines have to see it.
        parameters: Of every job: partition, time in minutes, gpus_per_node, mem, ...

    Attributes:
        prepare: False: no trial is a fork of a prepared process.
        asked: When squeue was asked last.
    """

    prepare = False

    def __init__(self, folder: Path, parameters: Mapping[str, object]) -> None:
        self.folder, self.parameters = folder, {**_DEFAULTS, **parameters}
        self.asked = -math.inf
        self._states: dict[str, str] | None = None
        self._trials: list[SlurmTrial] = []

    def __enter__(self) -> SlurmLauncher:
        return self

    def __exit__(self, *_: object) -> None:
        """Cancels what still waits or runs."""
        for trial in self._trials:
            if trial.poll() is None:
                trial.kill()

    def start(
        self, words: Sequence[str], log: Path, module: str, trainer: TrainerOptions
    ) -> SlurmTrial:
        """Submits a trial.

        Args:
            words: Arguments of its command.
            log: File to which its output is appended; its folder is made.
            module: What is run.
            trainer: Of the run. On one machine the run starts its own processes; on several, the
                job has a task for each.

        Raises:
            RecsysError: sbatch refuses the job.
        """
        log = log.absolute()
        log.parent.mkdir(parents=True, exist_ok=True)
        executor = self._make_executor(trainer)
        try:
            job = executor.submit(slurm_task.run_task, module, tuple(words), str(log))
        except Exception as error:  # of sbatch, in submitit's own class
            raise RecsysError(
                f"sbatch refuses a trial: {' '.join(str(error).split())}; correct slurm=, and run "
                "the same command again."
            ) from None
        trial = SlurmTrial(self, job)
        self._trials.append(trial)
        return trial

    def _make_executor(self, trainer: TrainerOptions) -> SlurmExecutor:
        submitit = import_submitit()
        several = trainer.nodes > 1
        executor: SlurmExecutor = submitit.SlurmExecutor(self.folder / "%j")
        try:
            executor.update_parameters(
                job_name="recsys",
                nodes=trainer.nodes,
                ntasks_per_node=trainer.devices if several else 1,
                **self.parameters,
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"slurm: {' '.join(str(error).split())}") from None
        return executor

    def list_states(self) -> dict[str, str] | None:
        """State of each job that is pending or runs; None where squeue does not answer."""
        now = time.monotonic()
        if now - self.asked > PACE:
            self.asked = now
            self._states = _ask_states()
        return self._states


def _read_code(path: Path) -> int:
    """What the first task of a job has returned; 1 where it could not begin."""
    from submitit.core.utils import pickle_load

    outcome, value = pickle_load(path)
    return int(value) if outcome == "success" else 1


def _ask_states() -> dict[str, str] | None:
    """State by job of this user; None where there is no answer."""
    said = _run_quietly("squeue", "--me", "--noheader", "--format=%i %T")
    if said is None:
        return None
    pairs = (line.split() for line in said.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _ask_why(job: str) -> int:
    """The code of a job that has ended without a result, as far as accounting knows it."""
    said = _run_quietly("sacct", "-X", "-n", "-P", "-o", "State", "-j", job) or ""
    if said.startswith("OUT_OF_MEMORY"):
        return OutOfMemoryError.code
    return -signal.SIGKILL


def _run_quietly(*command: str) -> str | None:
    """What a command prints; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout

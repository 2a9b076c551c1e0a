"""`recsys.train`: what `python -m recsys.fit` does, as a call that returns the run."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TextIO, overload

import numpy as np

from recsys.config.yaml_file import write_words
from recsys.errors import ConfigError, make_error
from recsys.fit.command import find_run, find_seeds, fit
from recsys.fit.parent import tie_child
from recsys.fit.seeds import SeedPlan
from recsys.runtime.launching.launches import find_launch
from recsys.runtime.signals import Interrupted
from recsys.trained.run import TrainedRun, render_table

ERROR = "error: "
RUN = "run: "


class TrainedSeeds:
    """Runs of one command that differ in their seed.

    Args:
        folder: That holds them.

    Attributes:
        folder: Where they lie.
        runs: Them, by seed, in order.

    Raises:
        ConfigError: The folder holds no such runs, or one of them is not complete.
    """

    folder: Path
    runs: Mapping[int, TrainedRun]

    def __init__(self, folder: Path) -> None:
        plan = SeedPlan.read(folder)
        begun = plan.find_runs()
        missing = [seed for seed in plan.seeds if seed not in begun]
        if missing:
            raise ConfigError(f"{folder}: seed {missing[0]} has not begun; resume it first.")
        self.folder = folder
        self.runs = {seed: TrainedRun(begun[seed]) for seed in plan.seeds}

    @property
    def metrics(self) -> Mapping[str, float]:
        """The mean of each metric over the seeds, as a share."""
        return {name: float(np.mean(values)) for name, values in self._by_name().items()}

    @property
    def spread(self) -> Mapping[str, float]:
        """The standard deviation of each metric over the seeds (n - 1); NaN for one seed."""
        return {
            name: float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            for name, values in self._by_name().items()
        }

    def _by_name(self) -> Mapping[str, list[float]]:
        runs = list(self.runs.values())
        return {name: [run.metrics[name] for run in runs] for name in runs[0].metrics}

    def __repr__(self) -> str:
        """Folder and seeds."""
        return f"TrainedSeeds({str(self.folder)!r}, seeds={list(self.runs)})"

    def _repr_html_(self) -> str:
        """The metrics of each seed, their mean and spread, in percent."""
        names = [name for name in self.metrics if name != "cases" and "/" not in name]
        table = {f"seed {seed}": run.metrics for seed, run in self.runs.items()}
        own = {**table, "mean": self.metrics, "standard deviation": self.spread}
        return render_table(str(self.folder), names, own)


@overload
def train(*words: str, seeds: int, **keys: object) -> TrainedSeeds: ...  # type: ignore[overload-overlap]


@overload
def train(*words: str, **keys: object) -> TrainedRun: ...


def train(*words: str, **keys: object) -> TrainedRun | TrainedSeeds:
    """Composes, trains and tests a run, as `python -m recsys.fit` does with the same words.

    One process runs here; where more are asked for (`trainer.devices=2`, `seeds=3`), the command is
    started, which prints what it prints here.

    Args:
        *words: Words of the command, such as `"optimizer.lr=3e-4"`.
        **keys: Further ones by key, as in `experiment="lora_two_tower", **{"tuning.rank": 4}`.

    Returns:
        The run; with `seeds=N`, or `resume=` of such a folder, all of them.

    Raises:
        RecsysError: As the command would end: `ConfigError` and `DataError` for what cannot be
            used, `DivergenceError`, `OutOfMemoryError`, `DiskFullError`.
        KeyboardInterrupt: It was interrupted; its state is saved where it trained, and what it
            printed says how to go on.
    """
    _check_alone()
    asked = write_words(words, keys)
    several = find_seeds(asked, planning=True)
    if several is not None:
        run_command([f"resume={several.folder}"])
        return TrainedSeeds(several.folder)
    run, folder = find_run(asked)
    if run.trainer.processes > 1 or run.trainer.shards:  # a process group is for one run
        made = run_command(asked)
        assert made is not None, "a run that ends well names its folder first"
        return TrainedRun(made)
    try:
        return TrainedRun(fit(run, folder))
    except Interrupted as leave:
        if leave.name != signal.SIGINT.name:
            raise
        raise KeyboardInterrupt from None


def _check_alone() -> None:
    """Refuses to train the same in each of several processes.

    Tasks of srun may have runs of their own, by SLURM_PROCID; those of torchrun are for one.

    Raises:
        ConfigError: torchrun has started this program.
    """
    launch = find_launch()
    if launch is not None and launch.launcher == "torchrun":
        raise ConfigError(
            f"torchrun has started {launch.processes} processes of this program, and each would "
            "train the same run; start python -m recsys.fit by torchrun, or this program alone."
        )


def run_command(words: Sequence[str]) -> Path | None:
    """Runs `python -m recsys.fit` in a process of its own, and prints here what it prints.

    Returns:
        The folder of the run that it made, the first of several; None where it made none.

    Raises:
        RecsysError: It ended with an error.
        KeyboardInterrupt: It was interrupted, and has ended.
    """
    command = [sys.executable, "-m", "recsys.fit", *words]
    with tie_child() as (env, descriptor):
        # What can be imported here can be imported there: an outside choice is an import path.
        env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # an interruption comes here alone, and is passed on
            env=env | {"PYTHONIOENCODING": "utf-8"},
            pass_fds=(descriptor,),
        )
        out, errors = _Relay(process.stdout, sys.stdout), _Relay(process.stderr, sys.stderr)
        code = _wait(process)
        out.join()
        errors.join()
    if code == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if code:
        how = f"{' '.join(command[1:3])} ended with code {code}; what it printed says why."
        raise make_error(code, errors.find(ERROR) or how)
    folder = out.find(RUN)
    return None if folder is None else Path(folder)


def _wait(process: subprocess.Popen[str]) -> int:
    """The exit code, as a shell has it; an interruption is passed on, and waited for."""
    while True:
        try:
            # With a limit: polars has system calls begin again after a signal, and one that waits
            # without end would never let Python see the interruption.
            code = process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        else:
            return code if code >= 0 else 128 - code


class _Relay(threading.Thread):
    """Prints the lines of a stream, and keeps the first that begins with a word.

    Args:
        source: What is read.
        target: Where it is printed.
    """

    def __init__(self, source: IO[str] | None, target: TextIO) -> None:
        super().__init__(daemon=True)
        assert source is not None
        self._source, self._target = source, target
        self._kept: list[str] = []
        self.start()

    def run(self) -> None:
        """Reads until the other end is closed."""
        with self._source:
            for line in self._source:
                if line.startswith((ERROR, RUN)):
                    self._kept.append(line.rstrip("\n"))
                print(line, end="", file=self._target, flush=True)

    def find(self, word: str) -> str | None:
        """The rest of the first line that begins with a word, or None."""
        found = (line.removeprefix(word) for line in self._kept if line.startswith(word))
        return next(found, None)

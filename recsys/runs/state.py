"""What a run has done so far, over all its stops, and what a child process takes over."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from recsys.config.compose import RunConfig, read_config
from recsys.errors import ConfigError
from recsys.runtime.excluded_time import Elapsed
from recsys.runtime.files import CONFIG, START, write_atomic
from recsys.runtime.launching.launches import read_env_number
from recsys.runtime.ranks import FOLDER


@dataclass
class RunState:
    """What a run knows before it trains and must not make again: `start.json` in its folder.

    Attributes:
        fingerprint: Of the data.
        wandb: Id of the run at Weights & Biases, the same after every stop.
        resumes: How often the run went on after a stop.
        floors: Test metrics of the baselines and of the encoder before the first step.
        seconds: Time of all attempts up to the last save or stop.
        cpu_seconds: CPU time of their first ranks.
        beside_seconds: Of `seconds`, the time excluded from the method's cost.
        beside_cpu_seconds: The same of `cpu_seconds`.
        peak_mb: Largest sample of the first rank's anonymous memory in MiB; 0 for none.
        stages: Seconds of the first ranks by stage, over all attempts; empty without a profile.
        config: Checksum of the configuration that the run began with; empty in older runs.
    """

    fingerprint: str
    wandb: str
    resumes: int = 0
    floors: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    # Named as the keys of the files that are there: a run that began earlier goes on from them.
    beside_seconds: float = 0.0
    beside_cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    config: str = ""

    @property
    def spent(self) -> Elapsed:
        """Time of all attempts."""
        return Elapsed(self.seconds, self.cpu_seconds)

    @spent.setter
    def spent(self, time: Elapsed) -> None:
        self.seconds, self.cpu_seconds = time.seconds, time.cpu_seconds

    @property
    def excluded(self) -> Elapsed:
        """The time of it that is excluded from the method's cost."""
        return Elapsed(self.beside_seconds, self.beside_cpu_seconds)

    @excluded.setter
    def excluded(self, time: Elapsed) -> None:
        self.beside_seconds, self.beside_cpu_seconds = time.seconds, time.cpu_seconds

    def write(self, folder: Path) -> None:
        """Writes the file whole.

        Raises:
            DataError: The disk is full.
        """
        write_atomic(folder / START, json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def read(folder: Path) -> RunState | None:
        """The stored start, or None where the run had not come so far.

        Raises:
            ConfigError: The file is damaged.
        """
        path = folder / START
        if not path.is_file():
            return None
        try:
            start = RunState(**json.loads(path.read_text(encoding="utf-8")))
        # No JSON, no text, or not these keys.
        except (OSError, ValueError, TypeError, RecursionError):
            start = None
        if start is None or any(
            type(getattr(start, f.name)) is not type(getattr(RunState("", ""), f.name))
            for f in fields(RunState)
        ):
            raise ConfigError(f"{path} is damaged or of another version; start a new run.")
        return start


def find_inherited_run(
    environment: Mapping[str, str] = os.environ,
) -> tuple[RunConfig, Path] | None:
    """The run that a launching process handed to this one, or None in the launching process.

    Raises:
        ConfigError: The environment is not that of such a process.
    """
    if FOLDER not in environment:
        return None
    folder = Path(environment[FOLDER])
    run = read_config(folder / CONFIG)
    # A run may go on with another number of processes than that of its configuration.
    run.trainer.devices = read_env_number("WORLD_SIZE", run.trainer.processes, environment)
    run.trainer.nodes = 1
    return run, folder

"""Runs that stop and go on: their folders, what ranks share, and the signals that end a run.

Only the standard library and the configuration are imported here, so that a wrong word is refused
before torch is loaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Any

from recsys.config.compose import RunConfig, nearest, read_config
from recsys.errors import ConfigError, DataError
from recsys.runtime.excluded_time import Elapsed
from recsys.runtime.files import write_atomic
from recsys.runtime.ranks import FOLDER, get_rank, read_env_number

NEUTRAL = (
    "checkpoint.every_minutes",
    "encoder.cache_place",
    "trainer.log_every",
    "tracking.wandb",
    "tracking.project",
    "tracking.group",
    "tracking.tags",
    "tracking.name",
    "tracking.kind",
    "tracking.tensorboard",
    "tracking.checkpoint_artifact",
)
"""Keys that may change when a run goes on: none of them alters a weight or a metric."""

CONFIG = "config.yaml"
"""The first file of a run's folder: its resolved configuration."""

LAST = Path("checkpoints", "last.ckpt")

ENDED = "ended.json"
"""What a signal means, written into the folder before it is sent: `{"state", "reason"}`."""


def find_last_run(output: str, complete: bool) -> Path:
    """The newest run in a folder.

    Args:
        output: Where runs lie.
        complete: Ask for one with a result, or for one without that no process is busy with.

    Raises:
        ConfigError: There is none.
    """
    places = ["*/config.yaml"]
    if complete:
        places.append("*/*/config.yaml")  # runs of several seeds lie in a folder together
    runs = [path.parent for place in places for path in Path(output).glob(place)]
    fitting = [run for run in runs if (run / "result.json").is_file() is complete]
    if not complete:
        fitting = [run for run in fitting if not is_busy(run)]
    if not fitting:
        kind = "complete run" if complete else "run to go on with"
        raise ConfigError(f"last: there is no {kind} in {output}.")
    return max(fitting, key=lambda run: ((run / "config.yaml").stat().st_mtime, run.name))


def make_folder(output: str, name: str, content: str, file: str = CONFIG) -> Path:
    """Makes a folder of its own with its first file; an existing one is never used again.

    Args:
        output: Where it is made.
        name: How its name begins.
        content: What the file says.
        file: The file, by which the folder is known.

    Raises:
        DataError: The folder cannot be made, or the disk is full; then there is none.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = Path(output) / f"{name}-{stamp}-{secrets.token_hex(2)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{path}: the result folder cannot be made ({error.strerror}).") from None
    try:
        write_atomic(path / file, content)
    except DataError:
        path.rmdir()
        raise
    return path


@contextmanager
def lock_folder(folder: Path, file: str = CONFIG) -> Iterator[None]:
    """Keeps a folder to this process; the system lets go of it however the process ends.

    The lock is on the folder's first file, which is never written again.

    Args:
        folder: Of a run, or of several seeds.
        file: Its first file.

    Raises:
        ConfigError: The folder is no run's, cannot be written, or another process has it.
    """
    try:
        held = (folder / file).open("r+b")
    except OSError as error:
        raise ConfigError(f"{folder}: the run cannot be opened ({error.strerror}).") from None
    with held:
        for wait in (0.1, 0.1, None):  # a look by `is_busy` lasts no longer
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if wait is None:
                    raise _make_running_error(folder) from None
                time.sleep(wait)
        yield


def is_busy(folder: Path) -> bool:
    """Whether a process trains or tests in a run's folder."""
    with (folder / "config.yaml").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _make_running_error(folder: Path) -> ConfigError:
    return ConfigError(f"{folder}: the run is still running; wait for its end, or stop it first.")


def reopen(name: str, words: Sequence[str]) -> tuple[RunConfig, Path]:
    """The run that `resume=name` means.

    Args:
        name: Its folder, or `last`.
        words: The other words of the command; only neutral ones, and `output` with `last`.

    Returns:
        Its stored configuration with the neutral changes, and its folder.

    Raises:
        ConfigError: The folder holds no unfinished run or one that still runs, or a word would
            change its outcome.
    """
    changes = dict(word.partition("=")[::2] for word in words)
    output = changes.pop("output", "runs")
    for key in changes:
        if key not in NEUTRAL:
            raise ConfigError(
                f"{key} cannot change when a run goes on; start a new run for that."
                f"{nearest(key, NEUTRAL)}"
            )
    folder = find_last_run(output, complete=False) if name == "last" else Path(name)
    run = read_config(
        folder / "config.yaml", [word for word in words if not word.startswith("output=")]
    )
    if (folder / "result.json").is_file():
        raise ConfigError(f"{folder}: the run is finished; start a new one to train again.")
    _check_unchanged(folder)
    if is_busy(folder):  # told before torch is loaded; the lock itself comes later
        raise _make_running_error(folder)
    return run, folder


def compute_config_checksum(folder: Path) -> str:
    """SHA-256 of the configuration that lies in a run's folder."""
    return hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()


def _check_unchanged(folder: Path) -> None:
    """Refuses to go on under another configuration than the one that the run began with.

    Raises:
        ConfigError: The file was edited; its weights would be of two configurations.
    """
    start = RunState.read(folder)
    if start is not None and start.config and start.config != compute_config_checksum(folder):
        raise ConfigError(
            f"{folder / CONFIG} has changed since the run began, so that what is trained would be "
            "of two configurations; undo the change, or start a new run."
        )


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
        write_atomic(folder / "start.json", json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def read(folder: Path) -> RunState | None:
        """The stored start, or None where the run had not come so far.

        Raises:
            ConfigError: The file is damaged.
        """
        path = folder / "start.json"
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
        ConfigError: The process was started by another launcher, whose ranks share no folder.
    """
    if FOLDER in environment:
        folder = Path(environment[FOLDER])
        return read_config(folder / "config.yaml"), folder
    if read_env_number("WORLD_SIZE", 1, environment) > 1:
        raise ConfigError(
            "WORLD_SIZE is set by another launcher; start one process with trainer.devices=N, "
            "which starts the others."
        )
    return None


class Interrupted(SystemExit):
    """Ends the process after a signal, with exit code 128 + signal (0 on ranks other than 0).

    A launcher that sees a rank end with another code kills the first one.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum if get_rank() == 0 else 0)
        self.name = signal.Signals(signum).name


class SignalHandler:
    """Holds SIGTERM and SIGINT while a run lasts.

    While it trains, a signal is only noted: the run leaves when its state can be saved. At other
    times it leaves at once. A second SIGINT leaves at once in any case.

    Attributes:
        received: The signal noted, or 0.
        training: Whether a signal waits for the next whole step.
    """

    def __init__(self) -> None:
        self.received = 0
        self.training = False
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> SignalHandler:
        # Python lets only the main thread handle signals; elsewhere the host program does.
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
        self.arm()
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @contextmanager
    def raise_interruption(self) -> Iterator[None]:
        """Leaves where a signal came and a library made another error of that.

        Raises:
            Leave: In place of the error; while a run trains, no signal raises and errors pass.
        """
        try:
            yield
        except Exception:
            if self.received and not self.training and get_rank() == 0:
                raise Interrupted(self.received) from None
            raise

    def arm(self) -> None:
        """Takes the signals (again: a Trainer puts its own handler in between)."""
        for signum in self._before:
            signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again = self.received == signum == signal.SIGINT
        self.received = signum
        if get_rank() == 0 and (again or not self.training):
            raise Interrupted(signum)

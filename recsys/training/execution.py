"""What every run in a folder does, whatever it trains: state, cost, logs and failures."""

from __future__ import annotations

import abc
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.config.groups import TrackingOptions
from recsys.errors import ConfigError, DataError
from recsys.recommender.training_counts import TrainingCounts
from recsys.runs import rank_cost
from recsys.runs.failures import find_failure_state, raise_out_of_memory
from recsys.runs.folder import compute_config_checksum
from recsys.runs.rank_cost import RankCost
from recsys.runs.state import RunState
from recsys.runtime import excluded_time, rank_errors
from recsys.runtime.excluded_time import Elapsed
from recsys.runtime.files import BEST, CONFIG, ENDED, METRICS
from recsys.runtime.memory import MemoryMonitor
from recsys.runtime.ranks import get_rank
from recsys.runtime.signals import SignalHandler
from recsys.runtime.stopwatch import Stopwatch
from recsys.tracking.csv_log import CsvLog
from recsys.tracking.metric_log import MetricLog
from recsys.tracking.wandb_log import WandbLog

if TYPE_CHECKING:
    from recsys.training.profiling import GemmRate


class Execution(abc.ABC):
    """A run in its folder: on every rank, and again after every stop.

    Args:
        tracking: Where its log goes.
        profile: Whether the time of its stages is taken.
        folder: Its folder.
        fingerprint: Of its data.
        signals: What may end it.
        file: The first file of its folder, which holds the configuration.

    Raises:
        ConfigError: The data is not what it was before the stop.
    """

    def __init__(
        self,
        tracking: TrackingOptions,
        profile: bool,
        folder: Path,
        fingerprint: str,
        signals: SignalHandler,
        file: str = CONFIG,
    ) -> None:
        self.tracking, self.profiled, self.folder, self.signals = tracking, profile, folder, signals
        self.weights = folder / BEST
        self.memory = MemoryMonitor()
        start = RunState.read(folder)
        if start is not None and start.fingerprint != fingerprint:
            raise ConfigError(f"{folder}: the data has changed since the run began; start a new.")
        if start is None:
            checksum = compute_config_checksum(folder, file)
            start = RunState(fingerprint, wandb=secrets.token_hex(4), config=checksum)
        elif get_rank() == 0:
            start.resumes += 1
        self.start = start
        # Each rank goes on from what it has cost itself.
        own = None if get_rank() == 0 else rank_cost.read(folder, get_rank()) or RankCost()
        self.own = own or RankCost.from_measurements(start.spent, start.excluded, start.peak_mb)
        self.startup = Elapsed()
        self.watch = Stopwatch(profile, start.stages)
        self.clock, self.excluded = excluded_time.read_clocks(), excluded_time.get_excluded_total()
        self.csv = CsvLog(folder / METRICS)
        self.wandb: WandbLog | None = None

    def execute(self, started: Elapsed, excluded: Elapsed, startup: Elapsed) -> Path:
        """Everything from the header to the result.

        Args:
            started: The clocks when the command began.
            excluded: Time of the process excluded from its methods' cost by then.
            startup: What passed from there until a run could be made, imports above all.

        Raises:
            RecsysError: The data cannot be used, the training diverged, or memory did not suffice.
            Interrupted: A signal ended it.
        """
        self.clock = started.subtract(self.own.spent)
        self.excluded = excluded.subtract(self.own.excluded)
        self.startup = startup
        self.watch.begin(started.seconds)
        try:
            with self.memory, raise_out_of_memory():
                if get_rank() == 0:
                    (self.folder / ENDED).unlink(missing_ok=True)  # of an attempt before
                    rank_errors.clear_rank_error(self.folder)
                    print(f"run: {self.folder}", *self._describe(), sep="\n", flush=True)
                    self.start.write(self.folder)
                    self._evaluate_baselines()
                self._run()
        except BaseException as error:
            with suppress(DataError):  # a full disk has been told already
                self._record_cost()
            self._close(error)
            self._abort()
            raise
        return self.folder

    @abc.abstractmethod
    def _describe(self) -> Sequence[str]:
        """Lines of the header."""

    @abc.abstractmethod
    def _make_node(self) -> Mapping[str, Any]:
        """The resolved configuration as plain values."""

    @abc.abstractmethod
    def _run(self) -> None:
        """Trains or not, tests, and finishes."""

    @abc.abstractmethod
    def _abort(self) -> None:
        """Ends what `_run` has left behind where an error came out of it."""

    @abc.abstractmethod
    def _evaluate_baselines(self) -> None:
        """Measures what stands beside the run, where anything does; on the first rank."""

    def _count_training(self) -> TrainingCounts:
        """What training has read and computed, over all ranks; every rank must call it."""
        return TrainingCounts()

    def _get_device_peak(self) -> tuple[float | None, Sequence[GemmRate]]:
        """10^9 operations a second on the encoder's shapes, over all of them and by shape."""
        return None, ()

    def _close(self, error: BaseException) -> None:
        """Closes the run at Weights & Biases after what ended it."""
        if self.wandb is not None:
            self.wandb.close(1, find_failure_state(error, self.folder))

    def _record_cost(self) -> None:
        """Notes what the run has cost so far, over all stops; each rank for itself."""
        self.memory.sample()
        spent = excluded_time.read_clocks().subtract(self.clock)
        excluded = excluded_time.get_excluded_total().subtract(self.excluded)
        peak = max(self.own.peak_mb, self.memory.peak)
        if get_rank() != 0:
            rank_cost.write(
                self.folder, get_rank(), RankCost.from_measurements(spent, excluded, peak)
            )
            return
        self.start.spent, self.start.excluded, self.start.peak_mb = spent, excluded, peak
        if self.profiled:
            self.start.stages = self.watch.get_seconds()
        self.start.write(self.folder)

    def _send_result(
        self,
        result: Mapping[str, Any],
        table: Mapping[str, Mapping[str, float]],
        artifact: Path | None,
    ) -> None:
        """Closes the run at Weights & Biases with its result, and says where the result lies.

        Args:
            result: What `result.json` holds.
            table: Metrics by row of the closing table.
            artifact: A file of weights that is sent along, or None.
        """
        if self.wandb is not None:
            why = self.wandb.finish(result, table, artifact)
            if why:
                print(f"warning: {why}", file=sys.stderr)
            elif self.wandb.offline:
                print(self.wandb.describe_sync())
        print(f"result: {self.folder}")

    def _open_logs(self) -> list[MetricLog]:
        """CSV always; the others as asked, on the first rank only."""
        logs: list[MetricLog] = [self.csv]
        if get_rank() != 0:
            return logs
        options = self.tracking
        if options.tensorboard:
            from recsys.tracking import tensorboard

            logs.append(tensorboard.make_tensorboard_logger(self.folder))
        if options.wandb != "off":
            self.wandb = WandbLog(self.folder, self.start.wandb, self._make_node())
            logs.append(self.wandb)
        return logs

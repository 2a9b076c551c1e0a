"""One run in its folder: baselines, what it measures, and result."""

from __future__ import annotations

import abc
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.assembly import build, protocols
from recsys.assembly.assembled import Assembly
from recsys.config import inactive
from recsys.config.compose import RunConfig, get_choice_name, make_node
from recsys.errors import ConfigError, DataError
from recsys.fit.header import describe_run
from recsys.fit.result import (
    BestValidation,
    FinalTest,
    TrainingProgress,
    make_final_test,
    summarize_cost,
    summarize_protocol,
    summarize_provenance,
    summarize_validation,
)
from recsys.recommender.training_counts import TrainingCounts
from recsys.runs import display, rank_cost, results
from recsys.runs.failures import find_failure_state, raise_out_of_memory
from recsys.runs.folder import compute_config_checksum
from recsys.runs.rank_cost import RankCost
from recsys.runs.state import RunState
from recsys.runtime import excluded_time, rank_errors
from recsys.runtime.excluded_time import Elapsed
from recsys.runtime.files import BEST, ENDED, LAST, METRICS
from recsys.runtime.memory import MemoryMonitor
from recsys.runtime.progress import ProgressTask, track
from recsys.runtime.ranks import get_rank
from recsys.runtime.signals import SignalHandler
from recsys.runtime.stopwatch import Stopwatch
from recsys.tracking.csv_log import CsvLog
from recsys.tracking.metric_log import MetricLog
from recsys.tracking.wandb_log import WandbLog
from recsys.types import Batch

if TYPE_CHECKING:
    from recsys.training.profiling import GemmRate


class RunExecutor(abc.ABC):
    """One run in its folder: on every rank, and again after every stop.

    What trains and what does not differ in what happens between the baselines and the result: see
    `recsys.fit.training` and `recsys.fit.baseline`.

    Args:
        run: Its resolved configuration.
        folder: Its folder.
        made: What the assembler made of it.
        signals: What may end it.

    Attributes:
        best: What the result says of validations.

    Raises:
        ConfigError: The data is not what it was before the stop.
    """

    best: BestValidation

    def __init__(
        self, run: RunConfig, folder: Path, made: Assembly, signals: SignalHandler
    ) -> None:
        self.run, self.folder, self.made, self.signals = run, folder, made, signals
        self.weights = folder / BEST
        self.memory = MemoryMonitor()
        start = RunState.read(folder)
        if start is not None and start.fingerprint != made.fingerprint:
            raise ConfigError(f"{folder}: the data has changed since the run began; start a new.")
        if start is None:
            start = RunState(
                made.fingerprint, wandb=secrets.token_hex(4), config=compute_config_checksum(folder)
            )
        elif get_rank() == 0:
            start.resumes += 1
        self.start = start
        # Each rank goes on from what it has cost itself.
        own = None if get_rank() == 0 else rank_cost.read(folder, get_rank()) or RankCost()
        self.own = own or RankCost.from_measurements(start.spent, start.excluded, start.peak_mb)
        self.startup = Elapsed()
        self.watch = Stopwatch(run.profile, start.stages)
        self.clock, self.excluded = excluded_time.read_clocks(), excluded_time.get_excluded_total()
        self.csv = CsvLog(folder / METRICS)
        self.wandb: WandbLog | None = None

    def execute(self, started: Elapsed, excluded: Elapsed, startup: Elapsed) -> Path:
        """Floors, training, test and result.

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
                    print(
                        f"run: {self.folder}",
                        *self.made.split.notes,
                        *inactive.find_inactive_settings(self.run),
                        *describe_run(self.run, self.made),
                        sep="\n",
                        flush=True,
                    )
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
    def _run(self) -> None:
        """Trains or not, tests, and finishes."""

    @abc.abstractmethod
    def _abort(self) -> None:
        """Ends what `_run` has left behind where an error came out of it."""

    def _count_training(self) -> TrainingCounts:
        """What training has read and computed, over all ranks; every rank must call it."""
        return TrainingCounts()

    def _summarize_training(self) -> dict[str, object]:
        """Loss and distance from the start by role, for the gap and for regularisation."""
        return {"loss": None, "distance": {}}

    def _summarize_fit(self) -> dict[str, object]:
        """What was decided by validation cases at once; empty where steps of training learn."""
        return {}

    def _get_device_peak(self) -> tuple[float | None, Sequence[GemmRate]]:
        """10^9 operations a second on the encoder's shapes, over all of them and by shape."""
        return None, ()

    def _list_remarks(self, tested: FinalTest | None) -> list[str]:
        """What the reader of the closing table should not miss."""
        return []

    def _close(self, error: BaseException) -> None:
        """Closes the run at Weights & Biases after what ended it."""
        if self.wandb is not None:
            self.wandb.close(1, find_failure_state(error, self.folder))

    def _evaluate_baselines(self) -> None:
        """Makes what is still missing of the test metrics of the baselines, over the same cases."""
        self.start.write(self.folder)
        wanted = self.run.architecture.trains and self.run.evaluation.test
        for name in protocols.list_baselines(self.run.evaluation) if wanted else ():
            if name not in self.start.floors:
                with excluded_time.excluded_time():
                    batches = self.made.datamodule.test_dataloader()
                    model = build.make_baseline(name, self.made.parts)
                    with track(f"test of {name}", len(batches), "batches") as task:
                        self.start.floors[name] = model.evaluate(track_batches(batches, task))
                self.start.write(self.folder)
        if told := protocols.describe_rarity_bias(self.start.floors, self.run.evaluation.metric):
            print(told)

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
        if self.run.profile:
            self.start.stages = self.watch.get_seconds()
        self.start.write(self.folder)

    def _finish(self, table: Mapping[str, Mapping[str, float]], progress: TrainingProgress) -> None:
        """Writes the result; on the first rank only."""
        options = self.run.evaluation
        rows = results.gather_rows(self.made.recommender.evaluator.rows) if options.test else []
        if get_rank() != 0:
            self._record_cost()  # the first rank reads it behind the sum, for which it waits
        counts = self._count_training()
        if get_rank() != 0:
            return
        tested: FinalTest | None = None
        if options.test:
            test = table[self.folder.name]
            tested = make_final_test(self.run, self.made, self.start.floors, test, rows)
        notes = self._list_remarks(tested)
        result = {**self._make_result(tested, progress, counts), "notes": notes}
        results.write_result(self.folder, result, None if tested is None else tested.cases)
        (self.folder / LAST).unlink(missing_ok=True)
        label = self.run.experiment or get_choice_name(self.run.architecture)
        own = self.folder.name  # too long for a column
        display.print_results({label if k == own else k: v for k, v in table.items()}, options)
        if tested is not None and tested.beyond is not None:
            display.print_beyond(tested.beyond, options)
        if self.run.profile:
            from recsys.training import profiling

            profiling.show(self._compute_profile(counts))
        print(*notes, sep="\n", end="\n" if notes else "")
        if self.wandb is not None:
            wanted = self.run.tracking.checkpoint_artifact and self.weights.is_file()
            why = self.wandb.finish(result, table, self.weights if wanted else None)
            if why:
                print(f"warning: {why}", file=sys.stderr)
            elif self.wandb.offline:
                print(self.wandb.describe_sync())
        print(f"result: {self.folder}")

    def _make_result(
        self,
        tested: FinalTest | None,
        progress: TrainingProgress,
        counts: TrainingCounts,
    ) -> dict[str, object]:
        """What `result.json` holds."""
        self._record_cost()
        profile: Mapping[str, float | None] = {}
        if self.run.profile:
            from recsys.training import profiling

            profile = self._compute_profile(counts)
            profiling.write(self.folder, profile, counts, self._get_device_peak()[1])
        others = rank_cost.read_others(self.folder, self.run.trainer.devices)
        cost = summarize_cost(
            self.run, self.made, self.start, counts, progress, others, self.startup
        )
        protocol = summarize_protocol(self.run, self.made)
        return {
            **({} if tested is None else tested.figures),
            "validation": summarize_validation(self.best, progress),
            "train": self._summarize_training(),
            "protocol": {**protocol, **({} if tested is None else tested.protocol)},
            "cost": {**cost, **profile},
            **self._summarize_fit(),
            **summarize_provenance(self.run, self.made),
        }

    def _compute_profile(self, counts: TrainingCounts) -> dict[str, float | None]:
        """Where the time went, as accounted last."""
        from recsys.training import profiling

        peak, _ = self._get_device_peak()
        return profiling.compute_profile(self.start.stages, counts, peak, self.run.trainer.devices)

    def _open_logs(self) -> list[MetricLog]:
        """CSV always; the others as asked, on the first rank only."""
        found: list[MetricLog] = [self.csv]
        if get_rank() != 0:
            return found
        options = self.run.tracking
        if options.tensorboard:
            from recsys.tracking import tensorboard

            found.append(tensorboard.make_tensorboard_logger(self.folder))
        if options.wandb != "off":
            self.wandb = WandbLog(self.folder, self.start.wandb, make_node(self.run))
            found.append(self.wandb)
        return found


def track_batches(batches: Iterable[Batch], task: ProgressTask) -> Iterator[Batch]:
    """The batches, each counted when it is done."""
    for batch in batches:
        yield batch
        task.advance()

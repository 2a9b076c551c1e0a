"""One run in its folder: baselines, what it measures, and result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.assembly import build, protocols
from recsys.assembly.assembled import Assembly
from recsys.config import inactive
from recsys.config.compose import RunConfig, get_choice_name, make_node
from recsys.data.revision import describe_catalog
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
from recsys.runtime import excluded_time
from recsys.runtime.files import LAST
from recsys.runtime.launching.rendezvous import Rendezvous
from recsys.runtime.progress import ProgressTask, track
from recsys.runtime.ranks import get_rank
from recsys.runtime.signals import SignalHandler
from recsys.training.execution import Execution
from recsys.training.parallel.state_files import remove_state
from recsys.types import Batch


class RunExecutor(Execution):
    """One run in its folder: on every rank, and again after every stop.

    What trains and what does not differ in what happens between the baselines and the result: see
    `recsys.fit.training` and `recsys.fit.baseline`.

    Args:
        run: Its resolved configuration.
        folder: Its folder.
        made: What the assembler made of it.
        signals: What may end it.
        meeting: Where processes of another launcher wait for it, or None.

    Attributes:
        best: What the result says of validations.

    Raises:
        ConfigError: The data is not what it was before the stop.
    """

    best: BestValidation

    def __init__(
        self,
        run: RunConfig,
        folder: Path,
        made: Assembly,
        signals: SignalHandler,
        meeting: Rendezvous | None = None,
    ) -> None:
        super().__init__(run.tracking, run.profile, folder, made.fingerprint, signals)
        self.run, self.made, self.meeting = run, made, meeting

    def _describe(self) -> Sequence[str]:
        """What the data says, what changes nothing, and what the run is made of."""
        return [
            *self.made.split.notes,
            *inactive.find_inactive_settings(self.run),
            *describe_run(self.run, self.made),
        ]

    def _make_node(self) -> Mapping[str, Any]:
        """The resolved configuration as plain values."""
        return make_node(self.run)

    def _summarize_training(self) -> dict[str, object]:
        """Loss and distance from the start by role, for the gap and for regularisation."""
        return {"loss": None, "distance": {}}

    def _summarize_fit(self) -> dict[str, object]:
        """What was decided by validation cases at once; empty where steps of training learn."""
        return {}

    def _list_remarks(self, tested: FinalTest | None) -> list[str]:
        """What the reader of the closing table should not miss."""
        return []

    def _evaluate_baselines(self) -> None:
        """Makes what is still missing of the test metrics of the baselines, over the same cases."""
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
        catalog = describe_catalog(self.made.tables, self.run.architecture.reads_tags)
        cases = None if tested is None else tested.cases
        repeated = None if tested is None else tested.repeated
        results.write_result(self.folder, result, cases, catalog, repeated)
        remove_state(self.folder / LAST)
        label = self.run.experiment or get_choice_name(self.run.architecture)
        own = self.folder.name  # too long for a column
        display.print_results({label if k == own else k: v for k, v in table.items()}, options)
        if tested is not None and tested.beyond is not None:
            display.print_beyond(tested.beyond, options)
        if self.run.profile:
            from recsys.training import profiling

            profiling.show(self._compute_profile(counts))
        print(*notes, sep="\n", end="\n" if notes else "")
        wanted = self.run.tracking.checkpoint_artifact and self.weights.is_file()
        self._send_result(result, table, self.weights if wanted else None)

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
        others = rank_cost.read_others(self.folder)
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
        return profiling.compute_profile(
            self.start.stages, counts, peak, self.run.trainer.processes
        )


def track_batches(batches: Iterable[Batch], task: ProgressTask) -> Iterator[Batch]:
    """The batches, each counted when it is done."""
    for batch in batches:
        yield batch
        task.advance()

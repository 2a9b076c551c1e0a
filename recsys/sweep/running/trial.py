"""One trial: a run for each of its seeds, watched until it ends."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.config.compose import AXES
from recsys.config.yaml_file import as_word
from recsys.errors import OUTSIDE, ConfigError, DataError, DivergenceError, OutOfMemoryError
from recsys.runs import result_file
from recsys.runs.folder import is_busy
from recsys.runs.validation_log import ValidationRecord, read_validations
from recsys.runtime.files import CHECKPOINTS, CONFIG, ENDED, RESULT, VALIDATIONS, write_atomic
from recsys.sweep.definition import VALIDATION, SweepDefinition
from recsys.sweep.record import State, Value
from recsys.sweep.running.launcher_client import StartedTrial
from recsys.sweep.space import SearchPlan
from recsys.tracking.wandb_run import find_unsent_reason

LOG = "log.txt"
VALUES = "values.json"
"""What the runs in a trial's folder were started with."""
HOPELESS = (ConfigError.code, DivergenceError.code, OutOfMemoryError.code)
"""Exit codes of runs that would end the same way again."""
FULL = ("No space left on device", "Disk quota exceeded", "the disk or the quota is full")
"""How the system and we say that there is no room."""
LEAST_FREE = 1 << 20
"""Bytes below which a disk counts as full."""
GRACE = 60.0
"""Seconds that a run has to save its state."""


Launch = Callable[[SearchPlan, Sequence[str], Path], StartedTrial]


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended.

    Attributes:
        state: As Optuna has it.
        reason: In a sentence, where it is not complete.
        again: Whether another attempt may end better: the process was killed or crashed.
        outside: Whether what failed was outside of the run, as a full disk is: it is not to blame.
        mistake: Whether the run refused its configuration.
        objectives: Value of each objective; empty where it is not complete.
        figures: Numbers of its results, the mean over its seeds.
        epochs: Epochs trained, over its seeds.
        seconds: Wall time of this attempt.
        warning: What went wrong beside the result, in a sentence or several.
    """

    state: State
    reason: str = ""
    again: bool = False
    outside: bool = False
    mistake: bool = False
    objectives: tuple[float, ...] = ()
    figures: Mapping[str, float] | None = None
    epochs: float = 0.0
    seconds: float = 0.0
    warning: str = ""


def find_run(place: Path) -> Path | None:
    """The newest run in a folder, or None."""
    found = sorted(place.glob(f"*/{CONFIG}"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent if found else None


def read_result(run: Path) -> dict[str, Any] | None:
    """The result of a run that is complete; None before.

    Raises:
        DataError: The file is damaged.
    """
    if not (run / RESULT).is_file():
        return None
    try:
        result = result_file.read_result(run)
        extract_figures(result)
        float(result["validation"]["best"] or 0.0), float(result["validation"]["epochs"])
    except (DataError, KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{run / RESULT} is damaged; remove {run} and run the sweep's command "
            "again: it is trained anew."
        ) from None
    return result


def extract_figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a result by dotted name."""
    validation = result["validation"]
    out = {f"validation.{k}": v for k, v in validation["metrics"].items() if "/" not in k}
    out |= {f"validation.{k}": v for k, v in validation.items() if k not in ("metrics", "monitor")}
    out |= {f"cost.{k}": v for k, v in result["cost"].items()}
    out["train.loss"] = result["train"]["loss"]
    out |= {f"distance.{k}": v for k, v in result["train"]["distance"].items()}
    numbers = {k: v for k, v in out.items() if isinstance(v, int | float)}
    return {k: float(v) for k, v in numbers.items() if math.isfinite(v)}


def compute_means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure that all rows have."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}


def make_tracking_words(
    definition: SweepDefinition,
    plan: SearchPlan,
    name: str,
    kind: str,
    values: Mapping[str, Value],
    more: Mapping[str, Value],
) -> list[str]:
    """The words that say how a run of a sweep is known at Weights & Biases.

    Beside its name stand what tells it from the others: method and searched values by the names
    that all methods share, so that one panel shows them all.

    Args:
        definition: Of the sweep.
        plan: Of its method.
        name: Of the run.
        kind: Its job type.
        values: Of the searched dimensions.
        more: Further labels.
    """
    options = plan.run.tracking
    labels = {"method": plan.method, "sweep": definition.name, **more}
    tags = [*options.tags, *(f"{key}={value}" for key, value in labels.items())]
    searched: dict[str, Any] = {}
    for key, value in values.items():
        *groups, last = format_searched_key(key).split(".")
        node = searched
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    return [
        f"tracking.group={as_word(options.group or definition.folder.name)}",
        f"tracking.tags={json.dumps(tags)}",
        f"tracking.name={json.dumps(name)}",
        f"tracking.kind={kind}",
        f"tracking.labels={json.dumps({**labels, 'searched': searched})}",
    ]


def format_searched_key(name: str) -> str:
    """The dotted label under which a dimension's value is found; of an axis, as its name."""
    return f"{name}.name" if name in AXES else name


class RunningTrial:
    """A trial while it runs; nothing here waits.

    Its folder is that of its place in the design, so that a repetition finds what the lost
    attempt left: a finished run is taken, another one goes on.

    Args:
        definition: Of the sweep.
        plan: Of its method.
        values: Of its dimensions.
        place: Its folder.
        number: In its study.
        launch: Starts a run of its plan with words and a log.
    """

    def __init__(
        self,
        definition: SweepDefinition,
        plan: SearchPlan,
        values: Mapping[str, Value],
        place: Path,
        number: int,
        launch: Launch,
    ) -> None:
        self._definition, self._plan, self.values = definition, plan, values
        self.place, self.number, self._launch = place, number, launch
        self._began = time.monotonic()
        self._left = [definition.seed + k for k in range(definition.seeds)]
        self._several = definition.seeds > 1
        self._child: StartedTrial | None = None
        self._results: list[dict[str, Any]] = []
        self._told = 0
        self.reports: list[ValidationRecord] = []
        self._warnings: list[str] = []
        self._stopped = ""
        self._leaving = False
        self._claim()

    def _claim(self) -> None:
        """Moves aside what other values left in this place: of a study that is lost, or older."""
        path = self.place / VALUES
        mine = {k: f"{v:.12g}" if isinstance(v, float) else v for k, v in self.values.items()}
        text = json.dumps(mine, sort_keys=True) + "\n"
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            self.place.rename(self.place.with_name(f"{self.place.name}-until-{time.time_ns()}"))
        write_atomic(path, text)

    def _get_seed_folder(self, seed: int) -> Path:
        return self.place / f"seed-{seed}" if self._several else self.place

    def list_runs(self) -> list[Path]:
        """The folder of the run of each seed that has begun."""
        seeds = [self._definition.seed + k for k in range(self._definition.seeds)]
        return [run for seed in seeds if (run := find_run(self._get_seed_folder(seed))) is not None]

    def poll(self) -> TrialOutcome | None:
        """Looks after the trial; its outcome once it has ended."""
        while True:
            if self._child is not None:
                self._read_reports()
                code = self._child.poll()
                if code is None:
                    return None
                self._child = None
                self._read_reports()
                failed = self._handle_exit(code)
                if failed is not None:
                    return failed
            elif not self._left:
                return self._make_complete_outcome()
            elif self._stopped:
                return self._make_outcome("pruned", self._stopped)
            elif (run := find_run(self._get_seed_folder(self._left[0]))) and (
                result := read_result(run)
            ):
                self._read_reports()
                self._add_result(result, find_unsent_reason(run))
            elif self._leaving:
                return self._make_outcome("failed", "stopped between its seeds.", again=True)
            elif run is not None and is_busy(run):
                return None  # a driver was killed, and its run still has the time to save its state
            else:
                self._start(run)

    def _start(self, run: Path | None) -> None:
        seed = self._left[0]
        home = self._get_seed_folder(seed)
        home.mkdir(parents=True, exist_ok=True)
        words = [f"resume={run}"]
        if run is None:
            words = [*self._plan.make_trial_words(self.values), f"seed={seed}", f"output={home}"]
            words += ["evaluation.test=false", *self._make_tracking_words(seed)]
        self._child = self._launch(self._plan, words, home / LOG)

    def _make_tracking_words(self, seed: int) -> list[str]:
        """How the run of a seed is known at Weights & Biases."""
        name = f"{self._plan.method} #{self.number}"
        return make_tracking_words(
            self._definition,
            self._plan,
            f"{name}, seed {seed}" if self._several else name,
            "trial",
            self.values,
            {"trial": self.number},
        )

    def _read_reports(self) -> None:
        """Takes what the first seed's run has told since."""
        if (
            len(self._results) == 0
            and (run := find_run(self._get_seed_folder(self._left[0]))) is not None
        ):
            self.reports = read_validations(run / VALIDATIONS)

    def take_new_reports(self) -> list[tuple[int, float]]:
        """(step, value) for a pruner since the last call: validations, or seeds where several."""
        if self._several:
            known = [(k, float(r["validation"]["best"])) for k, r in enumerate(self._results)]
        else:
            known = [(k, report.value) for k, report in enumerate(self.reports)]
        # A run that goes on first takes back what it told after its last save.
        found, self._told = known[self._told :], max(self._told, len(known))
        return found

    def _add_result(self, result: dict[str, Any], warning: str) -> None:
        self._results.append(result)
        self._warnings += [warning] if warning else []
        del self._left[0]

    def _handle_exit(self, code: int) -> TrialOutcome | None:
        """What the end of a run means; None where the trial goes on.

        The result decides, not the code: a process may crash after it has written that.
        """
        home = self._get_seed_folder(self._left[0])
        run = find_run(home)
        result = read_result(run) if run is not None else None
        if self._stopped and result is None:
            return self._make_outcome("pruned", self._stopped)
        said = find_last_error(home / LOG)
        if run is not None and result is not None:
            crashed = f"The run ended with code {code} after its result: {said}" if code else ""
            self._add_result(result, find_unsent_reason(run) or crashed)
            return None
        if code == OUTSIDE or _is_disk_full(said, home):
            return self._make_outcome("failed", said, again=True, outside=True)
        if code in HOPELESS:
            return self._make_outcome("failed", said, mistake=code == ConfigError.code)
        if code < 0 or code > 128:
            signum = -code if code < 0 else code - 128
            why = f"the run was ended by signal {signum}"
            if signum == 9:
                why += " (the system does that to a process that takes too much memory)"
            return self._make_outcome("failed", f"{why}.", again=True)
        return self._make_outcome("failed", f"the run ended with code {code}: {said}", again=True)

    def _make_outcome(
        self,
        state: State,
        reason: str,
        again: bool = False,
        mistake: bool = False,
        outside: bool = False,
    ) -> TrialOutcome:
        epochs = sum(float(r["validation"]["epochs"]) for r in self._results)
        if not self._results and self.reports:
            epochs = self.reports[-1].epoch
        return TrialOutcome(
            state,
            reason,
            again,
            outside,
            mistake,
            epochs=epochs,
            seconds=time.monotonic() - self._began,
        )

    def _make_complete_outcome(self) -> TrialOutcome:
        found = compute_means([extract_figures(result) for result in self._results])
        values = []
        for objective in self._definition.objectives:
            name = "validation.best" if objective.name == VALIDATION else objective.name
            if name not in found:
                return self._make_outcome("failed", f"its result has no {objective.name}.")
            values.append(found[name])
        return TrialOutcome(
            "complete",
            objectives=tuple(values),
            figures=found,
            epochs=sum(float(r["validation"]["epochs"]) for r in self._results),
            seconds=time.monotonic() - self._began,
            warning=" ".join(self._warnings),
        )

    def prune(self, reason: str) -> None:
        """Stops the trial for good; `poll` tells when it has ended."""
        self._stopped = reason
        if self._child is None:
            return
        run = find_run(self._get_seed_folder(self._left[0]))
        if run is not None:
            content = json.dumps({"state": "pruned", "reason": reason})
            write_atomic(run / ENDED, content + "\n")
        self._child.terminate(GRACE)

    def stop(self) -> None:
        """Lets the run save its state and leave; no other is started."""
        self._leaving = True
        if self._child is not None:
            self._child.terminate(GRACE)


def _is_disk_full(said: str, place: Path) -> bool:
    """Whether a run ended because the disk is full; its log may have had no room to say so."""
    return any(words in said for words in FULL) or shutil.disk_usage(place).free < LEAST_FREE


def find_last_error(log: Path) -> str:
    """The sentence that a run ended with."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    except OSError:
        return f"{log} cannot be read."
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    found = told or [line for line in lines if line]
    return found[-1] if found else f"{log} is empty."


def drop_checkpoints(runs: Sequence[Path]) -> None:
    """Deletes the parameters and states of runs; their results stay."""
    for run in runs:
        shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)

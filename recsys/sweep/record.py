"""What a sweep has found so far: `sweep.json` in its folder, from which every picture is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from recsys.errors import ConfigError
from recsys.runtime.files import SWEEP, write_atomic

UNSEARCHED = " does not search "
"""In a note on what a method leaves out of the search."""

State = Literal["running", "complete", "pruned", "failed"]
Value = float | int | str | bool | None


@dataclass(frozen=True)
class SearchAxis:
    """A dimension of the search space, as pictures need it.

    Attributes:
        name: The configuration key that it sets, or the name that several of them share.
        kind: What its values are; a choice's are shown as text.
        log: Whether it is searched, and drawn, on a logarithmic scale.
        low: Smallest number; None for a choice.
        high: Largest number; None for a choice.
        choices: Values of a choice, in order.
        methods: The methods in which it means something.
        keys: The key that it sets in some of them, in place of its name.
    """

    name: str
    kind: Literal["float", "int", "choice"]
    log: bool
    low: float | None
    high: float | None
    choices: tuple[Value, ...]
    methods: tuple[str, ...]
    keys: Mapping[str, str] = field(default_factory=dict)

    def get_key(self, method: str) -> str:
        """The configuration key that it sets in a method."""
        return self.keys.get(method, self.name)

    @property
    def label(self) -> str:
        """Its name, and which other keys it sets, as in `optimizer.lr (frozen: ...)`."""
        others = ", ".join(f"{method}: {key}" for method, key in self.keys.items())
        return f"{self.name} ({others})" if others else self.name


@dataclass(frozen=True)
class SweepObjective:
    """What is made best.

    Attributes:
        name: `validation` or a figure of the cost, as in `cost.train_seconds`.
        label: What pictures write, as in `validation ndcg@10`.
        direction: Which way is better.
    """

    name: str
    label: str
    direction: Literal["maximize", "minimize"]


@dataclass(frozen=True)
class TrialRecord:
    """One trial: a run, or a run for each of several seeds.

    Attributes:
        method: The method of the study that it belongs to.
        number: Its number in that study.
        index: Its place in the design: a repetition has the place of the trial that was lost.
        state: How it ended.
        reason: Why it failed or was pruned, in a sentence; empty for the others.
        values: The value of each axis that means something in it, by name.
        objectives: The value of each objective, in their order; empty without a result.
        reports: (optimiser step, value of the first objective) of each validation of its first
            seed.
        figures: Numbers of its result by dotted name: `validation.ndcg@10`, `cost.train_seconds`,
            `train.loss`, `distance.tuned`; the mean over its seeds.
        seconds: Wall time.
        began: Seconds since 1970 at which it began.
        epochs: Epochs trained, over its seeds.
        runs: The folders of its runs, from the sweep's folder.
        retry_of: Number of the lost trial that it repeats.
        warning: What went wrong beside its result, as at Weights & Biases; empty for nothing.
    """

    method: str
    number: int
    index: int
    state: State
    reason: str
    values: Mapping[str, Value]
    objectives: tuple[float, ...]
    reports: tuple[tuple[int, float], ...]
    figures: Mapping[str, float]
    seconds: float
    began: float
    epochs: float
    runs: tuple[str, ...]
    retry_of: int | None = None
    warning: str = ""


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as it stands.

    Attributes:
        name: Of its file.
        folder: Where it lies.
        methods: In the file's order.
        axes: The search space.
        objectives: One, or two.
        budget: What each method may use, in words, as in `16 trials`.
        planned: Trials of each method, where the budget says that.
        trials: By method and number.
        finals: The folders of each method's closing runs, from the sweep's folder.
        tests: The test metrics of each method's closing runs, by seed.
        notes: What a reader must know.
        common: The configuration that all trials share, as `key: value` in dotted form.
        floors: The test metrics of the baselines, on the cases of the closing runs.
        commands: What trains each method's best trial again, for a shell.
    """

    name: str
    folder: Path
    methods: tuple[str, ...]
    axes: tuple[SearchAxis, ...]
    objectives: tuple[SweepObjective, ...]
    budget: str
    planned: int | None
    trials: tuple[TrialRecord, ...]
    finals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tests: Mapping[str, tuple[Mapping[str, float], ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    common: Mapping[str, Value] = field(default_factory=dict)
    floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)

    def select_trials(self, method: str, *states: State) -> list[TrialRecord]:
        """The trials of a method in some states, by number; all of them without a state."""
        return [t for t in self.trials if t.method == method and (not states or t.state in states)]

    def find_best(self, method: str) -> TrialRecord | None:
        """The best complete trial of a method by the first objective; the earliest of equals."""
        found = self.select_trials(method, "complete")
        sign = -1.0 if self.objectives[0].direction == "maximize" else 1.0
        return min(found, key=lambda t: (sign * t.objectives[0], t.number), default=None)

    def get_key_values(self, trial: TrialRecord) -> dict[str, Value]:
        """The values of a trial by the keys that were set in its method."""
        keys = {axis.name: axis.get_key(trial.method) for axis in self.axes}
        return {keys.get(name, name): value for name, value in trial.values.items()}

    def select_method(self, method: str) -> SweepRecord:
        """One method by itself, with the keys that are set in it as names of the axes."""
        return replace(
            self,
            axes=tuple(
                replace(axis, name=axis.get_key(method), methods=(method,), keys={})
                for axis in self.axes
                if method in axis.methods
            ),
            trials=tuple(
                replace(t, values=self.get_key_values(t)) for t in self.select_trials(method)
            ),
        )


def write_record(sweep: SweepRecord) -> None:
    """Writes `sweep.json` whole.

    Raises:
        DataError: The disk is full.
    """
    node = asdict(sweep)
    del node["folder"]
    write_atomic(sweep.folder / SWEEP, json.dumps(node, indent=1) + "\n")


def read_record(folder: Path) -> SweepRecord:
    """A sweep from its folder.

    Raises:
        ConfigError: There is none, or the file is damaged.
    """
    path = folder / SWEEP
    if not path.is_file():
        raise ConfigError(f"{folder} is no sweep's folder: {SWEEP} is missing.")
    try:
        node = json.loads(path.read_text(encoding="utf-8"))
        return SweepRecord(
            **{f.name: node[f.name] for f in fields(SweepRecord) if f.name in _PLAIN},
            folder=folder,
            methods=tuple(node["methods"]),
            axes=tuple(_parse_axis(each) for each in node["axes"]),
            objectives=tuple(SweepObjective(**each) for each in node["objectives"]),
            trials=tuple(_parse_trial(each) for each in node["trials"]),
            finals={name: tuple(runs) for name, runs in node["finals"].items()},
            tests={name: tuple(tests) for name, tests in node["tests"].items()},
            notes=tuple(node["notes"]),
            floors=node.get("floors", {}),
            commands=node.get("commands", {}),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{path} is damaged; the sweep's command writes it anew.") from None


_PLAIN = ("name", "budget", "planned", "common")


def _parse_axis(node: dict[str, Any]) -> SearchAxis:
    return SearchAxis(
        **{**node, "choices": tuple(node["choices"]), "methods": tuple(node["methods"])}
    )


def _parse_trial(node: dict[str, Any]) -> TrialRecord:
    return TrialRecord(
        **{
            **node,
            "values": dict(node["values"]),
            "objectives": tuple(float(value) for value in node["objectives"]),
            "figures": {str(name): float(value) for name, value in node["figures"].items()},
            "seconds": float(node["seconds"]),
            "began": float(node["began"]),
            "epochs": float(node["epochs"]),
            "reports": tuple((int(step), float(value)) for step, value in node["reports"]),
            "runs": tuple(node["runs"]),
        }
    )


def sort_trials(trials: Sequence[TrialRecord], methods: Sequence[str]) -> tuple[TrialRecord, ...]:
    """Trials by method, in the methods' order, and number."""
    place = {method: at for at, method in enumerate(methods)}
    return tuple(sorted(trials, key=lambda t: (place[t.method], t.number)))

"""What a sweep is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from recsys.config.compose import RunConfig, make_node
from recsys.config.schema import option
from recsys.config.yaml_file import Node
from recsys.sweep.record import SweepObjective, Value

ALONE = "all"
"""The method's name where a sweep has no `methods`."""

VALIDATION = "validation"
COSTS = (
    "trained_parameters",
    "parameters",
    "texts",
    "tokens",
    "train_flops",
    "train_seconds",
    "seconds",
    "cpu_seconds",
    "anonymous_peak_mb_sampled",
)
"""Figures of a result's cost that can be an objective, as in `cost.train_seconds`."""

SAMPLERS: Mapping[str, str] = {
    "tpe": "tree-structured Parzen estimator over all keys at once",
    "gp": "Gaussian process",
    "cmaes": "covariance matrix adaptation; numbers only",
    "random": "independent draws",
    "sobol": "a scrambled Sobol sequence; the same points for every method",
    "grid": "every combination of choices and `points`",
}
PRUNERS: Mapping[str, str] = {
    "none": "every trial trains to its end",
    "median": "stops a trial below the median of the method's earlier ones",
    "hyperband": "successive halving with several first rungs",
    "wilcoxon": "stops a trial whose seeds are worse than the best trial's, seed by seed",
}

MOST = 1_000_000
"""Largest number of trials, epochs, seeds or workers: more is a slip of the hand."""

TUNES = ("tpe", "gp", "cmaes")
"""Samplers that look at what earlier trials found."""


@dataclass(frozen=True)
class SearchDimension:
    """One axis of the search space.

    Attributes:
        name: The key that it sets, except where `instead` names another.
        kind: Of its values.
        log: Whether numbers are searched on a logarithmic scale.
        low: Smallest number.
        high: Largest number.
        points: Values of a number in a grid.
        choices: Values of a choice.
        when: Keys and the values of which each must have one, for the dimension to apply.
        instead: The key that it sets in some methods.
    """

    name: str
    kind: Literal["float", "int", "choice"]
    log: bool = False
    low: float | None = None
    high: float | None = None
    points: int | None = None
    choices: tuple[Value, ...] = ()
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)

    def get_key(self, method: str) -> str:
        """The configuration key that it sets in a method."""
        return self.instead.get(method, self.name)


@dataclass
class MethodBudget:
    """What each method may use; whatever ends first."""

    trials: int | None = option(None, "trials", least=1, most=MOST)
    hours: float | None = option(None, "hours of trials, in all", above=0, most=MOST)
    epochs: int | None = option(None, "epochs of trials, in all", least=1, most=MOST)

    def describe(self) -> str:
        """The budget in words."""
        parts = [
            f"{value:g} {f.name}"
            for f in fields(self)
            if (value := cast("float | None", getattr(self, f.name))) is not None
        ]
        return " or ".join(parts) or "the whole grid"


@dataclass(frozen=True)
class PluginConfig:
    """A sampler or pruner by name, with its options."""

    name: str
    options: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepDefinition:
    """A sweep as it was asked for.

    Attributes:
        name: Of the file.
        words: Of the run that all trials start from, `output`, `seed` and `tracking` apart.
        methods: The words of each method, by name.
        space: Its dimensions, in an order in which conditions name earlier ones only.
        objectives: One or two.
        sampler: How values are chosen.
        pruner: Which trials are stopped early.
        budget: Of each method.
        seeds: Runs of a trial.
        final_seeds: Closing runs of each method.
        seed: Of the sampler, and the first of the runs.
        output: Where the sweep's folder lies.
        tracking: The words that say where logs go.
        workers: Trials side by side.
        storage: URL of a database, or None.
        prepared: Whether trials start from a prepared process.
        launcher: Where trials run: "local" or "slurm".
        slurm: Parameters of their jobs.
        some: Whether the command left out some of the file's methods.
        details: Whether every table is printed at the end.
    """

    name: str
    words: tuple[str, ...]
    methods: Mapping[str, tuple[str, ...]]
    space: tuple[SearchDimension, ...]
    objectives: tuple[SweepObjective, ...]
    sampler: PluginConfig
    pruner: PluginConfig
    budget: MethodBudget
    seeds: int = 1
    final_seeds: int = 3
    seed: int = 0
    output: str = "runs"
    tracking: tuple[str, ...] = ()
    workers: int = 1
    storage: str | None = None
    prepared: bool = True
    launcher: Literal["local", "slurm"] = "local"
    slurm: Mapping[str, object] = field(default_factory=dict)
    some: bool = False
    details: bool = False

    def compute_digest(self) -> str:
        """Eight letters that tell sweeps apart whose trials cannot stand in one study.

        The budget, the closing runs, workers, storage and logs may change when a sweep goes on.
        """
        parts = [
            self.name,
            self.words,
            {name: list(words) for name, words in self.methods.items()},
            [_make_node(dimension) for dimension in self.space],
            [_format_objective(objective) for objective in self.objectives],
            [_make_node(self.sampler), _make_node(self.pruner), self.seeds, self.seed],
        ]
        if any(dimension.instead for dimension in self.space):
            parts.append("a method's study names the keys that are set in it")  # did not before
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    @property
    def folder(self) -> Path:
        """The sweep's folder: the same command finds it again."""
        return Path(self.output) / f"{self.name}-{self.compute_digest()}"


def _format_objective(objective: SweepObjective) -> str:
    """An objective's name, and its direction where that is not the one to be expected."""
    expected = "maximize" if objective.name == VALIDATION else "minimize"
    name, direction = objective.name, objective.direction
    return name if direction == expected else f"{direction} {name}"


def _make_node(value: object) -> Node:
    return {f.name: getattr(value, f.name) for f in fields(cast(Any, value))}


def flatten_run(run: RunConfig) -> dict[str, Value]:
    """A run's configuration by dotted key; an axis has its choice's name."""
    out: dict[str, Value] = {}

    def walk(node: Node, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                out[f"{prefix}{key}"] = value
                if key == "name":
                    out[prefix.removesuffix(".")] = value

    walk(make_node(run), "")
    return out

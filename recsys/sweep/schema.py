"""The typed schema of a sweep: the keys of its command, and what its file holds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from recsys.config.compose import RunConfig, make_options, nearest
from recsys.config.schema import option
from recsys.config.yaml_file import Node, read_mapping
from recsys.errors import ConfigError
from recsys.sweep.definition import MOST, PRUNERS, SAMPLERS, MethodBudget

WITH = "with"
"""The file's key of words that all trials begin with; Python keeps the name to itself."""

Direction = Literal["maximize", "minimize"]


@dataclass
class SweepOptions:
    """The keys of a sweep's command and file, beside those of a run."""

    sweep: str | None = option(None, "name of a file in sweeps/, without .yaml, or a path")
    trials: int | None = option(None, "trials of each method", least=1, most=MOST)
    hours: float | None = option(None, "hours of each method's trials, in all", above=0, most=MOST)
    epochs: int | None = option(None, "epochs of each method's trials, in all", least=1, most=MOST)
    methods: str | None = option(None, "some of the file's methods, as in methods=lora,full")
    sampler: str | None = option(None, "in place of the file's: " + ", ".join(SAMPLERS))
    pruner: str | None = option(None, "in place of the file's: " + ", ".join(PRUNERS))
    seeds: int | None = option(None, "runs of a trial, with seeds of their own", least=1, most=MOST)
    final_seeds: int | None = option(
        None,
        "closing runs of each method's best trial, which are tested; 0: none",
        least=0,
        most=MOST,
    )
    workers: int = option(1, "trials side by side", least=1, most=MOST)
    storage: str | None = option(
        None, "URL of a database for several machines; null: a file in the sweep's folder"
    )
    prepared: bool = option(True, "start trials from a process that has done the imports")
    launcher: Literal["local", "slurm"] = option(
        "local", "where trials run: here, or each as a job of SLURM (docs/machines.md)"
    )
    slurm: dict[str, Any] = option(
        {},
        "parameters of these jobs, as submitit names them: {partition: gpu, time: 120, "
        "gpus_per_node: 1, mem: 32GB}; time in minutes",
    )
    details: bool = option(False, "print every table at the end")


@dataclass
class TrialOptions:
    """Those keys of a run that a sweep itself sets in each of its runs."""

    seed: int = option(
        RunConfig.seed, "of the sampler, and the first of the runs", least=0, most=2**32 - 1
    )
    output: str = option(RunConfig.output, "folder in which the sweep's own folder is made")


@dataclass
class DimensionOptions:
    """An entry of a file's `space`: a range of numbers, or choices."""

    low: int | float | None = option(None, "smallest number")
    high: int | float | None = option(None, "largest number")
    log: bool = option(False, "search numbers on a logarithmic scale")
    type: Literal["int", "float"] | None = option(
        None, "of the numbers; null: int where low and high are whole"
    )
    points: int | None = option(None, "values of a number in a grid", least=2, most=MOST)
    choices: list[Any] = option([], "values, in place of low and high")
    when: dict[str, Any] = option(
        {}, "keys and the values of which each must have one, for the dimension to apply"
    )
    instead: dict[str, str] = option({}, "the key that it sets in some methods")


@dataclass
class SweepFile:
    """What a file in `sweeps/` holds, its key `with` apart."""

    experiment: str = option("", "the experiment that all trials begin with")
    methods: dict[str, Any] = option({}, "keys and values of a run, by the name of a method")
    space: dict[str, Any] = option({}, "low and high, or choices, by the key that is searched")
    objectives: dict[str, str] = option({}, "maximize or minimize, by the name of a figure")
    sampler: Any = option("tpe", "a name, or a mapping with one and its options")
    pruner: Any = option("none", "a name, or a mapping with one and its options")
    budget: MethodBudget = field(default_factory=MethodBudget)
    seeds: int = option(1, "runs of a trial, with seeds of their own", least=1, most=MOST)
    final_seeds: int = option(3, "closing runs of each method's best trial", least=0, most=MOST)


@dataclass
class NoOptions:
    """Of a sampler or pruner that has none."""


@dataclass
class SamplerOptions:
    """Of a sampler that looks at what earlier trials found."""

    startup: int = option(10, "trials at random before that", least=1)


@dataclass
class MedianOptions:
    """Of the pruner `median`."""

    startup: int = option(5, "trials before the first that is pruned", least=0)
    warmup: int = option(1, "validations of a trial before it is pruned", least=0)


@dataclass
class HyperbandOptions:
    """Of the pruner `hyperband`."""

    reduction: int = option(3, "one trial of so many goes on at each rung", least=2)
    first: int = option(1, "validations up to the first rung", least=1)


@dataclass
class WilcoxonOptions:
    """Of the pruner `wilcoxon`."""

    p: float = option(0.1, "chance of a trial that is not worse to be pruned", least=0)
    startup: int = option(2, "seeds of a trial before it is pruned", least=0)


def read_sweep_file(path: Path) -> tuple[SweepFile, Node]:
    """What a sweep's file holds, and the mapping under its key `with`.

    Raises:
        ConfigError: It is no mapping, a key is unknown, or a value is of a wrong type.
    """
    content = read_mapping(path)
    known = (*(f.name for f in fields(SweepFile)), WITH)
    for key in content:
        if key not in known:
            raise ConfigError(f"{path}: '{key}' is no key of a sweep.{nearest(str(key), known)}")
    base = content.pop(WITH, None)
    return make_options(SweepFile, content, f"{path}: "), {} if base is None else base

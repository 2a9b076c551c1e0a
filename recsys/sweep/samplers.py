"""How values are chosen, so that a sweep that was stopped suggests what it would have.

Optuna's samplers draw from a state of their own, which is lost with the process. Here each trial
has a sampler of its own, seeded by the sweep's seed and the trial's place in the design.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    WilcoxonPruner,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from recsys.config.compose import make_options
from recsys.errors import ConfigError
from recsys.sweep.definition import TUNES, PluginConfig, SweepDefinition
from recsys.sweep.record import Value
from recsys.sweep.schema import (
    HyperbandOptions,
    MedianOptions,
    NoOptions,
    SamplerOptions,
    WilcoxonOptions,
)
from recsys.sweep.space import SearchPlan, get_value_at

Index = Callable[[Study, FrozenTrial], int]
"""Tells a trial's place in the design of its study."""

T = TypeVar("T")


class SeededSampler(BaseSampler):
    """A sampler for each trial.

    Args:
        make: Makes one from a seed.
        seed: Of the sweep.
        index: Tells a trial's place in the design.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int, index: Index) -> None:
        self._make, self._seed, self._index = make, seed, index
        self._own: dict[int, BaseSampler] = {}

    def _get_sampler(self, study: Study, trial: FrozenTrial) -> BaseSampler:
        if trial.number not in self._own:
            key = [self._seed, self._index(study, trial)]
            seed = int(np.random.SeedSequence(key).generate_state(1)[0])
            self._own[trial.number] = self._make(seed)
        return self._own[trial.number]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As the trial's sampler."""
        return self._get_sampler(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the trial's sampler, which draws by the trial's number: that is its place here."""
        own, placed = self._get_sampler(study, trial), copy.copy(trial)
        placed.number = self._index(study, trial)
        return own.sample_relative(study, placed, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401 - Optuna's own loose type
        """As the trial's sampler."""
        return self._get_sampler(study, trial).sample_independent(
            study, trial, param_name, param_distribution
        )

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """As the trial's sampler."""
        self._get_sampler(study, trial).before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """As the trial's sampler, which is not needed any more."""
        self._get_sampler(study, trial).after_trial(study, trial, state, values)
        del self._own[trial.number]


class DesignSampler(BaseSampler):
    """Values that were laid down before the first trial.

    Args:
        values: The value of each dimension by place in the design.
        names: What each dimension is called in the study.
        index: Tells a trial's place in it.
    """

    def __init__(
        self,
        values: Callable[[int], Mapping[str, Value]],
        names: Mapping[str, str],
        index: Index,
    ) -> None:
        self._values, self._index = values, index
        self._dimension = {called: name for name, called in names.items()}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: each value is known by itself."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Value:
        """The value of the design."""
        return self._values(self._index(study, trial))[self._dimension[param_name]]


def make_sobol_design(
    definition: SweepDefinition, plan: SearchPlan
) -> Callable[[int], dict[str, Value]]:
    """Points of a scrambled Sobol sequence over all dimensions of the sweep.

    A dimension has the same column in every method, whatever else the method searches, so that
    methods are compared at the same points.
    """
    from scipy.stats import qmc

    names = sorted(d.name for d in definition.space)
    known: list[Any] = []

    def get_values(index: int) -> dict[str, Value]:
        if index >= len(known):
            count = 1 << index.bit_length()  # the sequence is balanced at powers of two
            engine = qmc.Sobol(
                len(names), scramble=True, rng=np.random.default_rng(definition.seed)
            )
            known[:] = engine.random(count)
        return {
            d.name: get_value_at(d, float(known[index][names.index(d.name)])) for d in plan.space
        }

    return get_values


def make_grid_design(
    definition: SweepDefinition, plan: SearchPlan
) -> Callable[[int], dict[str, Value]]:
    """The combinations of a method in a seeded order, so that a part of them covers the range."""
    combinations = plan.list_combinations()
    order = np.random.default_rng(definition.seed).permutation(len(combinations))
    return lambda index: combinations[int(order[index])]


def make_sampler(definition: SweepDefinition, plan: SearchPlan, index: Index) -> BaseSampler:
    """The sampler of a method's study.

    Raises:
        ConfigError: An option is unknown, or has a value that cannot be.
    """
    startup, several = _read_sampler_options(definition).startup, definition.workers > 1
    name = definition.sampler.name
    if name == "sobol":
        return DesignSampler(make_sobol_design(definition, plan), plan.get_study_names(), index)
    if name == "grid":
        return DesignSampler(make_grid_design(definition, plan), plan.get_study_names(), index)

    def make(seed: int) -> BaseSampler:
        if name == "tpe":
            return TPESampler(
                n_startup_trials=startup,
                multivariate=True,
                group=True,
                constant_liar=several,
                seed=seed,
            )
        if name == "gp":
            return GPSampler(n_startup_trials=startup, deterministic_objective=False, seed=seed)
        if name == "cmaes":
            return CmaEsSampler(n_startup_trials=startup, seed=seed)
        return RandomSampler(seed=seed)

    # Which of Optuna's parts are experimental is no news that a user can act on.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return SeededSampler(make, definition.seed, index)


def make_pruner(definition: SweepDefinition, plan: SearchPlan) -> BasePruner:
    """The pruner of a method's study: it compares trials of that method only.

    Its steps are validations: 0 before training, then one an epoch; or the seeds of a trial.

    Raises:
        ConfigError: An option is unknown, or has a value that cannot be.
    """
    options = _read_pruner_options(definition)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if isinstance(options, MedianOptions):
        return MedianPruner(n_startup_trials=options.startup, n_warmup_steps=options.warmup)
    if isinstance(options, HyperbandOptions):
        last = plan.run.trainer.epochs + 1
        if options.first > last:
            raise ConfigError(
                f"hyperband: first is {options.first}, and a trial of {plan.method} has {last} "
                "validations; lower it, or raise trainer.epochs."
            )
        return HyperbandPruner(
            min_resource=options.first,
            max_resource=last,
            reduction_factor=options.reduction,
        )
    if isinstance(options, WilcoxonOptions):
        return WilcoxonPruner(p_threshold=options.p, n_startup_steps=options.startup)
    return NopPruner()


def check_options(definition: SweepDefinition) -> None:
    """Refuses wrong options, and a sampler whose package is missing, before anything starts.

    Raises:
        ConfigError: One of them.
    """
    _read_sampler_options(definition)
    _read_pruner_options(definition)
    if definition.sampler.name == "cmaes":
        try:
            importlib.import_module("cmaes")
        except ModuleNotFoundError:
            raise ConfigError(
                "sampler: cmaes needs the package cmaes; run pip install cmaes."
            ) from None


def _read_sampler_options(definition: SweepDefinition) -> SamplerOptions:
    """The options of the sampler; one that looks at nothing has none to set."""
    plugin = definition.sampler
    if plugin.name in TUNES:
        return _read_options(SamplerOptions, plugin)
    _read_options(NoOptions, plugin)
    return SamplerOptions()


def _read_pruner_options(
    definition: SweepDefinition,
) -> NoOptions | MedianOptions | HyperbandOptions | WilcoxonOptions:
    plugin = definition.pruner
    if plugin.name == "median":
        return _read_options(MedianOptions, plugin)
    if plugin.name == "hyperband":
        return _read_options(HyperbandOptions, plugin)
    if plugin.name == "wilcoxon":
        return _read_options(WilcoxonOptions, plugin)
    return _read_options(NoOptions, plugin)


def _read_options(schema: type[T], plugin: PluginConfig) -> T:
    return make_options(schema, dict(plugin.options), f"{plugin.name}.")

"""The search space of each method: which dimensions mean something there, and their values."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys.assembly.checks import check_pairs
from recsys.config.compose import AXES, RunConfig, compose, nearest
from recsys.config.inactive import explain_inactivity
from recsys.config.yaml_file import as_word
from recsys.errors import ConfigError
from recsys.sweep.definition import VALIDATION, SearchDimension, SweepDefinition, flatten_run
from recsys.sweep.record import SearchAxis, SweepObjective, Value

if TYPE_CHECKING:
    from optuna.trial import Trial

SHARED = (
    *("evaluation.", "data.source", "data.split", "data.val_fraction", "data.test_fraction"),
    *("data.positive_from", "data.max_users", "data.train_users", "data.sample_seed"),
    *("data.max_items", "data.event", "data.since", "data.until", "data.min_", "data.repeats"),
    *("data.k_core", "data.user_reviews"),
)
"""How keys begin that decide what is ranked and who is trained on: one value in a whole sweep."""
OWN = (
    *("seed", "output", "experiment", "profile", "tracking.", "checkpoint."),
    *("trainer.max_steps", "trainer.devices", "trainer.nodes"),
)
"""How keys begin that a sweep sets itself, that change no result, or that say how runs start."""


@dataclass(frozen=True)
class SearchPlan:
    """What a method searches.

    Attributes:
        method: Its name.
        words: Of its runs, without the values that are searched.
        run: What they compose to.
        space: The dimensions that mean something.
        dropped: Why the others do not, by name.
    """

    method: str
    words: tuple[str, ...]
    run: RunConfig
    space: tuple[SearchDimension, ...]
    dropped: Mapping[str, str]

    def is_applicable(self, dimension: SearchDimension, values: Mapping[str, Value]) -> bool:
        """Whether a dimension has a value beside those chosen before it."""
        names = {d.name for d in self.space}
        return all(
            values.get(key, None) in wanted if key in names else True
            for key, wanted in dimension.when.items()
        )

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """The values of a trial by dimension, asked for in the space's order."""
        values: dict[str, Value] = {}
        names = self.get_study_names()
        for d in self.space:
            if not self.is_applicable(d, values):
                continue
            name = names[d.name]
            if d.kind == "choice":
                values[d.name] = trial.suggest_categorical(name, d.choices)
            elif d.kind == "int":
                low, high = _get_bounds(d)
                values[d.name] = trial.suggest_int(name, int(low), int(high), log=d.log)
            else:
                values[d.name] = trial.suggest_float(name, *_get_bounds(d), log=d.log)
        return values

    def get_study_names(self) -> dict[str, str]:
        """What each dimension is called in this method's study: the key that it sets there.

        Its own name, where several set one key, each under a condition.
        """
        keys = [d.get_key(self.method) for d in self.space]
        return {
            d.name: key if keys.count(key) == 1 else d.name
            for d, key in zip(self.space, keys, strict=True)
        }

    def make_trial_words(self, values: Mapping[str, Value]) -> list[str]:
        """The words of a run with these values."""
        keys = {d.name: d.get_key(self.method) for d in self.space}
        return [*self.words, *(f"{keys[name]}={as_word(value)}" for name, value in values.items())]

    def format_command(self, values: Mapping[str, Value], seed: int) -> str:
        """What trains a run with these values, tested at its end, for a shell."""
        words = [*self.make_trial_words(values), f"seed={seed}"]
        return shlex.join(["python", "-m", "recsys.fit", *words])

    def list_combinations(self) -> list[dict[str, Value]]:
        """Every combination, each once: conditions leave some of the product out."""
        out: list[dict[str, Value]] = []
        for chosen in itertools.product(*(list_levels(d) for d in self.space)):
            values: dict[str, Value] = {}
            for d, value in zip(self.space, chosen, strict=True):
                if self.is_applicable(d, values):
                    values[d.name] = value
            if values not in out:
                out.append(values)
        return out


def _get_bounds(d: SearchDimension) -> tuple[float, float]:
    if d.low is None or d.high is None:
        raise ValueError(f"{d.name} is no number.")
    return d.low, d.high


def get_value_at(d: SearchDimension, share: float) -> Value:
    """The value of a dimension at a share of its range, from 0 to below 1."""
    if d.kind == "choice":
        return d.choices[min(int(share * len(d.choices)), len(d.choices) - 1)]
    low, high = _get_bounds(d)
    if d.kind == "int":
        if d.log:  # each whole number has the part of the scale around it
            value = (low - 0.5) * ((high + 0.5) / (low - 0.5)) ** share
            return int(min(max(round(value), low), high))
        return int(min(low + int(share * (high - low + 1)), high))
    value = low * (high / low) ** share if d.log else low + (high - low) * share
    return float(min(max(value, low), high))


def list_levels(d: SearchDimension) -> list[Value]:
    """The values of a dimension in a grid, each once."""
    if d.kind == "choice":
        return list(d.choices)
    count = d.points or 2
    low, high = _get_bounds(d)
    shares = [place / (count - 1) for place in range(count)]
    found = [low * (high / low) ** s if d.log else low + (high - low) * s for s in shares]
    if d.kind == "int":
        return list(dict.fromkeys(round(value) for value in found))
    return [low, *found[1:-1], high]


def make_plans(definition: SweepDefinition) -> dict[str, SearchPlan]:
    """The plan of each method, every value at the ends of its range composed once.

    Raises:
        ConfigError: A key is unknown in every method, a value is refused, a condition names what
            is not there, or methods would be compared on different cases.
    """
    bases = {name: _compose_base(definition, name) for name in definition.methods}
    _check_common(bases)
    errors: dict[str, dict[str, str]] = {d.name: {} for d in definition.space}
    found: dict[str, SearchPlan] = {}
    for method, (words, run) in bases.items():
        there, dropped = flatten_run(run), dict[str, str]()
        # What means nothing with one choice of an axis may with another that the space has.
        chosen = any(d.get_key(method) in AXES for d in definition.space)
        kept: list[SearchDimension] = []
        for d in definition.space:
            _check_key(d, method)
            reason = _find_unmet_condition(d, there, definition, bases)
            if not chosen:
                reason = reason or explain_inactivity(run, d.get_key(method))
            if reason:
                dropped[d.name] = reason
            else:
                kept.append(d)
        if not _can_compose(kept, method, words):
            for d in list(kept):
                try:
                    _compose_ends(
                        d, method, [*words, *_list_condition_words(d, definition.space, method)]
                    )
                except ConfigError as error:
                    errors[d.name][method] = dropped[d.name] = str(error)
                    kept.remove(d)
        names = {d.name for d in kept}
        of_space = {d.name for d in definition.space}
        for d in list(kept):  # what waits for a dimension that means nothing here means nothing
            gone = [key for key in d.when if key in of_space - names]
            if gone:
                kept.remove(d)
                dropped[d.name] = f"it waits for {gone[0]}"
        _check_duplicates(kept, method)
        _check_together(kept, method, words, run)
        found[method] = SearchPlan(method, tuple(words), run, tuple(kept), dropped)
    _check_space(definition, found, errors)
    return found


def _compose_base(definition: SweepDefinition, method: str) -> tuple[list[str], RunConfig]:
    """The words and the run that a method's trials start from."""
    words = [*definition.words, *definition.methods[method], *definition.tracking]
    try:
        run = compose(words)
    except ConfigError as error:
        raise ConfigError(f"method {method}: {error}") from None
    if definition.final_seeds and not run.evaluation.test:
        raise ConfigError(
            f"method {method}: evaluation.test is set by the sweep, which tests closing runs only; "
            "to test nothing, set final_seeds=0."
        )
    if not run.architecture.trains:
        raise ConfigError(f"method {method} does not train; a sweep has nothing to search there.")
    return words, run


def _check_common(bases: Mapping[str, tuple[list[str], RunConfig]]) -> None:
    """Every method has the same data and cases."""
    name, (_, first) = next(iter(bases.items()))
    wanted = {k: v for k, v in flatten_run(first).items() if k.startswith(SHARED)}
    for other, (_, run) in bases.items():
        there = {k: v for k, v in flatten_run(run).items() if k.startswith(SHARED)}
        unlike = [k for k in {**wanted, **there} if there.get(k) != wanted.get(k)]
        unlike = [k for k in unlike if k != "evaluation.batch_size"]
        if unlike:
            key = unlike[0]
            raise ConfigError(
                f"method {other} has {key}={as_word(there.get(key))}, and {name} has "
                f"{as_word(wanted.get(key))}; methods are compared on the same cases, so set it "
                "for all."
            )


def _check_key(d: SearchDimension, method: str) -> None:
    key = d.get_key(method)
    if key.startswith(OWN) or key.startswith(SHARED):
        why = "is set by the sweep" if key.startswith(OWN) else "would change what is ranked"
        raise ConfigError(f"space.{d.name}: {key} {why}; leave it out of the space.")


def _find_unmet_condition(
    d: SearchDimension,
    there: Mapping[str, Value],
    definition: SweepDefinition,
    bases: Mapping[str, tuple[list[str], RunConfig]],
) -> str:
    """Which condition on the configuration a method does not meet."""
    names = {other.name for other in definition.space}
    for key, wanted in d.when.items():
        if key in names:
            continue
        if all(key not in flatten_run(run) for _, run in bases.values()):
            raise ConfigError(f"space.{d.name}.when: {key} is not a key.{nearest(key, there)}")
        if there.get(key) not in wanted:
            return f"{key} is {as_word(there.get(key))}"
    return ""


def _can_compose(space: Sequence[SearchDimension], method: str, words: Sequence[str]) -> bool:
    """Whether every value at an end composes, all dimensions at once: composing takes a while."""
    try:
        for more in _list_ends(space, method):
            compose([*words, *more])
    except ConfigError:
        return False
    return True


def _list_ends(space: Sequence[SearchDimension], method: str) -> Iterator[list[str]]:
    """The words of each end, or of each choice, all dimensions at once."""
    ends = [d.choices if d.kind == "choice" else (d.low, d.high) for d in space]
    for k in range(max((len(values) for values in ends), default=0)):
        chosen = [values[min(k, len(values) - 1)] for values in ends]
        pairs = zip(space, chosen, strict=True)
        yield [f"{d.get_key(method)}={as_word(value)}" for d, value in pairs]


def _check_together(
    space: Sequence[SearchDimension], method: str, words: Sequence[str], run: RunConfig
) -> None:
    """Refuses a method whose settings never go together: each of its trials would be refused.

    What is wrong without the values that are searched, and as much with any of those that are
    tried here, is wrong in every trial.

    Raises:
        ConfigError: They do not; the sentence names the method.
    """
    reasons = set()
    try:
        check_pairs(run)
        return
    except ConfigError as error:
        reasons.add(str(error))
    for more in _list_ends(space, method):
        try:
            check_pairs(compose([*words, *more]))
        except ConfigError as error:
            reasons.add(str(error))
        else:
            return
    if len(reasons) == 1:
        raise ConfigError(f"method {method}: {reasons.pop()}")


def _compose_ends(d: SearchDimension, method: str, words: Sequence[str]) -> None:
    """Composes a run with the ends of a dimension, or with each choice."""
    values = d.choices if d.kind == "choice" else (d.low, d.high)
    for value in values:
        compose([*words, f"{d.get_key(method)}={as_word(value)}"])


def _list_condition_words(
    d: SearchDimension, space: Sequence[SearchDimension], method: str
) -> list[str]:
    """Words with which a dimension that waits for others applies."""
    out: list[str] = []
    for other in space:
        if other.name in d.when:
            wanted = as_word(d.when[other.name][0])
            out += [
                *_list_condition_words(other, space, method),
                f"{other.get_key(method)}={wanted}",
            ]
    return out


def _check_duplicates(space: Sequence[SearchDimension], method: str) -> None:
    """Refuses two dimensions that set one key whatever else is chosen."""
    names = {d.name for d in space}
    first: dict[str, str] = {}
    for d in space:
        if names & set(d.when):
            continue
        other = first.setdefault(d.get_key(method), d.name)
        if other != d.name:
            raise ConfigError(
                f"space.{d.name} and space.{other} both set {d.get_key(method)} in method "
                f"{method}; "
                "leave one of them out there, by `when` or `instead`."
            )


def _check_space(
    definition: SweepDefinition,
    found: Mapping[str, SearchPlan],
    errors: Mapping[str, Mapping[str, str]],
) -> None:
    """Refuses what no method takes; a key of an axis may be unknown in some."""
    for d in definition.space:
        takers = [plan for plan in found.values() if d.name not in plan.dropped]
        for method, error in errors[d.name].items():
            of_axis = any(d.get_key(method).startswith(f"{axis}.") for axis in AXES)
            known = takers or definition.some
            if not known or not of_axis or "is not a known key" not in error:
                raise ConfigError(f"space.{d.name} in method {method}: {error}")
        if not takers and not definition.some:  # else it belongs to a method that was left out
            reasons = {plan.dropped[d.name] for plan in found.values()}
            raise ConfigError(
                f"space.{d.name} changes nothing in any method ({'; '.join(sorted(reasons))}); "
                "leave it out."
            )
    for plan in found.values():
        if not plan.space and len(found) == 1:
            raise ConfigError(f"method {plan.method} has nothing to search.")


def make_axes(
    definition: SweepDefinition, found: Mapping[str, SearchPlan]
) -> tuple[SearchAxis, ...]:
    """The search space as pictures need it."""
    return tuple(
        SearchAxis(
            name=d.name,
            kind=d.kind,
            log=d.log,
            low=d.low,
            high=d.high,
            choices=d.choices,
            methods=methods,
            keys={
                method: name
                for method in methods
                if (name := found[method].get_study_names()[d.name]) != d.name
            },
        )
        for d in definition.space
        if (methods := tuple(m for m, plan in found.items() if d.name not in plan.dropped))
    )


def make_objectives(
    definition: SweepDefinition, found: Mapping[str, SearchPlan]
) -> tuple[SweepObjective, ...]:
    """The objectives with the monitored metric's name."""
    monitor = next(iter(found.values())).run.evaluation.monitor
    return tuple(
        SweepObjective(
            o.name, f"validation {monitor}" if o.name == VALIDATION else o.name, o.direction
        )
        for o in definition.objectives
    )

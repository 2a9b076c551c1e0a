"""A sweep's definition from its file in `sweeps/` and the words of the command."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import cast

from recsys.config.compose import RunConfig, nearest
from recsys.config.options import suggest_key
from recsys.config.shipped import (
    find_file,
    find_folders,
    is_path,
    list_names,
    make_absolute,
)
from recsys.config.yaml_file import Node, as_word, read_mapping
from recsys.errors import ConfigError
from recsys.sweep.definition import (
    ALONE,
    COSTS,
    PRUNERS,
    SAMPLERS,
    VALIDATION,
    MethodBudget,
    PluginConfig,
    SearchDimension,
    SweepDefinition,
    SweepOptions,
)
from recsys.sweep.record import SweepObjective, Value
from recsys.words import drop_words, get_key, split_word

MOST = 1_000_000
"""Largest number of trials, epochs, seeds or workers: more is a slip of the hand."""
SEEDS = 2**32 - 1
"""Largest seed."""

FILE_KEYS = (
    *("experiment", "with", "methods", "space", "objectives", "sampler", "pruner", "budget"),
    *("seeds", "final_seeds"),
)


def list_sweeps() -> list[str]:
    """Names of the sweeps of the working folder and of those that are shipped, sorted."""
    return list_names(find_folders("sweep"))


def find_sweep_file(name: str) -> Path:
    """The file of a sweep.

    Raises:
        ConfigError: There is none.
    """
    return find_file("sweep", name, find_folders("sweep"), Path())


def read_definition(words: Sequence[str]) -> SweepDefinition:
    """The sweep that the words of a command ask for; what needs a composed run is not checked.

    Args:
        words: `key=value` words: those of `SweepOptions`, the rest are of the run.

    Raises:
        ConfigError: A word or a line of the file is wrong.
    """
    asked, base = _split_options(words)
    if asked.sweep is None:
        raise ConfigError(
            f"name a sweep, as in sweep=smoke (there are: {', '.join(list_sweeps())})."
        )
    path = find_sweep_file(asked.sweep)
    content = read_mapping(path)
    for key in content:
        if key not in FILE_KEYS:
            raise ConfigError(
                f"{path}: '{key}' is no key of a sweep.{nearest(str(key), FILE_KEYS)}"
            )
    seed, output, tracking, rest = _split_run_words(base)
    experiment = _parse_text(content.get("experiment"), path, "experiment")
    if is_path(experiment):  # as it leads from the sweep's file, where trials may not run
        experiment = str(find_file("experiment", experiment, (), path.parent).absolute())
    methods = _parse_methods(content.get("methods", {}), path)
    if asked.methods is not None:
        methods = _select_methods(methods, asked.methods.split(","), path)
    given = {get_key(word) for word in rest}
    own = drop_words(_parse_words(content.get("with", {}), path, "with"), given)
    if "experiment" not in given:
        own.insert(0, f"experiment={experiment}")
    budget = _parse_budget(content.get("budget", {}), path)
    if any(value is not None for value in (asked.trials, asked.hours, asked.epochs)):
        budget = MethodBudget(asked.trials, asked.hours, asked.epochs)
    found = SweepDefinition(
        name=path.stem,
        words=(*own, *rest),
        methods=methods,
        space=_parse_space(content.get("space"), path),
        objectives=_parse_objectives(content.get("objectives", {VALIDATION: "maximize"}), path),
        sampler=_parse_plugin(
            asked.sampler or content.get("sampler", "tpe"), SAMPLERS, path, "sampler"
        ),
        pruner=_parse_plugin(
            asked.pruner or content.get("pruner", "none"), PRUNERS, path, "pruner"
        ),
        budget=budget,
        seeds=asked.seeds or _parse_count(content.get("seeds", 1), path, "seeds", 1),
        final_seeds=_parse_count(content.get("final_seeds", 3), path, "final_seeds", 0)
        if asked.final_seeds is None
        else asked.final_seeds,
        seed=seed,
        output=output,
        tracking=tuple(tracking),
        workers=asked.workers,
        storage=asked.storage,
        prepared=asked.prepared,
        some=asked.methods is not None,
        details=asked.details,
    )
    _check_definition(found, path)
    return found


def _split_options(words: Sequence[str]) -> tuple[SweepOptions, list[str]]:
    """The sweep's own keys, and the words of the run."""
    own = {f.name: f for f in fields(SweepOptions)}
    asked, rest = SweepOptions(), []
    for word in words:
        key, value = split_word(word)
        if key not in own:
            if "." not in key and key not in {f.name for f in fields(RunConfig)}:
                known = [*own, *(f.name for f in fields(RunConfig))]
                hint = suggest_key(key, known, own)
                raise ConfigError(f"'{key}' is no key of a sweep or a run.{hint}")
            rest.append(make_absolute(word))
            continue
        setattr(asked, key, _parse_option(key, value, own[key].metadata["least"]))
    return asked, rest


def _split_run_words(words: Sequence[str]) -> tuple[int, str, list[str], list[str]]:
    """Seed, output and the words on tracking, which are no part of the question; and the rest."""
    seed, output = 0, "runs"
    tracking: list[str] = []
    rest: list[str] = []
    for word in words:
        key, value = split_word(word)
        if key == "seed":
            seed = _parse_integer(value, "seed")
            if seed > SEEDS:
                raise ConfigError(f"seed is {value}; set it to {SEEDS} or less.")
        elif key == "output":
            output = value
        else:
            (tracking if key.startswith("tracking.") else rest).append(word)
    return seed, output, tracking, rest


def _parse_option(key: str, value: str, least: float | None) -> Value:
    """A value of one of `SweepOptions`."""
    if key in ("trials", "epochs", "seeds", "final_seeds", "workers"):
        number: float = _parse_integer(value, key)
    elif key == "hours":
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(f"hours is '{value}'; set it to a number, as in hours=2.") from None
        if not 0 < number < math.inf:
            raise ConfigError(f"hours is {value}; set it above 0.")
    elif key in ("prepared", "details"):
        if value not in ("true", "false"):
            raise ConfigError(f"{key} is '{value}'; set it to true or false.")
        return value == "true"
    else:
        return value
    if least is not None and not number >= least:
        raise ConfigError(f"{key} is {value}; set it to {least:g} or more.")
    if number > MOST:
        raise ConfigError(f"{key} is {_shorten(value)}; set it to {MOST} or less.")
    return number


def _parse_integer(value: str, key: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ConfigError(f"{key} is '{value}'; set it to a whole number.")
    if len(value.lstrip("0")) > len(str(SEEDS)):  # also more than Python reads at all
        raise ConfigError(f"{key} is {_shorten(value)}; set it to {SEEDS} or less.")
    return int(value)


def _shorten(value: object) -> str:
    """A value in a sentence, cut where it is long."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"


def _parse_text(value: object, path: Path, key: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{path}: {key} names an experiment, as in {key}: lora_two_tower.")
    return value


def _parse_count(value: object, path: Path, key: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{path}: {key} is {value!r}; set it to a whole number from {least} on.")
    if value > MOST:
        raise ConfigError(f"{path}: {key} is {_shorten(value)}; set it to {MOST} or less.")
    return value


def _parse_words(node: object, path: Path, key: str) -> list[str]:
    """Words of a mapping, nested or dotted."""
    if not isinstance(node, dict):
        raise ConfigError(f"{path}: {key} is a mapping of keys to values, not {node!r}.")
    out: list[str] = []
    for name, value in node.items():
        if isinstance(value, dict):
            out += [f"{name}.{word}" for word in _parse_words(value, path, f"{key}.{name}")]
        else:
            top = key == "with" or (key.startswith("methods.") and key.count(".") == 1)
            if top and name in ("seed", "output"):
                raise ConfigError(f"{path}: {key}.{name} is no part of the file; set it by a word.")
            out.append(f"{name}={as_word(value)}")
    return out


def _parse_methods(node: object, path: Path) -> dict[str, tuple[str, ...]]:
    if not isinstance(node, dict):
        raise ConfigError(f"{path}: methods is a mapping of names to keys, not {node!r}.")
    found = {
        str(name): tuple(_parse_words(value, path, f"methods.{name}"))
        for name, value in node.items()
    }
    for name in found:
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(
                f"{path}: methods.{name}: names are letters, digits, '-' and '_'; they are folders."
            )
    return found or {ALONE: ()}


def _select_methods(
    methods: Mapping[str, tuple[str, ...]], asked: Sequence[str], path: Path
) -> dict[str, tuple[str, ...]]:
    for name in asked:
        if name not in methods:
            raise ConfigError(f"methods: {path} has no '{name}'.{nearest(name, methods)}")
    return {name: words for name, words in methods.items() if name in asked}


def _parse_budget(node: object, path: Path) -> MethodBudget:
    known = [f.name for f in fields(MethodBudget)]
    if not isinstance(node, dict) or set(node) - set(known):
        raise ConfigError(f"{path}: budget is a mapping with some of {', '.join(known)}.")
    for key, value in node.items():
        whole = key != "hours"
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise ConfigError(f"{path}: budget.{key} is {value!r}; set it to a number.")
        if not 0 < value < math.inf:
            raise ConfigError(f"{path}: budget.{key} is {value!r}; set it above 0.")
        if value > MOST:
            raise ConfigError(
                f"{path}: budget.{key} is {_shorten(value)}; set it to {MOST} or less."
            )
    return MethodBudget(**node)


def _parse_plugin(node: object, known: Mapping[str, str], path: Path, key: str) -> PluginConfig:
    """A name, or a mapping with `name` and options; the options are checked where it is made."""
    content = {"name": node} if isinstance(node, str) else node
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise ConfigError(f"{path}: {key} is a name, or a mapping with one, as in {key}: tpe.")
    name = content["name"]
    if name not in known:
        raise ConfigError(f"{key}: '{name}' is not known.{nearest(name, known)}")
    return PluginConfig(name, {k: v for k, v in content.items() if k != "name"})


def _parse_objectives(node: object, path: Path) -> tuple[SweepObjective, ...]:
    known = [VALIDATION, *(f"cost.{name}" for name in COSTS)]
    if not isinstance(node, dict) or not 1 <= len(node) <= 2:
        raise ConfigError(
            f"{path}: objectives maps one or two names to maximize or minimize, as in "
            "objectives: {validation: maximize}."
        )
    for name, direction in node.items():
        if name not in known:
            raise ConfigError(f"{path}: objectives: '{name}' is none.{nearest(str(name), known)}")
        if direction not in ("maximize", "minimize"):
            raise ConfigError(
                f"{path}: objectives.{name} is {direction!r}; set it to maximize or minimize."
            )
    return tuple(SweepObjective(name, name, direction) for name, direction in node.items())


_DIMENSION = ("low", "high", "log", "type", "points", "choices", "when", "instead")


def _parse_space(node: object, path: Path) -> tuple[SearchDimension, ...]:
    if not isinstance(node, dict) or not node:
        raise ConfigError(f"{path}: space maps each key to low and high, or to choices.")
    found = {str(name): _parse_dimension(str(name), value, path) for name, value in node.items()}
    ordered: dict[str, SearchDimension] = {}
    while len(ordered) < len(found):
        ready = [
            d
            for name, d in found.items()
            if name not in ordered and all(k in ordered for k in d.when if k in found)
        ]
        if not ready:
            left = ", ".join(name for name in found if name not in ordered)
            raise ConfigError(f"{path}: space: the conditions of {left} wait for each other.")
        ordered |= {d.name: d for d in ready}
    return tuple(ordered.values())


def _parse_dimension(name: str, node: object, path: Path) -> SearchDimension:
    where = f"{path}: space.{name}"
    if not isinstance(node, dict):
        raise ConfigError(f"{where} is a mapping with low and high, or with choices.")
    for key in node:
        if key not in _DIMENSION:
            raise ConfigError(f"{where}: '{key}' is no key of it.{nearest(str(key), _DIMENSION)}")
    when = {
        str(key): tuple(value) if isinstance(value, list) else (value,)
        for key, value in _parse_mapping(node.get("when", {}), f"{where}.when").items()
    }
    instead = {str(k): str(v) for k, v in _parse_mapping(node.get("instead", {}), where).items()}
    if "choices" in node:
        choices = node["choices"]
        if not isinstance(choices, list) or not choices or set(node) & {"low", "high", "log"}:
            raise ConfigError(f"{where}: choices is a list of values, without low, high and log.")
        if any(isinstance(value, list | dict) for value in choices):
            raise ConfigError(f"{where}: each of the choices is a number, a text, true or null.")
        return SearchDimension(name, "choice", choices=tuple(choices), when=when, instead=instead)
    low, high = _parse_number(node, "low", where), _parse_number(node, "high", where)
    log = node.get("log", False)
    if not isinstance(log, bool) or (log and not low > 0) or not low < high:
        raise ConfigError(f"{where}: low is below high, and above 0 where log is true.")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = node.get("type", "int" if whole else "float")
    if kind not in ("int", "float") or (kind == "int" and not whole):
        raise ConfigError(f"{where}.type is float, or int with low and high that are whole.")
    points = node.get("points")
    if points is not None:
        points = _parse_count(points, path, f"space.{name}.points", 2)
    return SearchDimension(name, kind, log, low, high, points, when=when, instead=instead)


def _parse_number(node: Node, key: str, where: str) -> int | float:
    value = node.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where}.{key} is {value!r}; set it to a number.")
    return value


def _parse_mapping(node: object, where: str) -> Node:
    if not isinstance(node, dict):
        raise ConfigError(f"{where} is a mapping of keys, not {node!r}.")
    return cast(Node, node)


def _check_definition(found: SweepDefinition, path: Path) -> None:
    """What parts of a definition ask of each other."""
    for tag in (f"sweep={found.name}", *(f"method={name}" for name in found.methods)):
        if len(tag) > 64:
            raise ConfigError(f"{path}: '{tag}' is a tag of the runs; shorten it to 64 letters.")
    two = len(found.objectives) > 1
    if found.pruner.name != "none" and (two or found.objectives[0].name != VALIDATION):
        raise ConfigError(
            f"{path}: pruner {found.pruner.name} compares trials by their validation on the way; "
            "with another or a second objective set pruner: none."
        )
    if found.pruner.name == "wilcoxon" and found.seeds < 2:
        raise ConfigError("pruner: wilcoxon compares trials seed by seed; set seeds to 2 or more.")
    if found.pruner.name in ("median", "hyperband") and found.seeds > 1:
        raise ConfigError(
            f"pruner: {found.pruner.name} looks at one training; with several seeds a trial, set "
            "pruner=wilcoxon."
        )
    if found.sampler.name == "cmaes":
        if two:
            raise ConfigError("sampler: cmaes has one objective; set sampler=tpe.")
        if any(d.kind == "choice" or d.when for d in found.space):
            raise ConfigError(
                "sampler: cmaes takes numbers without conditions; set sampler=tpe, or leave "
                "choices and `when` out of the space."
            )
    if found.sampler.name == "grid":
        for d in found.space:
            if d.kind != "choice" and d.points is None:
                raise ConfigError(f"{path}: space.{d.name} needs `points` for a grid.")
    elif found.budget == MethodBudget():
        raise ConfigError(f"{path}: budget is missing, as in budget: {{trials: 16}}.")
    for d in found.space:
        for method in d.instead:
            if method not in found.methods and method not in _parse_methods(
                read_mapping(path).get("methods", {}), path
            ):
                raise ConfigError(
                    f"{path}: space.{d.name}.instead: '{method}' is no method."
                    f"{nearest(method, found.methods)}"
                )

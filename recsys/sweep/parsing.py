"""A sweep's definition from its file in `sweeps/` and the words of the command."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import cast, get_args, get_origin, get_type_hints

from recsys.config.compose import RunConfig, make_options, nearest
from recsys.config.flags import parse_value
from recsys.config.options import suggest_key
from recsys.config.shipped import (
    find_file,
    find_folders,
    is_path,
    list_names,
    make_absolute,
)
from recsys.config.yaml_file import Node, as_word
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
)
from recsys.sweep.record import SweepObjective
from recsys.sweep.schema import (
    WITH,
    DimensionOptions,
    Direction,
    SweepOptions,
    TrialOptions,
    read_sweep_file,
)
from recsys.words import drop_words, get_key, split_word


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
    file, base_node = read_sweep_file(path)
    trial, tracking, rest = _split_run_words(base)
    experiment = file.experiment
    if not experiment:
        raise ConfigError(f"{path}: experiment is missing, as in experiment: lora_two_tower.")
    if is_path(experiment):  # as it leads from the sweep's file, where trials may not run
        experiment = str(find_file("experiment", experiment, (), path.parent).absolute())
    methods = all_methods = _parse_methods(file.methods, path)
    if asked.methods is not None:
        methods = _select_methods(methods, asked.methods.split(","), path)
    given = {get_key(word) for word in rest}
    own = drop_words(_parse_words(base_node, path, WITH), given)
    if "experiment" not in given:
        own.insert(0, f"experiment={experiment}")
    budget = file.budget
    if any(value is not None for value in (asked.trials, asked.hours, asked.epochs)):
        budget = MethodBudget(asked.trials, asked.hours, asked.epochs)
    definition = SweepDefinition(
        name=path.stem,
        words=(*own, *rest),
        methods=methods,
        space=_parse_space(file.space, path),
        objectives=_parse_objectives(file.objectives or {VALIDATION: "maximize"}, path),
        sampler=_parse_plugin(asked.sampler or file.sampler, SAMPLERS, path, "sampler"),
        pruner=_parse_plugin(asked.pruner or file.pruner, PRUNERS, path, "pruner"),
        budget=budget,
        seeds=file.seeds if asked.seeds is None else asked.seeds,
        final_seeds=file.final_seeds if asked.final_seeds is None else asked.final_seeds,
        seed=trial.seed,
        output=trial.output,
        tracking=tuple(tracking),
        workers=asked.workers,
        storage=asked.storage,
        prepared=asked.prepared,
        launcher=asked.launcher,
        slurm=dict(asked.slurm),
        some=asked.methods is not None,
        details=asked.details,
    )
    _check_definition(definition, all_methods, path)
    return definition


def _split_options(words: Sequence[str]) -> tuple[SweepOptions, list[str]]:
    """The sweep's own keys, and the words of the run."""
    own, of_run = get_type_hints(SweepOptions), {f.name for f in fields(RunConfig)}
    node: Node = {}
    rest: list[str] = []
    for word in words:
        key, text = split_word(word)
        if key in own:
            # A text is taken as it stands: what YAML says of a URL would tell its password.
            listed = get_origin(own[key]) is dict
            as_text = str in get_args(own[key]) and not listed and text != "null"
            node[key] = text if as_text else parse_value(key, text)
        elif "." in key or key in of_run:
            rest.append(make_absolute(word))
        else:
            hint = suggest_key(key, [*own, *of_run], own)
            raise ConfigError(f"'{key}' is no key of a sweep or a run.{hint}")
    return make_options(SweepOptions, node), rest


def _split_run_words(words: Sequence[str]) -> tuple[TrialOptions, list[str], list[str]]:
    """Seed and output, the words on tracking, which are no part of the question, and the rest."""
    node: Node = {}
    tracking: list[str] = []
    rest: list[str] = []
    for word in words:
        key, text = split_word(word)
        if key == "output":
            node[key] = text
        elif key == "seed":
            node[key] = parse_value(key, text)
        else:
            (tracking if key.startswith("tracking.") else rest).append(word)
    return make_options(TrialOptions, node), tracking, rest


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


def _parse_methods(node: Node, path: Path) -> dict[str, tuple[str, ...]]:
    methods = {
        name: tuple(_parse_words(value, path, f"methods.{name}")) for name, value in node.items()
    }
    for name in methods:
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(
                f"{path}: methods.{name}: names are letters, digits, '-' and '_'; they are folders."
            )
    return methods or {ALONE: ()}


def _select_methods(
    methods: Mapping[str, tuple[str, ...]], asked: Sequence[str], path: Path
) -> dict[str, tuple[str, ...]]:
    for name in asked:
        if name not in methods:
            raise ConfigError(f"methods: {path} has no '{name}'.{nearest(name, methods)}")
    return {name: words for name, words in methods.items() if name in asked}


def _parse_plugin(node: object, known: Mapping[str, str], path: Path, key: str) -> PluginConfig:
    """A name, or a mapping with `name` and options; the options are checked where it is made."""
    content = {"name": node} if isinstance(node, str) else node
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise ConfigError(f"{path}: {key} is a name, or a mapping with one, as in {key}: tpe.")
    name = content["name"]
    if name not in known:
        raise ConfigError(f"{key}: '{name}' is not known.{nearest(name, known)}")
    return PluginConfig(name, {k: v for k, v in content.items() if k != "name"})


def _parse_objectives(node: Mapping[str, str], path: Path) -> tuple[SweepObjective, ...]:
    known = [VALIDATION, *(f"cost.{name}" for name in COSTS)]
    if len(node) > 2:
        raise ConfigError(
            f"{path}: objectives maps one or two names to maximize or minimize, as in "
            "objectives: {validation: maximize}."
        )
    for name, direction in node.items():
        if name not in known:
            raise ConfigError(f"{path}: objectives: '{name}' is none.{nearest(str(name), known)}")
        if direction not in get_args(Direction):
            raise ConfigError(
                f"{path}: objectives.{name} is '{direction}'; set it to maximize or minimize."
            )
    return tuple(
        SweepObjective(name, name, cast(Direction, direction)) for name, direction in node.items()
    )


def _parse_space(node: Node, path: Path) -> tuple[SearchDimension, ...]:
    if not node:
        raise ConfigError(f"{path}: space maps each key to low and high, or to choices.")
    dimensions = {name: _parse_dimension(name, value, path) for name, value in node.items()}
    ordered: dict[str, SearchDimension] = {}
    while len(ordered) < len(dimensions):
        ready = [
            d
            for name, d in dimensions.items()
            if name not in ordered and all(k in ordered for k in d.when if k in dimensions)
        ]
        if not ready:
            left = ", ".join(name for name in dimensions if name not in ordered)
            raise ConfigError(f"{path}: space: the conditions of {left} wait for each other.")
        ordered |= {d.name: d for d in ready}
    return tuple(ordered.values())


def _parse_dimension(name: str, node: object, path: Path) -> SearchDimension:
    where = f"{path}: space.{name}"
    if not isinstance(node, dict):
        raise ConfigError(f"{where} is a mapping with low and high, or with choices.")
    options = make_options(DimensionOptions, {**node}, f"{where}.")
    when = {
        key: tuple(value) if isinstance(value, list) else (value,)
        for key, value in options.when.items()
    }
    if "choices" in node:
        choices = options.choices
        if not choices or set(node) & {"low", "high", "log"}:
            raise ConfigError(f"{where}: choices is a list of values, without low, high and log.")
        if any(isinstance(value, list | dict) for value in choices):
            raise ConfigError(f"{where}: each of the choices is a number, a text, true or null.")
        return SearchDimension(
            name, "choice", choices=tuple(choices), when=when, instead=options.instead
        )
    low, high, log = options.low, options.high, options.log
    if low is None or high is None:
        missing = "low" if low is None else "high"
        raise ConfigError(f"{where}.{missing} is missing; set it to a number, or give choices.")
    if (log and not low > 0) or not low < high:
        raise ConfigError(f"{where}: low is below high, and above 0 where log is true.")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = options.type or ("int" if whole else "float")
    if kind == "int" and not whole:
        raise ConfigError(f"{where}.type is float, or int with low and high that are whole.")
    return SearchDimension(
        name, kind, log, low, high, options.points, when=when, instead=options.instead
    )


def _check_definition(found: SweepDefinition, methods: Collection[str], path: Path) -> None:
    """What parts of a definition ask of each other.

    Args:
        found: The definition.
        methods: All of the file's, whichever the command asks for.
        path: Of the file.
    """
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
            if method not in methods:
                raise ConfigError(
                    f"{path}: space.{d.name}.instead: '{method}' is no method."
                    f"{nearest(method, methods)}"
                )

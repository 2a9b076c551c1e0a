"""`compose`: command-line arguments in, the dataclasses of the schema out.

Precedence: dataclass defaults < `experiments/NAME.yaml` (each with at most one `extends:`) <
command line. Only OmegaConf and the standard library are imported here, so that a typo is refused
before torch is loaded; a key inside an axis node imports that axis' one module.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recsys.config.choices import (
    AXES,
    PRETRAINING,
    RUN,
    Root,
    check_choice,
    get_choice_name,
    import_choice,
    list_choices,
    list_experiments,
)
from recsys.config.flags import ReplacingNode, parse_words
from recsys.config.options import suggest_key
from recsys.config.pretraining import PretrainConfig
from recsys.config.ranges import (
    check_betas,
    check_cutoffs,
    check_ranges,
    describe_non_text,
    describe_wrong_type,
    normalize_value,
)
from recsys.config.schema import RunConfig, SourceConfig, option
from recsys.config.shipped import find_file, is_path
from recsys.config.yaml_file import (
    Node,
    format_yaml,
    merge_nodes,
    read_mapping,
    shield,
    unshield,
)
from recsys.errors import ConfigError, nearest
from recsys.runtime.files import PRETRAINING as PRETRAINING_FILE

__all__ = [
    "AXES",
    "Node",
    "RunConfig",
    "complete_node",
    "compose",
    "compose_pretraining",
    "format_config",
    "get_choice_name",
    "list_choices",
    "list_experiments",
    "make_node",
    "nearest",
    "option",
    "read_config",
    "read_pretraining",
]

T = TypeVar("T")

LATER = ("start_from",)
"""Keys outside of all groups that came later: a run of a version before has their defaults."""


def compose(argv: Sequence[str], folder: Path | None = None) -> RunConfig:
    """Makes a run from defaults, an experiment and command-line arguments.

    Args:
        argv: `key=value` words, such as `optimizer.lr=3e-4` or `tuning=full`.
        folder: Where experiments lie; None for the working folder's and those that are shipped.

    Returns:
        The run, its axis nodes replaced by the `Config` instances of their modules.

    Raises:
        ConfigError: A key, choice, value or combination is wrong; the sentence names it.
    """
    return _make_run(_read_layers(argv, RUN.find_folders() if folder is None else [folder]))


def compose_pretraining(argv: Sequence[str]) -> PretrainConfig:
    """As `compose`, of a pretraining, whose experiments lie in `experiments/pretraining/`."""
    return _make_pretraining(_read_layers(argv, PRETRAINING.find_folders(), PRETRAINING.axes))


def _read_layers(
    argv: Sequence[str], places: Sequence[Path], axes: Collection[str] = RUN.axes
) -> list[Node]:
    """The layers of an experiment, if one is named, and the command line above them."""
    command_line = parse_words(argv, axes)
    name = command_line.get("experiment")
    if name in (None, ""):
        return [command_line]
    below = _read_experiment(str(name), places, Path())
    if is_path(str(name)):  # a run is called by its name, in folders and tables
        command_line["experiment"] = Path(str(name)).stem
    return [*below, command_line]


def read_pretraining(path: Path, words: Sequence[str] = ()) -> PretrainConfig:
    """As `read_config`, of a pretraining."""
    return _make_pretraining(_read_stored(path, words, PRETRAINING))


def read_config(path: Path, words: Sequence[str] = ()) -> RunConfig:
    """The run whose resolved configuration lies in a file that `format_config` wrote.

    Args:
        path: The file.
        words: `key=value` words that amend it.

    Raises:
        ConfigError: The file is missing, or no configuration of this version.
    """
    return _make_run(_read_stored(path, words, RUN))


def _read_stored(path: Path, words: Sequence[str], root: Root) -> list[Node]:
    """A stored configuration as a layer, and the words that amend it."""
    if root is RUN and not path.is_file() and path.with_name(PRETRAINING_FILE).is_file():
        raise ConfigError(
            f"{path.parent} is a pretraining, which ranks nothing; give it to a run as "
            f"encoder.model={path.parent}, or go on with it by python -m recsys.pretrain "
            f"resume={path.parent}."
        )
    if not path.is_file():
        raise ConfigError(f"{path} is missing; name the folder of a run.")
    layer = read_mapping(path)
    # An axis that does not apply is left out; of a cut file, defaults would fill up the rest.
    names = [f.name for f in fields(root.schema)]
    optional = ("tuning", "objective", *LATER)
    missing = [name for name in names if name not in (*layer, *optional)]
    if missing:
        raise ConfigError(
            f"{path} is damaged or of another version: it lacks {', '.join(missing)}; start a new "
            "run."
        )
    return [layer, parse_words(words, root.axes)]


def compose_data(argv: Sequence[str]) -> RunConfig:
    """As `compose`, but of the axes only the source is read, so that torch is not loaded."""
    nodes: dict[str, Node] = {}
    rest = _take_axes(parse_words(argv, RUN.axes), nodes)
    _check(rest, RunConfig, "")
    run = cast(RunConfig, _convert_types(RunConfig, rest, ""))
    default = cast(Node, run.data.source)  # still the node that the schema names
    run.data.source = cast(
        SourceConfig, _make_choice("data.source", nodes.get("data.source", default))
    )
    check_ranges(run, "")
    run.data.source.apply_data_options(run.data)
    return run


def _make_root(layers: Sequence[Node], root: Root) -> tuple[Any, dict[str, Node]]:
    """Merges layers, the last one winning, and types the result; also what layers said of axes."""
    nodes: dict[str, Node] = {}
    shared: Node = {}
    suggest = partial(suggest_key, root=root)
    for layer in layers:
        rest = _take_axes(layer, nodes, root.axes)
        _refuse_keys_of_another(rest, root)
        _check(rest, root.schema, "", suggest)
        shared = merge_nodes(shared, rest)
    made: Any = _convert_types(root.schema, shared, "")
    for axis in root.axes:
        group, _, leaf = axis.rpartition(".")
        holder = getattr(made, group) if group else made
        default: Node = getattr(holder, leaf)  # still the node that the schema names
        node = nodes.get(axis, {})
        config = _make_choice(axis, {**(default if "name" not in node else {}), **node}, suggest)
        setattr(holder, leaf, config)
    check_ranges(made, "")
    check_betas(made.optimizer.betas)
    made.data.source.apply_data_options(made.data)
    return made, nodes


def _refuse_keys_of_another(node: Node, root: Root) -> None:
    """Says of a key that this root lacks which command has it."""
    other, command = (PRETRAINING, "pretrain") if root is RUN else (RUN, "fit")
    own, others = ({f.name for f in fields(each.schema)} for each in (root, other))
    odd = next((key for key in node if key in others - own), None)
    if odd is not None:
        raise ConfigError(
            f"{odd} is a key of python -m recsys.{command}, and not of this command; leave it out."
        )


def _make_pretraining(layers: Sequence[Node]) -> PretrainConfig:
    """A pretraining of its layers."""
    made: PretrainConfig = _make_root(layers, PRETRAINING)[0]
    return made


def _make_run(layers: Sequence[Node]) -> RunConfig:
    """A run of its layers."""
    run, nodes = cast(tuple[RunConfig, dict[str, Node]], _make_root(layers, RUN))
    check_cutoffs(run.evaluation.k)
    options = run.evaluation
    if options.repeated == "default":
        options.repeated = run.data.source.repeated
    if not options.metric.startswith(options.label):
        options.monitor = options.monitor.removesuffix(options.metric) + (
            f"{options.label}{options.metric}"
        )
    if not run.architecture.trains:
        _drop_training_axes(run, nodes)
    return run


def _drop_training_axes(run: RunConfig, nodes: Mapping[str, Node]) -> None:
    """An architecture that does not train has no tuning and no objective."""
    for axis in ("tuning", "objective"):
        if axis in nodes:
            raise ConfigError(
                f"architecture {get_choice_name(run.architecture)} does not train; leave out "
                f"{axis}."
            )
        setattr(run, axis, None)


def _read_experiment(
    name: str, places: Sequence[Path], beside: Path, seen: tuple[Path, ...] = ()
) -> list[Node]:
    """The layers of an experiment, its base first.

    Args:
        name: Its name or path.
        places: Where names are looked up.
        beside: The folder from which a path leads: of the file that extends this one.
        seen: The files that extend it.
    """
    path = find_file("experiment", name, places, beside, [each.resolve() for each in seen])
    if path.resolve() in [each.resolve() for each in seen]:
        circle = " -> ".join(each.stem for each in (*seen, path))
        raise ConfigError(f"experiments extend each other in a circle: {circle}.")
    layer = read_mapping(path)
    base = layer.pop("extends", None)
    if "experiment" in layer:
        raise ConfigError(f"{path}: 'experiment' is a command-line key; use 'extends: NAME'.")
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"{path}: 'extends' takes one experiment's name, not {base!r}.")
    if not base:
        return [layer]
    nearby = [path.parent, *(each for each in places if each.resolve() != path.parent.resolve())]
    return [*_read_experiment(base, nearby, path.parent, (*seen, path)), layer]


def _take_axes(layer: Node, nodes: dict[str, Node], axes: Collection[str] = RUN.axes) -> Node:
    """Moves a layer's axis nodes into `nodes`.

    A name alone or another name replaces; a mapping or a dotted key amends.
    """
    rest = {k: copy(v) for k, v in layer.items()}
    for axis in axes:
        group, _, leaf = axis.rpartition(".")
        holder = rest.get(group, {}) if group else rest
        if not isinstance(holder, dict) or leaf not in holder:
            continue
        value = holder.pop(leaf)
        node = dict(value) if isinstance(value, dict) else {"name": value}
        alone = isinstance(value, ReplacingNode) or not isinstance(value, dict)
        if "name" in node:
            check_choice(axis, node["name"])
        before = nodes.get(axis, {})
        same = "name" not in node or node["name"] == before.get("name")
        nodes[axis] = merge_nodes(before, node) if same and not alone else node
    return rest


def _make_choice(
    axis: str, node: Node, suggest: Callable[[str, Iterable[str]], str] = suggest_key
) -> object:
    """Imports the module that a node names and makes its `Config`."""
    name = node["name"]
    config = import_choice(axis, name)
    rest = {k: v for k, v in node.items() if k != "name"}
    if rest and not fields(config):
        first = f"{axis}.{next(iter(rest))}"
        raise ConfigError(
            f"{first} is not a known key: {axis}={name} has no settings; leave it out."
        )
    _check(rest, config, f"{axis}.", suggest)
    return _convert_types(config, rest, f"{axis}.")


def make_options(schema: type[T], node: Node, prefix: str = "") -> T:
    """An instance of a dataclass of options that are no part of a run, checked as those of a run.

    Args:
        schema: The dataclass.
        node: Values by key, as `read_mapping` or `parse_value` has them.
        prefix: What stands before each key in a message.

    Raises:
        ConfigError: A key is unknown, or a value is of a wrong type or out of its range.
    """
    _check(node, schema, prefix, _suggest_beside)
    options = cast(T, _convert_types(schema, node, prefix))
    check_ranges(options, prefix)
    return options


def _suggest_beside(key: str, known: Iterable[str]) -> str:
    """As `suggest_key`, of the keys of a group alone."""
    return nearest(key.rpartition(".")[2], known)


def _check(
    node: Node,
    schema: type,
    prefix: str,
    suggest: Callable[[str, Iterable[str]], str] = suggest_key,
) -> None:
    """Refuses unknown keys, and a scalar where a group is; puts right how a value is spelled."""
    hints = typing.get_type_hints(schema)
    known = {f.name: f for f in fields(schema)}
    for key, value in node.items():
        if key not in known:
            hint = suggest(f"{prefix}{key}", known)
            raise ConfigError(f"{prefix}{key} is not a known key.{hint}")
        inner = hints[key]
        if is_dataclass(inner):
            if not isinstance(value, dict):
                names = [f.name for f in fields(inner)]
                raise ConfigError(
                    f"{prefix}{key} is a group, not a value; set one of its keys: "
                    f"{', '.join(names)}."
                )
            _check(cast(Node, value), cast(type, inner), f"{prefix}{key}.", suggest)
        else:
            node[key] = normalize_value(value, known[key], inner, f"{prefix}{key}")


def _convert_types(schema: type, values: Node, prefix: str) -> object:
    """An instance of a dataclass, every value converted to its declared type."""
    try:
        own = {f.name: f.default for f in fields(schema) if f.default != shield(f.default)}
        base = schema(**shield(own)) if own else schema
        typed = OmegaConf.merge(OmegaConf.structured(base), shield(values))
        return unshield(OmegaConf.to_object(typed))
    except OmegaConfBaseException as error:
        key = f"{prefix}{error.full_key}" if error.full_key else prefix.rstrip(".")
        reason = unshield(str(error.msg if hasattr(error, "msg") else error).splitlines()[0])
        raise ConfigError(
            describe_wrong_type(key, reason)
            or f"{key}: {describe_non_text(key, reason) or reason}."
        ) from None


def make_node(run: RunConfig | PretrainConfig) -> Node:
    """A run as plain values, axis nodes with their names, so that it composes again."""
    out: Node = dataclasses.asdict(run)
    for axis in (PRETRAINING if isinstance(run, PretrainConfig) else RUN).axes:
        group, _, leaf = axis.rpartition(".")
        holder, node = (getattr(run, group), out[group]) if group else (run, out)
        config = getattr(holder, leaf)
        if config is None:
            del node[leaf]
        else:
            node[leaf] = {"name": get_choice_name(config), **node[leaf]}
    return out


def complete_node(node: Node) -> Node:
    """A run or a pretraining as `make_node` of this version gives it, of one of a version before.

    Raises:
        ConfigError: It is no configuration of this version.
    """
    read = _make_pretraining if "pretraining" in node else _make_run
    return make_node(read([deepcopy(node)]))


def format_config(run: RunConfig | PretrainConfig) -> str:
    """The resolved configuration as YAML."""
    return format_yaml(make_node(run))

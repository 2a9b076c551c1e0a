"""Which runs are one method, and what it is called."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.compare.finished_runs import FinishedRun
from recsys.compare.keys import FITTING, HELD, NEUTRAL, READING, TRAINING, is_within
from recsys.compare.short_names import (
    list_aliases,
    make_name,
    make_short_config_name,
    make_short_name,
)
from recsys.config.compose import Node, nearest
from recsys.config.yaml_file import flatten_keys
from recsys.errors import ConfigError

MEMBERS = "architecture.members"
"""The key by which an ensemble names the runs that it combines."""
VECTORS = "architecture.vectors"
"""The key that says whose item vectors are read: a choice as those on the axes are, with an encoder
and its options behind it."""


@dataclass(frozen=True)
class Method:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: What the outputs call it.
        runs: By seed, at least one.
    """

    label: str
    runs: tuple[FinishedRun, ...]

    @property
    def trains(self) -> bool:
        """Whether another seed could give another result."""
        return any(run.varies for run in self.runs)

    @property
    def seeds(self) -> list[int]:
        """Of its runs."""
        return [run.seed for run in self.runs]


def make_identity(run: FinishedRun) -> Node:
    """What makes a run's method: its dotted keys without seed and whatever changes no result.

    An encoder is what its checksum says, wherever it lies, and what was followed of its folder. A
    run that this one builds on is what makes that one's method: where it lies does not matter, nor
    does its seed.
    """
    encoder = run.result.get("encoder", {})
    return _identify(run.config, encoder, run.built_on, "fit" in run.result)


def _identify(config: Node, encoder: Node, built_on: Sequence[Node], fitted: bool) -> Node:
    """As `make_identity`, of what a result says of a run.

    Args:
        config: Its configuration.
        encoder: What its result says of the encoder.
        built_on: What it says of the runs that it builds on.
        fitted: Whether validation cases decided something at once.
    """
    checksum = encoder.get("sha256")
    used = (*(FITTING if fitted else ()), *(READING if checksum else ()))
    idle = () if "tuning" in config else tuple(key for key in TRAINING if key not in used)
    out = {
        key: value
        for key, value in flatten_keys(config).items()
        if not is_within(key, (*NEUTRAL, *HELD, *idle))
    }
    if checksum:
        followed = encoder.get("follows")
        told = "" if followed is None else f" {json.dumps(followed, sort_keys=True)}"
        out["encoder.model"] = f"sha256:{checksum}{told}"
        out = {k: v for k, v in out.items() if k not in ("encoder.revision", "encoder.sha256")}
    runs, pretrained = _part_sources(built_on)
    if runs and all("config" in row for row in runs):
        out[_find_source_key(out)] = _identify_sources(runs)
    if pretrained:  # whatever its seed has made of its weights
        out["encoder.model"] = json.dumps(_identify_sources(pretrained), sort_keys=True)
    return out


def _identify_sources(rows: Sequence[Node]) -> list[Node]:
    """As `_identify`, of what a result says of the runs that it builds on."""
    return [
        {
            **_identify(row["config"], row["encoder"], row["built_on"], row["fitted"]),
            **({"compression": row["compression"]} if "compression" in row else {}),
        }
        for row in rows
    ]


def _part_sources(built_on: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """The runs that a run builds on, and whence its encoder is: a pretraining, or a larger run."""
    pretrained = [
        row for row in built_on if "pretraining" in row.get("config", {}) or "compression" in row
    ]
    return [row for row in built_on if row not in pretrained], pretrained


def _find_source_key(node: Node) -> str:
    """The key by which a run names those that it builds on."""
    return MEMBERS if MEMBERS in node else VECTORS


def _name_sources(run: FinishedRun) -> dict[str, str]:
    """The runs that a run builds on as a word of a label, by the key that names them."""
    rows, _ = _part_sources(run.built_on)
    if not rows or any("config" not in row for row in rows):
        return {}
    often = Counter(make_short_config_name(row["config"]) for row in rows)
    names = [name if count == 1 else f"{count}*{name}" for name, count in often.items()]
    return {_find_source_key(flatten_keys(run.config)): "+".join(names)}


def group_runs(
    runs: Sequence[FinishedRun], names: Mapping[Path, str] | None = None
) -> list[Method]:
    """Groups runs into methods, in the order in which each is first named.

    Args:
        runs: Those to compare.
        names: The user's names, by resolved folder of a run; a name holds for all runs of the
            method. What has none is called by what it is.

    Raises:
        ConfigError: Two runs are the same method with the same seed, a method has two names, or
            two methods have the same.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        key = json.dumps(make_identity(run), sort_keys=True, default=str)
        for other in groups.setdefault(key, []):
            if other.seed == run.seed:
                raise ConfigError(
                    f"{other.folder} and {run.folder} are the same method with the same seed "
                    f"({run.seed}); compare only one of them."
                )
        groups[key].append(run)
    members = list(groups.values())
    automatic = _make_labels([group[0] for group in members])
    given = [_find_given_name(group, names or {}) for group in members]
    labels = [name or label for name, label in zip(given, automatic, strict=True)]
    _check_unique_labels(labels, [group[0] for group in members])
    return [
        Method(label, tuple(sorted(group, key=lambda run: run.seed)))
        for label, group in zip(labels, members, strict=True)
    ]


def _find_given_name(group: Sequence[FinishedRun], names: Mapping[Path, str]) -> str | None:
    """The user's name of a method, or None."""
    folders = {names.get(run.folder.resolve()): run.folder for run in group}
    folders.pop(None, None)
    if len(folders) > 1:
        (name, a), (other, b) = list(folders.items())[:2]
        raise ConfigError(
            f"names: {a} is '{name}' and {b} is '{other}', and they are one method with different "
            "seeds; give both one name."
        )
    return next(iter(folders), None)


def _check_unique_labels(labels: Sequence[str], firsts: Sequence[FinishedRun]) -> None:
    """Refuses two methods of one label: the tables could not tell them apart."""
    known: dict[str, FinishedRun] = {}
    for label, run in zip(labels, firsts, strict=True):
        other = known.setdefault(label, run)
        if other is not run:
            keys = _list_differing([make_identity(other), make_identity(run)])
            raise ConfigError(
                f"{other.folder} and {run.folder} differ in "
                f"{', '.join(_select_axes(keys) or keys)}, and "
                f"both are called '{label}'; give each a name of its own with names=FILE."
            )


def _make_labels(firsts: Sequence[FinishedRun]) -> list[str]:
    """The experiment's name, or tuning and architecture, and where needed what differs."""
    same: dict[str, list[int]] = {}
    for at, run in enumerate(firsts):
        same.setdefault(make_name(run), []).append(at)
    labels = [""] * len(firsts)
    for name, places in same.items():
        words = _list_label_words([firsts[at] for at in places])
        for at, own in zip(places, words, strict=True):
            labels[at] = " ".join([name, *own])
    return labels


def _list_differing(nodes: Sequence[Node]) -> list[str]:
    """Keys in which nodes differ."""
    keys = dict.fromkeys(key for node in nodes for key in node)
    return [k for k in keys if any(node.get(k) != nodes[0].get(k) for node in nodes[1:])]


def _select_axes(keys: Sequence[str]) -> list[str]:
    """Those of some dotted keys that name a choice on an axis."""
    return [key for key in keys if key.endswith(".name")]


def _list_label_words(runs: Sequence[FinishedRun]) -> list[list[str]]:
    """What tells methods of one name apart: `key=value` words of each.

    First their choices on the axes, and of whose item vectors they read, then what differs between
    methods of the same choices. A key that differs only together with a choice, as a learning rate
    of each tuning method, is not told, and neither is one that a choice leaves empty, as
    `optimizer.encoder_lr` of LoRA.
    """
    nodes = [make_identity(run) for run in runs]
    sources = [_name_sources(run) for run in runs]
    # What chose nothing has no metric to choose by, which tells nobody apart.
    fitted = _list_differing([node for node in nodes if any(key in node for key in FITTING)])
    unlike = [k for k in _list_differing(nodes) if k not in FITTING or k in fitted]
    axes = [key for key in unlike if key in _select_axes(unlike) or key == VECTORS]
    # Vectors of two runs of one name are no two choices: what else differs tells them apart.
    chosen = [
        tuple(own.get(key, node.get(key)) for key in axes)
        for own, node in zip(sources, nodes, strict=True)
    ]
    within = {
        choice: [
            key
            for key in _list_differing(
                [n for n, c in zip(nodes, chosen, strict=True) if c == choice]
            )
            if key in unlike
        ]
        for choice in chosen
    }
    told = {key for keys in within.values() for key in keys}
    models = _list_model_names(runs, nodes) if "encoder.model" in told else [""] * len(runs)
    out = []
    for run, node, own, choice, model in zip(runs, nodes, sources, chosen, models, strict=True):
        values = flatten_keys(run.config) | {"encoder.model": model} | own
        out.append(
            [
                f"{_format_key(key)}={_format_value(values.get(key))}"
                for key in unlike
                if key in axes
                or key in within[choice]
                or (key in told and node.get(key) is not None)
            ]
        )
    return out


def _list_model_names(runs: Sequence[FinishedRun], nodes: Sequence[Node]) -> list[str]:
    """The encoder's name in each label: the last part of it, or all where that is not enough."""
    whole = [str(run.config["encoder"]["model"]) for run in runs]
    short = [
        name.removeprefix("package:").removesuffix("/model").rpartition("/")[2] for name in whole
    ]
    kinds = {(name, node.get("encoder.model")) for name, node in zip(short, nodes, strict=True)}
    return short if len(kinds) == len(set(short)) else whole


def _format_key(key: str) -> str:
    """A key in a label; that of members needs no group to be known."""
    return "members" if key == MEMBERS else key.removesuffix(".name")


def _format_value(value: object) -> str:
    """A value in a label."""
    return "null" if value is None else str(value).replace(" ", "")


def choose_method(name: str, found: Sequence[Method]) -> Method:
    """The method that a name means.

    That is its label, the folder of one of its runs or of its seeds, what the terminal's table
    calls it, or what only it is called by: its experiment, its tuning.

    Raises:
        ConfigError: There is none, or there are several.
    """
    folder = Path(name).resolve()
    for method in found:
        if name == method.label or any(
            name == run.folder.name or folder == run.folder.resolve() for run in method.runs
        ):
            return method
    inside = [method for method in found if any(_is_in_folder(run, name) for run in method.runs)]
    if len(inside) == 1:
        return inside[0]
    labels = [method.label for method in inside or found]
    if inside:
        raise ConfigError(f"baseline: {name} holds several methods: {'; '.join(labels)}; name one.")
    called = [method for method in found if name in list_aliases(method.runs)]
    # What the table calls one comes first: zero_shot leaves its encoder frozen too.
    shown = make_short_names(found)
    called = [method for method in called if shown[method.label] == name] or called
    if len(called) == 1:
        return called[0]
    if called:
        several = "; ".join(method.label for method in called)
        raise ConfigError(f"baseline: '{name}' may be several methods: {several}; name one.")
    # A tuning is a name too, but listed it would seem to be a method that nobody gave.
    often = Counter(alias for method in found for alias in list_aliases(method.runs))
    brief = [make_short_name(method.runs[0]) for method in found]
    known = dict.fromkeys([*labels, *(each for each in brief if often[each] == 1)])
    raise ConfigError(f"baseline: '{name}' is none of the methods.{nearest(name, known)}")


def _is_in_folder(run: FinishedRun, name: str) -> bool:
    """Whether a name is that of the folder in which a run's folder lies."""
    parent = run.folder.resolve().parent
    return name == parent.name or Path(name).resolve() == parent


def make_short_names(found: Sequence[Method]) -> dict[str, str]:
    """The short name of each method by its label; no two are alike.

    Args:
        found: All methods; a name that the user gave stays.
    """
    brief: dict[str, str] = {}
    for method in found:
        name = make_name(method.runs[0])
        automatic = method.label == name or method.label.startswith(f"{name} ")
        brief[method.label] = make_short_name(method.runs[0]) if automatic else method.label
    often = Counter(brief.values())
    for method in found:
        if often[brief[method.label]] > 1:  # then with the words that tell them apart
            words = method.label.removeprefix(make_name(method.runs[0]))
            brief[method.label] += words if words != method.label else ""
    often = Counter(brief.values())
    return {label: name if often[name] == 1 else label for label, name in brief.items()}

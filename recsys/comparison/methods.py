"""Which runs are one method, and what it is called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from recsys.comparison.runs import Node, PastRun, flat
from recsys.config import nearest
from recsys.errors import ConfigError

NEUTRAL = (
    "seed",
    "output",
    "experiment",
    "profile",
    "tracking",
    "checkpoint",
    "trainer.threads",
    "trainer.devices",
    "trainer.accelerator",
    "trainer.deterministic",
    "trainer.log_every",
    "encoder.cache",
    "encoder.cache_gb",
    "encoder.cache_place",
    "encoder.chunk_tokens",
    "encoder.checkpoint_chunks",
    "evaluation.k",
    "evaluation.slices",
    "evaluation.beyond",
    "evaluation.category",
    "evaluation.batch_size",
)
"""Keys and groups that change no weight and no rank."""

HELD = (
    "data.source",
    "data.split",
    "data.val_fraction",
    "data.test_fraction",
    "data.positive_from",
    "data.max_users",
    "data.sample_seed",
    "data.max_items",
    "evaluation.protocol",
    "evaluation.candidates",
    "evaluation.sampled_negatives",
    "evaluation.sampled_by",
    "evaluation.max_cases",
    "evaluation.mask_history",
)
"""Keys whose effect `comparable.refuse_unlike` compares in the results themselves, by checksum."""

TRAINING = (
    "encoder",
    "optimizer",
    "regularization",
    "trainer",
    "data.queries",
    "data.queries_per_user",
    "data.targets",
    "data.max_tokens",
    "data.train_users",
    "evaluation.monitor",
)
"""Keys that do nothing where the architecture does not train."""


@dataclass(frozen=True)
class Method:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: What the outputs call it.
        runs: By seed, at least one.
    """

    label: str
    runs: tuple[PastRun, ...]

    @property
    def trains(self) -> bool:
        """Whether another seed could give another result."""
        return self.runs[0].trains

    @property
    def seeds(self) -> list[int]:
        """Of its runs."""
        return [run.seed for run in self.runs]


def identity(run: PastRun) -> Node:
    """What makes a run's method: its dotted keys without seed and whatever changes no result.

    An encoder is what its checksum says, wherever it lies.
    """
    left_out = (*NEUTRAL, *HELD, *(() if run.trains else TRAINING))
    out = {
        key: value
        for key, value in flat(run.config).items()
        if not any(key == name or key.startswith(f"{name}.") for name in left_out)
    }
    checksum = run.result.get("encoder", {}).get("sha256")
    if run.trains and checksum:
        out["encoder.model"] = f"sha256:{checksum}"
        out = {k: v for k, v in out.items() if k not in ("encoder.revision", "encoder.sha256")}
    return out


def methods(runs: Sequence[PastRun]) -> list[Method]:
    """Groups runs into methods, in the order in which each is first named.

    Raises:
        ConfigError: Two runs are the same method with the same seed.
    """
    groups: dict[str, list[PastRun]] = {}
    for run in runs:
        key = json.dumps(identity(run), sort_keys=True, default=str)
        for other in groups.setdefault(key, []):
            if other.seed == run.seed:
                raise ConfigError(
                    f"{other.folder} and {run.folder} are the same method with the same seed "
                    f"({run.seed}); name one of them."
                )
        groups[key].append(run)
    members = list(groups.values())
    labels = _labels([group[0] for group in members])
    return [
        Method(label, tuple(sorted(group, key=lambda run: run.seed)))
        for label, group in zip(labels, members, strict=True)
    ]


def _labels(firsts: Sequence[PastRun]) -> list[str]:
    """The experiment's name, or tuning and architecture, and where needed what differs."""
    names = [_name(run) for run in firsts]
    labels = []
    for name, run in zip(names, firsts, strict=True):
        same = [other for other, n in zip(firsts, names, strict=True) if n == name]
        keys = _differing([identity(other) for other in same])
        words = [f"{key}={_shown(run, key)}" for key in keys]
        labels.append(" ".join([name, *words]))
    return labels


def _name(run: PastRun) -> str:
    if run.config["experiment"] is not None:
        return str(run.config["experiment"])
    axes = [run.config[axis]["name"] for axis in ("tuning", "architecture") if axis in run.config]
    return " ".join(axes)


def _differing(nodes: Sequence[Node]) -> list[str]:
    """Keys in which nodes differ; where a choice differs, its own options are not listed."""
    keys = list(dict.fromkeys(key for node in nodes for key in node))
    unlike = [k for k in keys if any(node.get(k) != nodes[0].get(k) for node in nodes[1:])]
    axes = {key.removesuffix("name") for key in unlike if key.endswith(".name")}
    return [
        k.removesuffix(".name")
        for k in unlike
        if k.endswith(".name") or not any(k.startswith(axis) for axis in axes)
    ]


def _shown(run: PastRun, key: str) -> str:
    """The value of a key in a label; of an axis, the choice's name."""
    values = flat(run.config)
    if key == "encoder.model" and values.get(key) is not None:
        return str(values[key]).removeprefix("package:").removesuffix("/model").rpartition("/")[2]
    value = values.get(key, values.get(f"{key}.name"))
    return "null" if value is None else str(value).replace(" ", "")


def choose(name: str, found: Sequence[Method]) -> Method:
    """The method that a name means: its label, or the folder of one of its runs.

    Raises:
        ConfigError: There is none.
    """
    for method in found:
        if name == method.label or any(
            name in (str(run.folder), run.folder.name) for run in method.runs
        ):
            return method
    raise ConfigError(
        f"baseline: '{name}' is none of the methods."
        f"{nearest(name, [method.label for method in found])}"
    )

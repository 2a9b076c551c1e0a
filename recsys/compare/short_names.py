"""Short names of methods, as a sweep calls them: frozen, lora, causal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recsys.compare.finished_runs import FinishedRun
from recsys.config.compose import Node, list_choices

TAG = "method="
"""How the tag of a sweep's run begins that says its method."""


def make_name(run: FinishedRun) -> str:
    """The experiment's name, or tuning and architecture."""
    return make_config_name(run.config)


def make_config_name(config: Node) -> str:
    """As `make_name`, of a configuration as plain values."""
    if config["experiment"] is not None:
        return str(config["experiment"])
    axes = [config[axis]["name"] for axis in ("tuning", "architecture") if axis in config]
    return " ".join(axes)


def make_short_name(run: FinishedRun) -> str:
    """What a run's method is called in few letters.

    The name that its sweep gave it; else that of its experiment without the architecture, where
    the experiment is named by both; else its tuning. An experiment that is named by a tuning
    which the command has replaced is called by the one that it had.
    """
    return make_short_config_name(run.config)


def make_short_config_name(config: Node) -> str:
    """As `make_short_name`, of a configuration as plain values."""
    for tag in config["tracking"]["tags"]:
        if tag.startswith(TAG) and len(tag) > len(TAG):
            return str(tag.removeprefix(TAG))
    architecture = str(config["architecture"]["name"])
    tuning = str(config["tuning"]["name"]) if "tuning" in config else ""
    experiment = config["experiment"]
    if experiment is None:
        return tuning or architecture
    stem, cut, rest = str(experiment).partition(f"_{architecture}")
    if not cut or rest:
        return str(experiment)
    return tuning if tuning and stem in list_choices("tuning") else stem


def shorten_label(label: str, names: Mapping[str, str]) -> str:
    """What a row is called: a method by its short name, a floor of some method by that one's.

    Args:
        label: Of the row.
        names: What `make_short_names` gave; empty where labels are to stay.
    """
    if label in names:
        return names[label]
    for name in sorted(names, key=len, reverse=True):
        before, of, rest = label.partition(f" of {name}")
        if of and (not rest or rest.startswith(" and ")):
            return f"{before} of {names[name]}{rest}"
    return label


def list_aliases(runs: Sequence[FinishedRun]) -> set[str]:
    """What else a method may be called: as by a sweep, by its experiment, or by its tuning."""
    out: set[str] = set()
    for run in runs:
        axis = "tuning" if run.trains else "architecture"
        out |= {
            make_short_name(run),
            str(run.config["experiment"] or ""),
            str(run.config[axis]["name"]),
        }
    return out - {""}

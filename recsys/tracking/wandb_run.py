"""Opening a run at Weights & Biases: the same options wherever that is done.

Lightning is not imported here, so that a process that only closes a run begins quickly.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.config.choices import PACKAGES
from recsys.runtime.files import TRACKING_FAILURE
from recsys.tracking.wandb_files import list_attempts

if TYPE_CHECKING:
    import wandb

OPEN_SLICES = ("item", "user", "history", "popularity", "target")
"""Slices by numbers of ours: the others would send what stands in a column of the user's."""

COUNTED = "undefined/"
"""How names begin, after the part, of the counts of cases that leave a metric undefined."""


"""File of a run's folder that says why its end did not reach Weights & Biases."""


@dataclass(frozen=True)
class WandbRunInfo:
    """Where a run stands among others.

    Attributes:
        project: At Weights & Biases.
        group: Of runs that belong together.
        tags: Words to filter by.
        name: What it is called.
        kind: The job type: `fit`, `trial`, `closing` or `sweep-summary`.
    """

    project: str
    group: str
    tags: tuple[str, ...]
    name: str
    kind: str

    @staticmethod
    def from_config(config: Mapping[str, Any], folder: Path) -> WandbRunInfo:
        """The place of a run, from its resolved configuration and its folder."""
        tracking, names = config["tracking"], dict[str, str]()
        for axis in PACKAGES:
            node: Any = config
            for part in axis.split("."):
                node = node.get(part, {})
            if "name" in node:  # a baseline has no tuning and no objective
                names[axis] = str(node["name"])
        main = names.get("architecture", names.get("pretraining"))
        tags = [f"{axis}={name}" for axis, name in names.items()]
        return WandbRunInfo(
            project=tracking["project"],
            group=str(tracking["group"] or config["experiment"] or main),
            tags=tuple(dict.fromkeys([*tags, *tracking["tags"]])),
            name=tracking.get("name") or folder.name,  # a run of before 0.2 has neither
            kind=tracking.get("kind", "fit"),
        )


@contextmanager
def _hide_arguments() -> Iterator[None]:
    """Hides the command's words, which Weights & Biases would send on: one may be a password."""
    words, sys.argv[1:] = sys.argv[1:], []
    try:
        yield
    finally:
        sys.argv[1:] = words


def open_run(
    folder: Path, run_id: str, offline: bool, place: WandbRunInfo, config: Mapping[str, Any]
) -> wandb.Run:
    """Opens a run, or goes on with it where its id is known.

    Neither the words of the command nor the address of a repository are sent along: both may hold
    a password. The configuration says what was asked for, and the result which code it was.

    Args:
        folder: Where its files lie, in `wandb/`.
        run_id: The same after every stop.
        offline: Write files only.
        place: Project, group, tags, name and kind.
        config: Its configuration; `tracking.labels` are entries of their own.

    Raises:
        wandb.Error: The service cannot be reached or refuses the key.
    """
    import wandb

    keep_order(folder, run_id)
    labels = config.get("tracking", {}).get("labels", {})
    with _hide_arguments():
        run = wandb.init(
            dir=str(folder),
            id=run_id,
            mode="offline" if offline else "online",
            project=place.project,
            group=place.group,
            name=place.name,
            job_type=place.kind,
            tags=list(place.tags),
            config={**config, **labels},
            resume="allow",
            save_code=False,
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )
    monitor = config.get("evaluation", {}).get("monitor")
    if monitor is not None:
        run.define_metric(f"val/{monitor}", summary="max")
    return run


STAMP = "%Y%m%d_%H%M%S"
"""How the name of a run's files says when they were begun."""


def keep_order(folder: Path, run_id: str) -> None:
    """Renames the files of earlier attempts that seem to be of the future.

    Folders are sent in the order of their names, which hold the time of their start; after a clock
    was set back, what a resumed run writes would be sent before what came first.

    Args:
        folder: Of the run.
        run_id: Of the run.
    """
    latest = datetime.now() - timedelta(seconds=1)
    for path in reversed(list_attempts(folder, run_id)):
        mode, stamp = path.name.removesuffix(f"-{run_id}").rsplit("-", 1)
        try:
            begun = datetime.strptime(stamp, STAMP)
        except ValueError:
            continue  # not named by the client
        if begun > latest:
            path.rename(path.with_name(f"{mode}-{latest.strftime(STAMP)}-{run_id}"))
            begun = latest
        latest = begun - timedelta(seconds=1)


def make_summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary of a run holds of its result, by key.

    The validation's metrics are those of the validation that decided; of the monitored one, which
    is `validation/best`, the service keeps the largest itself. Slices by a column of the
    user's are left out: they would send what stands in it.

    Args:
        result: What `result.json` holds.
    """
    out: dict[str, Any] = {}
    for part in ("test", "cost", "data", "beyond", "train", "code", "versions"):
        out |= flatten(result.get(part, {}), part)
    validation, slices = dict(result["validation"]), result.get("slices", {})
    out |= flatten(validation.pop("metrics"), "val") | flatten(validation, "validation")
    out |= flatten(result.get("fit", {}).get("chosen", {}), "chosen")
    out |= flatten(result.get("floors", {}), "baseline")
    out |= flatten({name: slices[name] for name in OPEN_SLICES if name in slices}, "slice")
    monitor = validation["monitor"]
    return {key: value for key, value in out.items() if COUNTED not in key and key != monitor}


def flatten(node: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Values and those in groups of them, each under its path, joined by slashes."""
    out: dict[str, Any] = {}
    for name, value in node.items():
        path = f"{prefix}/{name}"
        out |= flatten(value, path) if isinstance(value, Mapping) else {path: value}
    return out


def find_unsent_reason(folder: Path) -> str:
    """Why the end of a run did not reach Weights & Biases; empty where it did.

    Args:
        folder: Of the run.
    """
    path = folder / TRACKING_FAILURE
    if not path.is_file():
        return ""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["wandb"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path} is damaged."

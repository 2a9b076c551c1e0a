"""What a run logged to Weights & Biases, read back from the files on this machine."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.config.yaml_file import flatten_keys, read_mapping
from recsys.errors import ConfigError, DataError
from recsys.runs.result_file import read_result
from recsys.runs.state import RunState
from recsys.runs.validation_log import read_validations
from recsys.runtime.files import CONFIG, METRICS, RESULT, VALIDATIONS
from recsys.tracking.wandb_files import list_files, read_records
from recsys.tracking.wandb_run import COUNTED, WandbRunInfo, make_summary


@dataclass(frozen=True)
class LoggedRun:
    """What one run logged.

    Attributes:
        id: Of the run, the same after every stop.
        name: As it is shown.
        kind: Its job type.
        project: In which it lies.
        group: Of runs that belong together.
        tags: Words to filter by.
        config: Its configuration, by dotted key.
        history: Its rows, in the order in which they were logged; `_step` is the step.
        summary: The last value of each key.
        exit: Exit code; None where the run was killed or goes on.
    """

    id: str
    name: str
    kind: str
    project: str
    group: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    exit: int | None

    @property
    def keys(self) -> set[str]:
        """Names of all that its rows hold."""
        return {name for row in self.history for name in row if not name.startswith("_")}


def read_run_id(folder: Path) -> str:
    """The id at Weights & Biases of a run's folder.

    Raises:
        ConfigError: The run had not begun, or its file is damaged.
    """
    start = RunState.read(folder)
    if start is None:
        raise ConfigError(f"{folder}: the run has not begun, start.json is missing; run it again.")
    return start.wandb


def read_logged_run(folder: Path) -> LoggedRun:
    """What the run in a folder logged: from its own files, else from those of the framework.

    Raises:
        ConfigError: It logged nothing to Weights & Biases.
        DataError: A file is damaged.
    """
    name = read_run_id(folder)
    own = list_files(folder, name)
    if own:
        return replay(own)
    config = read_mapping(folder / CONFIG)
    if config["tracking"]["wandb"] == "off":
        raise ConfigError(
            f"{folder} was not logged to Weights & Biases (tracking.wandb=off); leave it out, or "
            "run it again with tracking.wandb=offline."
        )
    if config["tracking"]["wandb"] == "offline":
        raise ConfigError(
            f"{folder / 'wandb'} lacks the run's offline files; put them back, or run it again."
        )
    return _rebuild_run(folder, name, config)


def _rebuild_run(folder: Path, name: str, config: dict[str, Any]) -> LoggedRun:
    """An online run without files of its own: what it sent is what the framework wrote as well."""
    history = tuple(
        {"_step": step, **{name: value for name, value in row.items() if COUNTED not in name}}
        for step, row in read_rows(folder / METRICS)
    )
    summary = {name: value for row in history for name, value in row.items()}
    if (folder / RESULT).is_file():
        summary |= make_summary(read_result(folder))
    place, labels = WandbRunInfo.from_config(config, folder), config["tracking"].get("labels", {})
    return LoggedRun(
        id=name,
        name=place.name,
        kind=place.kind,
        project=place.project,
        group=place.group,
        tags=place.tags,
        config=flatten_keys({**config, **labels}),
        history=history,
        summary=summary,
        exit=None,
    )


def read_rows(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Step and values of each row of `log/metrics.csv`; none where there is no file.

    Raises:
        DataError: The file is damaged.
    """
    if not path.is_file():
        return []
    out = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                step = int(row.pop("step"))
                out.append((step, {name: float(value) for name, value in row.items() if value}))
            except (KeyError, ValueError, TypeError, AttributeError):
                raise DataError(f"{path}, line {number}: not a row of numbers.") from None
    return out


def read_logged_rows(folder: Path, monitor: str) -> list[tuple[int, dict[str, float]]]:
    """Step and values of all that a run's own files hold, in order.

    The log is written every half minute; the lines of validations at once, and so later ones come
    from there.

    Args:
        folder: Of the run.
        monitor: Key of the validation metric of the lines.
    """
    found: dict[int, dict[str, float]] = {}
    for step, row in read_rows(folder / METRICS):
        found.setdefault(step, {}).update(row)
    for line in read_validations(folder / VALIDATIONS):
        known = found.setdefault(line.step, {})
        if monitor not in known:
            known |= {monitor: line.value, "seconds": line.seconds}
    return sorted(found.items())


def replay(paths: Sequence[Path]) -> LoggedRun:
    """What files of one run hold together, as a synchronisation would send it.

    Args:
        paths: Oldest first.

    Raises:
        DataError: One is no such file, or none tells which run it is of.
    """
    from wandb.proto.wandb_internal_pb2 import RunRecord

    run, code = RunRecord(), None
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    for record in (record for path in paths for record in read_records(path)):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            config |= _parse_values(record.run.config.update)
        elif kind == "config":
            config |= _parse_values(record.config.update)
        elif kind == "history":
            row = _parse_values(record.history.item)
            row["_step"] = record.history.step.num
            history.append(row)
            summary |= row
        elif kind == "summary":
            summary |= _parse_values(record.summary.update)
        elif kind == "exit":
            code = record.exit.exit_code
    if not run.run_id:
        raise DataError(f"{paths[-1]} does not tell which run it is of: the run was killed early.")
    config.pop("_wandb", None)
    return LoggedRun(
        id=run.run_id,
        name=run.display_name,
        kind=run.job_type,
        project=run.project,
        group=run.run_group,
        tags=tuple(run.tags),
        config=flatten_keys(config),
        history=tuple(history),
        summary=summary,
        exit=code,
    )


def _parse_values(items: Sequence[Any]) -> dict[str, Any]:
    """The values of a record's items; of a nested one, as of a table, only that it is there."""
    out: dict[str, Any] = {}
    for item in items:
        value = json.loads(item.value_json)
        if len(item.nested_key) > 1:
            out.setdefault(item.nested_key[0], {})[".".join(item.nested_key[1:])] = value
        else:
            out[item.key or item.nested_key[0]] = value
    return out

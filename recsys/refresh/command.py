"""What `python -m recsys.refresh` does: merge, train on, compare, promote; or take back."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys import printable
from recsys.config.compose import RunConfig, get_choice_name, nearest, read_config
from recsys.config.schema import ENCODER, DataOptions
from recsys.errors import ConfigError
from recsys.runs.current import CurrentRun, find_current_run
from recsys.runs.folder import check_is_run, find_last_run
from recsys.runtime.files import CONFIG, CURRENT, write_atomic
from recsys.runtime.locks import try_lock
from recsys.words import get_key, split_words

if TYPE_CHECKING:
    from recsys.refresh.comparison import Verdict

KEYS = {
    "run=FOLDER|last|current": "the run to go on from; current: the one in use, also the default",
    "events=FILE": "newer events, with user, item and time: CSV, TSV, JSON lines or Parquet; a "
    "service's feedback file is one",
    "items=FILE": "the texts of items that the run does not have, by id",
    "user=user": "column of the user",
    "item=item": "column of the item, in both files",
    "time=time": "column of the time",
    "rating=COLUMN": "column of the rating, where the run learns from ratings",
    "leave_out=dislike": "types of events that do not count, with a comma between two",
    "margin=0.5": "how many points worse still counts as not worse",
    "val_fraction=0.1": "share of the newer events that validates",
    "test_fraction=0.2": "share of the newer events, the latest, on which both are compared",
    "rollback=true": "puts the run back to use that was in use before, and does nothing else",
    "output=runs": "where runs lie, with current.json beside them",
    "KEY.NAME=VALUE": "any setting of the new training, as in trainer.epochs=2",
}
DATA = "refreshed"
"""Folder beside runs in which the data of refreshes lies."""
RECORD = "refresh.json"
_DONE: dict[str, Any] = {
    "event_types": {},
    "since": None,
    "until": None,
    "min_rating": None,
    "repeats": "keep",
    "min_text": None,
    "k_core": None,
    "max_users": None,
    "max_items": None,
}


@dataclass(frozen=True)
class Request:
    """What is to be refreshed.

    Attributes:
        values: Words of the command by key, without those of the training.
        settings: Words of the training.
        output: Where runs lie.
        margin: As a share of 1.
        val: Share of the newer events that validates.
        test: Share that tests.
    """

    values: dict[str, str]
    settings: tuple[str, ...]
    output: Path
    margin: float
    val: float
    test: float

    @staticmethod
    def parse(words: Sequence[str]) -> Request:
        """From the words of a command.

        Raises:
            ConfigError: A word is wrong.
        """
        known = [key.partition("=")[0] for key in KEYS if key[0].islower()]
        settings = tuple(word for word in words if "." in get_key(word))
        values = split_words([w for w in words if w not in settings], "events=feedback.jsonl")
        for key, value in values.items():
            if key not in known:
                raise ConfigError(f"{key} is not a known key.{nearest(key, known)}")
            if not value.strip() and key != "leave_out":
                raise ConfigError(f"{key} is empty; give it a value, or leave it out.")
        if any(get_key(word).startswith("data.") for word in settings):
            raise ConfigError(
                "data. keys cannot change in a refresh, since the old run is to see the same data; "
                "train anew by recsys.fit."
            )
        rollback = values.get("rollback", "false")
        if rollback not in ("true", "false"):
            raise ConfigError(f"rollback is '{rollback}'; set it to true or leave it out.")
        if rollback == "true":
            odd = sorted(set(values) - {"rollback", "output"}) + list(settings)
            if odd:
                raise ConfigError(f"{odd[0]} does not go with rollback=true; leave it out.")
        elif "events" not in values:
            raise ConfigError("name the newer events: events=FILE; --help says more.")
        shares = [
            _parse_number(values, *pair) for pair in (("val_fraction", 0.1), ("test_fraction", 0.2))
        ]
        if min(shares) <= 0 or sum(shares) >= 1:
            raise ConfigError(
                "val_fraction and test_fraction must be above 0 and add up to less than 1."
            )
        margin = _parse_number(values, "margin", 0.5) / 100
        return Request(values, settings, Path(values.get("output", "runs")), margin, *shares)


def _parse_number(values: dict[str, str], key: str, default: float) -> float:
    """A number from 0.

    Raises:
        ConfigError: It is none.
    """
    text = values.get(key, str(default))
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e6:
        raise ConfigError(f"{key} is '{text}'; give a number from 0.")
    return number


def refresh(request: Request) -> Path | None:
    """Trains a run further on newer events and promotes it where it is not worse.

    Returns:
        The new run's folder; None where a run was only put back.

    Raises:
        RecsysError: A word, the run or the events cannot be used.
    """
    if request.values.get("rollback") == "true":
        _roll_back(request.output)
        return None
    for key in ("events", "items"):
        if key in request.values and not Path(request.values[key]).is_file():
            raise ConfigError(f"{key}={request.values[key]} is no file.")
    old = _find_run(request)
    config = read_config(old / CONFIG)
    _check_can_go_on(config, old)
    request.output.mkdir(parents=True, exist_ok=True)
    with try_lock(request.output / ".refresh.lock") as ours:
        if not ours:
            raise ConfigError(f"{request.output}: another refresh is at work; wait for its end.")
        return _refresh(request, old, config)


def _refresh(request: Request, old: Path, config: RunConfig) -> Path:
    """The work itself, once nobody else is at it."""
    from recsys.data.export import ExportSettings, write_tables
    from recsys.fit.command import fit
    from recsys.refresh.comparison import evaluate_old, judge
    from recsys.refresh.events import NewerEvents, merge_events

    values = request.values
    names = {key: values[key] for key in ("user", "item", "time", "rating") if key in values}
    left_out = tuple(values.get("leave_out", "dislike").split(","))
    newer = NewerEvents(
        Path(values["events"]), values.get("items", ""), **names, leave_out=left_out
    )
    merged = merge_events(config, newer, request.val, request.test)
    _say(f"refresh of {old}", *merged.notes)
    _say("parts: " + ", ".join(f"{name} {count:,}" for name, count in merged.counts.items()))
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    place = request.output / DATA / stamp
    before = request.output / DATA / f".{stamp}-before"
    try:
        write_tables(place, merged.new, ExportSettings("given", {}))
        write_tables(before, merged.old, ExportSettings("given", {}))
        amended = read_config(old / CONFIG, request.settings)
        new = fit(
            replace(
                amended,
                data=_point_data(amended.data, place),
                output=str(request.output),
                start_from=str(old) if amended.architecture.trains else None,
            )
        )
        metrics, cases = evaluate_old(
            replace(config, data=_point_data(config.data, before), start_from=None), old
        )
    except BaseException:
        if not _is_used(place, request.output):
            shutil.rmtree(place, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(before, ignore_errors=True)
    verdict = judge(new, metrics, cases, config.evaluation.metric, request.margin)
    record = {"old": str(old), "new": str(new), "events": values["events"], **verdict.to_json()}
    write_atomic(new / RECORD, json.dumps(record, indent=2) + "\n")
    _conclude(request.output, old, new, verdict)
    return new


def _find_run(request: Request) -> Path:
    """The run to go on from.

    Raises:
        ConfigError: There is none.
    """
    name = request.values.get("run", "current")
    if name == "current":
        return find_current_run(request.output)
    if name == "last":
        return find_last_run(str(request.output), complete=True)
    check_is_run("run", name, "last, current or ")
    return Path(name)


def _check_can_go_on(run: RunConfig, folder: Path) -> None:
    """Refuses runs whose weights cannot be carried to other data.

    Raises:
        ConfigError: It is one; the sentence says what to do.
    """
    own = run.architecture
    builds = own.member_runs or own.vectors_from not in (None, ENCODER)
    builds = builds or run.evaluation.candidates_from is not None
    if builds or (run.data.negatives == "hard" and run.data.hard_from != "tfidf"):
        raise ConfigError(
            f"{folder} is built on other runs, which know the old data alone; refresh those, and "
            "fit it again on them."
        )
    if own.reads_tags or own.reads_context:
        raise ConfigError(
            f"{folder} has learned tags or contexts ({get_choice_name(own)}), whose numbers other "
            "data may change; fit it again on all events."
        )
    if not run.evaluation.test:
        raise ConfigError(f"{folder} has evaluation.test=false, and a refresh compares by tests.")


def _point_data(data: DataOptions, folder: Path) -> DataOptions:
    """The options with other tables, to which the filters have been applied already."""
    from recsys.data.sources.tables import Config

    return replace(data, source=Config(path=str(folder)), split="given", **_DONE)


def _is_used(place: Path, output: Path) -> bool:
    """Whether a run was begun on a folder of data, which needs it to go on."""
    return any(str(place) in path.read_text("utf-8") for path in output.glob(f"*/{CONFIG}"))


def _conclude(output: Path, old: Path, new: Path, verdict: Verdict) -> None:
    """Says what was found, and promotes the new run where it is not worse."""
    points = {name: 100 * getattr(verdict, name) for name in ("old", "new", "difference")}
    _say(
        f"{verdict.cases:,} later cases of {verdict.users:,} users, {verdict.metric} in percent:",
        f"  old {points['old']:6.2f}  {old}",
        f"  new {points['new']:6.2f}  {new}",
        f"  new minus old {points['difference']:+.2f} ({100 * verdict.low:+.2f} to "
        f"{100 * verdict.high:+.2f}, {verdict.level:.0%}); margin {100 * verdict.margin:g}",
    )
    if not verdict.promoted:
        few = verdict.users < 20
        why = "too few users to tell" if few else "it may be worse by more than the margin"
        _say(f"not promoted: {why}; in use stays what was.")
        return
    current = CurrentRun.read(output)
    previous = (old,) if current is None else (*current.previous, current.run)
    CurrentRun(new, previous, time.strftime("%Y-%m-%dT%H:%M:%S%z")).write(output)
    _say(f"promoted: {output / CURRENT} names {new}; rollback=true puts {previous[-1]} back.")


def _roll_back(output: Path) -> None:
    """Puts the run back to use that was in use before.

    Raises:
        ConfigError: There is none, or it is gone.
    """
    find_current_run(output)
    with try_lock(output / ".refresh.lock") as ours:
        if not ours:
            raise ConfigError(f"{output}: another refresh is at work; wait for its end.")
        current = CurrentRun.read(output)
        if current is None or not current.previous:
            raise ConfigError(f"{output / CURRENT} names no run that was in use before.")
        before = current.previous[-1]
        check_is_run("rollback", str(before))
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        CurrentRun(before, current.previous[:-1], stamp).write(output)
    _say(f"in use again: {before}, in place of {current.run}.")


def _say(*lines: str) -> None:
    for line in lines:
        print(printable.escape_line(line), flush=True)

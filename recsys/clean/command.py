"""What `python -m recsys.clean` does: choose, say, ask, remove."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from recsys import printable
from recsys.clean.asking import agree
from recsys.clean.leftovers import GROUPS, Group, Leftover, find_leftovers, list_outputs
from recsys.clean.removal import remove
from recsys.clean.uses import find_reasons
from recsys.config.compose import nearest
from recsys.errors import ConfigError
from recsys.runtime.store import Store
from recsys.words import split_words

KEYS = {
    "list=true": "lists what there is, all of it or what the other words name, and removes nothing",
    "what=runs,caches,unfinished": "what is to be removed, one or several of: "
    + "; ".join(f"{name}, {text}" for name, text in GROUPS.items()),
    "older=30d": "only what was not used for so long: hours (h), days (d) or weeks (w)",
    "larger=100MB": "only what is so large: KB, MB, GB or TB",
    "free=10GB": "only as much as makes so much room, that first which was not used for longest",
    "name=PATTERN": "only folders of such a name, as in name='lora*'",
    "yes=true": "does not ask",
    f"output={','.join(list_outputs())}": "where runs lie; the cache lies where RECSYS_CACHE says",
}
_SECONDS = {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_BYTES = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


@dataclass(frozen=True)
class Request:
    """What is to be removed.

    Attributes:
        groups: What sort; empty to list all.
        older: Seconds since it was used, at least.
        larger: Bytes, at least.
        free: Bytes to make room for; None for all that fits.
        name: Pattern of the folder's name.
        sure: Whether nobody is asked.
        lists: Whether nothing is removed.
        outputs: Where runs lie.
    """

    groups: tuple[Group, ...] = ()
    older: float = 0.0
    larger: float = 0.0
    free: float | None = None
    name: str = "*"
    sure: bool = False
    lists: bool = False
    outputs: tuple[Path, ...] = ()

    @staticmethod
    def parse(words: Sequence[str]) -> Request:
        """From the words of a command.

        Raises:
            ConfigError: A word is wrong.
        """
        values = split_words(words, "what=caches")
        known = [key.partition("=")[0] for key in KEYS]
        for key, value in values.items():
            if key not in known:
                raise ConfigError(f"{key} is not a known key.{nearest(key, known)}")
            if not value.strip():
                raise ConfigError(f"{key} is empty; give it a value, or leave it out.")
        groups = [each.strip() for each in values.get("what", "").split(",") if each.strip()]
        for group in groups:
            if group not in GROUPS:
                raise ConfigError(f"what={group} is nothing to remove.{nearest(group, GROUPS)}")
        sure, lists = (_parse_yes(values, key) for key in ("yes", "list"))
        if not groups and not lists:
            raise ConfigError("say what is to be removed, as in what=unfinished, or list=true.")
        if sure and lists:
            raise ConfigError(
                "list=true removes nothing, and yes=true is about removal; leave one."
            )
        outputs = values.get("output", ",".join(list_outputs())).split(",")
        if "output" in values:
            for output in outputs:
                if not Path(output).is_dir():
                    raise ConfigError(f"output={output} is no folder; name one that holds runs.")
        free = values.get("free")
        return Request(
            tuple(cast(list[Group], groups)),
            _parse_unit("older", values.get("older", "0d"), _SECONDS, "30d"),
            _parse_unit("larger", values.get("larger", "0MB"), _BYTES, "100MB"),
            None if free is None else _parse_unit("free", free, _BYTES, "10GB"),
            values.get("name", "*"),
            sure,
            lists,
            tuple(map(Path, outputs)),
        )


def _parse_yes(values: dict[str, str], key: str) -> bool:
    """Whether a word says true.

    Raises:
        ConfigError: It says something else than true or false.
    """
    value = values.get(key, "false")
    if value not in ("true", "false"):
        raise ConfigError(f"{key} is '{value}'; set it to true or leave it out.")
    return value == "true"


def _parse_unit(key: str, value: str, units: dict[str, float], example: str) -> float:
    """A number with a unit.

    Raises:
        ConfigError: It is none.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?) ?([A-Za-z]+)", value.strip(), re.ASCII)
    names = {name.lower(): scale for name, scale in units.items()}
    if match is None or match[2].lower() not in names:
        raise ConfigError(
            f"{key} is '{value}'; give a number and a unit ({', '.join(units)}), as in "
            f"{key}={example}."
        )
    return float(match[1]) * names[match[2].lower()]


def clean(request: Request) -> None:
    """Lists what takes up room; removes it where that is asked for and agreed to.

    Raises:
        ConfigError: The file that names the run in use is damaged.
    """
    store = Store()
    rows = find_leftovers(request.outputs, store)
    fitting = [row for row in rows if _fits(row, request)]
    reasons = find_reasons(rows, fitting, request.outputs, store)
    chosen = _limit([row for row in fitting if row.path not in reasons], request.free)
    if request.lists:
        _print_table([row for row in fitting if row in chosen or row.path in reasons], reasons)
        print(f"\n{_count(chosen)} may be removed: {_list_sums(chosen)}.")
        print(f"Nothing is removed: what={','.join(request.groups or GROUPS)} does so.")
        return
    _print_table(chosen, {})
    for row in fitting:
        if row.path in reasons:
            print(printable.escape_line(f"stays: {row.path} ({reasons[row.path]})"))
    if not chosen:
        print("There is nothing to remove.")
    elif agree(f"Remove {_count(chosen)}, {_format_bytes(_sum(chosen))}?", request.sure):
        _remove_all(chosen, store)


def _fits(row: Leftover, request: Request) -> bool:
    return (
        (not request.groups or row.group in request.groups)
        and row.age >= request.older
        and row.size >= request.larger
        and fnmatch.fnmatch(row.path.name, request.name)
    )


def _limit(rows: Sequence[Leftover], free: float | None) -> list[Leftover]:
    """The first rows that make so much room."""
    out: list[Leftover] = []
    for row in rows:
        if free is not None and sum(each.size for each in out) >= free:
            break
        out.append(row)
    return out


def _remove_all(rows: Sequence[Leftover], store: Store) -> None:
    """Removes rows, and says what was."""
    gone = []
    for row, reason in remove(rows, store):
        if reason:
            print(printable.escape_line(f"stays: {row.path} ({reason})"))
        else:
            gone.append(row)
    print(f"Removed {_count(gone)}, {_format_bytes(_sum(gone))}.")


def _print_table(rows: Sequence[Leftover], reasons: dict[Path, str]) -> None:
    """A line each: what, size, age, where, and why it would stay."""
    kinds = max((len(row.kind) for row in rows), default=0)
    for row in rows:
        why = f"  stays: {reasons[row.path]}" if row.path in reasons else ""
        left = f"{row.group:<10}  {row.kind:<{kinds}}  {_format_bytes(row.size):>8}"
        print(printable.escape_line(f"{left}  {_format_age(row.age):>5}  {row.path}{why}"))


def _list_sums(rows: Sequence[Leftover]) -> str:
    """The room that each sort takes up."""
    sums = {group: [row for row in rows if row.group == group] for group in GROUPS}
    return ", ".join(f"{group} {_format_bytes(_sum(some))}" for group, some in sums.items())


def _sum(rows: Iterable[Leftover]) -> int:
    return sum(row.size for row in rows)


def _count(rows: Sequence[Leftover]) -> str:
    return "1 entry" if len(rows) == 1 else f"{len(rows):,} entries"


def _format_bytes(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _format_age(seconds: float) -> str:
    days = seconds / 86_400
    return f"{seconds / 3600:.0f} h" if days < 2 else f"{days:.0f} d"

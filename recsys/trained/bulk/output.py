"""The file of lists: parts beside it while it is made, then the whole, or nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import ConfigError, DataError
from recsys.runtime.files import publish_file, translate_write_errors, write_atomic
from recsys.runtime.locks import try_lock
from recsys.runtime.progress import print_status
from recsys.words import parse_count

ENDINGS = (".parquet", ".csv", ".jsonl")
_PLAN, _LOCK, _WHOLE, _ROWS = "plan.json", "lock", "whole", "users.parquet"
_GROUP = 1 << 17  # rows of a row group of Parquet
_COPY = 1 << 20  # bytes copied at a time


@dataclass(frozen=True)
class Shard:
    """One of several parts of the work, for a machine of its own.

    Attributes:
        number: From 1.
        count: How many there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, word: str) -> Shard:
        """As in 3/16.

        Raises:
            ConfigError: It is no such word.
        """
        number, _, count = word.partition("/")
        of = parse_count(count, least=1)
        at = None if of is None else parse_count(number, least=1, most=of)
        if of is None or at is None:
            raise ConfigError(
                f"shard is '{word}'; give its number from 1 and how many, as in 3/16."
            )
        return cls(at, of)

    def name_file(self, path: Path) -> Path:
        """`lists.parquet` as `lists-03-of-16.parquet`: names in the order of the users."""
        number = str(self.number).zfill(len(str(self.count)))
        return path.with_name(f"{path.stem}-{number}-of-{self.count}{path.suffix}")

    def split(self, count: int) -> tuple[int, int]:
        """The first of so many things that are its own, and the first that is no more."""
        return (self.number - 1) * count // self.count, self.number * count // self.count

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def check_ending(path: Path) -> None:
    """Raises a `ConfigError` for a file of a kind that is not written."""
    if path.suffix not in ENDINGS:
        raise ConfigError(
            f"output={path}: lists are written as {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}; give "
            "the file one of these endings."
        )


class ListFile:
    """A file that is made in parts.

    Parts stand in a folder beside it, `NAME.parts`, each whole or not there, with the plan that
    they belong to. Beside each is its checksum, as `sha256sum` writes it. Once the file is there, a
    hidden file beside it, `.NAME.json`, says by what plan it was made, and the folder goes.

    Args:
        path: The file.

    Attributes:
        path: It.
        folder: That of its parts.
    """

    def __init__(self, path: Path) -> None:
        check_ending(path)
        self.path, self.folder = path, path.with_name(f"{path.name}.parts")
        self._record = path.with_name(f".{path.name}.json")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Holds the file against other processes; a folder without parts goes at the end.

        Raises:
            DataError: Another process makes it, something else stands in its place, or nothing can
                be written there.
        """
        if self.path.exists() and self._read(self._record) is None:
            raise DataError(
                f"{self.path} exists and was not written by this command; remove it or choose "
                "another name."
            )
        with translate_write_errors(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
        with try_lock(self.folder / _LOCK) as mine:
            if not mine:
                raise DataError(f"{self.path} is being written by another process; wait for it.")
            try:
                yield
            finally:
                if not self.list_done():
                    self.discard_parts()

    @property
    def copy(self) -> Path:
        """Where a file of users may be written as Parquet."""
        return self.folder / _ROWS

    def read_moment(self) -> int | None:
        """The moment that parts are of, in milliseconds since 1970; None where there are none."""
        plan = self._read(self.folder / _PLAN)
        return None if plan is None else plan["moment"]

    def is_complete(self, plan: Mapping[str, Any], moment: int | None) -> bool:
        """Whether the file is there as a plan has it.

        Args:
            plan: What the lists depend on.
            moment: In milliseconds since 1970; None where the lists do not depend on it.
        """
        done = self._read(self._record)
        if done is None or not self.path.is_file():
            return False
        same = done["plan"] == _normalize(plan) and done["moment"] == moment
        return bool(same and done["bytes"] == self.path.stat().st_size)

    def start(self, plan: Mapping[str, Any], moment: int | None) -> None:
        """Takes up the parts of a plan, or begins with none.

        Raises:
            DataError: There are parts of another plan.
        """
        begun = self._read(self.folder / _PLAN)
        if begun is None:
            for part in self.folder.glob("part-*"):
                part.unlink()
        elif self.list_done():
            self._check_plan(begun["plan"], _normalize(plan))
        body = json.dumps({"plan": plan, "moment": moment}, indent=1, default=str)
        write_atomic(self.folder / _PLAN, body + "\n")

    def _check_plan(self, begun: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        names = {"model": "the model or its data", "users": "the file of users"}
        for key in dict.fromkeys((*plan, *begun)):
            if begun.get(key) != plan.get(key):
                own = names.get(key)
                what = f"{key} was {begun.get(key)} and is {plan.get(key)}"
                raise DataError(
                    f"{self.folder} holds parts of other lists ("
                    f"{what if own is None else f'{own} has changed'}); give the same words again, "
                    "or remove the folder to begin anew."
                )

    def list_missing(self, count: int) -> list[int]:
        """Numbers of the parts that are not there, or not as they were written.

        A disk may lose what was in a file when the machine stopped, and people copy files.

        Args:
            count: How many parts there are.
        """
        missing = [number for number in range(count) if not self._is_whole(self._get_part(number))]
        damaged = sum(self._get_part(number).is_file() for number in missing)
        if damaged:
            parts = "1 part is" if damaged == 1 else f"{damaged:,} parts are"
            print_status(f"{self.path}: {parts} incomplete or damaged and made again")
        return missing

    def _is_whole(self, part: Path) -> bool:
        """Whether a part agrees with its checksum."""
        try:
            with part.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return _name_checksum(part).read_bytes() == _format_checksum(part, digest)
        except OSError:
            return False

    def list_done(self) -> list[Path]:
        """Parts that are there."""
        return sorted(self.folder.glob(f"part-*{self.path.suffix}"))

    def write_part(self, number: int, rows: pl.DataFrame) -> None:
        """Writes a part, whole."""
        # The first one has the names of the columns, where the kind of file has any.
        body, part = _format_rows(rows, self.path.suffix, not number), self._get_part(number)
        write_atomic(part, body)
        # After it: a part without a checksum is made again.
        digest = hashlib.sha256(body).hexdigest()
        write_atomic(_name_checksum(part), _format_checksum(part, digest))

    def finish(self, count: int, plan: Mapping[str, Any], moment: int | None) -> None:
        """Makes the file of its parts, in constant memory, and removes them.

        Args:
            count: How many parts there are.
            plan: As in `start`.
            moment: As in `start`.
        """
        whole = self.folder / f"{_WHOLE}{self.path.suffix}"
        parts = [self._get_part(number) for number in range(count)]
        try:
            with translate_write_errors(self.path), raise_system_errors():
                _join(parts, whole)
                size = whole.stat().st_size
        except BaseException:
            whole.unlink(missing_ok=True)  # the parts stay, and need its room
            raise
        publish_file(whole, self.path)
        done = {"plan": plan, "moment": moment, "bytes": size}
        write_atomic(self._record, json.dumps(done, indent=1, default=str) + "\n")
        self.discard_parts()

    def discard_parts(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _get_part(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}{self.path.suffix}"

    def _read(self, path: Path) -> dict[str, Any] | None:
        """A JSON file; None where it is missing or damaged."""
        with suppress(OSError, ValueError):
            body = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(body, dict) and {"plan", "moment"} <= body.keys():
                return body
        return None


def _name_checksum(part: Path) -> Path:
    """The file with the checksum of a part."""
    return part.with_name(f"{part.name}.sha256")


def _format_checksum(part: Path, digest: str) -> bytes:
    """A line of `sha256sum`; the name tells one part from another."""
    return f"{digest}  {part.name}\n".encode()


def check_nested(rows: pl.DataFrame, path: Path) -> None:
    """Raises a `ConfigError` for a column that a kind of file cannot hold.

    Args:
        rows: A few rows.
        path: The file.
    """
    if path.suffix != ".csv":
        return
    for name, kind in rows.schema.items():
        if kind.is_nested():
            raise ConfigError(
                f"column '{name}' holds lists, for which CSV has no place; write .parquet or "
                ".jsonl."
            )


def _format_rows(rows: pl.DataFrame, ending: str, header: bool) -> bytes:
    """A frame as a file of a kind; CSV begins with the names of its columns where that is asked."""
    out = io.BytesIO()
    if ending == ".parquet":
        rows.write_parquet(out)
    elif ending == ".csv":
        rows.write_csv(out, include_header=header)
    else:
        rows.write_ndjson(out)
    return out.getvalue()


@contextmanager
def raise_system_errors() -> Iterator[None]:
    """Raises as an OSError what Polars words as an error of its own, such as a full disk."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def _join(parts: list[Path], whole: Path) -> None:
    """Writes files of a kind one after the other into one; a little of them is held at a time."""
    if whole.suffix == ".parquet":
        pl.scan_parquet(parts).sink_parquet(whole, maintain_order=True, row_group_size=_GROUP)
        return
    with whole.open("wb") as out:
        for part in parts:
            with part.open("rb") as rows:
                shutil.copyfileobj(rows, out, _COPY)


def _normalize(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as it is read again."""
    out: dict[str, Any] = json.loads(json.dumps(plan, default=str))
    return out

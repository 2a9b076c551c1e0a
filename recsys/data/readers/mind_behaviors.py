"""MIND's behaviors.tsv, read in blocks of lines: ids become numbers before the next block comes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.data.columns.arrays import Ints
from recsys.data.columns.id_lookup import IdLookup
from recsys.data.readers.jsonl import describe_unreadable
from recsys.errors import DataError

_COLUMNS = ("impression", "user", "moment", "history", "shown")
_MOMENT = "%m/%d/%Y %I:%M:%S %p"
_HEAD = "\t".join(_COLUMNS).encode() + b"\n"
_MARK = b"\xef\xbb\xbf"
_BLOCK = 16 << 20  # bytes of text that are a table at one time

Rows = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Impressions:
    """The impressions that have labels, in file order, one part after the other.

    Attributes:
        frame: (S,) impression (part and number), user, time (ms), part; how many known news its
            history holds (`told`) and it shows (`size`), and how many of the latter were clicked
            (`clicks`).
        told: (sum of told,) rows of known news of the histories.
        shown: (sum of size,) rows of known news shown.
        clicked: (sum of size,) whether they were clicked.
        candidates: How many news were shown, unknown ones too.
        unlabelled: How many impressions without labels, or without news, were left out.
    """

    frame: pl.DataFrame
    told: Rows
    shown: Rows
    clicked: Flags
    candidates: int
    unlabelled: int


@dataclass(frozen=True)
class _ImpressionBlock:
    """What a block holds, as `Impressions` has it."""

    frame: pl.DataFrame
    told: Rows
    shown: Rows
    clicked: Flags
    candidates: int
    rows: int


def read_behaviors(files: Mapping[str, Path], known: pl.Series, block: int = _BLOCK) -> Impressions:
    """Reads behaviors.tsv of each part; memory holds a block of text and 5 bytes a candidate.

    Args:
        files: Part (train, val, test) to file, plain or .gz. A line is number, user, time, history,
            and the news shown, with -1 or -0 at the end if the part has labels.
        known: Ids of the news that count.
        block: Bytes of text in memory at one time.

    Raises:
        DataError: A file is missing, damaged or empty; a line has other columns, or no number,
            user or time that can be read.
    """
    codes = IdLookup(known)
    pieces = [
        _parse_block(lines, path, before, part, codes)
        for part, path in files.items()
        for lines, before in _read_blocks(path, block)
    ]
    frame = pl.concat([piece.frame for piece in pieces], rechunk=True)
    return Impressions(
        frame=frame,
        told=np.concatenate([piece.told for piece in pieces]),
        shown=np.concatenate([piece.shown for piece in pieces]),
        clicked=np.concatenate([piece.clicked for piece in pieces]),
        candidates=sum(piece.candidates for piece in pieces),
        unlabelled=sum(piece.rows for piece in pieces) - frame.height,
    )


def _read_blocks(path: Path, size: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines of some `size` bytes, and how many lines came before them."""
    rest, before = b"", 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(len(_MARK))
            rest = b"" if start == _MARK else start
            while chunk := file.read(size):
                cut = chunk.rfind(b"\n") + 1
                if not cut:
                    rest += chunk
                    continue
                lines, rest = rest + chunk[:cut], chunk[cut:]
                yield lines, before
                before += lines.count(b"\n")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; put the file there or mend the path.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(describe_unreadable(path, error)) from error
    if rest.strip():
        yield rest, before
    elif not before:
        raise DataError(f"{path} is empty; fetch it again.")


def _parse_table(lines: bytes, path: Path, before: int) -> pl.DataFrame:
    """Columns of text of some lines.

    Raises:
        DataError: A line has too many columns, or is no UTF-8.
    """
    try:
        # A first line with the names: else that of the block says how many columns there are.
        return pl.read_csv(
            _HEAD + lines,
            separator="\t",
            quote_char=None,
            schema=dict.fromkeys(_COLUMNS, pl.String),
        )
    except pl.exceptions.PolarsError as error:
        for number, line in enumerate(lines.split(b"\n"), before + 1):
            columns = line.count(b"\t") + 1
            if columns > len(_COLUMNS):
                raise DataError(
                    f"{path}: line {number} has {columns} columns, not {len(_COLUMNS)}; fetch the "
                    "file again."
                ) from error
            try:
                line.decode()
            except UnicodeDecodeError as wrong:
                raise DataError(
                    f"{path}: line {number} is not UTF-8 at its byte {wrong.start}; convert the "
                    "file."
                ) from error
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"{path}: the lines from {before + 1} are not a table ({reason}); check them."
        ) from error


def _check_whole_lines(table: pl.DataFrame, lines: bytes, path: Path, before: int) -> None:
    """Raises DataError where a line lacks columns; an empty last one only shows nothing."""
    at = table["shown"].is_null().arg_true().to_list()
    texts = lines.split(b"\n") if at else []
    for line in at:
        columns = texts[line].count(b"\t") + 1
        if columns < len(_COLUMNS):
            raise DataError(
                f"{path}: line {before + line + 1} has {columns} columns, not {len(_COLUMNS)}; "
                "fetch the file again."
            )


def _parse_block(
    lines: bytes, path: Path, before: int, part: str, codes: IdLookup
) -> _ImpressionBlock:
    table = _parse_table(lines, path, before)
    time = table["moment"].str.to_datetime(_MOMENT, strict=False, time_unit="ms")
    _check_whole_lines(table, lines, path, before)
    for name, column in (
        ("time", time),
        ("user", table["user"]),
        ("number", table["impression"]),
    ):
        bad = column.is_null()
        if bad.any():
            line = before + int(bad.arg_true()[0]) + 1
            raise DataError(f"{path}: line {line} has no {name} that can be read; fetch again.")
    frame = table.select(
        pl.concat_str(pl.lit(f"{part}-"), "impression").alias("impression"),
        "user",
        time.dt.epoch("ms").alias("time"),
        pl.lit(part).alias("part"),
        "history",
        "shown",
    )
    # Where the last one has no label none of a test part has: they need not be taken apart.
    frame = frame.filter(pl.col("shown").str.contains(r"-[01]\s*$").fill_null(False))
    tokens, sizes = _split_words(frame["shown"])
    right = (tokens.str.ends_with("-1") | tokens.str.ends_with("-0")).to_numpy()
    if not right.all():
        odd = np.zeros(frame.height, dtype=np.bool_)
        odd[np.repeat(np.arange(len(sizes)), sizes)[~right]] = True
        frame = frame.filter(~odd)
        tokens, sizes = _split_words(frame["shown"])
    told, told_sizes, _ = _select_known(*_split_words(frame["history"]), codes)
    shown, known_sizes, known = _select_known(tokens.str.head(-2), sizes, codes)
    clicked = tokens.str.ends_with("-1").to_numpy()[known]
    owner = np.repeat(np.arange(len(sizes)), known_sizes)
    clicks = np.bincount(owner[clicked], minlength=len(sizes))
    counts = {"told": told_sizes, "size": known_sizes, "clicks": clicks}
    frame = frame.drop("history", "shown").with_columns(
        pl.Series(name, values, dtype=pl.Int64) for name, values in counts.items()
    )
    return _ImpressionBlock(frame, told, shown, clicked, len(tokens), table.height)


def _split_words(column: pl.Series) -> tuple[pl.Series, Ints]:
    """Words of all texts, one after the other, and how many each text has (S,)."""
    text = column.fill_null("")
    if text.str.contains(r"\s\s|[^\S ]|^\s|\s$").any():
        words = text.str.extract_all(r"\S+")
    else:  # as it is in the original files; a quarter of the time
        words = text.str.split(" ")
    sizes = np.where((text == "").to_numpy(), 0, words.list.len().to_numpy()).astype(np.int64)
    return words.filter(sizes > 0).explode(), sizes


def _select_known(tokens: pl.Series, sizes: Ints, codes: IdLookup) -> tuple[Rows, Ints, Flags]:
    """Rows of the known ones of ids, how many each list (S,) has, and which they are (N,)."""
    rows = codes.find_rows(tokens)
    known: Flags = rows >= 0
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return rows[known], np.bincount(owner[known], minlength=len(sizes)), known

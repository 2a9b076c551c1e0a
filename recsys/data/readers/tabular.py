"""Reading of files that all sources share: compression, marks, line ends, ids as text."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import polars as pl

from recsys.data.readers.jsonl import describe_unreadable, repair_surrogates
from recsys.data.tables import check_interactions
from recsys.errors import ConfigError, DataError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_UNIT = "\x1f"  # the ASCII unit separator, stands in for separators of two letters
_MARKS = (  # the longer ones first: that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ESCAPED = re.compile(r'\\(["\\])')
_AGAIN = re.compile(r"(.+)_duplicated_\d+")  # what Polars calls a name that comes again
_HEAD = 4096  # bytes or letters that tell a binary file

Quoting = Literal["auto", "doubled", "escaped", "none"]


@dataclass(frozen=True)
class Dialect:
    """How the columns of a text file are told apart.

    Attributes:
        separator: What stands between them; empty: a comma in .csv, a tab in .tsv.
        encoding: A codec of Python; empty: UTF-8, or UTF-16 that begins with its mark.
        quoting: Double quotes around values, and how one within a value is written: twice, or after
            a backslash; none: they are text; auto: doubled in .csv, none elsewhere.
    """

    separator: str = ""
    encoding: str = ""
    quoting: Quoting = "auto"


def find_file(folder: Path, *names: str) -> Path:
    """The first of the names that the folder holds.

    Raises:
        DataError: It holds none.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} holds no {' or '.join(names)}; put the file there or mend the path.")


def check_folder(path: str, what: str) -> Path:
    """The folder of `data.source.path`.

    Args:
        path: As the user gave it.
        what: What to fetch, and from which page.

    Raises:
        DataError: It is empty or no folder.
    """
    if not path:
        raise DataError(f"data.source.path is empty; fetch {what}, and set it to their folder.")
    if not Path(path).is_dir():
        raise DataError(f"{path} is no folder; fetch {what}, and put them there.")
    return Path(path)


def read_file_text(path: Path, latin: bool = False, encoding: str = "") -> str:
    """Text of a plain or .gz file without byte-order mark, lines ended by a single newline.

    Args:
        path: The file, in UTF-8, or in UTF-16 or 32 with its mark.
        latin: Whether it may also be Latin-1, which is what it is where it is not UTF-8.
        encoding: Another codec, that it is in.

    Raises:
        DataError: The file is missing, damaged or in another encoding.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        return _decode(raw, latin, encoding).removeprefix("\ufeff").replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; put the file there or mend the path.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(describe_unreadable(path, error)) from error
    except UnicodeError as error:
        at = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise DataError(
            f"{path} is not {encoding or 'UTF-8'}{at}; convert it to UTF-8 (or name its encoding: "
            "data.source=tables data.source.encoding=latin-1)."
        ) from error


def _decode(raw: bytes, latin: bool, encoding: str) -> str:
    if not encoding:
        encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        if not latin:
            raise
        return raw.decode("latin-1")


def read_delimited(
    path: Path,
    separator: str,
    names: Sequence[str] | None = None,
    quoted: bool = False,
    numeric: Sequence[str] = (),
    latin: bool = False,
    encoding: str = "",
    escaped: bool = False,
) -> pl.DataFrame:
    """A table of text columns; empty places are null.

    A plain UTF-8 file is streamed: its text is never in memory as a whole. Any other is.

    Args:
        path: Plain or .gz file.
        separator: Between columns, one or more letters.
        names: Column names of a file without a header; None: the first line has them.
        quoted: Whether double quotes enclose values (CSV); elsewhere they are part of the text.
        numeric: Columns that become Float64 on the way if all their values are numbers.
        latin: Whether a file that is not UTF-8 is Latin-1.
        encoding: Another codec, that the file is in.
        escaped: Whether a quote within a value is written after a backslash, not twice.

    Raises:
        DataError: The file cannot be read, a line has another number of columns, or two columns
            have one name.
    """
    if len(separator) == 1 and path.suffix != ".gz" and not (encoding or escaped):
        streamed = _stream_delimited(path, separator, names, quoted, numeric)
        if streamed is not None:
            return _check_unique_columns(streamed, path)
    text = read_file_text(path, latin, encoding)
    if "\0" in text[:_HEAD]:
        raise DataError(
            f"{path} holds NUL characters: it is no text, or UTF-16 without its mark; save it as "
            "UTF-8."
        )
    if escaped:
        text = _ESCAPED.sub(lambda found: '""' if found[1] == '"' else "\\", text)
    if len(separator) > 1:
        text, separator = text.replace(separator, _UNIT), _UNIT
    if not text.strip():
        raise DataError(f"{path} is empty; fetch it again.")
    try:
        frame = pl.read_csv(
            io.BytesIO(text.encode()),
            separator=separator,
            has_header=names is None,
            new_columns=list(names) if names is not None else None,
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(_describe_odd_line(path, text, separator, names, quoted)) from error
    return _check_unique_columns(frame, path)


def _check_unique_columns(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The frame, if no two columns of the file have one name."""
    for name in frame.columns:
        again = _AGAIN.fullmatch(name)
        if again and again[1] in frame.columns:
            raise DataError(f"{path} has the column '{again[1]}' twice; rename or remove one.")
    return frame


def _describe_odd_line(
    path: Path, text: str, separator: str, names: Sequence[str] | None, quoted: bool
) -> str:
    """The error message for the first line that has another number of columns than it should."""
    rows = csv.reader(
        io.StringIO(text),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    width = len(names) if names is not None else 0
    with contextlib.suppress(csv.Error):
        for row in rows:
            width = width or len(row)
            # Empty places at the end of a line may be left out, where a header names them.
            if row and (len(row) > width or (names is not None and len(row) < width)):
                told = f" ({', '.join(names)})" if names is not None else ""
                return (
                    f"{path}: line {rows.line_num} has {len(row)} columns, not {width}{told}; mend "
                    "or remove the line."
                )
    return f"{path} is no table of columns; check its separators and quotes."


def _stream_delimited(
    path: Path, separator: str, names: Sequence[str] | None, quoted: bool, numeric: Sequence[str]
) -> pl.DataFrame | None:
    """As `read_delimited`; None where the file cannot be read so: the other names the reason."""
    try:
        with path.open("rb") as file:
            if b"\0" in file.read(_HEAD):
                return None
        lines = pl.scan_csv(
            path,
            separator=separator,
            has_header=names is None,
            new_columns=list(names) if names is not None else None,
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
        found = [n for n in numeric if n in lines.collect_schema().names()]
        numbers = [pl.col(name).cast(pl.Float64, strict=False) for name in found]
        frame = lines.with_columns(numbers).collect(engine="streaming")
        # What is no number stays text, so that a message can quote it.
        odd = [name for name in found if frame[name].null_count()]
        return frame.with_columns(lines.select(odd).collect().get_columns()) if odd else frame
    except (pl.exceptions.PolarsError, OSError):
        return None


def read_table(
    path: Path, numeric: Sequence[str] = (), latin: bool = False, dialect: Dialect | None = None
) -> pl.DataFrame:
    """A .csv, .tsv, .jsonl or .parquet file, the first three also as .gz.

    CSV and TSV columns are text, but those of `numeric`; the other two formats keep their types.
    With `latin`, a CSV or TSV file that is not UTF-8 is Latin-1. With a separator in `dialect`, a
    file of any other name is a text file of columns as well.

    Raises:
        DataError: The file is missing, damaged or of another kind.
    """
    how = dialect or Dialect()
    kind = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if kind in _SEPARATORS or (how.separator and kind not in (".jsonl", ".parquet")):
        quoting = how.quoting
        if quoting == "auto":
            quoting = "doubled" if kind == ".csv" else "none"
        return read_delimited(
            path,
            how.separator or _SEPARATORS[kind],
            quoted=quoting != "none",
            numeric=numeric,
            latin=latin,
            encoding=how.encoding,
            escaped=quoting == "escaped",
        )
    if kind not in (".jsonl", ".parquet"):
        raise DataError(f"{path} is no .csv, .tsv, .jsonl (.gz) or .parquet file; convert it.")
    try:
        if kind == ".parquet":
            return pl.read_parquet(path)
        return pl.read_ndjson(io.BytesIO(read_file_text(path).encode()), infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{path} cannot be read ({reason}); check the file.") from error


def read_json_by_id(path: Path) -> dict[str, dict[str, object]]:
    """A plain or .gz JSON file with one object that holds an object of fields for each id.

    Raises:
        DataError: The file is missing, damaged or of another form.
    """
    try:
        found = json.loads(read_file_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); fetch it again.") from error
    if not isinstance(found, dict) or not found:
        raise DataError(f'{path} is no object by id, as in {{"7": {{"title": ...}}}}; convert it.')
    for name, fields in found.items():
        if not isinstance(fields, dict):
            raise DataError(f"{path}: '{name}' holds no object of fields; mend or remove it.")
    return cast(dict[str, dict[str, object]], repair_surrogates(found))


def check_share(held_out: float, missing: Sequence[str]) -> None:
    """Raises an error for a share of training that is no part, or leaves nothing to train on.

    Args:
        held_out: `data.source.held_out`, for each missing part.
        missing: The parts that are held out from training.

    Raises:
        ConfigError: Of the share, with its limits.
    """
    if missing and not 0 < held_out * len(missing) < 1:
        raise ConfigError(
            f"data.source.held_out is {held_out:g}, for {' and '.join(missing)} each; set it "
            f"above 0 and below {1 / len(missing):g}."
        )


def parse_ids(column: pl.Series, where: str) -> pl.Series:
    """Ids as text, exactly as the file has them, without blanks around them.

    Raises:
        DataError: The column is not text or whole numbers: a float has lost the id already.
    """
    if column.dtype != pl.String and not column.dtype.is_integer():
        raise DataError(f"{where}: ids in column '{column.name}' are {column.dtype}; save as text.")
    return column.cast(pl.String).str.strip_chars()


def parse_numbers(column: pl.Series, where: str) -> pl.Series:
    """A column as Float64.

    Raises:
        DataError: A value is missing or no number; the message names row (from 1) and value.
    """
    out = column.cast(pl.Float64, strict=False)
    if out.null_count():
        row = int(out.is_null().arg_true()[0])
        held = (
            "is empty, or its line is short,"
            if column[row] is None
            else f"holds '{column[row]}', which is no number"
        )
        raise DataError(
            f"{where}: row {row + 1} of column '{column.name}' {held}; mend or remove the row."
        )
    return out


def make_users(interactions: pl.DataFrame) -> pl.DataFrame:
    """A users table without texts, in order of first appearance."""
    names = interactions["user"].unique(maintain_order=True)
    return pl.DataFrame({"user": names, "text": pl.Series([""] * len(names), dtype=pl.String)})


def split_year(items: pl.DataFrame) -> pl.DataFrame:
    """Takes the year off the end of film titles such as "Toy Story (1995)", as a column `year`."""
    pattern = r"^(.*?)\s*\((\d{4})[^()]*\)\s*$"
    return items.with_columns(
        pl.coalesce(pl.col("title").str.extract(pattern, 1), "title").alias("title"),
        pl.col("title").str.extract(pattern, 2).alias("year"),
    )


def drop_undescribed(
    events: pl.DataFrame, items: pl.DataFrame, source: str, where: str | Path
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[str, ...]]:
    """Leaves out items that come twice or have no text, and what was done with such items.

    Args:
        events: Interactions with `item`.
        items: Items with `item` and `text`.
        source: Its name, for the error message.
        where: File of the interactions, for messages.

    Returns:
        Interactions and items that are left, and the sentences that say what is not.

    Raises:
        DataError: An interaction cannot be used; the row is that of the file.
    """
    check_interactions(events, str(where))
    notes = []
    twice = items.height - items["item"].n_unique()
    if twice:
        items = items.unique("item", keep="first", maintain_order=True)
        some = "1 item is" if twice == 1 else f"{twice} items are"
        notes.append(f"{source}: {some} described twice; the first one counts.")
    texts = items.filter(pl.col("text").str.strip_chars() != "")
    if texts.height < items.height:
        bare = items.height - texts.height
        some = "1 item has" if bare == 1 else f"{bare} items have"
        notes.append(f"{source}: {some} no text: left out.")
    kept = events.filter(pl.col("item").is_in(texts["item"].to_list()))
    if kept.height < events.height:
        notes.append(
            f"{source}: {events.height - kept.height} of {events.height} interactions are with "
            "items that have no description: left out."
        )
    return kept, texts, tuple(notes)

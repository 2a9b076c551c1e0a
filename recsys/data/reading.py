"""Reading of files that all sources share: compression, marks, line ends, ids as text."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recsys.errors import ConfigError, DataError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_UNIT = "\x1f"  # the ASCII unit separator, stands in for separators of two letters


def find(folder: Path, *names: str) -> Path:
    """The first of the names that the folder holds.

    Raises:
        DataError: It holds none.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} holds no {' or '.join(names)}; put the file there or mend the path.")


def folder(path: str, what: str) -> Path:
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


def content(path: Path, encoding: str = "utf-8-sig") -> str:
    """Text of a plain or .gz file without byte-order mark, lines ended by a single newline.

    Raises:
        DataError: The file is missing, damaged or in another encoding.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        return raw.decode(encoding).replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; put the file there or mend the path.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not {encoding} at byte {error.start}; convert it.") from error


def delimited(
    path: Path,
    separator: str,
    names: Sequence[str] | None = None,
    encoding: str = "utf-8-sig",
    quoted: bool = False,
    numeric: Sequence[str] = (),
) -> pl.DataFrame:
    """A table of text columns; empty places are null.

    A plain UTF-8 file is streamed: its text is never in memory as a whole. Any other is.

    Args:
        path: Plain or .gz file.
        separator: Between columns, one or more letters.
        names: Column names of a file without a header; None: the first line has them.
        encoding: Of the file.
        quoted: Whether double quotes enclose values (CSV); elsewhere they are part of the text.
        numeric: Columns that become Float64 on the way if all their values are numbers.

    Raises:
        DataError: The file cannot be read, or a line has too many columns.
    """
    if len(separator) == 1 and path.suffix != ".gz" and encoding == "utf-8-sig":
        streamed = _streamed(path, separator, names, quoted, numeric)
        if streamed is not None:
            return streamed
    text = content(path, encoding)
    if len(separator) > 1:
        text, separator = text.replace(separator, _UNIT), _UNIT
    if not text.strip():
        raise DataError(f"{path} is empty; fetch it again.")
    try:
        return pl.read_csv(
            io.BytesIO(text.encode()),
            separator=separator,
            has_header=names is None,
            new_columns=list(names) if names is not None else None,
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{path} is not a table ({reason}); check its columns.") from error


def _streamed(
    path: Path, separator: str, names: Sequence[str] | None, quoted: bool, numeric: Sequence[str]
) -> pl.DataFrame | None:
    """As `delimited`; None where the file cannot be read so, and the other way names the reason."""
    try:
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


def table(path: Path, numeric: Sequence[str] = ()) -> pl.DataFrame:
    """A .csv, .tsv, .jsonl or .parquet file, the first three also as .gz.

    CSV and TSV columns are text, but those of `numeric`; the other two formats keep their types.

    Raises:
        DataError: The file is missing, damaged or of another kind.
    """
    kind = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if kind in _SEPARATORS:
        return delimited(path, _SEPARATORS[kind], quoted=kind == ".csv", numeric=numeric)
    if kind not in (".jsonl", ".parquet"):
        raise DataError(f"{path} is no .csv, .tsv, .jsonl (.gz) or .parquet file; convert it.")
    try:
        if kind == ".parquet":
            return pl.read_parquet(path)
        return pl.read_ndjson(io.BytesIO(content(path).encode()), infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{path} cannot be read ({reason}); check the file.") from error


def by_id(path: Path) -> dict[str, dict[str, object]]:
    """A plain or .gz JSON file with one object that holds an object of fields for each id.

    Raises:
        DataError: The file is missing, damaged or of another form.
    """
    try:
        found = json.loads(content(path))
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); fetch it again.") from error
    if not isinstance(found, dict) or not found:
        raise DataError(f'{path} is no object by id, as in {{"7": {{"title": ...}}}}; convert it.')
    for name, fields in found.items():
        if not isinstance(fields, dict):
            raise DataError(f"{path}: '{name}' holds no object of fields; mend or remove it.")
    return found


def check_share(held_out: float, missing: Sequence[str]) -> None:
    """Refuses a share of training that is no part, or leaves nothing to train on.

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


def ids(column: pl.Series, where: str) -> pl.Series:
    """Ids as text, exactly as the file has them, without blanks around them.

    Raises:
        DataError: The column is not text or whole numbers: a float has lost the id already.
    """
    if column.dtype != pl.String and not column.dtype.is_integer():
        raise DataError(f"{where}: ids in column '{column.name}' are {column.dtype}; save as text.")
    return column.cast(pl.String).str.strip_chars()


def numbers(column: pl.Series, where: str) -> pl.Series:
    """A column as Float64.

    Raises:
        DataError: A value is missing or no number; the message names row (from 1) and value.
    """
    out = column.cast(pl.Float64, strict=False)
    if out.null_count():
        row = int(out.is_null().arg_true()[0])
        raise DataError(
            f"{where}: row {row + 1} of column '{column.name}' holds '{column[row]}', which is no "
            "number; mend or remove the row."
        )
    return out


def users_of(interactions: pl.DataFrame) -> pl.DataFrame:
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


def described(
    events: pl.DataFrame, items: pl.DataFrame, source: str
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[str, ...]]:
    """Leaves out items that come twice or have no text, and what was done with such items.

    Args:
        events: Interactions with `item`.
        items: Items with `item` and `text`.
        source: Its name, for the sentence.

    Returns:
        Interactions and items that are left, and the sentences that say what is not.
    """
    notes = []
    twice = items.height - items["item"].n_unique()
    if twice:
        items = items.unique("item", keep="first", maintain_order=True)
        notes.append(f"{source}: {twice} items are described twice; the first one counts.")
    texts = items.filter(pl.col("text").str.strip_chars() != "")
    if texts.height < items.height:
        notes.append(f"{source}: {items.height - texts.height} items have no text: left out.")
    kept = events.filter(pl.col("item").is_in(texts["item"].to_list()))
    if kept.height < events.height:
        notes.append(
            f"{source}: {events.height - kept.height} of {events.height} interactions are with "
            "items that have no description: left out."
        )
    return kept, texts, tuple(notes)

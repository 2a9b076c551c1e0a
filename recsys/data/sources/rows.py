"""Rows of a history and its target, as papers on generative recommendation publish their data.

Page: GitHub, "AkaliKong/MiniOneRec", folder data/Amazon (Amazon review data 2018), with
items="index/NAME.item.json", history=history_item_id and target=item_id; and files like these. No
checksums are known. There are no times, but the rows of each part follow each other in time.

The rows of a user repeat each other: a history is what the rows before it tell, cut to its latest
items. Each event counts once: a target belongs to the part of its row, and what only a history
tells lies before that row, in the part that the user had reached by then: at first, training.
"""

from __future__ import annotations

import ast
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from recsys.config.schema import SourceConfig, SplitMethod, option
from recsys.data.readers import tabular
from recsys.data.readers.templates import fill_template, strip_markup
from recsys.data.tables import Tables, check_tables, parse_windows
from recsys.errors import ConfigError, DataError

_WHAT = (
    "the rows of a history and its target (rows.jsonl with a column split; or a .jsonl, .csv or "
    ".parquet file in or for each of train, valid and test) and items.json"
)
_PARTS = {"train": ("train",), "val": ("valid", "val", "dev"), "test": ("test",)}
_WORDS = {word: part for part, words in _PARTS.items() for word in (*words, part)}
_KINDS = (".jsonl", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz", ".tsv.gz")
_ALWAYS = ("title", "brand", "description")  # what the default template names


@dataclass
class Config(SourceConfig):
    """Where the files lie, and how their columns are called."""

    default_split: ClassVar[SplitMethod] = "given"

    path: str = option("", "Folder of the rows and the items.")
    rows: str = option(
        "rows.jsonl",
        "File of all parts with a column split, .gz too; where it is missing, the "
        "files or folders train, valid and test are read.",
    )
    items: str = option("items.json", "JSON object of fields by item id; .gz too.")
    user: str = option("user_id", "Column of the user id.")
    history: str = option("history", "Column of the earlier items' ids, oldest first.")
    target: str = option("target", "Column of the next item's id.")
    item_text: str = option(
        "{title}; {brand}; {description}",
        "Template over the items' fields; what data.max_tokens cuts off is its end.",
    )
    train_share: float = option(
        0.0,
        "Share of the valid rows, from the first one on, that train too: for data published "
        "without its training part. 1: all of them, and none validates.",
        least=0,
        most=1,
    )


def _find_files(folder: Path, cfg: Config) -> dict[Path, str | None]:
    """The files of rows with the part that each is for; None: a column says it."""
    if any((folder / name).is_file() for name in (cfg.rows, f"{cfg.rows}.gz")):
        return {tabular.find_file(folder, cfg.rows, f"{cfg.rows}.gz"): None}
    out: dict[Path, str | None] = {}
    for part, words in _PARTS.items():
        found = [folder / f"{word}{kind}" for word in words for kind in _KINDS]
        found = [path for path in found if path.is_file()]
        for word in words:
            found += [p for p in sorted(folder.glob(f"{word}/*")) if p.name.endswith(_KINDS)]
        if len(found) > 1:
            raise DataError(f"{folder} holds {len(found)} files for {part}; leave one of them.")
        out |= dict.fromkeys(found, part)
    if not out:
        raise DataError(f"{folder} holds no {cfg.rows} and no file for a part; fetch {_WHAT}.")
    return out


def _parse_ids(column: pl.Series, where: str) -> pl.Series:
    """Lists of ids as text, from lists or from the text of one, such as "['7', '8']"."""
    if column.dtype == pl.String:
        return column.str.extract_all(r"[^\s,'\"\[\]]+")
    if not isinstance(column.dtype, pl.List):
        raise DataError(f"{where}: column '{column.name}' is {column.dtype}; give lists of ids.")
    if column.dtype == pl.List(pl.Null):
        return column.cast(pl.List(pl.String))
    tabular.parse_ids(column.explode(), where)
    return column.cast(pl.List(pl.String)).list.eval(pl.element().str.strip_chars())


def _parse_part(column: pl.Series) -> pl.Series:
    """Train, val or test for each word of a column, null for one that is none."""
    words = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    return words.replace_strict(_WORDS, default=None, return_dtype=pl.String)


def _read_rows(path: Path, part: str | None, cfg: Config) -> pl.DataFrame:
    """The rows of a file: user, target, history (list of text), split, where (for messages)."""
    frame, where = tabular.read_table(path), str(path)
    keys = {"user": cfg.user, "history": cfg.history, "target": cfg.target}
    for key, name in (keys if part else {**keys, "split": "split"}).items():
        if name not in frame.columns:
            raise ConfigError(
                f"{path} has no column '{name}' ({key}); the columns are "
                f"{', '.join(frame.columns)}: name the right one, as in data.source.user=uid."
            )
    split = pl.Series([part] * frame.height, dtype=pl.String) if part else frame["split"]
    out = pl.DataFrame(
        {
            "user": tabular.parse_ids(frame[cfg.user], where),
            "target": tabular.parse_ids(frame[cfg.target], where),
            "history": _parse_ids(frame[cfg.history], where),
            "split": _parse_part(split),
            "where": [f"{path}: row {n}" for n in range(1, frame.height + 1)],
        }
    )
    for name in ("user", "target", "history", "split"):
        bad = out[name].is_null() | ((out[name] == "") if name in ("user", "target") else False)
        if bad.any():
            row = int(bad.arg_true()[0])
            raise DataError(
                f"{path}: row {row + 1} has no usable {name} ('{frame[keys.get(name, name)][row]}')"
                "; mend or remove the row."
            )
    return out


def _count_known(chain: list[str], history: list[str], longest: int) -> int:
    """How many items of a history the chain of the user's earlier events ends with; -1: none fits.

    Args:
        chain: The user's events so far, oldest first.
        history: Of the next row.
        longest: Length of the longest history: shorter ones hold all earlier events.
    """
    if len(history) < longest:
        return len(chain) if history[: len(chain)] == chain else -1
    # Of several ways to continue, the one with the fewest new events: none is told twice.
    for size in range(min(len(chain), len(history)), 0, -1):
        if chain[-size:] == history[:size]:
            return size
    return -1 if chain else 0


def _make_events(rows: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Each event once: user, item, split, a user's events in their order; and what was done.

    Raises:
        DataError: A row contradicts the user's earlier rows.
    """
    longest = max(rows["history"].list.len().to_list(), default=0)
    chains: dict[str, list[str]] = {}
    parts: dict[str, list[str]] = {}
    first = between = alone = 0
    order = pl.col("split").replace_strict({"train": 0, "val": 1, "test": 2})
    for user, target, history, split, where in rows.sort(order, maintain_order=True).iter_rows():
        chain, part = chains.setdefault(user, []), parts.setdefault(user, [])
        known = _count_known(chain, history, longest)
        if known < 0:
            raise DataError(
                f"{where}: the history does not continue what the earlier rows of user '{user}' "
                f"tell; it must hold all earlier items, or the latest {longest}, and the rows of a "
                "user must follow each other in time, each once: sort them, or remove the row."
            )
        new = history[known:]
        if chain:
            between += len(new)
        else:
            first += len(new)
            alone += len(history) == 1 and split != "train"
        part += [part[-1] if part else "train"] * len(new) + [split]
        chain += [*new, target]
    notes = [f"rows: {first} events are told by a user's first history only: they train."]
    if alone:
        notes.append(
            f"rows: {alone} of them come first of all and right before a held-out target: they may "
            "be later than held-out events of other users, which no row tells."
        )
    if between:
        notes.append(
            f"rows: {between} events are told by a later history only, and belong to the part that "
            "the user had reached by then."
        )
    if "train" not in set(rows["split"]):
        notes.append("rows: there is no training part; what trains are the first histories.")
    users = [name for name, chain in chains.items() for _ in chain]
    items = [item for chain in chains.values() for item in chain]
    roles = [role for part in parts.values() for role in part]
    return pl.DataFrame({"user": users, "item": items, "split": roles}), tuple(notes)


def _move_to_training(rows: pl.DataFrame, share: float) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Rows of which the first valid ones are of the training part; and what was done.

    They follow each other in time, as the rows of every part do.
    """
    valid = pl.col("split") == "val"
    count = rows.filter(valid).height
    moved = round(share * count)
    if not moved:
        return rows, ()
    early = valid & (valid.cum_sum() <= moved)
    rows = rows.with_columns(pl.when(early).then(pl.lit("train")).otherwise("split").alias("split"))
    return rows, (
        f"rows: the first {moved} of {count} valid rows train (data.source.train_share).",
    )


def _format_field(value: object) -> str | None:
    """A field as text without markup; a list, also in the form of a text, as its parts."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        # Else it is a text that merely begins with a bracket.
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            value = ast.literal_eval(value.strip())
    # A description may say a sentence twice.
    text = strip_markup(value, " ", once=False) or ""
    return None if value is None else " ".join(text.split())


def _read_items(path: Path) -> pl.DataFrame:
    """The items with all their fields as text."""
    found = tabular.read_json_by_id(path)
    names = dict.fromkeys([*_ALWAYS, *(name for fields in found.values() for name in fields)])
    columns = {n: [_format_field(fields.get(n)) for fields in found.values()] for n in names}
    # A field with one of the names that tables keep for themselves would be taken for it.
    columns = {f"{n}_" if n in ("item", "text") else n: texts for n, texts in columns.items()}
    schema = {"item": pl.String, **dict.fromkeys(columns, pl.String)}
    return pl.DataFrame({"item": [name.strip() for name in found], **columns}, schema=schema)


def load(cfg: Config) -> Tables:
    """Reads rows and items; items that no row names stay in the catalog.

    Raises:
        DataError: A file is missing or damaged, or a row does not fit the rows before it.
        ConfigError: A column is not there, or the template names an unknown field.
    """
    folder = tabular.check_folder(cfg.path, _WHAT)
    files = _find_files(folder, cfg)
    path = tabular.find_file(folder, cfg.items, f"{cfg.items}.gz")
    items = parse_windows(_read_items(path), str(path))
    rows, moved = _move_to_training(
        pl.concat([_read_rows(file, part, cfg) for file, part in files.items()]), cfg.train_share
    )
    events, notes = _make_events(rows)
    items = items.with_columns(fill_template(items, cfg.item_text))
    events, items, more = tabular.drop_undescribed(events, items, "rows", folder)
    return check_tables(
        Tables(events, items, tabular.make_users(events), (*moved, *notes, *more)), str(folder)
    )

"""Dialogues of one's own, as JSON lines: turns with speaker, text and the items that are named.

A line is a dialogue:

    {"dialogue": "d1", "split": "train", "turns": [
        {"speaker": "seeker", "text": "Something like Alien?", "items": ["348"]},
        {"speaker": "recommender", "text": "Try The Thing.", "items": ["1091"]},
        {"speaker": "seeker", "text": "Not for me.", "items": [{"item": "1091", "liked": false}]}
    ]}

`split` (train, val, test) may be absent in all of them: the last dialogues are held out then.
`items` may be absent where none is named. Texts are read as they are, in any language.

Cases are those of the source redial, as He et al. (CIKM 2023) count them: each item of a
recommender's turn is a target, what was named before is apart, and a query's text is the dialogue
before the turn. `liked` is what is said of an item at that turn, and an event of its own: it is
known from then on, and never before. As `rating` it is 1 or 0, and 0.5 where nothing is said: with
`data.positive_from=0.5` a dislike is no target, and what architectures read that read dislikes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import polars as pl

from recsys.config.schema import DataOptions, Repeated, SourceConfig, SplitMethod, option
from recsys.data.readers import jsonl, tabular
from recsys.data.readers.dialogues import (
    SAID,
    DialogueReader,
    Turn,
    check_named,
    check_split,
    describe_turns,
    hold_out_last,
    make_users,
    merge_turns,
)
from recsys.data.readers.templates import fill_template
from recsys.data.tables import Tables, check_tables
from recsys.errors import ConfigError, DataError

_FORM = '{"dialogue": "d1", "turns": [{"speaker": "seeker", "text": "Hi", "items": []}]}'
_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_RATING = {None: 0.5, True: 1.0, False: 0.0}
_EVENT = {None: "unsaid", True: "liked", False: "disliked"}


@dataclass
class Config(SourceConfig):
    """The files, who recommends, and which turns are read."""

    default_split: ClassVar[SplitMethod] = "given"

    path: str = option("", "File with a dialogue a line (.jsonl, .gz too).")
    items: str = option("", "File with a row per item (.csv, .tsv, .jsonl, .parquet).")
    item: str = option("item", "Column of the item id in the items' file.")
    item_text: str = option("{title}", "Template of an item's text over its columns.")
    recommender: list[str] = option(
        ["recommender", "assistant", "system"],
        "Speakers who recommend, in any case of letters; all others seek.",
    )
    targets: Literal["recommender", "all"] = option(
        "recommender", "Whose items are asked for: those of the recommender's turns, or of all."
    )
    turns: Literal["both", "seeker"] = option("both", "Whose turns make the text.")
    speakers: bool = option(False, "Whether each turn of a text begins with who speaks.")
    text_words: int = option(
        1000, "How many of the latest words of a dialogue a text has at most.", least=1
    )
    held_out: float = option(
        0.1, "Share of training dialogues, the last, for a part that is missing."
    )
    unknown: Literal["refuse", "leave_out"] = option(
        "refuse", "Named items that have no row or no text: refuse, or leave out and say how many."
    )

    @property
    def repeated(self) -> Repeated:
        """What was named before is counted apart."""
        return "apart"

    @property
    def query_column(self) -> str | None:
        """The dialogue up to a turn."""
        return SAID

    def apply_data_options(self, data: DataOptions) -> None:
        """Refuses to split dialogues, and those in which nobody could recommend."""
        check_split("dialogues", data.split)
        if not any(name.strip() for name in self.recommender):
            raise ConfigError(
                "data.source.recommender names no speaker, so that nobody recommends; set it to "
                "those who do, as in data.source.recommender=[assistant], or leave it out."
            )

    def leave_out_unknown(self) -> Self:
        """With `unknown=leave_out`."""
        return replace(self, unknown="leave_out")


@dataclass(frozen=True)
class _Dialogue:
    """One dialogue as it is read.

    Attributes:
        name: Its id.
        part: train, val, test; empty where none is given.
        turns: Its turns, those of one side in a row as one.
        liked: What is said of an item, by number of the turn and item.
    """

    name: str
    part: str
    turns: tuple[Turn, ...]
    liked: Mapping[tuple[int, str], bool]


def _read_named(value: object, where: str) -> tuple[str, bool | None]:
    """Id of a named item, and whether it is liked, where that is said.

    Raises:
        DataError: It is neither an id nor an object with one.
    """
    liked: object = None
    if isinstance(value, dict):
        liked, value = value.get("liked"), value.get("item")
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise DataError(f'{where} names no item id; give "348" or {{"item": "348"}}.')
    if liked is not None and not isinstance(liked, bool):
        raise DataError(f"{where}: liked is neither true nor false; leave it out where unknown.")
    return str(value).strip(), liked


def _read_turn(turn: object, where: str, cfg: Config) -> tuple[Turn, dict[str, bool]]:
    """A turn, and what it says of items.

    Raises:
        DataError: It has no speaker, or texts or items of a wrong kind.
    """
    found: dict[str, Any] = turn if isinstance(turn, dict) else {}
    speaker, text, items = found.get("speaker"), found.get("text", ""), found.get("items") or []
    if not isinstance(speaker, str) or not speaker.strip():
        raise DataError(f'{where} has no speaker; give it one, such as "seeker".')
    if not isinstance(text, str) or not isinstance(items, list):
        raise DataError(f"{where} needs a text and a list of items, as in {_FORM}.")
    named = [_read_named(value, where) for value in items]
    recommends = speaker.strip().lower() in {name.lower() for name in cfg.recommender}
    ids = tuple(dict.fromkeys(item for item, _ in named))
    said = {item: liked for item, liked in named if liked is not None}
    return Turn(recommends, " ".join(text.split()), ids), said


def _read_dialogue(record: Mapping[str, Any], where: str, cfg: Config) -> _Dialogue:
    """A line of the file.

    Raises:
        DataError: It is no dialogue.
    """
    name, turns, part = record.get("dialogue"), record.get("turns"), record.get("split")
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise DataError(f"{where} has no id; give each a dialogue, as in {_FORM}.")
    where = f"{where} ('{name}')"
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where} has no turns; give them as in {_FORM}, or remove the line.")
    if part is not None and str(part).strip().lower() not in _PARTS:
        raise DataError(f"{where} has the split '{part}'; use train, val or test.")
    merged: list[Turn] = []
    liked: dict[tuple[int, str], bool] = {}
    for number, turn in enumerate(turns, 1):
        own, said = _read_turn(turn, f"{where}: turn {number}", cfg)
        merged[-1:] = merge_turns([*merged[-1:], own])  # it may go on with the last one
        liked |= {(len(merged) - 1, item): value for item, value in said.items()}
    role = "" if part is None else _PARTS[str(part).strip().lower()]
    return _Dialogue(str(name).strip(), role, tuple(merged), liked)


def _read_dialogues(cfg: Config) -> tuple[list[_Dialogue], list[str], tuple[str, ...]]:
    """All dialogues, those that train first, the part of each, and what was decided.

    Raises:
        DataError: The file is missing, damaged or holds no dialogue; an id is given twice; some
            dialogues have a part and others none; or nobody recommends.
        ConfigError: `held_out` does not fit.
    """
    path, seen = Path(cfg.path), dict[str, tuple[int, str]]()
    dialogues = []
    for place, record in enumerate(jsonl.read_objects(path), 1):
        found = _read_dialogue(record, f"{path}: dialogue {place}", cfg)
        if found.name in seen:
            first, other = seen[found.name]
            both = f" ({other or 'no split'} and {found.part or 'no split'})"
            raise DataError(
                f"{path}: dialogue {place} has the id '{found.name}' of dialogue {first}{both}; a "
                "dialogue is in one part, whole: give each an id of its own."
            )
        seen[found.name] = place, found.part
        dialogues.append(found)
    if not dialogues:
        raise DataError(f"{path} holds no dialogue; give one a line, as in {_FORM}.")
    bare = [each.name for each in dialogues if not each.part]
    if bare and len(bare) < len(dialogues):
        raise DataError(
            f"{path}: dialogue '{bare[0]}' has no split, and others have one; give it to all or to "
            "none."
        )
    if not any(turn.recommends for each in dialogues for turn in each.turns):
        raise DataError(
            f"{path}: no turn is of a speaker who recommends ({', '.join(cfg.recommender)}); name "
            "yours in data.source.recommender=[NAME]."
        )
    order = ["train", "val", "test"]
    dialogues.sort(key=lambda each: order.index(each.part or "train"))
    parts = [each.part or "train" for each in dialogues]
    if "train" not in parts:
        raise DataError(f"{path}: no dialogue has the split train; there is nothing to train on.")
    turns = sum(len(each.turns) for each in dialogues)
    notes = hold_out_last(parts, cfg.held_out, "dialogues")
    return dialogues, parts, (f"dialogues: {len(dialogues)} with {turns} turns.", *notes)


def _read_items(cfg: Config) -> pl.DataFrame:
    """The items with their texts.

    Raises:
        ConfigError: A column is not there.
        DataError: The file is missing or damaged.
    """
    items = tabular.read_table(Path(cfg.items))
    if cfg.item not in items.columns:
        raise ConfigError(
            f"{cfg.items} has no column '{cfg.item}' (data.source.item); set it to the column of "
            f"the item id, one of {', '.join(items.columns)}."
        )
    if cfg.item != "item" and "item" in items.columns:
        items = items.rename({"item": "item_"})
    items = items.rename({cfg.item: "item"})
    items = items.with_columns(tabular.parse_ids(items["item"], cfg.items))
    try:
        return items.with_columns(fill_template(items, cfg.item_text))
    except ConfigError as error:
        raise ConfigError(
            f"{cfg.items}: set data.source.item_text to a template over its columns: {error}"
        ) from error


def _list_rows(dialogue: _Dialogue, part: str, reader: DialogueReader) -> Iterator[dict[str, Any]]:
    """The events of a dialogue, with what was said of items at once or later."""
    named = reader.list_events(dialogue.name, dialogue.turns)
    events = {(row["turn"], row["item"]): row for row in named}
    for at in sorted(dict.fromkeys([*events, *dialogue.liked]), key=lambda at: at[0]):
        liked = dialogue.liked.get(at)
        row = events.get(at)
        if row is None:  # named again, only to say what is thought of it
            row = reader.make_event(dialogue.name, dialogue.turns, *at, asked=False)
        yield {
            "user": dialogue.name,
            "split": part,
            **row,
            "rating": _RATING[liked],
            "event": _EVENT[liked],
        }


def _check_known(events: pl.DataFrame, items: pl.DataFrame, cfg: Config) -> None:
    """Refuses items without a row or a text, where they are not left out.

    Raises:
        DataError: There are some.
    """
    described = items.filter(pl.col("text").str.strip_chars() != "")["item"].to_list()
    unknown = events.filter(~pl.col("item").is_in(described))
    if unknown.height and cfg.unknown == "refuse":
        first = unknown.row(0, named=True)
        raise DataError(
            f"{cfg.path}: dialogue '{first['dialogue']}' names the item '{first['item']}', which "
            f"has no row or no text in {cfg.items} ({unknown['item'].n_unique()} such items); add "
            "it, or set data.source.unknown=leave_out."
        )


def load(cfg: Config) -> Tables:
    """Reads the dialogues and the items.

    Raises:
        DataError: A file is missing or damaged, a line holds no dialogue, or nothing is named.
        ConfigError: A column or template does not fit, or `held_out` does not.
    """
    if not cfg.path or not cfg.items:
        raise DataError("Set data.source.path to a file of dialogues and data.source.items.")
    items = _read_items(cfg)
    dialogues, parts, notes = _read_dialogues(cfg)
    reader = DialogueReader(cfg.targets, cfg.turns, cfg.speakers, cfg.text_words)
    rows = [
        row
        for dialogue, part in zip(dialogues, parts, strict=True)
        for row in _list_rows(dialogue, part, reader)
    ]
    if not rows:
        raise DataError(f"{cfg.path}: no dialogue names an item; give turns their items.")
    events = pl.DataFrame(rows, infer_schema_length=None)
    _check_known(events, items, cfg)
    silent = len(dialogues) - events["dialogue"].n_unique()
    if silent:
        notes += (f"dialogues: {silent} name no item: left out.",)
    events, items, more = tabular.drop_undescribed(events, items, "dialogues", cfg.path)
    if events.is_empty():
        raise DataError(f"{cfg.path}: none of the items that are named is in {cfg.items}.")
    check_named(events, cfg.path, cfg.targets)
    kept = set(events.select("moment", "item").iter_rows())
    turns = describe_turns("dialogues", [r for r in rows if (r["moment"], r["item"]) in kept])
    users = make_users(events, {d.name: reader.write_text(d.turns) for d in dialogues})
    tables = Tables(events, items, users, (*notes, *turns, *more))
    return check_tables(tables, cfg.path, cfg.path, cfg.items)

"""Dialogues as events: what was named at each turn, with what had been said before it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from recsys.data.readers import jsonl, tabular
from recsys.data.readers.tabular import check_share
from recsys.errors import ConfigError, DataError

SAID = "said"
"""Column of the dialogue up to the turn of an event, and of users: the whole of their last one."""

Targets = Literal["recommender", "all"]
Whose = Literal["both", "seeker"]
Listed = Mapping[int, Collection[str]]
"""Items by the number of the turn that names them."""

_NAMES = {True: "Recommender", False: "Seeker"}


@dataclass(frozen=True)
class Turn:
    """What one side said until the other one spoke.

    Attributes:
        recommends: Whether it is the recommender who speaks.
        text: What was said, items by their titles.
        items: Ids of the items that are named, each once, in their order.
    """

    recommends: bool
    text: str
    items: tuple[str, ...]


def merge_turns(turns: Sequence[Turn]) -> list[Turn]:
    """Messages of one side in a row as one turn, as He et al. (CIKM 2023) count them."""
    out: list[Turn] = []
    for turn in turns:
        if out and out[-1].recommends == turn.recommends:
            last = out.pop()
            text = " ".join(filter(None, (last.text, turn.text)))
            turn = Turn(turn.recommends, text, tuple(dict.fromkeys(last.items + turn.items)))
        out.append(turn)
    return out


@dataclass(frozen=True)
class DialogueReader:
    """How dialogues become events.

    Attributes:
        targets: Whose items are asked for: the recommender's, or those of both.
        whose: Whose turns make the text.
        speakers: Whether each turn of the text begins with who speaks.
        words: How many of the latest words a text has at most, in whole turns but for the first.
    """

    targets: Targets
    whose: Whose
    speakers: bool
    words: int

    def list_events(
        self, dialogue: str, turns: Sequence[Turn], listed: Listed | None = None
    ) -> Iterator[dict[str, Any]]:
        """The items of each turn, with what had been said before it.

        An item is an event where it is named first, and again at each turn that is asked about.

        Args:
            dialogue: Its id.
            turns: Its turns, merged.
            listed: The only targets, by number of the turn; None: all are.
        """
        known: set[str] = set()
        for number, turn in enumerate(turns):
            may = turn.recommends or self.targets == "all"
            for item in turn.items:
                asked = may and (listed is None or item in listed.get(number, ()))
                if asked or item not in known:
                    yield self.make_event(dialogue, turns, number, item, asked=asked)
            known.update(turn.items)

    def make_event(
        self, dialogue: str, turns: Sequence[Turn], number: int, item: str, *, asked: bool
    ) -> dict[str, Any]:
        """An item that is named at a turn.

        Args:
            dialogue: Id of the dialogue.
            turns: Its turns, merged.
            number: The turn.
            item: The item.
            asked: Whether it is a target.
        """
        return {
            "item": item,
            "is_target": asked,
            "by": "recommender" if turns[number].recommends else "seeker",
            "dialogue": dialogue,
            "turn": number,
            "moment": f"{dialogue}-{number}",  # the items of one turn are named at once
            SAID: self.write_text(turns[:number]),
        }

    def write_text(self, turns: Sequence[Turn]) -> str:
        """What was said in some turns, a line each: the latest ones, as many as there is room."""
        lines: list[str] = []
        room = self.words
        for turn in reversed(turns):
            if turn.text and (self.whose == "both" or not turn.recommends):
                words = turn.text.split()[-room:]
                room -= len(words)
                lead = f"{_NAMES[turn.recommends]}: " if self.speakers else ""
                lines.append(lead + " ".join(words))
            if room <= 0:
                break
        return "\n".join(reversed(lines))


def read_listed_turns(
    path: Path, dialogues: Mapping[str, Sequence[Turn]], names: Mapping[str, str]
) -> dict[str, dict[int, list[str]]]:
    """The items that count, by dialogue and number of the turn.

    Args:
        path: A file with a turn a line, as iEvaLM's eval_test_data_processed.jsonl.
        dialogues: Turns, merged, of those that it lists turns of.
        names: Titles by item.

    Raises:
        DataError: The file is missing or damaged, a line lists no turn, or an item that the turn
            does not name; or nothing is listed.
    """
    out: dict[str, dict[int, list[str]]] = {}
    for place, raw in enumerate(jsonl.read_objects(path), 1):
        record: dict[str, Any] = raw
        name, number, titles = (record.get(key) for key in ("dialog_id", "turn_id", "rec"))
        if isinstance(number, bool):  # which Python takes for a whole number
            number = None
        if not (isinstance(name, str) and isinstance(number, int) and isinstance(titles, list)):
            raise DataError(
                f"{path}: line {place} lists no turn; give dialog_id, the number of the turn as "
                "turn_id and titles as rec, as iEvaLM does."
            )
        if name not in dialogues:
            raise DataError(
                f"{path}: line {place} lists the dialogue {name}, which the test part lacks; the "
                "list is of other files."
            )
        turns = dialogues[name]
        named = turns[number].items if 0 <= number < len(turns) else ()
        items = {" ".join(names[item].split()): item for item in named}
        for title in titles:
            item = items.get(" ".join(str(title).split()))
            if item is None:
                raise DataError(
                    f"{path}: line {place} lists '{title}', which turn {number} of dialogue {name} "
                    "does not name; messages of one side in a row are one turn, from 0."
                )
            out.setdefault(name, {}).setdefault(number, []).append(item)
    if not out:
        raise DataError(
            f"data.source.listed={path} lists no item of a turn, so that no test is left; list "
            "some as iEvaLM does, or leave data.source.listed out to ask for all."
        )
    return out


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def hold_out_last(parts: list[str], held_out: float, name: str) -> tuple[str, ...]:
    """Makes the last dialogues of training the parts that are missing, in place.

    Args:
        parts: Of each dialogue, train, val or test; those that train come first.
        held_out: Share of training for each part.
        name: Of the source.

    Returns:
        What was done, as sentences for the log.

    Raises:
        ConfigError: The share is no part, or leaves nothing to train on.
    """
    missing = [part for part in ("val", "test") if part not in parts]
    check_share(held_out, missing)
    notes: list[str] = []
    last = parts.count("train")
    size = max(1, round(held_out * last))
    if missing and size * len(missing) >= last:
        whose, of = " and ".join(missing), f"{_count(last, 'dialogue')} of training"
        if last <= len(missing):
            raise ConfigError(
                f"{name}: holding out {whose} from {of} leaves nothing to train on; give "
                f"{len(missing) + 1} or more, or {whose} of their own."
            )
        raise ConfigError(
            f"{name}: data.source.held_out={held_out:g} is {size} of {of} for {whose} each, and "
            "leaves nothing to train on; set it lower."
        )
    for part in reversed(missing):
        parts[last - size : last] = [part] * size
        last -= size
        held = (
            "the last dialogue of training is"
            if size == 1
            else (f"the last {size} dialogues of training are")
        )
        notes.append(f"{name}: {held} the part for {part}.")
    return tuple(notes)


def check_named(events: pl.DataFrame, where: object, targets: Targets) -> None:
    """Refuses dialogues of which none trains or none is asked about.

    Args:
        events: Interactions with `split` and `is_target`.
        where: File or folder of the dialogues.
        targets: Whose items are asked for.

    Raises:
        DataError: Those of training name no item, or those of test none that is asked for.
    """
    if "train" not in events["split"]:
        raise DataError(
            f"{where}: no dialogue of training names an item, so that there is nothing to train "
            "on; give its turns their items."
        )
    if not events.filter(pl.col("is_target") & (pl.col("split") == "test")).height:
        whose, other = "", ""
        if targets == "recommender":
            whose, other = " of a recommender", ", or set data.source.targets=all"
        raise DataError(
            f"{where}: no turn{whose} in the dialogues of test names an item, so that nothing is "
            f"asked for there; give such turns their items{other}."
        )


def make_users(events: pl.DataFrame, now: Mapping[str, str]) -> pl.DataFrame:
    """Users without texts, in order of first appearance, with what each has said by now.

    Args:
        events: Interactions with `user`.
        now: What was said in the last dialogue of each user.
    """
    users = tabular.make_users(events)
    said = pl.Series(SAID, [now[user] for user in users["user"]], dtype=pl.String)
    return users.with_columns(said)


def describe_turns(name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """How many turns and targets each part has, as sentences for the log.

    Args:
        name: Of the source.
        rows: Events, with their parts as `split`, as `DialogueReader.list_events` gives them.
    """
    out = []
    for part in ("train", "val", "test"):
        own = [row for row in rows if row["split"] == part and row["is_target"]]
        known: set[tuple[str, str]] = set()
        first: dict[tuple[str, str], str] = {}
        for row in (row for row in rows if row["split"] == part):
            first.setdefault((row["dialogue"], row["item"]), row["moment"])
        for row in own:
            if first[row["dialogue"], row["item"]] != row["moment"]:
                known.add((row["moment"], row["item"]))
        if own:
            turns, dialogues = ({row[key] for row in own} for key in ("moment", "dialogue"))
            out.append(
                f"{name}: {part}: {_count(len(own), 'target')} in {_count(len(turns), 'turn')} of "
                f"{_count(len(dialogues), 'dialogue')}, {len(known):,} of them named before in "
                "their dialogue."
            )
    return tuple(out)


def check_split(name: str, split: str) -> None:
    """Refuses a split by turn: training would read the dialogue that a test asks about.

    Args:
        name: Of the source.
        split: `data.split`.

    Raises:
        ConfigError: Dialogues would be cut.
    """
    if split not in ("default", "given"):
        raise ConfigError(
            f"data.split={split} would hold out turns of dialogues whose other turns train; "
            f"{name} holds out whole dialogues: leave data.split out."
        )

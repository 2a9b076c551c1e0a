"""Dialogues as events: what was named at each turn, with what had been said before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from recsys.errors import ConfigError

SAID = "said"
"""Column of the dialogue up to the turn of an event, and of users: the whole of their last one."""

Targets = Literal["recommender", "all"]
Whose = Literal["both", "seeker"]

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

    def list_events(self, dialogue: str, turns: Sequence[Turn]) -> Iterator[dict[str, Any]]:
        """The items of each turn, with what had been said before it.

        An item is an event where it is named first, and again at each turn that is asked about.

        Args:
            dialogue: Its id.
            turns: Its turns, merged.
        """
        known: set[str] = set()
        for number, turn in enumerate(turns):
            asked = turn.recommends or self.targets == "all"
            named = [item for item in turn.items if asked or item not in known]
            said = self.write_text(turns[:number]) if named else ""
            for item in named:
                yield {
                    "item": item,
                    "is_target": asked,
                    "by": "recommender" if turn.recommends else "seeker",
                    "dialogue": dialogue,
                    "turn": number,
                    "moment": f"{dialogue}-{number}",  # the items of one turn are named at once
                    SAID: said,
                }
            known.update(turn.items)

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
                f"{name}: {part}: {len(own):,} targets in {len(turns):,} turns of "
                f"{len(dialogues):,} dialogues, {len(known):,} of them named before in their "
                "dialogue."
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

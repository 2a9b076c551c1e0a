"""Systems compared by scripted seekers, at equal numbers of items shown.

A list has so many items a turn, whatever was said. Each seeker looks for the same item with the
same first line under each policy: `more` shows what fits next, `random` is critiqued by someone who
looks for another item, `critiques` by the seeker.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.trained.conversation.conversation import Conversation
from recsys.trained.conversation.critiques import (
    Avoided,
    Bound,
    Critique,
    Disliked,
    HasValue,
    Hidden,
    Liked,
    Said,
)
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.conversation.seeking.phrases import PLAIN, SPOKEN, Phrases
from recsys.trained.conversation.seeking.seeker import WRONG, Meant, Seeker, Spoken
from recsys.trained.conversation.seeking.views import Views
from recsys.trained.conversation.turns import Turn

Policy = Literal["more", "random", "critiques", "plain critiques", "critiques, new items"]
POLICIES: tuple[Policy, ...] = (
    *("more", "random", "critiques", "plain critiques", "critiques, new items"),
)
"""`plain critiques` are put in phrases that are all understood; in `critiques, new items` the
seeker says first that it wants other items than those that were shown."""

Outcome = Literal["understood", "as text", "otherwise", "not at all"]
_SIGNS = {
    **{"older": ("time", "<"), "newer": ("time", ">"), "cheaper": ("price", "<")},
    **{"dearer": ("price", ">"), "rarer": ("popularity", "<"), "commoner": ("popularity", ">")},
}
_RESAMPLES = 2000


@dataclass
class Talk:
    """A conversation of a seeker.

    Attributes:
        ranks: Of the target after each turn: its number on the list once it was shown, else its
            place among all items that fit; None: filters leave it out.
        found: The turn whose list had the target, from 1; None: none had.
        outcomes: How often each kind of critique was understood, and how else.
        lines: What was said.
    """

    ranks: list[float | None] = field(default_factory=list)
    found: int | None = None
    outcomes: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)


def hold_talk(
    model: ConversationModel,
    views: Views,
    target: int,
    seed: int,
    policy: Policy,
    size: int = 5,
    turns: int = 5,
    wrong: float = WRONG,
) -> Talk:
    """One conversation: a first line, then what the policy says to each list.

    Args:
        model: That ranks.
        views: Of its items.
        target: Catalog row of what is looked for.
        seed: Of the seeker.
        policy: What is said.
        size: Items that are shown a turn.
        turns: After which the seeker gives up.
        wrong: Share of critiques that are wrong.
    """
    phrases: Phrases = PLAIN if policy == "plain critiques" else SPOKEN
    spoken = Seeker(views, target, seed, SPOKEN).open()  # the same under each policy
    guide = target
    if policy == "random":
        guide = random.Random(f"other {seed}").randrange(len(model.ids))
    seeker = Seeker(views, guide, seed, phrases, wrong)
    seeker.open()
    conversation, talk = Conversation(model, size), Talk()
    for number in range(1, turns + 1):
        before = conversation.state.critiques
        talk.lines.append(spoken.line)
        turn = conversation.say(spoken.line)
        if number > 1 and policy != "more":
            _note_outcomes(talk, spoken, before, turn, model)
        shown = [model.rows[each.item] for each in turn.items[:size]]
        if target in shown:
            talk.found = number
            place = 1.0 + shown.index(target)
            talk.ranks += [place] * (turns - len(talk.ranks))
            break
        talk.ranks.append(model.find_place(conversation.state, model.ids[target]))
        spoken = Spoken("more", ()) if policy == "more" else seeker.answer(shown)
        if policy == "critiques, new items" and shown:
            spoken = Spoken(f"something else, {spoken.line}", spoken.meant)
    return talk


def _note_outcomes(
    talk: Talk, spoken: Spoken, before: Sequence[Critique], turn: Turn, model: ConversationModel
) -> None:
    """Counts what became of each thing that was meant."""
    fresh = [each for each in turn.state.critiques if each not in before]
    for meant in spoken.meant:
        if _is_understood(meant, fresh, turn, model):
            outcome: Outcome = "understood"
        elif any(isinstance(each, Said) for each in fresh):
            outcome = "as text"
        else:
            outcome = "otherwise" if fresh or turn.undone else "not at all"
        talk.outcomes[meant.kind, outcome] += 1


def _is_understood(
    meant: Meant, fresh: Sequence[Critique], turn: Turn, model: ConversationModel
) -> bool:
    """Whether what is new since a line is what was meant."""
    if meant.kind == "back":
        return turn.undone
    if meant.kind in _SIGNS:
        role, sign = _SIGNS[meant.kind]
        column = model.columns.find_role(role)
        name = column.name if column is not None else ""
        return any(isinstance(e, Bound) and e.column == name and e.sign[0] == sign for e in fresh)
    tests: Mapping[str, Callable[[Critique], bool]] = {
        "like": lambda each: isinstance(each, Liked),
        "dislike": lambda each: isinstance(each, Disliked),
        "others": lambda each: isinstance(each, Hidden | Disliked),
        "want": lambda each: _has(each, meant, False),
        "refuse": lambda each: _has(each, meant, True),
        "hint": lambda each: isinstance(each, Said) and meant.value in each.text.casefold(),
        "avoid": lambda each: isinstance(each, Avoided) and meant.value in each.text.casefold(),
    }
    return any(map(tests[meant.kind], fresh))


def _has(critique: Critique, meant: Meant, negated: bool) -> bool:
    named = isinstance(critique, HasValue) and meant.value in critique.values
    return named and isinstance(critique, HasValue) and critique.negated == negated


def draw_targets(model: ConversationModel, views: Views, count: int, seed: int = 0) -> list[int]:
    """Catalog rows of items that training knows and of which something can be said; each once.

    Args:
        model: Whose items they are.
        views: Of them.
        count: How many; fewer where there are no more.
        seed: Of the draw.
    """
    known = [
        row
        for row in range(len(model.ids))
        if model.counts[row] > 0 and (views.values[row] or views.list_hints(row))
    ]
    random.Random(f"targets {seed}").shuffle(known)
    return known[:count]


@dataclass(frozen=True)
class Interval:
    """A mean over seekers with its interval."""

    mean: float
    low: float
    high: float


def estimate(
    values: Sequence[float] | NDArray[np.float64], level: float = 0.95, seed: int = 0
) -> Interval:
    """A mean with percentiles of its bootstrap over seekers (Efron and Tibshirani, 1993, ch. 13).

    Args:
        values: (S,) one a seeker; of a difference, paired.
        level: Of the interval.
        seed: Of the resampling.
    """
    given = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = given[rng.integers(0, len(given), (_RESAMPLES, len(given)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(given.mean()), float(low), float(high))


def find_successes(talks: Sequence[Talk], turns: int) -> NDArray[np.float64]:
    """(S,) 1 for each seeker whose target was shown within so many turns."""
    return np.array([each.found is not None and each.found <= turns for each in talks], np.float64)


def find_median_ranks(talks: Sequence[Talk], size: int) -> list[float]:
    """The median rank of the target after each turn; one that filters leave out is behind all.

    Args:
        talks: Of the seekers.
        size: Of the catalog.
    """
    ranks = [[size if rank is None else rank for rank in talk.ranks] for talk in talks]
    return [float(value) for value in np.median(np.array(ranks, dtype=np.float64), axis=0)]


def count_outcomes(talks: Sequence[Talk]) -> dict[str, dict[str, int]]:
    """How often each kind of critique was understood, taken as text, otherwise, or not at all."""
    total: Counter[tuple[str, Outcome]] = Counter()
    for talk in talks:
        total.update(talk.outcomes)
    out: dict[str, dict[str, int]] = {}
    for (kind, outcome), count in sorted(total.items()):
        out.setdefault(kind, {})[outcome] = count
    return out

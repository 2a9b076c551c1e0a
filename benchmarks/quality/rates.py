"""How the learning rates of the study are chosen, on validation parts, with a seed of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cells import fit, slug
from words import CROSS, LAST_TWO, LISTS, MINILM, SMALL, TITLES, TOWERS, TUNINGS, TWICE, WHOLE

RATES = Path(__file__).resolve().parent / "study" / "rates.json"

LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Rates to choose from."""

SEARCH_SEED = 100
HEADS = "heads"
"""Where the rate of a cross-encoder's heads stands among the chosen ones."""

UNSEEN = ["evaluation.test=false", "evaluation.max_cases=250"]
"""Of a search under the cross-encoder: half of the validation cases of a table, no test part."""


Reached = dict[str, float]
"""Validation nDCG@10 by learning rate."""
Values = dict[str, Reached]


@dataclass(frozen=True)
class Search:
    """How the learning rates under an architecture are chosen.

    Attributes:
        words: Words of all its runs.
        starts: First and last rate of the ladder to begin with, for methods that train pretrained
            matrices (True) and for what is small or added (False).
        heads: The same for the heads, chosen first, with the frozen encoder; None where their
            rate stands in `words`.
        tunings: The methods.
        data: Folder of the data set whose validation part decides.
    """

    words: list[str]
    starts: dict[bool, tuple[float, float]]
    heads: tuple[float, float] | None = None
    tunings: dict[str, list[str]] = field(default_factory=lambda: TUNINGS)
    data: str = "ml-100k"


SEARCHES = {
    "two towers": Search([*TOWERS, *SMALL], {True: (3e-5, 3e-3), False: (3e-4, 3e-2)}),
    "cross-encoder": Search(
        [*CROSS, *TWICE, *SMALL, *LISTS, *UNSEEN],
        {True: (3e-4, 3e-3), False: (3e-3, 3e-2)},
        heads=(1e-3, 1e-2),
    ),
    "MiniLM": Search(
        [*MINILM, *TITLES, "evaluation.test=false"],
        {True: (1e-4, 3e-4), False: (1e-3, 3e-3)},
        tunings=LAST_TWO,
        data="amazon-instruments",
    ),
}


def words_of(tuning: str, rates: dict[str, float]) -> list[str]:
    """The words of a tuning method's learning rates."""
    heads = [f"optimizer.head_lr={rates[HEADS]:g}"] if HEADS in rates else []
    return heads if tuning == "frozen" else [*heads, f"{key_of(tuning)}={rates[tuning]:g}"]


def key_of(tuning: str) -> str:
    """Where the learning rate of a tuning method stands."""
    if tuning == HEADS:
        return "optimizer.head_lr"
    return "optimizer.encoder_lr" if tuning in WHOLE else "optimizer.lr"


def choose(root: Path, runs: Path, architecture: str) -> tuple[dict[str, float], Values]:
    """The best learning rate of each tuning method under an architecture, and what all reached."""
    search = SEARCHES[architecture]
    methods = {name: words for name, words in search.tunings.items() if name != "frozen"}
    if search.heads:
        methods = {HEADS: TUNINGS["frozen"], **methods}
    chosen: dict[str, float] = {}
    found: Values = {}
    for name, words in methods.items():
        start = search.heads if name == HEADS and search.heads else search.starts[name in WHOLE]
        heads = words_of("frozen", chosen)
        stem = runs / "rates" / f"{slug(architecture)}-{slug(name)}"
        value = partial(
            rated, root / search.data, stem, [*search.words, *words, *heads], key_of(name)
        )
        chosen[name], found[name] = climb(start, value)
    return chosen, found


def climb(start: tuple[float, float], value: Callable[[float], float]) -> tuple[float, Reached]:
    """The best rate, over more of the ladder while the best lies at an end of what was tried.

    Args:
        start: First and last rate to begin with.
        value: Measures a rate; larger is better.

    Returns:
        The best rate, the smallest of equal ones, and what each tried one reached. Where all
        reached the same, no run came above its start, and nothing more is tried.
    """
    first, last = (LADDER.index(rate) for rate in start)
    found: dict[float, float] = {}
    while True:
        for rate in LADDER[first : last + 1]:
            if rate not in found:
                found[rate] = value(rate)
        best = max(sorted(found), key=found.__getitem__)
        if len(set(found.values())) > 1 and best == LADDER[last] and best != LADDER[-1]:
            last += 1
        elif len(set(found.values())) > 1 and best == LADDER[first] and best != LADDER[0]:
            first -= 1
        else:
            return best, {f"{rate:g}": found[rate] for rate in sorted(found)}


def rated(data: Path, stem: Path, words: list[str], key: str, rate: float) -> float:
    """What a run reaches with this learning rate on a validation part; 0 if it diverges."""
    folder = stem.with_name(f"{stem.name}-{rate:g}")
    run = fit(data.parent, folder, data.name, [*words, f"{key}={rate:g}"], SEARCH_SEED)
    if run is None:
        return 0.0
    best: float = json.loads((run / "result.json").read_text())["validation"]["best"]
    return best


def choose_rates(root: Path, runs: Path, searches: list[str]) -> None:
    """Chooses rates anew and writes them down, with what all rates reached; other searches stay."""
    content: dict[str, dict[str, Any]] = {"validation ndcg@10": {}, "chosen": {}}
    if RATES.is_file():
        content = json.loads(RATES.read_text())
    for architecture in searches:
        chosen, found = choose(root, runs, architecture)
        content["chosen"][architecture] = chosen
        content["validation ndcg@10"][architecture] = found
    RATES.parent.mkdir(exist_ok=True)
    RATES.write_text(json.dumps(content, indent=1) + "\n")

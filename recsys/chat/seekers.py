"""A run tested by scripted seekers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from recsys.recommend.choice import open_model
from recsys.runtime.command import pause_collection
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.conversation.seeking.contest import (
    POLICIES,
    count_outcomes,
    draw_targets,
    estimate,
    find_median_ranks,
    find_successes,
    hold_talk,
)
from recsys.trained.conversation.seeking.views import Views

SIZE, TURNS = 5, 5


def run_seekers(words: Mapping[str, str]) -> Iterator[str]:
    """The lines of a table, as they come: a policy each.

    Args:
        words: Of the command, by key.

    Raises:
        ConfigError: The run cannot be read.
        DataError: Items that are given cannot be read.
    """
    size, seed = int(words.get("k", SIZE)), int(words.get("seed", 0))
    with pause_collection():
        model = ConversationModel(open_model(words, words.get("output", "runs")))
        views = Views(model)
    targets = draw_targets(model, views, int(words["seekers"]), seed)
    if not targets:
        yield "There is no item in the training events of which anything can be said."
        return
    yield (
        f"{len(targets):,} seekers, {len(model.ids):,} items; {size} items a turn, {TURNS} turns"
    )
    yield f"{'':<21}found  95 %            median rank by turn"
    for policy in POLICIES:
        talks = [
            hold_talk(model, views, target, seed + number, policy, size, TURNS)
            for number, target in enumerate(targets)
        ]
        success = estimate(find_successes(talks, TURNS))
        interval = f"{100 * success.low:.1f} to {100 * success.high:.1f}"
        ranks = " ".join(f"{rank:>6,.0f}" for rank in find_median_ranks(talks, len(model.ids)))
        yield f"{policy:<20}{100 * success.mean:>6.1f}  {interval:<14} {ranks}"
        if policy == "critiques":
            outcomes = count_outcomes(talks)
    said = sum(sum(each.values()) for each in outcomes.values())
    shares = [
        f"{100 * sum(each.get(kind, 0) for each in outcomes.values()) / max(1, said):.0f} % {how}"
        for kind, how in (("understood", "was understood"), ("as text", "was taken as text"))
    ]
    yield f"of {said:,} critiques, {shares[0]}, {shares[1]}"

"""The scripted seeker: what it says is true, leaks nothing, and is counted where not heard."""

import math
from collections import Counter

import numpy as np
import pytest

from recsys.trained.conversation.conversation import Conversation
from recsys.trained.conversation.critiques import Bound, HasValue, Said, State
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.conversation.seeking.contest import (
    POLICIES,
    Talk,
    count_outcomes,
    draw_targets,
    estimate,
    find_median_ranks,
    find_successes,
    hold_talk,
)
from recsys.trained.conversation.seeking.phrases import PLAIN, SPOKEN
from recsys.trained.conversation.seeking.seeker import WRONG, Seeker
from recsys.trained.conversation.seeking.views import Views


@pytest.fixture(scope="module")
def model(tower):
    return ConversationModel(tower)


@pytest.fixture(scope="module")
def views(model):
    return Views(model)


@pytest.fixture(scope="module")
def talks(model, views):
    """By policy, one with each item of the shop."""
    return {
        policy: [hold_talk(model, views, row, row, policy, 3, 4) for row in range(30)]
        for policy in POLICIES
    }


def test_all_begin_alike_and_nobody_says_what_is_looked_for(talks, views):
    for row in range(30):
        lines = [talks[policy][row].lines for policy in POLICIES]
        assert len({each[0] for each in lines}) == 1
        assert not any(views.leaks(row, line) for each in lines for line in each)
    assert views.leaks(0, f"a {views.model.texts[0]}, please"), "so a leak would be seen"
    for policy in POLICIES[1:]:
        said = {line for talk in talks[policy] for line in talk.lines[1:]}
        assert len(said) > 20, "and they do not say one thing all the time"


def test_the_same_seed_says_the_same_and_another_one_does_not(model, views, talks):
    again = [hold_talk(model, views, row, row, "critiques", 3, 4) for row in range(10)]
    assert again == talks["critiques"][:10]
    other = [hold_talk(model, views, row, 99 + row, "critiques", 3, 4) for row in range(10)]
    assert [each.lines for each in other] != [each.lines for each in again]


def test_who_reads_on_finds_an_item_where_it_is_ranked(talks, model):
    alone = 0
    for talk in talks["more"]:
        conversation = Conversation(model, 3)
        conversation.say(talk.lines[0])
        places = [model.find_place(conversation.state, item) for item in model.ids]
        rank = talk.ranks[0]
        if places.count(rank) == 1 and talk.found != 1:  # else it shares its place
            page = math.ceil(rank / 3)
            assert talk.found == (page if page <= 4 else None)
            alone += 1
        assert len(talk.ranks) == 4
        assert len(set(talk.ranks[: len(talk.lines) - 1])) <= 1, "the ranking stays as it is"
    assert alone > 5


def test_what_is_meant_is_true_so_that_no_filter_leaves_the_target_out(model, views):
    for policy in ("plain critiques", "critiques"):
        heard = [hold_talk(model, views, row, row, policy, 3, 6, wrong=0.0) for row in range(30)]
        if policy == "plain critiques":
            assert all(None not in talk.ranks for talk in heard)
    wrong = [hold_talk(model, views, r, r, "plain critiques", 3, 6, wrong=1.0) for r in range(30)]
    assert any(None in talk.ranks for talk in wrong)


def test_what_is_understood_is_counted_by_what_was_meant(talks):
    plain = count_outcomes(talks["plain critiques"])
    assert set(plain) >= {"like", "dislike", "older", "newer", "cheaper", "refuse"}
    for kind, outcomes in plain.items():
        assert set(outcomes) == {"understood"}, kind
    spoken = count_outcomes(talks["critiques"])
    total = sum((Counter(each) for each in spoken.values()), Counter())
    assert total["understood"] > 0
    assert total["as text"] + total["otherwise"] + total["not at all"] > 0
    assert count_outcomes(talks["more"]) == {}


def test_a_tenth_of_what_is_said_is_wrong(views):
    said = Counter()
    for seed in range(400):
        seeker = Seeker(views, seed % 30, seed, SPOKEN)
        seeker.open()
        said.update(each.wrong for each in seeker.answer([1, 8, 15, 22, 29]).meant)
    share = said[True] / said.total()
    assert abs(share - WRONG) < 4 * math.sqrt(WRONG * (1 - WRONG) / said.total())


def test_each_kind_can_be_said_in_both_ways():
    assert set(PLAIN) == set(SPOKEN)
    plain = {phrase for phrases in PLAIN.values() for phrase in phrases}
    spoken = [phrase for phrases in SPOKEN.values() for phrase in phrases]
    assert sum(phrase in plain for phrase in spoken) < len(spoken) / 4, (
        "it is not the parser's list"
    )


def test_the_place_of_an_item_is_that_of_the_list(model):
    bound, seat = Bound("year", "<", 1980), HasValue("kind", ("seat",), True)
    for state in (State(), State((Said("red lamp"),)), State((Said("red lamp"), bound, seat))):
        ranked = model.rank(state, 30)
        places = [model.find_place(state, model.ids[row]) for row in ranked.rows]
        scores = ranked.scores
        for place, own in zip(places, scores, strict=True):
            ties = (scores == own).sum()
            assert place == 1 + (scores > own).sum() + (ties - 1) / 2
        left_out = set(range(30)) - set(ranked.rows.tolist())
        assert {model.find_place(state, model.ids[row]) for row in left_out} <= {None}


def test_figures_over_seekers():
    talks = [Talk(ranks=[9, 2], found=2), Talk(ranks=[None, 7]), Talk(ranks=[3, 3], found=1)]
    assert find_successes(talks, 1).tolist() == [0, 0, 1]
    assert find_successes(talks, 2).tolist() == [1, 0, 1]
    assert find_median_ranks(talks, 30) == [9, 3]
    drawn = np.random.default_rng(0).random(400) < 0.3
    wide, narrow = estimate(drawn, 0.99), estimate(drawn, 0.95)
    error = math.sqrt(drawn.mean() * (1 - drawn.mean()) / 400)
    assert narrow.high - narrow.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert wide.high - wide.low == pytest.approx(2 * 2.576 * error, rel=0.1)
    assert narrow.low < narrow.mean == drawn.mean() < narrow.high


def test_targets_are_what_training_knows(model, views):
    rows = draw_targets(model, views, 1000)
    assert sorted(rows) == sorted(np.flatnonzero(model.counts > 0).tolist())
    assert rows[:5] == draw_targets(model, views, 5)
    assert rows != draw_targets(model, views, 1000, seed=1)

"""A state: what takes the place of what, and what JSON keeps of it."""

import json

import pytest

from recsys.errors import DataError
from recsys.trained.conversation.critiques import (
    Avoided,
    Bound,
    Disliked,
    HasValue,
    Hidden,
    Liked,
    Said,
    State,
    Variety,
)
from recsys.trained.conversation.turns import name_letter

COMEDY, DRAMA = HasValue("genre", ("Comedy",)), HasValue("genre", ("Drama",))
NO_COMEDY = HasValue("genre", ("Comedy",), negated=True)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([Bound("year", ">", 1980), Bound("year", "<", 1990)], [0, 1]),
        ([Bound("year", ">", 1980), Bound("year", ">=", 1990)], [1]),
        ([Bound("year", ">", 1980), Bound("year", "<", 1990), Bound("year", "=", 1985)], [2]),
        ([Bound("year", ">", 1980), Bound("price", ">", 5)], [0, 1]),
        ([COMEDY, DRAMA], [0, 1]),
        ([COMEDY, NO_COMEDY], [1]),
        ([NO_COMEDY, COMEDY], [1]),
        ([Liked("a"), Disliked("a")], [1]),
        ([Liked("a"), Disliked("b")], [0, 1]),
        ([Said("x"), Said("y"), Said("x")], [1, 2]),
        ([Variety(0.25), Variety(0.5)], [1]),
        ([Variety(0.25), Variety(0.0)], []),
    ],
)
def test_a_critique_takes_the_place_of_what_it_contradicts(said, kept):
    state = State()
    for each in said:
        state = state.add(each)
    assert list(state.critiques) == [said[place] for place in kept]


def test_where_an_item_has_one_value_the_latest_one_holds():
    assert State().add(COMEDY, several=False).add(DRAMA, several=False).critiques == (DRAMA,)
    both = State().add(NO_COMEDY, several=False)
    no_drama = HasValue("genre", ("Drama",), negated=True)
    assert both.add(no_drama, several=False).critiques == (NO_COMEDY, no_drama)


def test_the_state_comes_back_from_json():
    critiques = (
        *(Said("x"), Avoided("y"), Liked("1"), Disliked("2"), Hidden(("3", "4"))),
        *(COMEDY, NO_COMEDY, Bound("year", "<=", 1990.5), Variety(0.25)),
    )
    state = State(critiques, ("5", "6"), 2)
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state
    assert state.list_left_out() == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"critiques": [{"kind": "none"}], "listed": [], "focus": None},
        {"critiques": [{"kind": "text", "text": 3}], "listed": [], "focus": None},
        {"critiques": [{"kind": "text"}], "listed": [], "focus": None},
        {
            "critiques": [{"kind": "bound", "column": "y", "sign": "!", "value": 1}],
            "listed": [],
            "focus": None,
        },
    ],
)
def test_what_is_no_state_is_refused(value):
    with pytest.raises(DataError, match="no state of a conversation"):
        State.from_json(value)


def test_letters_go_on_behind_z():
    assert [name_letter(n) for n in (0, 25, 26, 27, 701, 702)] == [
        "a",
        "z",
        "aa",
        "ab",
        "zz",
        "aaa",
    ]

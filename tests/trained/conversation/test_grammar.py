"""What is understood, as tables; whatever is not understood is free text."""

import polars as pl
import pytest

from recsys.trained.conversation.critiques import Avoided, Bound, HasValue, Said
from recsys.trained.conversation.language.actions import (
    FOCUS,
    Add,
    Compare,
    Describe,
    Drop,
    Explain,
    Judge,
    Refuse,
    Simple,
    Vary,
)
from recsys.trained.conversation.language.grammar import parse_line
from tests.trained.conversation.films import ITEMS, make_setting


def text(of):
    return Add(Said(of))


def genre(*values, negated=False):
    return Add(HasValue("genres", values, negated))


def bound(column, sign, value):
    return Add(Bound(column, sign, value))


def like(*numbers):
    return Judge("liked", numbers=numbers)


def dislike(*numbers):
    return Judge("disliked", numbers=numbers)


COMMANDS = {
    "help": [Simple("help")],
    "?": [Simple("help")],
    "More, please": [Simple("more")],
    "show more": [Simple("more")],
    "undo": [Simple("undo")],
    "Quit.": [Simple("quit")],
    "something else": [Simple("others")],
    "no": [Simple("others")],
    "more variety": [Vary(1)],
    "more of the same": [Vary(-1)],
    "why": [Explain(None)],
    "why 3?": [Explain(3)],
    "why 3 in words": [Explain(3, words=True)],
    "why is that?": [Explain(None)],
    "3": [Describe(3)],
    "show 3": [Describe(3)],
    "the first one": [Describe(1)],
    "drop b": [Drop("b")],
    "take back comedy": [Drop("comedy")],
    "drop b, c and aa": [Drop("b, c and aa")],
    "drop all, comedy": [Drop("all"), Add(HasValue("genres", ("Comedy",)))],
    "any year": [Drop("year", column=True)],
    "remove 3": [Judge("seen", numbers=(3,))],
}
OPINIONS = {
    "more like 3, not 2": [like(3), dislike(2)],
    "more like 3 not 2": [like(3), dislike(2)],
    "more like 3 but not 2": [like(3), dislike(2)],
    "I like 1 and 3": [like(1, 3)],
    "like 3, 5": [like(3), like(5)],
    "+3 -2": [like(3), dislike(2)],
    "like #2": [like(2)],
    "like the second one": [like(2)],
    "not the last": [dislike(-1)],
    "like 2-4": [like(2, 3, 4)],
    "I don't like 2": [dislike(2)],
    "I don\N{RIGHT SINGLE QUOTATION MARK}t like 2": [dislike(2)],
    "none of these": [Judge("disliked", which="all")],
    "yes, more like that": [Judge("liked", which="focus")],
    "I've seen 4": [Judge("seen", numbers=(4,))],
    "I liked Alien": [Judge("liked", items=("f1",))],
    "more like the matrix, not alien": [
        Judge("liked", items=("f2",)),
        Judge("disliked", items=("f1",)),
    ],
    "i loved Alien and The Matrix": [Judge("liked", items=("f1", "f2"))],
    "like cafe": [Judge("liked", items=("f6",))],
}
FILTERS = {
    "comedy": [genre("Comedy")],
    "Some comedies please": [genre("Comedy")],
    "I'm looking for a comedy": [genre("Comedy")],
    "comedy or drama": [genre("Comedy", "Drama")],
    "comedy and action": [genre("Comedy"), genre("Action")],
    "science fiction": [genre("Sci-Fi")],
    "scifi": [genre("Sci-Fi")],
    "no horror": [genre("Horror", negated=True)],
    "but without horror, please": [genre("Horror", negated=True)],
    "i don't like comedies": [genre("Comedy", negated=True)],
    "studio war": [Add(HasValue("studio", ("War",)))],
    "by warner": [Add(HasValue("studio", ("Warner",)))],
    "1999": [bound("year", "=", 1999)],
    "from 1999": [bound("year", "=", 1999)],
    "newer than 1990": [bound("year", ">", 1990)],
    "before 1990": [bound("year", "<", 1990)],
    "since 1990": [bound("year", ">=", 1990)],
    "nothing older than 1990": [bound("year", ">=", 1990)],
    "from the 90s": [bound("year", ">=", 1990), bound("year", "<=", 1999)],
    "1980's": [bound("year", ">=", 1980), bound("year", "<=", 1989)],
    "the eighties": [bound("year", ">=", 1980), bound("year", "<=", 1989)],
    "00s": [bound("year", ">=", 2000), bound("year", "<=", 2009)],
    "between 1980 and 1990": [bound("year", ">=", 1980), bound("year", "<=", 1990)],
    "1980-1990": [bound("year", ">=", 1980), bound("year", "<=", 1990)],
    "from 1980 on": [bound("year", ">=", 1980)],
    "under $20": [bound("price", "<", 20)],
    "at most 9.50": [bound("price", "<=", 9.5)],
    "cheaper than 20 dollars": [bound("price", "<", 20)],
    "pages under 300": [bound("pages", "<", 300)],
    "older": [Compare("year", "<")],
    "something older, please": [Compare("year", "<")],
    "a bit cheaper": [Compare("price", "<")],
    "older than 3": [Compare("year", "<", 3)],
    "cheaper than #3": [Compare("price", "<", 3)],
    "newer than that": [Compare("year", ">", FOCUS)],
    "shorter": [Compare("pages", "<")],
    "higher price": [Compare("price", ">")],
    "more popular": [Compare("popularity", ">")],
    "older and cheaper": [Compare("year", "<"), Compare("price", "<")],
}
PARAPHRASES = {
    "these are too old": [Compare("year", ">")],
    "too new": [Compare("year", "<")],
    "that's a bit too expensive": [Compare("price", "<")],
    "too mainstream": [Compare("popularity", "<")],
    "too long": [Compare("pages", "<")],
    "nothing older": [Compare("year", ">")],
    "they are all too similar": [Vary(1)],
    "too similar": [Vary(1)],
    "released before 1990": [bound("year", "<", 1990)],
    "something from after 1990": [bound("year", ">", 1990)],
    "anything but horror": [genre("Horror", negated=True)],
    "everything except comedies": [genre("Comedy", negated=True)],
    "I'm not into horror": [genre("Horror", negated=True)],
    "I'm in the mood for a comedy": [genre("Comedy")],
    "I can't stand horror": [genre("Horror", negated=True)],
    "other than drama": [genre("Drama", negated=True)],
    "2 is great": [like(2)],
    "3 looks good, 1 is boring": [like(3), dislike(1)],
    "1 and 4 are closer": [like(1, 4)],
    "2 yes, 3 no": [like(2), dislike(3)],
    "2 is not for me": [dislike(2)],
    "that one is perfect": [Judge("liked", which="focus")],
    "none": [Simple("others")],
    "robots are good": [text("robots are good")],
}
OWN_WORDS = {
    "number 2 comes close": [like(2)],
    "the 3rd one is nearly what I want": [like(3)],
    "3 is not bad at all": [like(3)],
    "I quite like 3": [like(3)],
    "3 looks promising and something with robots": [like(3), text("something with robots")],
    "not 2 and no horror": [dislike(2), genre("Horror", negated=True)],
    "yes, more like that third one": [like(3)],
    "I hate stuff like horror": [genre("Horror", negated=True)],
    "2 is by far the best": [like(2)],
    "5 is good enough": [like(5)],
    "3 does nothing for me": [dislike(3)],
    "I wouldn't pick the fourth": [dislike(4)],
    "4 seems nice, but 2 is way off": [like(4), dislike(2)],
    "9 comes close": [text("9 comes close")],  # the list is not that long
    "2 comes close to Rome": [text("2 comes close to Rome")],
    "room for 2": [text("room for 2")],
    "could you leave out the horror": [genre("Horror", negated=True)],
    "please skip the comedies": [genre("Comedy", negated=True)],
    "science fiction isn't for me": [genre("Sci-Fi", negated=True)],
    "how about some drama?": [genre("Drama")],
    "I hate horror and I love comedy": [genre("Horror", negated=True), genre("Comedy")],
    "comedy wouldn't be bad": [genre("Comedy")],
    "a comedy about war": [text("a comedy about war")],
    "drama with a twist": [text("drama with a twist")],
    "weird drama is good": [text("weird drama is good")],
    "is that a comedy?": [text("is that a comedy")],
    "3 doesn't look right": [dislike(3)],
    "maybe a bit older": [Compare("year", "<")],
    "I'd go for a later one": [Compare("year", ">")],
    "older than my dad": [text("older than my dad")],
    "not so new": [Compare("year", "<")],
    "less mainstream": [Compare("popularity", "<")],
    "these feel too dated": [Compare("year", ">")],
}
TEXTS = {
    "space adventure with robots": [text("space adventure with robots")],
    "ein lustiger Film mit Robotern": [text("ein lustiger Film mit Robotern")],
    "宇宙の映画": [text("宇宙の映画")],
    "space comedy": [text("space comedy")],  # a genre beside other words is no filter
    "a story of war": [text("a story of war")],
    "set in 1944": [text("set in 1944")],
    '"comedy"': [text("comedy")],
    '"undo"': [text("undo")],
    "notorious": [text("notorious")],
    "not so violent": [Add(Avoided("violent"))],
    "less talking": [Add(Avoided("talking"))],
    "lighter": [text("lighter")],  # the items have no weight
    "funny robots without horror": [text("funny robots"), genre("Horror", negated=True)],
    "robots from the 90s": [
        text("robots"),
        bound("year", ">=", 1990),
        bound("year", "<=", 1999),
    ],
    "a guitar under 200": [text("a guitar"), bound("price", "<", 200)],
    "a comedy from the 90s": [
        genre("Comedy"),
        bound("year", ">=", 1990),
        bound("year", "<=", 1999),
    ],
    "something funny, but no horror, newer than 1990": [
        text("something funny"),
        genre("Horror", negated=True),
        bound("year", ">", 1990),
    ],
    "blue, wide, and soft": [text("blue, wide, and soft")],
    "": [],
    "  ...  ": [],
    "please": [],
    "hello": [],
    "hi, a space adventure": [text("a space adventure")],
}
TITLES = {
    "No Country for Old Men": [text("No Country for Old Men")],  # and keeps away from nothing
    "Love, Action": [text("Love, Action")],  # and is not cut at its comma
    "Alien": [text("Alien")],
    "War": [genre("War")],  # a value goes before a title
    "studio: war": [Add(HasValue("studio", ("War",)))],  # of two columns, the first has "War"
    "like War": [Judge("liked", items=("f3",))],
}


TABLES = (COMMANDS, OPINIONS, FILTERS, PARAPHRASES, OWN_WORDS, TEXTS, TITLES)


@pytest.mark.parametrize(
    ("line", "actions"),
    [pair for table in TABLES for pair in table.items()],
)
def test_a_line_means(line, actions):
    assert parse_line(line, make_setting()) == actions


def test_what_the_items_have_not_is_said():
    setting = make_setting(ITEMS.drop("price", "year"))
    for line, what in {"cheaper": "price", "older": "year", "under $5": "price"}.items():
        (action,) = parse_line(line, setting)
        assert isinstance(action, Refuse)
        assert action.message.startswith(f"The items have no {what}; their columns are pages")
    assert parse_line("robots before 1990", setting) == [text("robots before 1990")]
    (action,) = parse_line("not the 90s", make_setting())
    assert isinstance(action, Refuse)


def test_a_name_is_of_the_column_that_the_word_before_it_is_of():
    people = {"writer": ["Ann", "Ann", "Ann", "Bo", "Bo", "Cy"], "star": ["Ann", "Ann", *"wxyz"]}
    setting = make_setting(ITEMS.with_columns(**{n: pl.Series(of) for n, of in people.items()}))
    for line, column in {
        "Ann": "writer",  # of more items
        "starring Ann": "star",
        "with Ann": "star",
        "written by Ann": "writer",
        "directed by Ann": "writer",  # there is no director
        "star Ann": "star",
    }.items():
        assert parse_line(line, setting) == [Add(HasValue(column, ("Ann",)))]
    robots = parse_line("robots starring Ann", setting)
    assert robots == [text("robots"), Add(HasValue("star", ("Ann",)))]


def test_a_number_is_of_the_list_where_the_list_is_that_long():
    assert parse_line("cheaper than 5", make_setting(length=5)) == [Compare("price", "<", 5)]
    assert parse_line("cheaper than 6", make_setting(length=5)) == [bound("price", "<", 6)]
    assert parse_line("cheaper than $5", make_setting(length=5)) == [bound("price", "<", 5)]


def test_a_long_line_takes_no_time():
    import time

    start = time.perf_counter()
    for piece in ("not ", "a, ", "the ", "1990 ", "and ", "x", "older than "):
        parse_line((piece * 1000)[:1000], make_setting())
    assert time.perf_counter() - start < 2

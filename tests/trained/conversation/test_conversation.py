"""A conversation with a model: what each line does to the list."""

import json

import numpy as np
import pytest

from recsys.errors import ConfigError
from recsys.trained.conversation.conversation import CHARACTERS, Conversation
from recsys.trained.conversation.critiques import Bound, Disliked, HasValue, Liked, Said, State
from recsys.trained.conversation.scoring import WEIGHTS, ConversationModel
from recsys.trained.conversation.turns import Turn
from recsys.trained.queries import Query


@pytest.fixture(scope="module")
def model(tower):
    return ConversationModel(tower)


@pytest.fixture
def talk(model):
    conversation = Conversation(model, 5)

    def say(*lines):
        for line in lines:
            turn = conversation.say(line)
        return turn

    say.conversation = conversation
    return say


def ids(turn):
    return [each.item for each in turn.items]


def test_a_text_alone_has_the_list_of_recommend(talk, tower):
    turn = talk("red lamp")
    assert ids(turn) == tower.recommend(texts=["red lamp"], k=5)["item"].to_list()
    assert [each.number for each in turn.items] == [1, 2, 3, 4, 5]
    assert [(chip.letter, chip.text) for chip in turn.chips] == [("a", '"red lamp"')]


def test_a_like_alone_has_the_list_of_a_history(talk, tower):
    turn = talk("i like red chair")
    assert turn.state.critiques == (Liked("001"),)
    assert ids(turn) == tower.recommend(histories=[["001"]], k=5)["item"].to_list()


def test_of_a_product_of_vectors_the_rule_is_one_of_vectors(model, tower):
    state = State((Said("red lamp"), Liked("007"), Disliked("012")))
    catalog = tower.item_vectors().vectors.astype(np.float64)
    vectors = {
        "text": tower.encode(["red lamp"])[0],
        "liked": tower.user_vectors(histories=[["007"]]).vectors[0],
        "disliked": tower.user_vectors(histories=[["012"]]).vectors[0],
    }
    query = np.zeros(catalog.shape[1])
    for kind, vector in vectors.items():
        scores = catalog @ vector.astype(np.float64)
        own = {"liked": [7], "disliked": [12]}.get(kind, [])
        others = np.delete(scores, own)
        spread = np.sort(others)[-10:].mean() - others.mean()
        query += WEIGHTS[kind] / spread * vector
    expected = catalog @ query
    expected[[7, 12]] = -np.inf
    ranked = model.rank(state, 28)
    assert ranked.rows.tolist() == np.argsort(-expected, kind="stable")[:28].tolist()


def test_what_was_judged_leaves_the_list_and_moves_it(talk):
    first = talk("lamp")
    second = talk("more like 3, not 2")
    liked, disliked = first.items[2].item, first.items[1].item
    assert second.state.critiques[1:] == (Liked(liked), Disliked(disliked))
    assert not {liked, disliked} & set(ids(second))
    assert second.fitting == 28
    assert talk("not 1").state.list_disliked() == [disliked, second.items[0].item]


def test_filters_hold_for_every_further_list(talk, model):
    talk("lamp", "before 1980", "no seats")
    turn = talk("warm")
    rows = [model.rows[item] for item in ids(turn)]
    assert all(row < 20 and row % 5 != 1 for row in rows)
    assert turn.fitting == int(model.find_fitting(turn.state).sum())
    assert {chip.text for chip in turn.chips[1:]} == {
        "year < 1980",
        "kind: not seat",
        "kind: warm",
    }
    assert turn.items[0].facts == (("year", str(1960 + rows[0])),)


def test_a_comparison_is_with_the_middle_of_the_list_or_an_item_of_it(talk, model):
    years = [1960 + model.rows[each] for each in ids(talk("lamp"))]
    older = talk("older")
    assert older.state.critiques[-1] == Bound("year", "<", float(np.median(years)))
    price = model.rows[older.items[1].item] + 0.5
    assert talk("cheaper than 2").state.critiques[-1] == Bound("price", "<", price)
    assert all(model.rows[item] + 0.5 < price for item in ids(talk("list")))


def test_a_comparison_without_a_list_is_with_the_catalog(talk):
    turn = talk("older")
    assert turn.state.critiques == (Bound("year", "<", 1974.5),)
    assert turn.fitting == 15


def test_help_fits_a_terminal_of_eighty_columns(talk):
    assert max(len(line) for line in talk("help").lines) <= 80


def test_undo_goes_back_by_one_line_that_changed_something(talk):
    first = talk("lamp")
    second = talk("older", "help", "what is this nonsense 77", "undo")
    assert second.message == 'Undid "what is this nonsense 77".'
    assert talk("undo").items == first.items
    assert talk("undo").state == State()
    assert talk("undo").message == "There is nothing to undo."
    assert talk("undo").items == ()


def test_pages_go_on_and_numbers_with_them(talk, tower):
    first, second = talk("lamp"), talk("more")
    assert [each.number for each in second.items] == [6, 7, 8, 9, 10]
    every = tower.recommend(texts=["lamp"], k=10)["item"].to_list()
    assert ids(first) + ids(second) == every
    liked = talk("like 7").state.list_liked()
    assert liked == [every[6]]
    for _ in range(5):
        turn = talk("more")
    assert len(turn.items) == 4
    assert talk("more").message == "That is all that fits."
    assert len(talk.conversation.items) == 29


def test_something_else_hides_what_stands_there(talk, tower):
    talk("lamp")
    turn = talk("something else")
    assert ids(turn) == tower.recommend(texts=["lamp"], k=10)["item"].to_list()[5:]
    assert turn.chips[-1].text == "5 hidden"
    assert talk("seen 1").chips[-1].text == "6 hidden"


def test_variety_is_that_of_recommend(talk, tower):
    talk("lamp")
    turn = talk("more variety", "more variety")
    assert turn.chips[-1].text == "variety 0.5"
    same = tower.recommend(texts=["lamp"], k=5, diversity=0.5)["item"].to_list()
    assert ids(turn) == same
    assert talk("more variety").state.variety == 0.75
    assert talk("more variety").message == "The list is as varied as it can be."
    assert talk("less variety", "less variety", "less variety").state.variety == 0
    assert talk("less variety").message == "The list is as alike as it can be."


def test_chips_are_taken_back_by_letter_column_value_and_text(talk):
    talk("lamp", "before 1980", "no seats", "warm or cool", "since 1965")
    assert talk("drop c").state.list_filters() == [
        Bound("year", "<", 1980.0),
        HasValue("kind", ("warm", "cool")),
        Bound("year", ">=", 1965.0),
    ]
    assert talk("any year").state.list_filters() == [HasValue("kind", ("warm", "cool"))]
    assert talk("take back cool").state.list_filters() == []
    assert talk("drop z").message == "There is no chip 'z' (there are a: \"lamp\")."
    assert talk("drop lamp").state == State()
    assert talk("drop all").message == "There is no chip to take back."


def test_where_nothing_fits_it_names_the_chip(talk):
    talk("lamp", "warm")
    turn = talk("newer than 2010")
    assert turn.items == ()
    assert turn.message == ("Nothing fits all of this: without year > 2010 (drop c), 15 items fit.")
    assert len(talk("drop c").items) == 5
    turn = talk("before 1900, over $500")
    assert turn.message == "Nothing fits, whichever one chip is taken back: undo, or drop all."


def test_why_sums_to_the_score_of_the_list(talk):
    talk("red lamp")
    turn = talk("more like 2 and 4, not 1, before 1985")
    told = talk("why 3")
    values = [float(line.split()[0]) for line in told.lines[2:-1]]
    assert sum(values) == pytest.approx(turn.items[2].score, abs=0.02)
    assert told.lines[0] == f"3  {turn.items[2].text}"
    assert '"red lamp"' in told.lines[2]
    assert "liked: " in told.lines[3]
    assert "%" in told.lines[3]
    assert told.lines[-1] == "   fits    year < 1985"
    assert talk("why").lines == told.lines  # what was talked about last
    assert told.state.listed == turn.state.listed
    assert told.items == ()


def test_why_in_words_names_those_of_both_texts(talk):
    turn = talk("red lamp")
    told = talk("why 1 in words").lines
    named = dict(line.strip().split(": ", 1) for line in told[-2:])
    assert set(named) == {"its text", "what you said"}
    assert all(word in named["its text"] for word in turn.items[0].text.split())
    assert talk("drop all, like red lamp").items
    assert talk("why 1 in words").message == "No words of texts are told apart in this score."


@pytest.mark.parametrize(
    "words",
    [
        ["architecture=late_interaction", "objective=bce", "trainer.max_steps=2"],
        [
            *("architecture=cross_encoder", "objective=bce", "evaluation.protocol=candidates"),
            *("evaluation.candidates=20", "trainer.max_steps=2"),
        ],
        ["experiment=ease_text", "architecture.rho=50"],
        ["experiment=tfidf"],
    ],
    ids=lambda words: words[0],
)
def test_every_kind_of_model_talks(fit_shop, words):
    run = fit_shop(*words)
    conversation = Conversation(ConversationModel(run), 5)
    turn = conversation.say("red lamp")
    assert ids(turn) == run.recommend(texts=["red lamp"], k=5)["item"].to_list()
    turn = conversation.say("more like 2 and 4, not 1, before 1985, more variety")
    assert [part for part, _ in turn.items[0].parts] == ["text", "liked", "disliked"]
    for each in turn.items:
        told = conversation.say(f"why {each.number}")
        assert f"score {each.score:.2f}," in told.lines[1]
        values = [float(line.split()[0]) for line in told.lines[2:-1]]
        assert sum(values) == pytest.approx(each.score, abs=0.02)
    first = conversation.say("drop all").state
    assert first == State()
    turn = conversation.say("cool")
    assert {int(item) // 5 for item in ids(turn)} <= {1, 2, 3}
    assert turn.fitting == 15


def test_a_number_alone_shows_the_item(talk):
    turn = talk("red lamp")
    shown = talk("2")
    row = int(turn.items[1].item)
    assert f"   year: {1960 + row}" in shown.lines
    assert talk("like that").state.list_liked() == [turn.items[1].item]


NO_ZERO = "There is no 0 on the list, which has 5 items."


@pytest.mark.parametrize(
    "line",
    ["more like \u00b2", "seen \u00b2", "under $\u00b2", "more like \u2460", "over " + "9" * 400],
)
def test_signs_that_are_no_digits_are_text(talk, line):
    assert len(talk("lamp", line).items) == 5
    assert not talk.conversation.state.list_liked()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "Say what you are looking for, or help."),
        ("   ", "Say what you are looking for, or help."),
        ("like 9", "There is no 9 on the list, which has 5 items."),
        ("why 0x", ""),
        *((line, NO_ZERO) for line in ("0", "more like 0", "why 0", "not 0", "older than #0")),
        ("longer", ""),  # the items have no length: it is text
        ("thanks", "Say what to change, more, or quit."),
    ],
)
def test_what_cannot_be_done_is_one_sentence(talk, line, message):
    talk("lamp")
    assert talk(line).message == message


@pytest.mark.parametrize("line", ["more", "like 3", "why", "undo", "3", "not the last"])
def test_before_there_is_a_list(talk, line):
    turn = talk(line)
    assert turn.message
    assert not turn.items
    assert turn.state == State()


def test_any_script_and_any_length_is_text(talk):
    assert len(talk("宇宙の映画").items) == 5
    assert len(talk("\x1b[31mred\x07 \u202elamp\n\nchair").items) == 5
    turn = talk("word " * 5000)
    assert turn.message == f"Only the first {CHARACTERS:,} characters are read."
    assert len(turn.said) <= CHARACTERS
    assert len(turn.items) == 5


def test_the_same_lines_have_the_same_turns(model):
    lines = ["lamp", "like 2", "more variety", "older", "more", "why 3", "undo", "no seats"]
    runs = []
    for _ in range(2):
        one = Conversation(model, 4)
        runs.append([one.open(), *(one.say(line) for line in lines)])
    assert runs[0] == runs[1]
    again = [Turn.from_json(json.loads(json.dumps(turn.to_json()))) for turn in runs[0]]
    assert again == runs[0]


def test_a_conversation_goes_on_behind_its_turns(model):
    one, lines = Conversation(model, 4), ["lamp", "like 2", "more", "help", "undo", "older", "list"]
    turns = [one.open(), *(one.say(line) for line in lines)]
    other = Conversation(model, 4)
    other.resume(turns)
    for line in ["more", "undo", "undo", "undo", "undo", "red", "like 3"]:
        assert other.say(line) == one.say(line)


def test_a_notebook_begins_one_of_a_run(tower):
    one = tower.converse(history=["003", "017"], k=3)
    expected = tower.recommend(histories=[["003", "017"]], k=3)["item"].to_list()
    assert ids(one.open()) == expected
    with pytest.raises(ConfigError, match="give one of"):
        tower.converse(user="u3", history=["003"])
    with pytest.raises(ConfigError, match="k is '0'"):
        tower.converse(k=0)


def test_it_begins_with_someone_who_is_known(tower):
    model = ConversationModel(tower, Query(user="u3"))
    conversation = Conversation(model, 5)
    first = conversation.open()
    assert ids(first) == tower.recommend(users=["u3"], k=5)["item"].to_list()
    assert conversation.say("older").fitting < first.fitting
    assert "what you had before" in conversation.say("why 1").lines[2]


def test_a_run_without_texts_has_likes_and_the_words_of_columns(counting):
    model = ConversationModel(counting)
    conversation = Conversation(model, 5)
    assert not model.reads_texts
    turn = conversation.say("something blue for the office")
    assert turn.items == ()
    assert turn.state == State()
    assert turn.message == (
        "This run reads no texts, and that is no title or a value of kind: name an item that "
        "you like."
    )
    liked = conversation.say("like red lamp")
    expected = counting.recommend(histories=[["000"]], k=5)["item"].to_list()
    assert ids(liked) == expected
    turn = conversation.say("a warm place to sit")
    assert turn.message == "This run reads no texts: only warm is used of that."
    assert turn.state.critiques == (Liked("000"), HasValue("kind", ("warm",)))
    assert "red lamp" in conversation.say("blue lamp").chips[0].text
    assert conversation.state.list_liked() == ["000", "005"]
    assert not any("text" in line for line in conversation.say("help").lines)


def test_a_thousand_turns(model):
    conversation = Conversation(model, 5)
    lines = ["red lamp", "like 2", "older", "undo", "not 1", "more", "no seats", "drop a"]
    for turn in range(1000):
        said = conversation.say(lines[turn % len(lines)])
        assert said.number == turn + 1
    assert len(said.state.critiques) < 30 + 3

"""Conversations over HTTP: the same answers as in the terminal, and nothing that is remembered."""

import asyncio
import json

import pytest

from recsys.serve.conversations import KEPT, SECONDS, Beginning, Conversations, Lines
from recsys.serve.model import load_model
from recsys.serve.options import Limits, ServeOptions
from recsys.trained.conversation.conversation import Conversation
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.queries import Query
from tests.serve.test_service import Shop, ask, running
from tests.trained.conversation.conftest import *  # noqa: F403  (its fixtures)

LINES = ("red lamp", "more like 2, not #1", "older", "more", "why 2", "no seats", "undo", "like 77")
OWN = ("model", "at", "catalog", "notes")
NOW = "2024-05-01T12:00"


@pytest.fixture
def options(tower, tmp_path):
    return ServeOptions(tower.folder, tmp_path / "state", watch=0)


def talk(options, *bodies):
    return ask(options, *bodies, path="/converse", load=load_model)


def say(lines, conversation):
    """What a conversation answers to each line, and to none before."""
    return [conversation.open().to_json(), *(conversation.say(each).to_json() for each in lines)]


async def converse(client, lines, **words):
    """The answers to lines of a client that sends back what it was answered."""
    turns, words = [], dict(words)
    for count in range(len(lines) + 1):
        answer = await client.post("/converse", json={**words, "lines": list(lines[:count])})
        assert answer.status_code == 200, answer.text
        turns.append(answer.json())
        words |= {"at": turns[-1]["at"], "listed": turns[-1]["state"]["listed"]}
    return turns


def strip(turns):
    """Turns as a conversation in this process gives them."""
    return [{name: value for name, value in turn.items() if name not in OWN} for turn in turns]


def as_json(turns):
    return json.loads(json.dumps(turns))


@pytest.mark.parametrize("start", [{}, {"history": ["003", "017"]}, {"user": "u3"}])
def test_each_line_is_answered_as_in_the_terminal(tower, options, start):
    async def run():
        async with running(options, load_model) as client:
            return await converse(client, LINES, k=4, **start)

    turns = asyncio.run(run())
    expected = say(LINES, tower.converse(**start, k=4))
    assert strip(turns) == as_json(expected)
    assert {turn["catalog"] for turn in turns} == {30}
    assert {turn["model"] for turn in turns} == {tower.name}


def test_another_process_goes_on_and_many_do_not_hear_each_other(tower, options):
    texts = ("red lamp", "green chair", "brown sofa", "white table", "blue shelf", "lamp")
    talks = [(text, *LINES[1:]) for text in texts]

    async def run():
        async with running(options, load_model) as client:
            together = asyncio.gather(*(converse(client, each, k=4) for each in talks))
            asked = [client.post("/recommend", json={"text": text, "k": 3}) for text in texts]
            return await together, await asyncio.gather(*asked)

    together, answers = asyncio.run(run())
    model = ConversationModel(tower)
    for lines, turns in zip(talks, together, strict=True):
        assert strip(turns) == as_json(say(lines, Conversation(model, 4)))
    assert {answer.status_code for answer in answers} == {200}
    bodies = [{"lines": list(lines), "k": 4} for lines in talks]
    last = [answer.json() for answer in talk(options, *bodies)]
    assert strip(last) == strip([turns[-1] for turns in together]), "it has heard nothing before"


def test_what_is_removed_or_was_disliked_is_listed_no_more(options):
    async def run():
        async with running(options, load_model) as client:
            first = (await client.post("/converse", json={"lines": ["red lamp"]})).json()
            best, second = first["state"]["listed"][:2]
            event = {"user": "me", "item": second, "event": "dislike"}
            liked = {"user": "me", "item": "007", "event": "like"}
            assert (await client.post("/feedback", json={"events": [event, liked]})).is_success
            assert (await client.post("/items", json={"remove": [best]})).is_success
            lines = ["red lamp", "more like 3"]
            body = {"lines": lines, "at": first["at"], "listed": first["state"]["listed"]}
            outdated = await client.post("/converse", json=body)
            body = {"lines": ["red lamp", "list"], "at": first["at"]}
            again = (await client.post("/converse", json=body)).json()
            body = {"lines": lines, "at": first["at"], "listed": again["state"]["listed"]}
            onwards = await client.post("/converse", json=body)
            mine = (await client.post("/converse", json={"lines": [], "user": "me"})).json()
            return first, outdated, again, onwards, mine

    first, outdated, again, onwards, mine = asyncio.run(run())
    assert outdated.status_code == 409
    assert "list as the last one" in outdated.json()["error"]
    assert again["state"]["listed"][:9] == first["state"]["listed"][1:]
    assert [row["number"] for row in again["items"]] == list(range(1, 11))
    chips = [chip["text"] for chip in onwards.json()["chips"]]
    assert chips[0] == '"red lamp"'
    assert chips[1].startswith("liked ")
    assert not {"007", *first["state"]["listed"][:2]} & set(mine["state"]["listed"])
    assert mine["fitting"] == 27


def test_what_is_wrong_is_refused_in_one_sentence(options, tmp_path):
    wrong = [
        ({"lines": ["a"] * 101}, "has 101 lines"),
        ({"lines": ["a" * 8001]}, "8001 characters"),
        ({"lines": ["a"], "k": 1001}, "at most 1000"),
        ({"lines": ["a"], "user": "u1", "history": ["000"]}, "give one of user and history"),
        ({"lines": ["a"], "history": ["nothing"]}, "nothing"),
        ({"lines": ["a"], "at": "soon"}, "soon"),
        ({"lines": "a"}, "a list"),
        ({"lines": ["a"], "text": "a"}, "no such key"),
    ]
    answers = talk(options, *(body for body, _ in wrong))
    for (body, sentence), answer in zip(wrong, answers, strict=True):
        assert answer.status_code == 422, body
        assert sentence in answer.json()["error"]
    (unknown,) = talk(options, {"user": "nobody"})
    assert unknown.status_code == 404
    (tmp_path / "model").mkdir()
    plain = ServeOptions(tmp_path / "model", tmp_path / "plain", watch=0)
    (answer,) = ask(plain, {"lines": ["red"]}, path="/converse", load=lambda folder: Shop())
    assert answer.status_code == 422
    assert "holds no conversation" in answer.json()["error"]
    few = ServeOptions(options.folder, options.state, watch=0, limits=Limits(max_lines=2))
    assert talk(few, {"lines": ["red", "older", "more"]})[0].status_code == 422


def test_a_line_is_no_error_and_leaves_no_trace(options, capfd):
    odd = ["zebra crossing", "", "?" * 1500, "שלום 🚀", "drop zz", "why 99", "\x1b[2Jzebra\x07"]
    answers = talk(options, *({"lines": odd[: n + 1]} for n in range(len(odd))))
    assert {answer.status_code for answer in answers} == {200}
    assert "Only the first 1,000" in answers[2].json()["message"]
    assert "\x1b" not in answers[-1].text
    assert "zebra" not in "".join(capfd.readouterr())
    files = [path for path in options.state.rglob("*") if path.is_file()]
    assert all(b"zebra" not in path.read_bytes() for path in files)


def test_what_is_kept_is_bounded_in_number_and_age_and_changes_no_answer(tower):
    now = [0.0]
    kept = Conversations(tower, [], lambda: now[0])
    beginning = Beginning(None, NOW, (), frozenset())
    for number in range(KEPT + 10):
        kept.answer(beginning, Lines((f"lamp {number}",)), 3)
    assert len(kept) == KEPT
    first, last = (f"lamp {n}" for n in (0, KEPT + 9))
    answers = [kept.answer(beginning, Lines((line, "older")), 3) for line in (first, last)]
    fresh = Conversations(tower, [])
    assert answers == [fresh.answer(beginning, Lines((line, "older")), 3) for line in (first, last)]
    assert kept.answer(beginning, Lines((last, "older")), 3) == answers[1], "it was said again"
    now[0] = SECONDS + 1
    kept.answer(Beginning(Query(user="u1"), NOW, (), frozenset()), Lines(()), 3)
    assert len(kept) == 0

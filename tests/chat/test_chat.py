"""The command: lines of a pipe, a transcript that goes on and is replayed, mistakes."""

import io
import json
import os
import sys

import pytest

from recsys.chat.__main__ import main
from recsys.chat.lines import format_turn
from recsys.printable import measure
from recsys.trained.bundle.write import write_bundle
from recsys.trained.conversation.conversation import Conversation
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.conversation.seeking.contest import POLICIES, draw_targets, hold_talk
from recsys.trained.conversation.seeking.views import Views
from tests.trained.conversation.conftest import *  # noqa: F403  (its fixtures)

LINES = ["red lamp", "more like 2, not 1", "older", "more", "why 2", "no seats", "undo", "like 77"]


@pytest.fixture
def chat(tower, monkeypatch, capsys):
    """Says lines to the command; gives its exit code, output and errors."""

    def run(lines, *words, of=f"run={tower.folder}"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code = main([of, *words])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def test_each_line_of_a_pipe_is_a_turn(chat, tower):
    code, out, _ = chat(LINES, "k=4")
    lines = out.splitlines()
    assert code == 0
    assert [line[2:] for line in lines if line.startswith("> ")] == LINES
    first = tower.recommend(texts=["red lamp"], k=4)["title"].to_list()
    assert [line[5:] for line in lines[3:7]] == first
    assert lines[7] == '     [a] "red lamp"  30 of 30 fit'
    assert lines[-1].startswith("There is no 77 on the list")
    assert "\x1b" not in out
    assert "\r" not in out


def test_nothing_said_acts_on_the_terminal(chat):
    code, out, _ = chat(["\x1b[2Jred\x07", "", "quit", "never read"])
    assert code == 0
    assert "\x1b" not in out
    assert "\x07" not in out
    assert out.splitlines()[-1] == "> quit"


def test_a_transcript_is_replayed_with_the_same_lists(chat, tmp_path):
    path = tmp_path / "new" / "t.jsonl"
    code, out, _ = chat(LINES, "k=4", "history=003,017", f"transcript={path}")
    assert code == 0
    header, *turns = map(json.loads, path.read_text().splitlines())
    assert (header["size"], header["history"]) == (4, ["003", "017"])
    assert [turn["said"] for turn in turns] == ["", *LINES]
    assert path.stat().st_mode & 0o077 == 0
    code, again, err = chat([], f"replay={path}")
    assert (code, "error" in err) == (0, False)
    said, last = again.splitlines()[:-1], again.splitlines()[-1]
    assert last == "replayed 8 turns: all lists are the same"
    assert said == out.splitlines()[2:]


def test_a_replay_that_differs_names_the_turn(chat, tmp_path):
    path = tmp_path / "t.jsonl"
    chat(LINES, f"transcript={path}")
    lines = path.read_text().splitlines()
    turn = json.loads(lines[2])
    turn["state"]["listed"][:2] = reversed(turn["state"]["listed"][:2])
    path.write_text("\n".join([*lines[:2], json.dumps(turn), *lines[3:], ""]))
    code, _, err = chat([], f"replay={path}")
    assert code == 2
    assert '1 of 8 turns differ; turn 1 ("red lamp") lists ' in err


def test_a_transcript_goes_on_where_it_was_cut_short(chat, tmp_path):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    chat(LINES, "k=3", f"transcript={whole}")
    chat(LINES[:4], "k=3", f"transcript={cut}")
    with cut.open("a") as file:
        file.write('{"number": 5, "sa')
    code, out, _ = chat(LINES[4:], f"transcript={cut}")
    assert code == 0
    assert "goes on behind turn 4" in out
    before, after = ([json.loads(x) for x in p.read_text().splitlines()[1:]] for p in (whole, cut))
    assert before == after
    assert chat([], f"replay={cut}")[0] == 0
    code, _, err = chat([], f"replay={cut}", "k=3")
    assert (code, "k= is what the transcript says" in err) == (2, True)


def test_a_bundle_talks_as_its_run_does(chat, tower, tmp_path):
    write_bundle(tower, tmp_path / "bundle")
    ours = chat(LINES, "k=4")
    theirs = chat(LINES, "k=4", of=f"folder={tmp_path / 'bundle'}")
    assert ours[:2] == theirs[:2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["folder=x"], "give run= or folder="),
        (["usr=u3"], "Did you mean 'user'?"),
        (["user=u3", "history=003"], "give one of user= and history="),
        (["user=nobody"], "nobody"),
        (["history=003,,017"], "history= names no item"),
        (["k=0"], "k is '0'"),
        (["at=soon"], "soon"),
        (["user="], "user= is empty"),
        (["replay=none.jsonl"], "none.jsonl"),
        (["transcript=."], "is a folder"),
        (["context.device=phone"], "device"),
    ],
)
def test_a_mistake_is_one_sentence(chat, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = chat(["red"], *words)
    assert code == 2
    assert message in err
    assert err.count("error: ") == 1
    assert os.listdir(tmp_path) == []


def test_a_transcript_of_something_else_is_refused(chat, counting, tmp_path):
    path = tmp_path / "t.jsonl"
    chat(LINES[:2], "k=3", f"transcript={path}")
    before = path.read_bytes()
    code, _, err = chat(["red"], f"transcript={path}", "k=4")
    assert (code, "began with k=3" in err) == (2, True)
    code, _, err = chat(["red"], f"transcript={path}", of=f"run={counting.folder}")
    assert (code, "was had with another model" in err) == (2, True)
    assert path.read_bytes() == before
    path.write_text('{"a": 1}\n')
    code, _, err = chat(["red"], f"transcript={path}")
    assert (code, "is no transcript" in err) == (2, True)
    assert path.read_text() == '{"a": 1}\n'


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(tower, width):
    conversation = Conversation(ConversationModel(tower), 5)
    for line in [
        *LINES,
        "宇宙の映画 " * 30,
        "help",
        "chips",
        "before 1900",
        "newer than 1990",
        "1",
    ]:
        for shown in format_turn(conversation.say(line), width, 30):
            assert measure(shown) <= width


def test_seekers_test_a_run_and_hold_no_conversation(chat, tower):
    code, out, _ = chat([], "seekers=6", "k=3", "seed=2")
    assert code == 0
    head, _, *rows, last = out.splitlines()
    assert head == "6 seekers, 30 items; 3 items a turn, 5 turns"
    assert [row[:20].strip() for row in rows] == list(POLICIES)
    model = ConversationModel(tower)
    views = Views(model)
    targets = draw_targets(model, views, 6, 2)
    talks = [hold_talk(model, views, t, 2 + n, "more", 3) for n, t in enumerate(targets)]
    found = 100 * sum(talk.found is not None for talk in talks) / 6
    assert float(rows[0][20:26]) == pytest.approx(found, abs=0.05)
    assert all(measure(row) <= 80 for row in rows)
    assert " was understood, " in last
    for words, said in (
        (("seekers=0",), "seekers"),
        (("seekers=3", "user=u1"), "user= is of a conversation"),
        (("seed=1",), "give both"),
    ):
        code, out, err = chat(["red"], *words)
        assert (code, out) == (2, "")
        assert said in err

"""Where a model and its state lie: nothing that lists runs sees a state, and old ones are read."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from recsys.clean.__main__ import main as clean
from recsys.compare.__main__ import main as compare
from recsys.errors import ConfigError
from recsys.fit.__main__ import main as fit
from recsys.runs.current import CurrentRun
from recsys.serve.__main__ import main as serve
from recsys.serve.options import make_options
from recsys.serve.places import choose_state, describe_old_state, locate_model
from recsys.serve.service import Service
from recsys.trained.run import load


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_what_lists_runs_does_not_see_a_state(place, shop_base, capsys):
    words = [word for word in shop_base if not word.startswith(("encoder.", "optimizer."))]
    for seed in (1, 2):
        assert fit([*words, "architecture=popularity", f"seed={seed}", "output=runs"]) == 0
    runs = sorted((place / "runs").iterdir())
    for run in runs:
        service = Service(make_options({"watch": "0"}, run), lambda folder: load(folder))
        asyncio.run(service.feedback.add([("u1", "000", "like")]))
        asyncio.run(service.close())
    assert (place / "runs" / ".serve" / runs[0].name / "feedback.jsonl").is_file()
    listed = subprocess.run("echo runs/*", shell=True, capture_output=True, text=True).stdout
    assert listed.split() == [f"runs/{run.name}" for run in runs]
    assert compare(listed.split()) == 0
    assert compare(["runs"]) == 0
    assert load("last").folder.name in [run.name for run in runs]
    assert load("runs/*").folder == load("last").folder
    capsys.readouterr()
    assert clean(["list=true", "output=runs"]) == 0
    assert ".serve" not in capsys.readouterr().out
    assert clean(["what=runs,unfinished", "yes=true", "output=runs"]) == 0
    left = [path.name for path in (place / "runs").iterdir()]
    assert left == [".serve"], "what people said is nobody's leftover"
    assert len(list((place / "runs" / ".serve").glob("*/feedback.jsonl"))) == 2


def test_a_state_goes_by_the_name_under_which_a_model_is_served(place, monkeypatch):
    (place / "one").mkdir()
    Path("live").symlink_to("one")
    assert choose_state(Path("one")) == place / ".serve" / "one"
    assert choose_state(Path("live")) == place / ".serve" / "live"
    assert choose_state(Path("runs/current")) == place / "runs" / ".serve" / "current"
    monkeypatch.chdir(place / "one")
    assert choose_state(Path()) == choose_state(Path("../one")) == place / ".serve" / "one"


def test_a_state_of_an_earlier_version_is_read_and_said(place, monkeypatch, capsys):
    from recsys.serve import __main__, server

    runs = place / "runs"
    for name in ("a", "b"):
        (runs / name).mkdir(parents=True)
    CurrentRun(Path("runs/b"), (Path("runs/a"),)).write(runs)
    old = runs / "a.state"
    old.mkdir()
    line = json.dumps({"user": "u1", "item": "000", "event": "like"})
    (old / "feedback.jsonl").write_text(f"{line}\n")
    counts = []

    def serve(gate, options, held):
        async def run():
            async with gate.app.router.lifespan_context(gate.app):
                counts.append(options.state)

        asyncio.run(run())

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr("recsys.serve.model.load_model", lambda folder: None)
    monkeypatch.setattr("recsys.serve.model._warm_up", lambda answering: None)
    for words in (["folder=runs/a"], ["run=current"]):
        assert __main__.main([*words, "port=0"]) == 0
        note = capsys.readouterr().err
        assert "note: the state is that of an earlier version, runs/a.state" in note
        assert note.count("\n") == 1
    assert [state.resolve() for state in counts] == [old, old]
    service = Service(make_options({}, runs / "a"), lambda folder: None)
    assert service.feedback.get("u1").had == ("000",)
    asyncio.run(service.close())
    assert __main__.main(["folder=runs/b", "port=0"]) == 0
    assert capsys.readouterr().err == ""
    # Moved as the note says, it is found without a word.
    (runs / ".serve" / "a").parent.mkdir(exist_ok=True)
    old.rename(runs / ".serve" / "a")
    assert choose_state(Path("runs/a")) == runs / ".serve" / "a"
    assert describe_old_state(Path("runs/a"), choose_state(Path("runs/a"))) is None


def test_the_run_in_use_is_found_from_anywhere_and_said_where_it_is_not(place, monkeypatch):
    run = place / "runs" / "a"
    run.mkdir(parents=True)
    CurrentRun(Path("runs/a")).write(place / "runs")
    assert locate_model(Path("runs/current")) == run
    monkeypatch.chdir("/")
    assert locate_model(place / "runs" / "current") == run
    run.rmdir()
    with pytest.raises(ConfigError, match="names runs/a, which is not there"):
        locate_model(place / "runs" / "current")
    (place / "runs" / "current").mkdir()  # a folder of that name is what is served
    assert locate_model(place / "runs" / "current") == place / "runs" / "current"


@pytest.mark.parametrize("words", [["state=items.csv"], ["state=items.csv/below"], []])
def test_a_state_that_is_no_folder_is_refused_in_a_sentence(place, shop_base, capsys, words):
    plain = [word for word in shop_base if not word.startswith(("encoder.", "optimizer."))]
    assert fit([*plain, "architecture=popularity", "output=runs"]) == 0
    folder = load("last").folder
    (place / "items.csv").write_text("item,text\n")
    if not words:
        (folder.parent / ".serve").mkdir()
        (folder.parent / ".serve" / folder.name).write_text("")
    capsys.readouterr()
    assert serve([f"run={folder}", "port=0", *words]) == 2
    said = capsys.readouterr().err
    assert "folder" in said
    assert "not foreseen" not in said
    assert said.count("\n") == 1
    assert (place / "items.csv").read_text() == "item,text\n"

"""A service follows what a refresh promotes and takes back, without a failed request."""

import json
import random
import threading
import time
from pathlib import Path

import httpx
import pytest

import recsys
from recsys.fit.__main__ import main as fit
from recsys.refresh.__main__ import main as refresh
from recsys.runs.current import CurrentRun
from recsys.serve.__main__ import main as serve
from tests.serve.process import served

LATER = 1_700_000_000


@pytest.fixture
def place(shop_base, tmp_path, monkeypatch):
    """A run, and events that came later, by ten people who are new to it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = [word for word in shop_base if not word.startswith(("encoder.", "optimizer."))]
    assert fit([*words, "architecture=popularity", "output=runs"]) == 0
    rng = random.Random(1)
    events = [
        {
            "user": f"u{user}",
            "item": f"0{rng.randrange(30):02d}",
            "time": LATER + 1000 * step + user,
        }
        for step in range(6)
        for user in range(50)
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in events))
    return tmp_path


def promote(*words):
    assert refresh([*words, "events=events.jsonl", "margin=100", "output=runs"]) == 0
    return CurrentRun.read(Path("runs"))


def recommend(place, run):
    """What a run recommends, as the service says it."""
    rows = recsys.load(place / run).recommend(histories=[["000"]], k=9)
    return [(item, pytest.approx(score)) for item, score in rows.select("item", "score").rows()]


@pytest.mark.slow
def test_a_service_follows_the_run_in_use_forward_and_back(place):
    assert serve(["run=current", "port=0"]) == 2, "none is in use yet"
    (old,) = (f"runs/{path.name}" for path in (place / "runs").iterdir())
    new = str(promote(f"run={old}").run)
    answers = {run: recommend(place, run) for run in (old, new)}
    assert answers[old] != answers[new]
    codes, stop = [], threading.Event()

    def ask():
        with httpx.Client(base_url=url, timeout=20) as client:
            while not stop.is_set():
                codes.append(client.post("/recommend", json={"history": ["000"]}).status_code)

    def wait_for(version):
        end = time.monotonic() + 60
        while httpx.get(f"{url}/health", timeout=20).json()["version"] < version:
            assert time.monotonic() < end
            time.sleep(0.1)
        answer = httpx.post(f"{url}/recommend", json={"history": ["000"], "k": 9}, timeout=20)
        return [(row["item"], row["score"]) for row in answer.json()["items"]]

    with served("run=current", place / "state", watch=1) as (process, url):
        asking = [threading.Thread(target=ask) for _ in range(2)]
        for each in asking:
            each.start()
        try:
            assert wait_for(1) == answers[new]
            assert refresh(["rollback=true", "output=runs"]) == 0
            assert wait_for(2) == answers[old]
            # A damaged file, and a run that is not there, leave the model as it is.
            whole = (place / "runs" / "current.json").read_text()
            for text in ("{", json.dumps({"run": "runs/none", "previous": [], "since": ""})):
                (place / "runs" / "current.json").write_text(text)
                time.sleep(1.5)
            (place / "runs" / "current.json").write_text(whole)
            newest = str(promote(f"run={old}").run)
            assert wait_for(3) == recommend(place, newest)
        finally:
            stop.set()
            for each in asking:
                each.join()
        process.terminate()
        said = process.stdout.read()
    assert len(codes) > 50
    assert set(codes) == {200}
    lines = said.splitlines()
    assert [line for line in lines if line.startswith("serving ")] == [
        f"serving {place / run} now" for run in (old, newest)
    ]
    notes = [line for line in lines if line.startswith("note: ")]
    assert ["is damaged" in note for note in notes] == [True, False]
    assert "names runs/none, which is not there" in notes[1]

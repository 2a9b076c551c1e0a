"""The service as a process: it ends without a failed request, and forgets nothing when killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import httpx
import pytest

from recsys.fit.__main__ import main as fit
from tests.serve.process import served


@pytest.fixture(scope="module")
def folder(shop_base, tmp_path_factory):
    """Of a model that opens at once: what most people like."""
    root = tmp_path_factory.mktemp("runs")
    words = [word for word in shop_base if not word.startswith(("encoder.", "optimizer."))]
    assert fit([*words, "architecture=popularity", f"output={root / 'runs'}"]) == 0
    (found,) = (root / "runs").iterdir()
    return found


@pytest.mark.slow
def test_a_service_that_is_stopped_answers_all_that_it_took(folder, tmp_path):
    async def ask_until_closed(client):
        """Codes of what was answered, and what failed with a connection that was there."""
        codes = []
        while True:
            try:
                answer = await client.post("/recommend", json={"user": "u1"})
            except httpx.ConnectError:  # nobody listens any more
                return codes
            except httpx.TransportError:  # a connection that was made and never taken
                assert codes[-1][1] == "close"
                return codes
            codes.append((answer.status_code, answer.headers.get("connection")))

    async def run(process, place):
        async with httpx.AsyncClient(base_url=place, timeout=20) as client:
            asking = [asyncio.create_task(ask_until_closed(client)) for _ in range(8)]
            await asyncio.sleep(1)
            process.send_signal(signal.SIGTERM)
            return [code for each in await asyncio.gather(*asking) for code in each]

    with served(f"run={folder}", tmp_path / "state") as (process, place):
        answers = asyncio.run(run(process, place))
        assert process.wait(20) == 0, process.stdout.read()
        said = process.stdout.read()
    assert {code for code, _ in answers} == {200}
    assert (200, "close") in answers, "who was asked while it ended"
    assert (200, None) in answers
    assert said == ""


MARK = "zebra"
"""Stands in all that is sent below, and nowhere in what the service writes."""
HOSTILE = [
    ("{", 400),
    ('{"user": ' + "[" * 100_000 + MARK, 400),
    ('{"user": ' + "[" * 100_000 + "]" * 100_000 + "}", (400, 422)),
    ('{"text": "\\ud800 zebra"}', 422),
    ('{"user": "u1", "k": 1e400}', 422),
    ('{"user": "u1", "k": NaN}', 422),
    ('{"user": "u1", "k": ' + "9" * 4_000 + "}", (400, 422)),
    ('{"user": "u1", "user": {"zebra": null}}', 422),
    (json.dumps({"user": f"{MARK}\x00\u202e<script>"}), 404),
    (json.dumps({"user": MARK * 200}), 422),
    (json.dumps({"history": []}), 422),
    (json.dumps({"history": [MARK]}), 422),
    (json.dumps({"history": [MARK] * 1_001}), 422),
    (json.dumps({"text": ""}), 422),
    (json.dumps({"text": f"{MARK} " * 10_000}), 422),
    (json.dumps({"text": MARK}), 422),  # this model reads no texts
    (json.dumps({"user": "u1", "where": f"'{MARK}'; DROP TABLE items"}), 422),
    (json.dumps({"user": "u1", "at": MARK}), 422),
    (json.dumps({"user": "u1", "context": {MARK: MARK}}), 422),
    (json.dumps({"user": "u1", "pad": MARK * 60_000}), 413),
]


def test_nothing_that_is_sent_breaks_it_or_stands_in_its_log(folder, tmp_path):
    with served(f"run={folder}", tmp_path / "state") as (process, place):
        with httpx.Client(base_url=place, timeout=20) as client:
            for body, codes in HOSTILE:
                for path in ("/recommend", "/explain"):
                    own = body if path == "/recommend" else body[:-1] + ', "item": "000"}'
                    kind = {"content-type": "application/json"}
                    answer = client.post(path, content=own, headers=kind)
                    either = (422, *(codes if isinstance(codes, tuple) else (codes,)))
                    if path == "/recommend":
                        either = either if codes == 422 else either[1:]
                    assert answer.status_code in either, (body[:60], answer.text[:200])
                    assert answer.json()["error"]
            assert client.post("/recommend", content=MARK).status_code == 415
            assert client.get(f"/{MARK}?{MARK}={MARK}").status_code == 404
            event = {"user": MARK, "item": "'; DROP TABLE items; --"}
            kept = client.post("/feedback", json={"events": [event]})
            assert kept.json() == {"kept": 1}
            assert client.post("/forget", json={"users": [MARK]}).json() == {"forgotten": 1}
            assert client.get("/health").json()["status"] == "ok"
            assert MARK not in client.get("/metrics").text
        process.terminate()
        said = process.stdout.read()
        assert process.wait(20) == 0
    assert MARK not in said
    assert said == "", "not a line"


def kill_while_it_keeps(folder, state, name):
    """Items of events that were kept, as their sender heard, before the service was killed."""
    kept = []

    async def send(client, number):
        for count in range(1_000):
            item = f"{name}-{number}-{count}"
            event = {"user": f"user {name}", "item": item}
            await client.post("/feedback", json={"events": [event]})
            kept.append(item)

    async def run(process, place):
        async with httpx.AsyncClient(base_url=place, timeout=20) as client:
            sending = [asyncio.create_task(send(client, number)) for number in range(6)]
            while not kept:  # on a busy machine the first answer takes long
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            process.kill()
            await asyncio.gather(*sending, return_exceptions=True)

    with served(f"run={folder}", state) as (process, place):
        health = httpx.get(f"{place}/health").json()
        asyncio.run(run(process, place))
    return kept, health["feedback"]


@pytest.mark.parametrize("times", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_nothing_that_was_kept_is_lost_when_it_is_killed(folder, tmp_path, times):
    all_kept, known = set(), 0
    for count in range(times):
        kept, known = kill_while_it_keeps(folder, tmp_path, str(count))
        assert kept
        assert known >= len(all_kept), "it knows again what it kept"
        all_kept.update(kept)
    lines = (tmp_path / "feedback.jsonl").read_bytes().split(b"\n")
    assert all_kept <= {json.loads(line)["item"] for line in lines[:-1]}


def run_command(*words, **environment):
    command = [sys.executable, "-m", "recsys.serve", *map(str, words)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_what_cannot_be_served_ends_with_a_sentence(folder, tmp_path, capsys):
    from recsys.serve.__main__ import main

    short = tmp_path / "key"
    short.write_text("short\n")
    for words, said in (
        ([], "give folder= or run="),
        (["run=last", "folder=x"], "give folder= or run="),
        (["run=last", "prt=1"], "Did you mean 'port'?"),
        (["run=last", "port=99999"], "from 0 to 65535"),
        (["run=last", "queue=0"], "from 1"),
        (["run=last", "host=0.0.0.0"], "needs a key"),
        (["run=last", f"key_file={short}"], "at least 16"),
        (["run=last", f"key_file={tmp_path / 'none'}"], "cannot be read"),
        ([f"run={folder}", f"state={folder / 'own'}"], "choose another place"),
        ([f"folder={tmp_path / 'none'}"], "there is no such folder"),
    ):
        assert main(words or ["output=runs"]) == 2, words
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert told.count("\n") == 1
        assert said in told


def test_a_port_that_is_taken_ends_with_a_sentence(folder, tmp_path):
    with served(f"run={folder}", tmp_path / "one") as (_, place):
        port = place.rpartition(":")[2]
        done = run_command(f"run={folder}", f"state={tmp_path / 'two'}", f"port={port}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert f"port={port}" in done.stderr
    assert "Traceback" not in done.stderr

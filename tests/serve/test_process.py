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

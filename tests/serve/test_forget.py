"""A service forgets a user while it runs: their feedback is gone from memory and file, for good."""

import asyncio
import json
import time

import httpx
import pytest

from recsys.errors import DataError
from recsys.fit.__main__ import main as fit
from recsys.forget.__main__ import main as forget
from recsys.serve.records.feedback import FeedbackLog
from recsys.trained.bundle.write import write_bundle
from recsys.trained.run import load
from tests.serve.process import served


def read_users(file):
    return [json.loads(line)["user"] for line in file.read_text().splitlines()]


def test_what_is_kept_meanwhile_stays_and_what_was_said_before_goes(tmp_path):
    async def run():
        log = FeedbackLog(tmp_path)

        async def add(name):
            for number in range(40):
                await log.add([(name, f"{number}", "like"), ("u1", f"{name}-{number}", "like")])

        adding = [asyncio.create_task(add(f"other-{n}")) for n in range(4)]
        forgotten = 0
        while not all(each.done() for each in adding):
            forgotten += await log.forget(["u1"])
            lines = (tmp_path / "feedback.jsonl").read_text().splitlines()
            kept = {each["item"] for each in map(json.loads, lines) if each["user"] == "u1"}
            assert log.get("u1").events.keys() <= kept, "what is gone from the file is not heeded"
            await asyncio.sleep(0)
        forgotten += await log.forget(["u1"])
        known = {name: log.get(name).had for name in ("u1", *(f"other-{n}" for n in range(4)))}
        count = log.count
        await log.close()
        return forgotten, known, count

    forgotten, known, count = asyncio.run(run())
    assert forgotten == 160
    assert count == 160
    assert known.pop("u1") == ()
    assert set(known.values()) == {tuple(str(number) for number in range(40))}
    users = read_users(tmp_path / "feedback.jsonl")
    assert sorted(set(users)) == sorted(known)
    assert len(users) == 160
    assert [path.name for path in tmp_path.iterdir()] == ["feedback.jsonl"], "nothing half-written"
    assert (tmp_path / "feedback.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_disk_that_fails_forgets_nothing_and_keeps_on(tmp_path, monkeypatch):
    async def run():
        log = FeedbackLog(tmp_path)
        await log.add([("u1", "a", "like")])
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", fail)
            with pytest.raises(DataError):
                await log.forget(["u1"])
        assert log.get("u1").had == ("a",)
        await log.add([("u1", "b", "like")])
        await log.close()
        return FeedbackLog(tmp_path).get("u1").had

    def fail(handle):
        raise OSError(28, "No space left on device")

    assert asyncio.run(run()) == ("a", "b")
    assert [path.name for path in tmp_path.iterdir()] == ["feedback.jsonl"]


@pytest.mark.slow
def test_a_user_is_gone_from_a_running_service_and_from_its_bundle(
    shop_base, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = [word for word in shop_base if not word.startswith(("encoder.", "optimizer."))]
    assert fit([*words, "architecture=item_knn", "output=fitted"]) == 0
    bundle = write_bundle(load("last", "fitted"), tmp_path / "runs" / "bundle", users=True)
    state = tmp_path / "runs" / ".serve" / "bundle"
    events = [{"user": user, "item": "000"} for user in ("u3", "page-1", "u4", "u3")]
    with served(f"folder={bundle}", state, watch=1) as (process, url):

        def post(path, body):
            return httpx.post(f"{url}/{path}", json=body, timeout=20)

        assert post("feedback", {"events": events}).json() == {"kept": 4}
        assert post("recommend", {"user": "page-1"}).status_code == 200
        capsys.readouterr()
        assert forget(["user=u3", "yes=true"]) == 2
        assert "POST /forget" in capsys.readouterr().err
        assert post("recommend", {"user": "u3"}).status_code == 200, "nothing is deleted by halves"
        assert post("forget", {"users": ["u3", "page-1", "nobody"]}).json() == {"forgotten": 3}
        assert read_users(state / "feedback.jsonl") == ["u4"]
        assert post("recommend", {"user": "page-1"}).status_code == 404
        assert post("forget", {"users": []}).status_code == 422
        assert post("feedback", {"events": events[2:3]}).json() == {"kept": 1}
        assert forget(["user=u3", "yes=true"]) == 0
        end = time.monotonic() + 30
        while post("recommend", {"user": "u3"}).status_code != 404:
            assert time.monotonic() < end, "the bundle without the user takes the old one's place"
            time.sleep(0.1)
        assert post("recommend", {"user": "u4"}).status_code == 200
        process.kill()
    with served(f"folder={bundle}", state) as (_, url):
        assert httpx.get(f"{url}/health").json()["feedback"] == 2
        assert httpx.post(f"{url}/recommend", json={"user": "u3"}).status_code == 404
    assert read_users(state / "feedback.jsonl") == ["u4", "u4"]

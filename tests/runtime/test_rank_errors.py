"""Ranks and children whose other end is gone: killed, stopped, or left behind by their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver

from recsys.runtime import rank_errors
from recsys.runtime.rank_errors import RankErrorWatcher, StoppedRankTimer, describe_end, is_stopped
from tests.fit.test_ddp import start, words


def wait_for(condition, process, seconds=150):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def children(pid):
    """Processes of this command that another one has started; Linux tells."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in path.read_text().split()]
    return [p for p in found if b"recsys.fit" in Path(f"/proc/{p}/cmdline").read_bytes()]


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the other rank in /proc")
def test_a_rank_that_is_killed_ends_the_run_with_a_sentence(shop, tiny_bert, tmp_path):
    more = ["trainer.epochs=3000", "trainer.batch_size=8", "checkpoint.every_minutes=0.001"]
    process = start(words(shop, tiny_bert, tmp_path / "runs", 2, *more), tmp_path / "cache")
    wait_for(lambda: list((tmp_path / "runs").glob("*/checkpoints/last.ckpt")), process)
    (other,) = children(process.pid)
    os.kill(other, signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL, error
    (folder,) = (tmp_path / "runs").iterdir()
    said = [line for line in error.splitlines() if line.startswith("error: ")]
    assert said == [
        f"error: rank 1 (process {other}) was killed by SIGKILL, which the system sends where "
        f"memory runs out; go on with: python -m recsys.fit resume={folder}"
    ], error


def test_the_launcher_does_not_kill_the_first_rank_before_it_can_say_why(sleeper, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    gone.wait()
    observer = _ChildProcessObserver(sleeper.pid, [gone], sleep_period=2)
    observer.start()
    with RankErrorWatcher(tmp_path, lambda error: None, lambda: []):
        observer.join(timeout=20)
    assert not observer.is_alive()
    assert sleeper.poll() is None


def test_a_rank_that_is_stopped_is_told_and_then_given_up(sleeper):
    said = []
    waits = StoppedRankTimer(pace=5.0, tell=said.append)
    assert not is_stopped(sleeper.pid)
    sleeper.send_signal(signal.SIGSTOP)
    wait_for(lambda: is_stopped(sleeper.pid), sleeper)
    looks = [waits.poll(1, sleeper.pid) for _ in range(int(rank_errors.STOPPED_LIMIT / 5))]
    assert said == [
        f"rank 1 (process {sleeper.pid}) is stopped, and the run waits for it; continue it: "
        f"kill -CONT {sleeper.pid}"
    ]
    assert looks[:-1] == [None] * (len(looks) - 1)
    assert "has been stopped for 5 minutes" in looks[-1].message


def test_a_rank_that_goes_on_is_waited_for_anew(sleeper):
    waits = StoppedRankTimer(pace=rank_errors.STOPPED_LIMIT / 2, tell=lambda line: None)
    sleeper.send_signal(signal.SIGSTOP)
    wait_for(lambda: is_stopped(sleeper.pid), sleeper)
    assert waits.poll(1, sleeper.pid) is None
    sleeper.send_signal(signal.SIGCONT)
    wait_for(lambda: not is_stopped(sleeper.pid), sleeper)
    assert waits.poll(1, sleeper.pid) is None
    sleeper.send_signal(signal.SIGSTOP)
    wait_for(lambda: is_stopped(sleeper.pid), sleeper)
    assert waits.poll(1, sleeper.pid) is None
    assert waits.poll(1, sleeper.pid) is not None


@pytest.mark.parametrize(("code", "part"), [(0, None), (7, "code 7")])
def test_how_a_rank_ended(code, part):
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait()
    lost = describe_end(1, process)
    assert lost is None if part is None else part in lost.message


@pytest.mark.slow
def test_a_child_of_seeds_leaves_with_its_parent(shop, tiny_bert, tmp_path):
    asked = [*words(shop, tiny_bert, tmp_path / "runs", 1), "trainer.epochs=3000", "seeds=2"]
    process = start([*asked, "checkpoint.every_minutes=0.001"], tmp_path / "cache")
    (state,) = wait_for(
        lambda: list((tmp_path / "runs").glob("*/*/checkpoints/last.ckpt")), process
    )
    process.kill()
    # Whoever holds the output is the child: its end is the end of both.
    _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert "stopped by SIGTERM; go on with" in error
    assert state.is_file()

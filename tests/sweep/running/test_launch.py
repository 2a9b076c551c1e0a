"""Trials as processes: each by its own, none left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from recsys.errors import RecsysError
from recsys.fit.__main__ import main
from recsys.sweep.running.launcher_client import TrialLauncher

NOTE = """
import json, os, sys
print(json.dumps({
    "loaded": LOADED, "argv": sys.argv, "name": __name__, "spec": __spec__.name,
    "session": os.getsid(0), "pid": os.getpid(), "group": os.getpgid(0),
    "env": {k: os.environ.get(k) for k in ("MADE_UP", "LOCAL_RANK", "MASTER_PORT")},
}))
print("complaint", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""

# A child of a child in the group, as a rank is, that does not leave by itself.
FAMILY = """
import os, signal, subprocess, sys, time
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-S", "-c", code])
print(os.getpid(), child.pid, flush=True)
time.sleep(0 if sys.argv[1] == "leaves" else 300)
"""

# What a library may do at its import: keep a folder for the process and delete it at its end.
HOLDS = """
import atexit, os, tempfile
FOLDER = tempfile.TemporaryDirectory(suffix="-held")
OTHER = tempfile.TemporaryDirectory(suffix="-held")
atexit.register(FOLDER.cleanup)
PATHS, PID = [FOLDER.name, OTHER.name], os.getpid()
atexit.register(lambda: os.getpid() == PID or print("an exit handler of the parent ran"))
"""

USES = """
import atexit, json, os, sys, tempfile, threading
import holds
own = tempfile.TemporaryDirectory()
atexit.register(lambda: print("own handler"))
for folder in (holds.FOLDER, holds.OTHER):
    with open(os.path.join(folder.name, "media"), "x") as file:
        file.write("x")
print(json.dumps({
    "shared": holds.PATHS, "there": [os.path.isdir(path) for path in holds.PATHS],
    "private": [holds.FOLDER.name, holds.OTHER.name], "own": own.name,
    "files": sorted(os.readlink(f"/proc/self/fd/{f}") for f in os.listdir("/proc/self/fd")
                    if os.path.exists(f"/proc/self/fd/{f}")),
    "threads": threading.active_count(), "media": wandb_media(),
}), flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
"""

DRIVER = """
import sys, time
from pathlib import Path
from recsys.sweep.running.launcher_client import TrialLauncher
launcher = TrialLauncher(prepare=False)
log = Path(sys.argv[1])
module, *words = sys.argv[2:]
child = launcher.start(words, log, {}, fork=False, module=module)
print(child.pid, launcher._process.pid, flush=True)
time.sleep(300)
"""


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory):
    """What trials run here instead of a training."""
    folder = tmp_path_factory.mktemp("modules")
    loaded = 'import sys; LOADED = "torch" in sys.modules and "recsys.fit.run" in sys.modules'
    (folder / "note.py").write_text(loaded + NOTE)
    (folder / "family.py").write_text(FAMILY)
    (folder / "holds.py").write_text(HOLDS)
    media = "def wandb_media():\n    from wandb.sdk.data_types import _private\n"
    (folder / "uses.py").write_text(f"{media}    return _private.MEDIA_TMP.name\n{USES}")
    (folder / "driver.py").write_text(DRIVER)
    (folder / "alone.py").write_text('import time; print("here", flush=True); time.sleep(300)')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.getcwd()]))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("LOCAL_RANK", "1")  # of another launcher
        patch.setenv("MASTER_PORT", "1")
        yield folder


@pytest.fixture(scope="module")
def prepared(modules):
    with TrialLauncher(prepare=True, modules=["holds"]) as launcher:
        launcher.begin()
        yield launcher


@pytest.fixture
def bare():
    with TrialLauncher(prepare=False) as launcher:
        yield launcher


def ended(*pids, within=10.0):
    """Whether processes are gone; one that nobody has waited for yet counts as gone."""

    def there(pid):
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or read
            return False

    end = time.monotonic() + within
    while any(map(there, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(there, pids))


def said(log, within=60.0):
    """The first line of a log, once it is there."""
    end = time.monotonic() + within
    while not (log.exists() and "\n" in log.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    return log.read_text().splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize("fork", [True, False])
def test_a_trial_has_its_words_log_session_and_environment(prepared, tmp_path, fork):
    log = tmp_path / "deep" / "log.txt"
    child = prepared.start(["3", "a b"], log, {"MADE_UP": "ü"}, fork=fork, module="note")
    assert child.wait(180) == 3
    found = json.loads(said(log))
    assert found["loaded"] is fork  # the imports are there before the module's first line
    assert found["argv"][1:] == ["3", "a b"]
    assert (found["name"], found["spec"]) == ("__main__", "note")
    assert found["pid"] == found["session"] == found["group"] == child.pid != os.getpid()
    assert found["env"] == {"MADE_UP": "ü", "LOCAL_RANK": None, "MASTER_PORT": None}
    assert "complaint" in log.read_text()
    assert child.poll() == 3


def test_trials_side_by_side_and_codes_of_their_own(prepared, tmp_path):
    logs = [tmp_path / f"{n}.txt" for n in range(4)]
    children = [
        prepared.start([str(n)], log, {}, fork=n % 2 == 0, module="note")
        for n, log in enumerate(logs)
    ]
    assert [child.wait(180) for child in children] == [0, 1, 2, 3]
    assert len({json.loads(said(log))["pid"] for log in logs}) == 4


def test_a_traceback_is_in_the_log_and_the_next_trial_runs(prepared, tmp_path):
    child = prepared.start(["no number"], tmp_path / "a.txt", {}, fork=True, module="note")
    assert child.wait(180) == 1
    assert "ValueError" in (tmp_path / "a.txt").read_text()
    assert prepared.start(["0"], tmp_path / "b.txt", {}, fork=True, module="note").wait(180) == 0


@pytest.mark.parametrize("fork", [True, False])
def test_a_stop_ends_children_of_children(prepared, tmp_path, fork):
    child = prepared.start(["waits"], tmp_path / "log", {}, fork=fork, module="family")
    pids = [int(word) for word in said(tmp_path / "log", 180).split()]
    assert child.poll() is None
    assert not child.stopping
    child.terminate(grace=30)
    assert child.wait(60) == -signal.SIGTERM  # and the deaf child of it did not need the grace
    assert ended(*pids)
    assert child.stopping


def test_a_deaf_trial_is_killed_after_the_grace_without_blocking(bare, tmp_path):
    child = bare.start(["deaf"], tmp_path / "log", {}, fork=False, module="family")
    pids = [int(word) for word in said(tmp_path / "log").split()]
    began = time.monotonic()
    child.terminate(grace=0.5)
    assert time.monotonic() - began < 0.4
    assert child.poll() is None
    assert child.wait(60) == -signal.SIGKILL
    assert time.monotonic() - began >= 0.5
    assert ended(*pids)


def test_what_a_trial_leaves_behind_is_ended(bare, tmp_path):
    child = bare.start(["leaves"], tmp_path / "log", {}, fork=False, module="family")
    assert child.wait(60) == 0
    assert ended(*(int(word) for word in said(tmp_path / "log").split()))


def test_a_trial_killed_by_another_hand_is_told_by_its_signal(bare, tmp_path):
    child = bare.start(["waits"], tmp_path / "log", {}, fork=False, module="family")
    pids = [int(word) for word in said(tmp_path / "log").split()]
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(60) == -signal.SIGKILL
    assert not child.stopping
    assert ended(*pids)


def test_a_fork_can_be_called_off_and_the_driver_can_die_while_the_imports_run(modules, tmp_path):
    with TrialLauncher(prepare=True) as launcher:
        child = launcher.start(["0"], tmp_path / "log", {}, fork=True, module="note")
        child.terminate(grace=30)
        assert child.wait(60) == -signal.SIGTERM
        assert not (tmp_path / "log").exists()
        pid = launcher._process.pid
    assert ended(pid, within=0.1)


def test_closing_ends_all(tmp_path):
    with TrialLauncher(prepare=False) as launcher:
        launcher.start(["waits"], tmp_path / "log", {}, fork=False, module="family")
        pids = [int(word) for word in said(tmp_path / "log").split()]
    assert ended(*pids, within=0.1)


def driver(modules, log, module, words):
    """A driver with one trial, and the processes of the trial and of its launcher."""
    process = subprocess.Popen(
        [sys.executable, str(modules / "driver.py"), str(log), module, *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, [int(word) for word in process.stdout.readline().split()]


def test_a_killed_driver_leaves_nothing(modules, tmp_path):
    process, pids = driver(modules, tmp_path / "log", "family", ["waits"])
    pids += [int(word) for word in said(tmp_path / "log").split()]
    process.kill()
    process.communicate()
    assert ended(*pids, within=20)


def test_a_trial_ends_though_driver_and_launcher_are_killed_at_once(modules, tmp_path):
    process, (trial, launcher) = driver(modules, tmp_path / "log", "alone", [])
    assert said(tmp_path / "log") == "here"
    os.kill(launcher, signal.SIGKILL)
    process.kill()
    process.communicate()
    assert ended(trial, launcher)


@pytest.mark.slow
def test_a_killed_driver_leaves_no_rank(modules, shop_words, tmp_path):
    more = [
        "trainer.devices=2",
        "trainer.epochs=100000",
        "trainer.threads=1",
        "trainer.log_every=1",
    ]
    process, pids = driver(modules, tmp_path / "log", "recsys.fit", [*shop_words, *more])
    rows, end = [], time.monotonic() + 240
    while len(rows) < 2 and time.monotonic() < end and not ended(pids[0], within=0.1):
        rows = [r for p in tmp_path.glob("runs/*/log/metrics.csv") for r in p.open()]
    assert len(rows) >= 2, (tmp_path / "log").read_text()  # both ranks are there
    with open(f"/proc/{pids[0]}/task/{pids[0]}/children") as file:
        ranks = [int(word) for word in file.read().split()]
    assert len(ranks) == 1
    assert not ended(*ranks, within=0.1)
    process.kill()
    process.communicate()
    assert ended(*pids, *ranks, within=20)


def test_a_fork_finds_what_the_same_words_find_in_this_process(prepared, shop_base, tmp_path):
    words = [*shop_base, "tuning=lora", "encoder.max_length=16", "trainer.threads=1"]
    assert main([*words, f"output={tmp_path / 'here'}"]) == 0
    child = prepared.start([*words, f"output={tmp_path / 'fork'}"], tmp_path / "log", {}, fork=True)
    assert child.wait(180) == 0, (tmp_path / "log").read_text()
    here, fork = (
        json.loads(next((tmp_path / name).glob("*/result.json")).read_text())
        for name in ("here", "fork")
    )
    assert fork["test"] == here["test"]
    assert fork["floors"] == here["floors"]


def test_a_killed_launcher_takes_its_trials_along_and_is_told_in_a_sentence(tmp_path):
    with TrialLauncher(prepare=False) as launcher:
        child = launcher.start(["deaf"], tmp_path / "log", {}, fork=False, module="family")
        pids = [child.pid, *(int(word) for word in said(tmp_path / "log").split())]
        os.kill(launcher._process.pid, signal.SIGKILL)
        with pytest.raises(RecsysError, match="has ended by signal 9, and its trials") as error:
            child.wait(60)
        assert "\n" not in str(error.value)
        assert ended(*pids)


def test_a_launcher_that_cannot_import_says_why(tmp_path):
    with TrialLauncher(prepare=True, modules=["no_such_module"]) as launcher:
        child = launcher.start(["0"], tmp_path / "log", {}, fork=True, module="note")
        with pytest.raises(RecsysError, match="No module named 'no_such_module'"):
            child.wait(180)


def test_a_bare_launcher_refuses_forks(bare, tmp_path):
    with pytest.raises(ValueError, match="commands only"):
        bare.start(["0"], tmp_path / "log", {}, fork=True, module="note")


def test_a_fork_destroys_nothing_that_its_libraries_hold_for_all(prepared, tmp_path):
    found = []
    for number, how in enumerate(("exits", "killed", "exits")):
        log = tmp_path / f"{number}.txt"
        child = prepared.start([how], log, {}, fork=True, module="uses")
        assert child.wait(180) == (-signal.SIGKILL if how == "killed" else 0), log.read_text()
        lines = log.read_text().splitlines()
        assert lines[1:] == ([] if how == "killed" else ["own handler"])
        found.append(json.loads(lines[0]))
    for each in found:
        assert each["there"] == [True, True]  # no trial before took them away
        assert each["threads"] == 1
        # Nothing is open that forks would share, but their own output.
        assert [f for f in each["files"] if not f.startswith(("/dev/null", str(tmp_path)))] == []
    private = [path for each in found for path in (*each["private"], each["media"])]
    assert len(set(private)) == len(private)
    assert not set(private) & set(found[0]["shared"])
    assert not [path for path in private if os.path.exists(path)]
    assert [os.path.exists(each["own"]) for each in found] == [False, True, False]
    shutil.rmtree(found[1]["own"])  # the fork that was killed had no time for it

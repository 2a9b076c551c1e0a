"""What is in the way is removed, and what somebody needs stays."""

import json
import os
import pty
import subprocess
import sys
import time

import pytest

from recsys.clean.__main__ import main
from recsys.fit.__main__ import main as fit
from recsys.runs.current import CurrentRun
from recsys.runs.folder import lock_folder
from recsys.runtime.store import Store

DAY = 86_400


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def runs(place, shop_base):
    """A finished run, and an ensemble that is built on it."""
    words = [w for w in shop_base if not w.startswith(("encoder.", "optimizer.", "trainer."))]
    assert fit(["experiment=popularity", *words, "output=runs"]) == 0
    (first,) = (place / "runs").iterdir()
    knn = [*words, "architecture=item_knn", "architecture.neighbours=5", "output=runs"]
    assert fit(knn) == 0
    (second,) = [run for run in (place / "runs").iterdir() if run != first]
    members = f"architecture.members=[runs/{first.name},runs/{second.name}]"
    assert fit([*words, "architecture=ensemble", members, "output=runs"]) == 0
    (third,) = [run for run in (place / "runs").iterdir() if run not in (first, second)]
    return first, second, third


def make_old(folder, days):
    when = time.time() - days * DAY
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (when, when))


def said(capsys, *words):
    capsys.readouterr()
    assert main([*words, "output=runs"]) == 0
    return capsys.readouterr().out


def test_a_run_that_another_is_built_on_stays_and_both_go_together(runs, capsys):
    first, second, third = runs
    make_old(first, 40)
    out = said(capsys, "what=runs", "older=30d", "yes=true")
    assert f"stays: runs/{first.name} (runs/{third.name} is built on it)" in out
    assert first.is_dir()
    for run in (second, third):
        make_old(run, 40)
    out = said(capsys, "what=runs", "older=30d", "yes=true")
    assert "Removed 3 entries" in out
    assert list(first.parent.iterdir()) == []


def test_what_is_locked_or_in_use_stays(runs, capsys):
    first, second, third = runs
    CurrentRun(second, (first,)).write(second.parent)
    with lock_folder(third):
        out = said(capsys, "what=runs", "yes=true")
        assert f"stays: runs/{third.name} (a process works in it)" in out
        assert f"stays: runs/{second.name} (it is the run in use by runs/current.json)" in out
        assert f"runs/{first.name} (it was, before, the run in use" in out
    assert all(run.is_dir() for run in runs)


def test_nothing_goes_unless_it_is_named_and_agreed_to(runs, capsys, monkeypatch):
    # It lists; without a terminal it does not remove.
    for words in (("list=true",), ("list=true", "what=runs"), ("what=runs",)):
        out = said(capsys, *words)
        assert "Nothing is removed" in out
        assert f"runs/{runs[2].name}" in out
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert "nobody can be asked" in said(capsys, "what=runs")
    ours, theirs = pty.openpty()
    with open(theirs, closefd=True) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        for answer, left in (("\n", 3), ("n\n", 3), ("y\n", 0)):
            os.write(ours, answer.encode())
            assert "[y/N]" in said(capsys, "what=runs")
            assert len(list(runs[0].parent.iterdir())) == left
    os.close(ours)


def test_an_unfinished_run_goes_and_a_finished_one_is_not_taken_for_one(runs, capsys):
    (runs[2] / "result.json").unlink()
    half = runs[0].parent / f".{runs[0].name}.{'0' * 32}.tmp"
    half.mkdir()
    out = said(capsys, "what=unfinished", "yes=true")
    assert "younger than a day" in out  # of what may be being written
    assert not runs[2].exists()
    make_old(half, 2)
    said(capsys, "what=unfinished", "yes=true")
    assert sorted(runs[0].parent.iterdir()) == sorted(runs[:2])


USE = """
import sys
from pathlib import Path
from recsys.runtime.store import Store
print(Store().get_or_build("kind", {"n": 1}, lambda f: (f / "x").write_text("x" * 5000) and None))
sys.stdout.flush()
sys.stdin.readline()
"""


def test_a_cache_entry_stays_while_a_process_uses_it(place, capsys):
    (place / "runs").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", USE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        folder = user.stdout.readline().strip()
        out = said(capsys, "what=caches", "yes=true")
        assert f"stays: {folder} (a process uses it)" in out
        assert Store().remove(Store().list_folders()[0]) == "a process uses it"
        user.kill()  # leaves its note behind, which counts no longer
        user.wait()
    assert os.path.isdir(folder)
    assert f"stays: {folder}" not in said(capsys, "what=caches", "older=1h")
    assert "Removed 1 entry, 5." in said(capsys, "what=caches", "yes=true")
    assert not os.path.exists(folder)
    assert list((place / "cache" / ".in_use").iterdir()) == []


def test_age_of_a_cache_entry_counts_from_its_last_use(place, capsys):
    (place / "runs").mkdir()
    use = [sys.executable, "-c", USE]
    made = subprocess.run(use, input="\n", capture_output=True, text=True, check=True)
    folder = place / made.stdout.strip()
    make_old(folder, 40)
    assert "There is nothing" not in said(capsys, "what=caches", "older=30d")
    subprocess.run(use, input="\n", capture_output=True, text=True, check=True)
    assert "There is nothing to remove" in said(capsys, "what=caches", "older=30d", "yes=true")
    assert folder.is_dir()


def test_room_is_made_from_the_oldest_on(place, capsys):
    (place / "runs").mkdir()
    use = "from recsys.runtime.store import Store\nfor n in range(4): Store().get_or_build('kind', "
    use += "{'n': n}, lambda f: (f / 'x').write_bytes(bytes(10_000)) and None)"
    subprocess.run([sys.executable, "-c", use], check=True)
    by_number = {}
    for folder in Store().list_folders():
        number = json.loads((folder / "key.json").read_text())["n"]
        by_number[number] = folder
        make_old(folder, 10 - number)
    said(capsys, "what=caches", "free=15KB", "yes=true")
    assert [by_number[n].exists() for n in range(4)] == [False, False, True, True]
    said(capsys, "what=caches", "larger=1MB", "yes=true")
    said(capsys, "what=caches", "name=none*", "yes=true")
    assert by_number[3].exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["what=cache"], "Did you mean 'caches'?"),
        (["wat=caches"], "Did you mean 'what'?"),
        (["older=30", "list=true"], "give a number and a unit (h, d, w)"),
        (["free=big", "list=true"], "give a number and a unit (KB, MB, GB, TB)"),
        (["yes=true"], "say what is to be removed"),
        (["yes=maybe", "what=runs"], "set it to true"),
        (["yes=true", "list=true"], "leave one"),
        (["output=nowhere", "list=true"], "is no folder"),
    ],
)
def test_a_wrong_word_is_one_sentence(place, capsys, words, says):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1

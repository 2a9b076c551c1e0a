"""What stands around a command, seen from outside: streams, Ctrl-C and what nobody foresaw."""

import errno
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from recsys.runtime import command as guard

SLOW = """
import pathlib, time
pathlib.Path({marker!r}).touch()
time.sleep(60)
"""

SWALLOWS = """
from dataclasses import dataclass
from recsys.objectives import bpr

@dataclass
class Config(bpr.Config):
    pass

def Objective(**options):
    try:
        import house.slow
    except BaseException:
        raise ImportError("half loaded")
"""

BROKEN = """
from dataclasses import dataclass
from recsys.objectives import bpr

@dataclass
class Config(bpr.Config):
    pass

class Objective:
    def __init__(self, **options):
        {start}

    def __call__(self, scored, batch, around):
        raise ZeroDivisionError("postgresql://me:hidden@host is\\nno number")
"""


def fit(*words, env=None, **streams):
    command = [sys.executable, "-m", "recsys.fit", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen(command, text=True, env={**os.environ, **(env or {})}, **pipes)


def outside(tmp_path, monkeypatch, text):
    """Writes a module that a command can name."""
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "own.py").write_text(text)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)


def interrupt(child, marker):
    """Sends SIGINT when a file is there."""
    until = time.monotonic() + 60
    while not marker.is_file() and time.monotonic() < until:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)


def only(tmp_path):
    (run,) = (tmp_path / "runs").iterdir()
    return run


def test_an_interruption_while_modules_load_is_one_sentence(tmp_path, monkeypatch, shop_words):
    marker = tmp_path / "loading"
    outside(tmp_path, monkeypatch, SLOW.format(marker=str(marker)))
    with fit(*shop_words, "tuning=house.own") as child:
        interrupt(child, marker)
        out, error = child.communicate()
    assert (child.returncode, out, error) == (130, "", "stopped by SIGINT\n")


def test_an_interruption_that_a_library_swallows_is_one_all_the_same(
    tmp_path, monkeypatch, shop_words
):
    marker = tmp_path / "loading"
    outside(tmp_path, monkeypatch, SWALLOWS)
    (tmp_path / "house" / "slow.py").write_text(SLOW.format(marker=str(marker)))
    with fit(*shop_words, "objective=house.own") as child:
        interrupt(child, marker)
        _, error = child.communicate()
    assert child.returncode == 130
    assert error.splitlines()[-1] == "stopped by SIGINT"
    assert "error" not in error


@pytest.mark.slow
@pytest.mark.parametrize("both", [False, True])
def test_a_reader_that_leaves_does_not_end_a_run(tmp_path, shop_words, both):
    words = [*shop_words, "architecture=two_tower", "tuning=frozen"]
    streams = {"stderr": subprocess.STDOUT} if both else {}
    with fit(*words, **streams) as child:
        assert child.stdout.readline()
        child.stdout.close()
        assert child.wait() == 0
        assert both or "Broken" not in child.stderr.read()
    assert json.loads((only(tmp_path) / "result.json").read_text())["test"]


def test_a_terminal_without_other_signs_gets_their_like(shop_words):
    with fit(*shop_words, "architecture=popularity", env={"PYTHONIOENCODING": "ascii"}) as child:
        out, error = child.communicate()
    assert child.returncode == 0, error
    assert out.isascii()
    assert " popularity" in out
    assert "\\u" not in out


@pytest.mark.slow
def test_what_nobody_foresaw_is_a_sentence_and_a_file_in_the_run(tmp_path, monkeypatch, shop_words):
    outside(tmp_path, monkeypatch, BROKEN.format(start="pass"))
    with fit(*shop_words, "objective=house.own") as child:
        _, error = child.communicate()
    assert child.returncode == 1
    report = only(tmp_path) / "error.txt"
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: ZeroDivisionError: postgresql://***@host is no number (not fore")
    assert str(report) in line
    assert "Traceback" not in error
    text = report.read_text()
    assert "Traceback (most recent call last)" in text
    assert "command: python -m recsys.fit" in text
    assert "hidden" not in text


@pytest.mark.slow
def test_where_there_is_no_run_yet_the_file_is_a_temporary_one(tmp_path, monkeypatch, shop_words):
    outside(tmp_path, monkeypatch, BROKEN.format(start="raise KeyError('start')"))
    (tmp_path / "temporary").mkdir()
    place = {"TMPDIR": str(tmp_path / "temporary"), "WANDB_API_KEY": "start"}
    with fit(*shop_words, "objective=house.own", env=place) as child:
        _, error = child.communicate()
    assert child.returncode == 1
    (report,) = (tmp_path / "temporary").glob("recsys-error-*.txt")
    assert str(report) in error
    assert "KeyError: '***'" in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("recsys.fit", ["experiment=" + "a" * 300]),
        ("recsys.fit", ["resume=" + "a" * 300]),
        ("recsys.fit", ["resume=last", "output=" + "a" * 300]),
        ("recsys.recommend", ["run=" + "a" * 300, "user=1"]),
        ("recsys.compare", ["a" * 300]),
        ("recsys.compare", ["a", "output=" + "a" * 300]),
        ("recsys.sweep", ["sweep=" + "a" * 300]),
        ("recsys.data", ["source=tables", "interactions=" + "a" * 300, "user=u", "item=i"]),
    ],
)
def test_a_name_that_no_file_can_have_is_one_sentence(monkeypatch, capsys, module, words):
    main = importlib.import_module(f"{module}.__main__").main
    monkeypatch.setattr(sys, "argv", [module, *words])
    monkeypatch.setattr(guard, "_wrap_stream", lambda stream: stream)  # that of the test runner
    with pytest.raises(SystemExit) as end:
        guard.run_command(main)
    error = capsys.readouterr().err
    assert end.value.code == 2, error
    assert error.startswith("error: ")
    assert "not foreseen" not in error


def test_a_file_that_the_system_refuses_is_told_with_its_name_and_a_remedy():
    def told(number, name=None, target=None):
        return guard.describe_file_error(OSError(number, os.strerror(number), name, None, target))

    assert told(errno.EACCES, "runs/a") == (
        "runs/a: Permission denied; change its rights, or choose another place."
    )
    assert told(errno.EISDIR, ".x.tmp", "runs/x.json").startswith("runs/x.json: Is a directory; ")
    assert told(errno.EFBIG) == (
        "a file: File too large; raise the limit (ulimit -f), or choose another file system."
    )
    assert len(told(errno.ENAMETOOLONG, "a" * 5000)) < 200
    assert told(errno.ENOENT, "runs/a") is None, "what is missing may be our own mistake"


def test_garbage_is_collected_again_after_a_pause():
    @guard.pause_collection()
    def fail():
        assert not gc.isenabled()
        raise ValueError("an error")

    with pytest.raises(ValueError, match="an error"):
        fail()
    assert gc.isenabled()
    gc.disable()
    try:
        with guard.pause_collection():
            pass
        assert not gc.isenabled(), "as it was before"
    finally:
        gc.enable()

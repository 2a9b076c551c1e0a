"""What ends a command: each kind of error has its exit code, and a command ends with that."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from recsys import errors

CODES = {
    errors.ConfigError: 2,
    errors.DataError: 2,
    errors.DivergenceError: 3,
    errors.OutOfMemoryError: 4,
    errors.DiskFullError: 5,
    errors.UnreachableError: 5,
}
COMMANDS = {
    "fit": ("find_seeds", ["experiment=lora_two_tower"]),
    "sweep": ("run_to_end", ["sweep=smoke"]),
    "compare": ("run_comparison", ["runs/a"]),
    "data": ("_run", ["source=quickstart"]),
    "recommend": ("recommend", ["run=runs/a", "user=7"]),
    "forget": ("forget", ["user=7"]),
    "refresh": ("refresh", ["events=x.csv"]),
    "clean": ("clean", ["what=caches"]),
    "export": ("export", ["run=runs/a", "to=x", "format=vectors"]),
    "serve": ("run_service", ["run=runs/a"]),
    "boards": ("split_words", ["push=runs/a"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_ends_with_the_code_of_its_error(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    function, words = COMMANDS[name]
    module = __import__(f"recsys.{name}.__main__", fromlist=["main"])
    for kind, code in CODES.items():

        def fail(*_: object, kind: type[errors.RecsysError] = kind, **__: object) -> None:
            raise kind("no such luck")

        monkeypatch.setattr(module, function, fail)
        assert module.main(words) == code, kind
        assert capsys.readouterr().err == "error: no such luck\n"


@pytest.mark.parametrize("kind", CODES)
def test_an_error_that_a_command_lets_through_ends_the_process_alike(
    kind: type[errors.RecsysError],
) -> None:
    code = (
        "from recsys import errors; from recsys.runtime.command import run_command\n"
        f"def main(words): raise errors.{kind.__name__}('no such luck')\n"
        "run_command(main)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (CODES[kind], "error: no such luck\n")


def test_the_error_of_another_process_has_its_kind_again() -> None:
    for kind, code in CODES.items():
        again = errors.make_error(code, "why")
        assert again.code == code, kind
    assert type(errors.make_error(77, "why")) is errors.RecsysError


def test_a_file_that_the_system_refuses_is_named_with_a_remedy() -> None:
    told = errors.describe_file_error(OSError(errno.EACCES, "Permission denied", "runs/x"))
    assert told == "runs/x: Permission denied; change its rights, or choose another place."
    assert errors.describe_file_error(OSError(errno.EPIPE, "Broken pipe", "x")) is None
    with pytest.raises(errors.DiskFullError), errors.raise_file_error():
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x")
    with pytest.raises(errors.DataError), errors.raise_file_error():
        raise OSError(errno.EROFS, "Read-only file system", "runs/x")


def test_a_message_is_one_line_whatever_a_users_data_holds() -> None:
    assert "\n" not in str(errors.DataError("a\nb\x1b[2J"))
    assert "\x1b" not in str(errors.DataError("a\nb\x1b[2J"))

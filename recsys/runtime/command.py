"""What stands around every command: its streams, an interruption, and what nobody foresaw.

An error that a user can mend is told by the command itself, in a sentence of its own; only what is
left comes here. `main` of a command raises it, so that a test or a notebook sees it whole.
"""

from __future__ import annotations

# Only what every command needs: it is the first module that one loads.
import codecs
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from recsys.errors import FULL, OUTSIDE, RecsysError, describe_file_error

REPORT = "error.txt"
"""File of a run's folder: the traceback of what nobody foresaw."""

INTERRUPTED = 130
UNFORESEEN = 1

_SIGNS = {"•": "*", "…": "...", "±": "+-", "\u2013": "-", "\u2014": "-", "\u00d7": "x"}
_SECRET_WORDS = ("storage",)
_LIBRARIES = ("recsys", "torch", "lightning", "transformers", "peft", "polars", "optuna", "wandb")

_folder: Path | None = None
_interrupted = False


def listen(name: str) -> None:
    """Ends a command by Ctrl-C with a sentence while its modules load; the first thing it does.

    Args:
        name: Of the module that asks; one that is imported does nothing.
    """
    if name == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(signum: int = 0, frame: FrameType | None = None) -> NoReturn:
    """Ends the process at once: what a library does while Python ends may change the exit code."""
    print("stopped by SIGINT", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _note(signum: int, frame: FrameType | None) -> None:
    """Raises as Python does, and keeps in mind that it did: some libraries swallow it."""
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def leave_reports_in(folder: Path) -> None:
    """Says where the file of an error that nobody foresaw is to lie: in the run's folder."""
    global _folder
    _folder = folder


def command(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs a command with the words of the process, and ends the process with its exit code.

    A reader of the output that has gone (as in `| head`) ends nothing: what is printed is lost
    from there on, and the command goes on to its result. What the terminal's encoding lacks is
    written in ASCII.

    Args:
        main: The command.
    """
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    if signal.getsignal(signal.SIGINT) in (_leave, signal.default_int_handler):
        signal.signal(signal.SIGINT, _note)
    words = sys.argv[1:]
    try:
        code = main(words)
    except KeyboardInterrupt:
        _leave()
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.code
    except Exception as error:
        if _interrupted:
            _leave()
        told = describe_file_error(error) if isinstance(error, OSError) else None
        print(f"error: {told or _sentence(error, words)}", file=sys.stderr)
        code = UNFORESEEN if told is None else RecsysError.code
        if isinstance(error, OSError) and error.errno in FULL:
            code = OUTSIDE
    sys.exit(code)


class _Pipe(io.FileIO):
    """A file descriptor that outlives its reader: without one, it writes to nowhere."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # and so for the processes that this one starts
            os.close(nowhere)
            return len(memoryview(data).cast("B"))  # type: ignore[arg-type]


def _lasting(stream: TextIO) -> TextIO:
    """The same stream, line by line, through `_Pipe` and in the signs that its encoding has."""
    if stream is None:  # closed by who started the command
        return open(os.devnull, "w", encoding="utf-8")
    stream.flush()
    codecs.register_error("recsys", _in_ascii)
    raw = _Pipe(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, errors="recsys", line_buffering=True
    )


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What stands for signs that an encoding lacks: their like in ASCII, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    import unicodedata

    out = ""
    for sign in error.object[error.start : error.end]:
        plain = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
        out += _SIGNS.get(sign) or plain or "?"
    return out, error.end


def _sentence(error: Exception, words: Sequence[str]) -> str:
    """What is told of an error that nobody foresaw; its traceback goes into a file."""
    import traceback

    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if len(reason) > 300:
        reason = f"{reason[:300]} ..."
    try:
        path = _write(_report(error, words))
    except OSError:
        traceback.print_exception(error)
        return f"{without_secrets(reason)} (not foreseen: please report it with what stands above)"
    return (
        f"{without_secrets(reason)} (not foreseen: please report it with the file {path}, which "
        "holds the traceback)"
    )


def _write(text: str) -> Path:
    """Writes a report into the run's folder, or else among temporary files.

    Raises:
        OSError: It can be written nowhere.
    """
    if _folder is not None:
        path = _folder / REPORT
        try:
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return path
        except OSError:  # a full disk, or the folder is what the error is about
            pass
    import tempfile

    handle, name = tempfile.mkstemp(prefix="recsys-error-", suffix=".txt")
    with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(name)


def _report(error: Exception, words: Sequence[str]) -> str:
    """Command, versions and traceback."""
    import platform
    import shlex
    import time
    import traceback

    spec = sys.modules["__main__"].__spec__
    name = "recsys" if spec is None else spec.name.removesuffix(".__main__")
    shown = [_without_secret(word) for word in words]
    lines = [
        time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        f"command: python -m {name} {shlex.join(shown)}",
        f"python {platform.python_version()}, {platform.platform()}",
        *(f"{library} {_version(library)}" for library in _LIBRARIES),
        "",
        "".join(traceback.format_exception(error)),
    ]
    return without_secrets("\n".join(lines))


def _version(library: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _without_secret(word: str) -> str:
    key = word.partition("=")[0]
    return f"{key}=***" if key in _SECRET_WORDS else word


def without_secrets(text: str) -> str:
    """A text without passwords in addresses and without the key of Weights & Biases."""
    import re

    text = re.sub(r"(://)[^/@\s]+@", r"\1***@", text)
    key = os.environ.get("WANDB_API_KEY")
    return text.replace(key, "***") if key else text

"""What stands around every command: its streams, an interruption, and what nobody foresaw.

An error that a user can mend is told by the command itself, in a sentence of its own; only what is
left comes here. `main` of a command raises it, so that a test or a notebook sees it whole.
"""

from __future__ import annotations

# Only what every command needs: it is the first module that one loads.
import codecs
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from recsys.errors import FULL, OUTSIDE, RecsysError, describe_file_error
from recsys.words import get_key

INTERRUPTED = 130
UNFORESEEN = 1

_SIGNS = {"•": "*", "…": "...", "±": "+-", "\u2013": "-", "\u2014": "-", "\u00d7": "x"}
_SECRET_WORDS = ("storage",)
_LIBRARIES = ("recsys", "torch", "lightning", "transformers", "peft", "polars", "optuna", "wandb")

_folder: Path | None = None
_interrupted = False


def exit_on_interrupt(name: str) -> None:
    """Ends a command by Ctrl-C with a sentence while its modules load; the first thing it does.

    Args:
        name: Of the module that asks; one that is imported does nothing.
    """
    if name == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit_at_once)


def _exit_at_once(signum: int = 0, frame: FrameType | None = None) -> NoReturn:
    """Ends the process at once: what a library does while Python ends may change the exit code."""
    print("stopped by SIGINT", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _raise_interrupt(signum: int, frame: FrameType | None) -> None:
    """Raises as Python does, and keeps in mind that it did: some libraries swallow it."""
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


@contextmanager
def pause_collection() -> Iterator[None]:
    """Collects no garbage meanwhile, for a command that loads libraries and answers once.

    Importing torch and transformers makes objects that stay, by the hundred thousand: looking
    through them again and again takes a tenth of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def set_report_folder(folder: Path) -> None:
    """Says where the file of an error that nobody foresaw is to lie: in the run's folder."""
    global _folder
    _folder = folder


def run_command(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs a command with the words of the process, and ends the process with its exit code.

    A reader of the output that has gone (as in `| head`) ends nothing: what is printed is lost
    from there on, and the command goes on to its result. What the terminal's encoding lacks is
    written in ASCII.

    Args:
        main: The command.
    """
    sys.stdout, sys.stderr = _wrap_stream(sys.stdout), _wrap_stream(sys.stderr)
    if signal.getsignal(signal.SIGINT) in (_exit_at_once, signal.default_int_handler):
        signal.signal(signal.SIGINT, _raise_interrupt)
    words = sys.argv[1:]
    try:
        code = main(words)
    except KeyboardInterrupt:
        _exit_at_once()
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.code
    except Exception as error:
        if _interrupted:
            _exit_at_once()
        told = describe_file_error(error) if isinstance(error, OSError) else None
        print(f"error: {told or _describe_error(error, words)}", file=sys.stderr)
        code = UNFORESEEN if told is None else RecsysError.code
        if isinstance(error, OSError) and error.errno in FULL:
            code = OUTSIDE
    # Python looks through all objects once more while it ends, with torch loaded most of a second.
    gc.freeze()
    sys.exit(code)


class _TolerantPipe(io.FileIO):
    """A file descriptor that outlives its reader: without one, it writes to nowhere."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # and so for the processes that this one starts
            os.close(nowhere)
            return len(memoryview(data).cast("B"))  # type: ignore[arg-type]


def _wrap_stream(stream: TextIO) -> TextIO:
    """The same stream, line by line, through `_TolerantPipe`, in the signs of its encoding."""
    if stream is None:  # closed by who started the command
        return open(os.devnull, "w", encoding="utf-8")
    stream.flush()
    codecs.register_error("recsys", _replace_with_ascii)
    raw = _TolerantPipe(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, errors="recsys", line_buffering=True
    )


def _replace_with_ascii(error: UnicodeError) -> tuple[str, int]:
    """What stands for signs that an encoding lacks: their like in ASCII, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    import unicodedata

    out = ""
    for sign in error.object[error.start : error.end]:
        plain = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
        out += _SIGNS.get(sign) or plain or "?"
    return out, error.end


def _describe_error(error: Exception, words: Sequence[str]) -> str:
    """What is told of an error that nobody foresaw; its traceback goes into a file."""
    import traceback

    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if len(reason) > 300:
        reason = f"{reason[:300]} ..."
    try:
        path = _write_report(_format_report(error, words))
    except OSError:
        traceback.print_exception(error)
        return f"{mask_secrets(reason)} (not foreseen: please report it with what stands above)"
    return (
        f"{mask_secrets(reason)} (not foreseen: please report it with the file {path}, which "
        "holds the traceback)"
    )


def _write_report(text: str) -> Path:
    """Writes a report into the run's folder, or else among temporary files.

    Raises:
        OSError: It can be written nowhere.
    """
    if _folder is not None:
        from recsys.runtime.files import ERROR_REPORT

        path = _folder / ERROR_REPORT
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


def _format_report(error: Exception, words: Sequence[str]) -> str:
    """Command, versions and traceback."""
    import platform
    import shlex
    import time
    import traceback

    spec = sys.modules["__main__"].__spec__
    name = "recsys" if spec is None else spec.name.removesuffix(".__main__")
    shown = [_mask_secret(word) for word in words]
    lines = [
        time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        f"command: python -m {name} {shlex.join(shown)}",
        f"python {platform.python_version()}, {platform.platform()}",
        *(f"{library} {_find_version(library)}" for library in _LIBRARIES),
        "",
        "".join(traceback.format_exception(error)),
    ]
    return mask_secrets("\n".join(lines))


def _find_version(library: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _mask_secret(word: str) -> str:
    key = get_key(word)
    return f"{key}=***" if key in _SECRET_WORDS else word


def mask_secrets(text: str) -> str:
    """A text without passwords in addresses and without the key of Weights & Biases."""
    import re

    text = re.sub(r"(://)[^/@\s]+@", r"\1***@", text)
    key = os.environ.get("WANDB_API_KEY")
    return text.replace(key, "***") if key else text

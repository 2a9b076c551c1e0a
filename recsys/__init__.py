"""Experiments with language models that recommend."""

import sys

__version__ = "0.2.0"


def _check_system() -> None:
    """Ends a program in one sentence where the system has no locks of files.

    Every command holds such locks and leaves by signals, so that none would do what it says.
    """
    try:
        import fcntl  # noqa: F401
    except ImportError:
        print(
            "error: recsys runs on Linux and macOS; this system has no file locks of theirs (fcntl)"
            "; on Windows, run it in WSL 2.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None


_check_system()

"""A question before what cannot be undone."""

from __future__ import annotations

import sys


def agree(question: str, sure: bool) -> bool:
    """Whether the user wants it done; what is done instead is printed.

    Args:
        question: What is asked.
        sure: Whether nobody is asked.
    """
    if sure:
        return True
    if not sys.stdin.isatty():
        print("Nothing is removed: nobody can be asked here; add yes=true to remove.")
        return False
    print(f"{question} This cannot be undone. [y/N] ", end="", flush=True)
    yes = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not yes:
        print("Nothing is removed.")
    return yes

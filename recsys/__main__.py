"""The commands by one name: `recsys fit ...` is `python -m recsys.fit ...`."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import recsys
from recsys.errors import nearest
from recsys.runtime.command import exit_on_interrupt, run_command

MODULE = "python -m recsys."
HELP, VERSION = "--help", "--version"


@dataclass(frozen=True)
class Command:
    """A command, as the docstring of its module says it.

    Attributes:
        usage: Its name and words, as in `fit experiment=NAME key=value ...`.
        summary: What it does.
    """

    usage: str
    summary: str


def find_commands() -> Mapping[str, Command]:
    """The commands by name: modules of the package that begin with how they are called.

    None of them is imported.
    """
    root = Path(recsys.__file__).parent
    found = {}
    for path in sorted([*root.glob("*.py"), *root.glob("*/__main__.py")]):
        text = path.read_text(encoding="utf-8")
        if not text.startswith(f'"""{MODULE}'):
            continue
        first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
        usage, _, summary = first.removeprefix(MODULE).partition(": ")
        name = path.stem if path.parent == root else path.parent.name
        found[name] = Command(usage, summary)
    return found


def format_help() -> str:
    """What `recsys` alone prints."""
    lines = ["usage: recsys COMMAND [key=value ...], or python -m recsys.COMMAND", ""]
    for command in find_commands().values():
        lines += [f"  recsys {command.usage}", f"      {command.summary}"]
    lines += ["", "  recsys COMMAND --help   its keys", "  recsys --version        the version"]
    return "\n".join(lines)


def answer(words: Sequence[str]) -> int:
    """Says what `recsys` knows without a command: the list of them, the version, or an error.

    Returns:
        The exit code: 0, or 2 for a word that is no command.
    """
    name = words[0] if words else HELP
    if name in (HELP, "-h"):
        print(format_help())
        return 0
    if name == VERSION:
        print(f"recsys {recsys.__version__}")
        return 0
    is_flag = name.startswith("-")
    known = [HELP, VERSION] if is_flag else list(find_commands())
    what = "flag" if is_flag else "command"
    print(f"error: '{name}' is no {what} of recsys.{nearest(name, known)}", file=sys.stderr)
    return 2


def main() -> NoReturn:
    """Runs the command that the first word names, in this process, as `python -m` does.

    The process ends with that command's exit code, or with 2 where it names none.
    """
    exit_on_interrupt("__main__")
    name, *words = sys.argv[1:] or [HELP]
    if name not in find_commands():
        run_command(answer)
    sys.argv = [f"recsys {name}", *words]
    # As the main module, by which several processes of one run start the same command again.
    runpy.run_module(f"recsys.{name}", run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    main()

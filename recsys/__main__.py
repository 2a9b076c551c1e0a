"""The commands by one name: `recsys fit ...` is `python -m recsys.fit ...`."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import recsys
from recsys.errors import nearest
from recsys.runtime import command as guard

MODULE = "python -m recsys."


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


def main() -> NoReturn:
    """Runs the command that the first word names, in this process, as `python -m` does.

    The process ends with that command's exit code, or with 2 where it names none.
    """
    guard.exit_on_interrupt("__main__")
    name, words = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if name in ("--help", "-h"):
        print(format_help())
        sys.exit(0)
    if name == "--version":
        print(f"recsys {recsys.__version__}")
        sys.exit(0)
    commands = list(find_commands())
    if name not in commands:
        known = ["--help", "--version"] if name.startswith("-") else commands
        what = "flag" if name.startswith("-") else "command"
        print(f"error: '{name}' is no {what} of recsys.{nearest(name, known)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"recsys {name}", *words]
    # As the main module, by which several processes of one run start the same command again.
    runpy.run_module(f"recsys.{name}", run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    main()

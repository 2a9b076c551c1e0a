"""What a sweep prints at its end: the verdict, a table that fits, and how to train the best."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from recsys import printable
from recsys.compare.report import table
from recsys.sweep.record import UNSEARCHED, Sweep
from recsys.sweep.report import sentences, tables


def show(
    sweep: Sweep, compared: Sequence[str], details: bool, console: Console | None = None
) -> None:
    """Prints what a sweep found.

    Args:
        sweep: At its end.
        compared: What the comparison of the closing runs says, in sentences.
        details: Print every table, and the command of each method's best trial.
        console: Where to; by default the standard output, at 80 columns where nobody watches.
    """
    console = console or Console()
    console.print()
    say(console, sentences.verdict(sweep), "bold")
    for sentence in compared if details else compared[:1]:
        say(console, sentence)
    table.rich(tables.brief(sweep), console)
    if details:
        whole = (tables.tests(sweep), tables.near(sweep), tables.failed(sweep))
        for found in (tables.methods(sweep), *whole):
            if found is not None:
                table.rich(found, console)
    for sentence in (*sentences.edges(sweep), *(sentences.sensitive(sweep) if details else ())):
        say(console, f"- {sentence}")
    commands(console, sweep, details)
    for note in sweep.notes:
        if details or UNSEARCHED not in note:  # which the sweep said when it began, too
            say(console, f"note: {note}")
    if not details:
        say(console, "details=true prints every table, and the command of every method.", "dim")


def commands(console: Console, sweep: Sweep, every: bool) -> None:
    """Prints what trains the best trial again, in one line each, to be copied.

    Args:
        console: Where to.
        sweep: As it stands.
        every: For each method; else for the one whose best trial is best.
    """
    top = sentences.leader(sweep)
    for method, command in sweep.commands.items():
        if every or method == top:
            say(console, f"\nto train the best of {method} again:")
            console.print(Text(printable.line(command)), soft_wrap=True)


def say(console: Console, sentence: str, style: str = "") -> None:
    """Prints a sentence, broken between words; nothing in it is taken for markup."""
    lead = "\n" if sentence.startswith("\n") else ""
    console.print(Text(lead + printable.line(sentence.lstrip("\n")), style=style))

"""What a sweep prints at its end: the verdict, a table that fits, and how to train the best."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from recsys import printable
from recsys.compare.report import table
from recsys.sweep.record import UNSEARCHED, SweepRecord
from recsys.sweep.report import sentences, tables


def print_summary(
    sweep: SweepRecord, compared: Sequence[str], details: bool, console: Console | None = None
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
    print_sentence(console, sentences.describe_verdict(sweep), "bold")
    for sentence in compared if details else compared[:1]:
        print_sentence(console, sentence)
    table.print_table(tables.make_brief_table(sweep), console)
    if details:
        whole = (
            tables.make_test_table(sweep),
            tables.make_sensitivity_table(sweep),
            tables.make_failure_table(sweep),
        )
        for found in (tables.make_method_table(sweep), *whole):
            if found is not None:
                table.print_table(found, console)
    for sentence in (
        *sentences.describe_edges(sweep),
        *(sentences.describe_sensitivity(sweep) if details else ()),
    ):
        print_sentence(console, f"- {sentence}")
    print_commands(console, sweep, details)
    for note in sweep.notes:
        if details or UNSEARCHED not in note:  # which the sweep said when it began, too
            print_sentence(console, f"note: {note}")
    if not details:
        print_sentence(
            console, "details=true prints every table, and the command of every method.", "dim"
        )


def print_commands(console: Console, sweep: SweepRecord, every: bool) -> None:
    """Prints what trains the best trial again, in one line each, to be copied.

    Args:
        console: Where to.
        sweep: As it stands.
        every: For each method; else for the one whose best trial is best.
    """
    top = sentences.find_leader(sweep)
    for method, command in sweep.commands.items():
        if every or method == top:
            print_sentence(console, f"\nto train the best of {method} again:")
            console.print(Text(printable.escape_line(command)), soft_wrap=True)


def print_sentence(console: Console, sentence: str, style: str = "") -> None:
    """Prints a sentence, broken between words; nothing in it is taken for markup."""
    lead = "\n" if sentence.startswith("\n") else ""
    console.print(Text(lead + printable.escape_line(sentence.lstrip("\n")), style=style))

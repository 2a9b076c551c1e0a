"""Tables of texts, for the terminal, Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\n": " ",
}
MINUS = re.compile(r"(?<![\w.)\]-])-(?=\.?\d)")
LABEL = re.compile(r"[^A-Za-z0-9:-]+")
PAGE = 85
"""Letters that fit beside each other on a page of text."""


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: What it shows, with the unit.
        head: Of each column.
        rows: Cells, as many as the head has.
        note: Below it, or empty.
        words: How many columns from the left hold words; the others hold numbers.
        rules: Numbers of the rows before which a line is drawn.
        name: By which a LaTeX document refers to it, or empty.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: int = 1
    rules: tuple[int, ...] = ()
    name: str = ""


def rich(table: Table, console: Console) -> None:
    """Prints a table; nothing in it is taken for markup."""
    console.print(Text(f"\n{table.title}", style="bold"))
    out = RichTable()
    for at, name in enumerate(table.head):
        out.add_column(Text(name), justify="left" if at < table.words else "right", overflow="fold")
    for number, row in enumerate(table.rows):
        if number in table.rules:
            out.add_section()
        out.add_row(*(Text(cell) for cell in row))
    console.print(out)
    if table.note:
        console.print(Text(table.note, style="dim"))


def markdown(table: Table) -> list[str]:
    """The lines of a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        safe = (cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in cells)
        return "| " + " | ".join(safe) + " |"

    marks = ["---" if at < table.words else "---:" for at in range(len(table.head))]
    lines = [f"**{table.title}**", "", line(table.head), "| " + " | ".join(marks) + " |"]
    lines += [line(row) for row in table.rows]
    return [*lines, "", *([table.note, ""] if table.note else [])]


def latex_text(text: str) -> str:
    """A text in which LaTeX finds no command, and the minus of a number is no hyphen."""
    return "$-$".join("".join(LATEX.get(sign, sign) for sign in part) for part in MINUS.split(text))


def _wide(table: Table) -> bool:
    """Whether a table is wider than a page of text, by its letters."""
    rows = [table.head, *table.rows]
    columns = [max(len(row[at]) for row in rows) for at in range(len(table.head))]
    return sum(columns) + 2 * len(columns) > PAGE


def latex(table: Table) -> list[str]:
    """The lines of a LaTeX table; it needs the packages booktabs and, to fit a page, graphicx."""

    def line(cells: Sequence[str]) -> str:
        return "    " + " & ".join(latex_text(cell) for cell in cells) + r" \\"

    marks = "l" * table.words + "r" * (len(table.head) - table.words)
    wide = _wide(table)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(table.title)}}}",
        *([rf"  \label{{tab:{LABEL.sub('-', table.name)}}}"] if table.name else []),
        *([r"  \resizebox{\linewidth}{!}{%"] if wide else []),
        rf"  \begin{{tabular}}{{{marks}}}",
        r"    \toprule",
        line(table.head),
        r"    \midrule",
    ]
    for number, row in enumerate(table.rows):
        if number in table.rules and number:
            lines.append(r"    \midrule")
        lines.append(line(row))
    lines += [r"    \bottomrule", r"  \end{tabular}" + ("}" if wide else "")]
    if table.note:
        lines.append(rf"  \par\smallskip{{\footnotesize {latex_text(table.note)}}}")
    return [*lines, r"\end{table}", ""]


def page(table: Table) -> list[str]:
    """The lines of an HTML table that scrolls by itself where it is wide."""

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = [' class="word"' if at < table.words else "" for at in range(len(row))]
        return "".join(
            f"<{tag}{kind}>{html.escape(cell)}</{tag}>"
            for kind, cell in zip(kinds, row, strict=True)
        )

    lines = ['<div class="scroll"><table>', f"<caption>{html.escape(table.title)}</caption>"]
    lines += [f"<thead><tr>{cells('th', table.head)}</tr></thead>", "<tbody>"]
    for number, row in enumerate(table.rows):
        rule = ' class="rule"' if number in table.rules and number else ""
        lines.append(f"<tr{rule}>{cells('td', row)}</tr>")
    lines += ["</tbody></table></div>"]
    return [*lines, *([f'<p class="note">{html.escape(table.note)}</p>'] if table.note else [])]

"""Tables of texts, for the terminal, Markdown, LaTeX and HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import Box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from recsys import printable
from recsys.compare.report.column_widths import GAP, Column, fit

_LINES = Box("    \n    \n ── \n    \n ── \n ── \n    \n    \n")
"""A line under the head and one between sections, and none beside the columns."""
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
    """Prints a table as wide as the terminal; nothing in it is taken for markup or acts on it.

    A table that is wider is printed in blocks, each with the first column, so that no number is
    cut and no column has a letter a line.
    """
    console.print(Text(f"\n{printable.line(table.title)}", style="bold"))
    lines = [[printable.line(cell) for cell in row] for row in (table.head, *table.rows)]
    for number, block in enumerate(fit(lines, table.words, console.width)):
        console.print(*([""] if number else []), _block(table, lines, block), sep="\n")
    if table.note:
        console.print(Text(printable.line(table.note), style="dim"))


def _block(table: Table, lines: Sequence[Sequence[str]], columns: Sequence[Column]) -> RichTable:
    """Some columns of a table, of the widths that were found."""
    out = RichTable(box=_LINES, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        side: Literal["left", "right"] = "left" if column.at < table.words else "right"
        name = Text(lines[0][column.at])
        out.add_column(name, justify=side, overflow="fold", width=column.width)
    for number, row in enumerate(lines[1:]):
        if number in table.rules:
            out.add_section()
        out.add_row(*(Text(row[column.at]) for column in columns))
    return out


def markdown(table: Table) -> list[str]:
    """The lines of a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(printable.markdown, cells)) + " |"

    marks = ["---" if at < table.words else "---:" for at in range(len(table.head))]
    title, note = printable.markdown(table.title), printable.markdown(table.note)
    lines = [f"**{title}**", "", line(table.head), "| " + " | ".join(marks) + " |"]
    lines += [line(row) for row in table.rows]
    return [*lines, "", *([note, ""] if note else [])]


def _wide(table: Table) -> bool:
    """Whether a table is wider than a page of text, by its letters."""
    rows = [table.head, *table.rows]
    columns = [max(len(row[at]) for row in rows) for at in range(len(table.head))]
    return sum(columns) + 2 * len(columns) > PAGE


def latex(table: Table) -> list[str]:
    """The lines of a LaTeX table; it needs the packages booktabs and, to fit a page, graphicx."""

    def line(cells: Sequence[str]) -> str:
        return "    " + " & ".join(printable.latex(cell) for cell in cells) + r" \\"

    marks = "l" * table.words + "r" * (len(table.head) - table.words)
    wide = _wide(table)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{printable.latex(table.title)}}}",
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
        lines.append(rf"  \par\smallskip{{\footnotesize {printable.latex(table.note)}}}")
    return [*lines, r"\end{table}", ""]


def page(table: Table) -> list[str]:
    """The lines of an HTML table that scrolls by itself where it is wide."""

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = [' class="word"' if at < table.words else "" for at in range(len(row))]
        return "".join(
            f"<{tag}{kind}>{printable.page(cell)}</{tag}>"
            for kind, cell in zip(kinds, row, strict=True)
        )

    lines = [
        '<div class="scroll"><table>',
        f"<caption><span>{printable.page(table.title)}</span></caption>",
    ]
    lines += [f"<thead><tr>{cells('th', table.head)}</tr></thead>", "<tbody>"]
    for number, row in enumerate(table.rows):
        rule = ' class="rule"' if number in table.rules and number else ""
        lines.append(f"<tr{rule}>{cells('td', row)}</tr>")
    lines += ["</tbody></table></div>"]
    return [*lines, *([f'<p class="note">{printable.page(table.note)}</p>'] if table.note else [])]

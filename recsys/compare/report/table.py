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
from recsys.compare.report.column_widths import GAP, TableColumn, fit_columns

_LINES = Box("    \n    \n ── \n    \n ── \n ── \n    \n    \n")
"""A line under the head and one between sections, and none beside the columns."""
LABEL = re.compile(r"[^A-Za-z0-9:-]+")
PAGE = 85
"""Letters that fit beside each other on a page of text."""


@dataclass(frozen=True)
class TextTable:
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


def print_table(table: TextTable, console: Console) -> None:
    """Prints a table as wide as the terminal; nothing in it is taken for markup or acts on it.

    A table that is wider is printed in blocks, each with the first column, so that no number is
    cut and no column has a letter a line.
    """
    console.print(Text(f"\n{printable.escape_line(table.title)}", style="bold"))
    lines = [[printable.escape_line(cell) for cell in row] for row in (table.head, *table.rows)]
    for number, block in enumerate(fit_columns(lines, table.words, console.width)):
        console.print(*([""] if number else []), _make_block(table, lines, block), sep="\n")
    if table.note:
        console.print(Text(printable.escape_line(table.note), style="dim"))


def _make_block(
    table: TextTable, lines: Sequence[Sequence[str]], columns: Sequence[TableColumn]
) -> RichTable:
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


def render_markdown(table: TextTable) -> list[str]:
    """The lines of a Markdown table."""

    def format_row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(printable.escape_markdown, cells)) + " |"

    marks = ["---" if at < table.words else "---:" for at in range(len(table.head))]
    title, note = printable.escape_markdown(table.title), printable.escape_markdown(table.note)
    lines = [f"**{title}**", "", format_row(table.head), "| " + " | ".join(marks) + " |"]
    lines += [format_row(row) for row in table.rows]
    return [*lines, "", *([note, ""] if note else [])]


def _is_wide(table: TextTable) -> bool:
    """Whether a table is wider than a page of text, by its letters."""
    rows = [table.head, *table.rows]
    columns = [max(len(row[at]) for row in rows) for at in range(len(table.head))]
    return sum(columns) + 2 * len(columns) > PAGE


def render_latex(table: TextTable) -> list[str]:
    """The lines of a LaTeX table; it needs the packages booktabs and, to fit a page, graphicx."""

    def format_row(cells: Sequence[str]) -> str:
        return "    " + " & ".join(printable.escape_latex(cell) for cell in cells) + r" \\"

    marks = "l" * table.words + "r" * (len(table.head) - table.words)
    wide = _is_wide(table)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{printable.escape_latex(table.title)}}}",
        *([rf"  \label{{tab:{LABEL.sub('-', table.name)}}}"] if table.name else []),
        *([r"  \resizebox{\linewidth}{!}{%"] if wide else []),
        rf"  \begin{{tabular}}{{{marks}}}",
        r"    \toprule",
        format_row(table.head),
        r"    \midrule",
    ]
    for number, row in enumerate(table.rows):
        if number in table.rules and number:
            lines.append(r"    \midrule")
        lines.append(format_row(row))
    lines += [r"    \bottomrule", r"  \end{tabular}" + ("}" if wide else "")]
    if table.note:
        lines.append(rf"  \par\smallskip{{\footnotesize {printable.escape_latex(table.note)}}}")
    return [*lines, r"\end{table}", ""]


def render_html(table: TextTable) -> list[str]:
    """The lines of an HTML table that scrolls by itself where it is wide."""

    def format_cells(tag: str, row: Sequence[str]) -> str:
        kinds = [' class="word"' if at < table.words else "" for at in range(len(row))]
        return "".join(
            f"<{tag}{kind}>{printable.escape_html(cell)}</{tag}>"
            for kind, cell in zip(kinds, row, strict=True)
        )

    lines = [
        '<div class="scroll"><table>',
        f"<caption><span>{printable.escape_html(table.title)}</span></caption>",
    ]
    lines += [f"<thead><tr>{format_cells('th', table.head)}</tr></thead>", "<tbody>"]
    for number, row in enumerate(table.rows):
        rule = ' class="rule"' if number in table.rules and number else ""
        lines.append(f"<tr{rule}>{format_cells('td', row)}</tr>")
    lines += ["</tbody></table></div>"]
    return [
        *lines,
        *([f'<p class="note">{printable.escape_html(table.note)}</p>'] if table.note else []),
    ]

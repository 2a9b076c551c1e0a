"""Texts of others change nothing where they are shown: terminal, page, Markdown, LaTeX."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from recsys import printable
from recsys.compare.report import table
from recsys.compare.report.table import TextTable
from recsys.errors import DataError

EVIL = (
    "\x1b[31mRed\x1b[0m <img src=x onerror=alert(1)> a|b \\input{x} *b* 50% $x$ #1 &amp; a_b"
    "\u202eabc"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain title", "plain title"),
        ("two\nlines\tand\r\nmore", "two lines and  more"),
        ("\x1b[2J\x07bell\x9b31m", "�[2J�bell�31m"),
        ("turned \u202ecba\u2066", "turned �cba�"),
        ("half \ud83d of one", "half � of one"),
        ("Amélie 千と千尋 👩\u200d🚀", "Amélie 千と千尋 👩\u200d🚀"),
    ],
)
def test_a_line_acts_on_no_terminal(text, shown):
    assert printable.escape_line(text) == shown
    printable.escape_line(text).encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("p < .001, a<b", "p < .001, a&lt;b"),
        ("<img onerror=x>", "&lt;img onerror=x>"),
        ("a|b `c` *d* [e](f)", r"a\|b \`c\` \*d\* \[e\](f)"),
        ("lora_two_tower _x_ &amp; AT&T", r"lora_two_tower \_x\_ &amp;amp; AT&T"),
        ("\\|", r"\\\|"),
    ],
)
def test_markdown_shows_what_is_there(text, shown):
    assert printable.escape_markdown(text) == shown


def test_latex_runs_nothing():
    shown = printable.escape_latex(EVIL)
    assert r"\textbackslash{}input\{x\}" in shown
    assert r"50\% \$x\$ \#1 \&amp; a\_b" in shown
    assert "\x1b" not in shown
    # Both would belong to the end of the row before them.
    assert [printable.escape_latex(text) for text in ("[x]*", "*")] == ["{[}x]*", "{*}"]


def drawn(found, width):
    out = io.StringIO()
    table.print_table(found, Console(file=out, width=width, force_terminal=False))
    return out.getvalue()


def test_every_output_of_a_table_is_safe():
    found = TextTable(f"about {EVIL}", ["method", EVIL], [[EVIL, "1"], ["b", EVIL]], note=EVIL)
    assert "\x1b" not in drawn(found, 80)
    lines = table.render_markdown(found)
    assert "<img" not in "\n".join(lines)
    assert {line.count("|") - line.count("\\|") for line in lines if line.startswith("|")} == {3}
    assert "<img" not in "\n".join(table.render_html(found))
    assert "\\input" not in "\n".join(table.render_latex(found))


@pytest.mark.parametrize("width", [40, 80, 100, 240])
def test_a_table_is_as_wide_as_the_terminal_and_no_number_is_cut(width):
    head = ["method", "finding", *(f"metric number {at}" for at in range(14))]
    rows = [
        [f"lora two_tower rank={rank} 千と千尋", "not shown to differ, and nothing else is known",
         *(f"{at}.25 ± 0.{rank:02}" for at in range(14))]
        for rank in (4, 8)
    ]  # fmt: skip
    text = drawn(TextTable("Title", head, rows, words=2, rules=(1,)), width)
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= width
    for at in range(14):
        assert f"{at}.25 ± 0.04" in text
        assert f"{at}.25 ± 0.08" in text
    # Each block says what its rows are.
    assert text.count("lora") == 2 * sum(line.startswith("method") for line in lines)
    letters = [line for line in lines if line.strip() and len(line.split()[0]) == 1]
    assert not [line for line in letters if line.split()[0].isalpha()]


def test_an_error_that_names_an_id_acts_on_no_terminal():
    assert str(DataError("item \x1b[2J'a|b'\nis there twice")) == "item �[2J'a|b' is there twice"


def test_what_fits_is_one_block():
    text = drawn(TextTable("t", ["method", "a", "b"], [["x", "1", "2"], ["y", "3", "4"]]), 80)
    assert [line.split() for line in text.splitlines() if line.strip()] == [
        ["t"], ["method", "a", "b"], ["─" * len(text.splitlines()[3])],
        ["x", "1", "2"], ["y", "3", "4"],
    ]  # fmt: skip

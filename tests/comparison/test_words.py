"""What the command refuses, and what it says where it has nothing to say."""

import dataclasses

import pytest

from recsys.compare import main, usage
from recsys.comparison import page, sentences, table
from recsys.comparison.table import Table
from tests.comparison.samples import TWO, cases, compared, error_of, leave, ranks


@pytest.fixture
def two(tmp_path):
    return [
        leave(tmp_path, name, [*TWO, f"tuning={name}", "tracking.wandb=off"], cases(r))
        for name, r in (("frozen", ranks(0)), ("lora", ranks(1, 1.0)))
    ]


def test_one_method_is_compared_with_nothing_and_this_is_said_once(two):
    notes = [note for note in compared(two[:1]).notes if "Nothing is compared" in note]
    assert len(notes) == 1
    assert "one method, frozen two_tower, of 1 run;" in notes[0]
    assert not any("Nothing is compared" in note for note in compared(two).notes)


def test_an_empty_output_is_refused(two, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "output is empty" in error_of([*two, "output="], capsys)
    assert not (tmp_path / "report.html").exists()


def test_a_run_that_was_not_logged_is_refused_before_the_report(two, capsys, tmp_path):
    words = [*two, "slices=none", "wandb=spec", f"output={tmp_path / 'out'}"]
    (tmp_path / "frozen" / "start.json").unlink(missing_ok=True)
    error = error_of(words, capsys)
    assert str(two[0]) in error
    assert not (tmp_path / "out").exists()


def test_help_says_what_a_family_is():
    assert "two commands are corrected apart" in usage()


@pytest.mark.parametrize(
    ("low", "p", "said"),
    [
        (-0.001, 0.01, "the interval holds 0, though the test rejects: both are asked for"),
        (0.001, 0.2, "the test does not reject, though the interval leaves out 0"),
    ],
)
def test_half_a_claim_says_what_is_missing(two, low, p, said):
    found = compared(two)
    (difference,) = found.differences
    contrast = dataclasses.replace(difference.found, difference=0.02, low=low, high=0.04)
    changed = dataclasses.replace(difference, found=contrast, p_holm=p)
    text = sentences.write(dataclasses.replace(found, differences=[changed]))[0]
    assert "is not shown to differ" in text
    assert said in text


def test_latex_has_minus_signs_labels_and_tables_no_wider_than_the_page(two):
    narrow = Table("a-b at -1", ["run-2", "x"], [["lora-8 20-11", "-0.5 (-.2 to 3)"], ["-", "-"]])
    text = "\n".join(table.latex(narrow))
    assert "a-b at $-$1" in text
    assert r"lora-8 20-11 & $-$0.5 ($-$.2 to 3) \\" in text
    assert r"- & - \\" in text
    assert "resizebox" not in text
    wide = dataclasses.replace(narrow, rows=[["x" * 90, "1"]], name="slices-item.kind")
    text = "\n".join(table.latex(wide))
    start, end = text.index(r"\resizebox{\linewidth}{!}{%"), text.index(r"\end{tabular}}")
    assert start < text.index(r"\begin{tabular}") < end
    assert r"\label{tab:slices-item-kind}" in text
    assert text.count("{") == text.count("}")


def test_the_document_of_tables_holds_slices_and_no_users(two):
    text = page.latex(compared(two, slices=("history",)))
    labels = ("quality", "differences", "cost", "slices-history")
    assert all(rf"\label{{tab:{name}}}" in text for name in labels)
    assert "graphicx" in text
    assert "u17" not in text
    assert main(["--help"]) == 0

"""What the command refuses, and what it says where it has nothing to say."""

import dataclasses

import pytest

from recsys.compare.__main__ import format_usage, main
from recsys.compare.report import page, sentences, table, tables
from recsys.compare.report.table import TextTable
from tests.compare.samples import TWO, cases, compared, error_of, leave, ranks


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
    assert "two commands are corrected apart" in " ".join(format_usage(detailed=True).split())


def test_an_interval_that_leaves_out_zero_beside_no_finding_names_the_correction(two, tmp_path):
    extra = leave(tmp_path, "full", [*TWO, "tuning=full"], cases(ranks(2, 0.5)))
    found = compared([*two, extra])
    first, second = found.differences
    contrast = dataclasses.replace(first.found, difference=0.02, low=0.001, high=0.04, p=0.04)
    several = [dataclasses.replace(first, found=contrast, p_holm=0.08), second]
    changed = dataclasses.replace(found, differences=several)
    text = sentences.describe_comparison(changed)[0]
    assert "is not shown to differ" in text
    assert "of this contrast alone and leaves out 0, but the test corrected for 2 contrasts" in text
    drawn = tables.make_differences_table(changed)
    assert "not shown to differ after Holm" in drawn.rows[0]
    assert "it may leave out 0 where Holm over 2 contrasts does not reject" in drawn.note
    within = dataclasses.replace(contrast, low=-0.001, p=0.06)
    changed = dataclasses.replace(
        found, differences=[dataclasses.replace(first, found=within, p_holm=0.12), second]
    )
    assert "corrected for 2 contrasts" not in sentences.describe_comparison(changed)[0]
    assert "not shown to differ" in tables.make_differences_table(changed).rows[0]


def test_latex_has_minus_signs_labels_and_tables_no_wider_than_the_page(two):
    narrow = TextTable(
        "a-b at -1", ["run-2", "x"], [["lora-8 20-11", "-0.5 (-.2 to 3)"], ["-", "-"]]
    )
    text = "\n".join(table.render_latex(narrow))
    assert "a-b at $-$1" in text
    assert r"lora-8 20-11 & $-$0.5 ($-$.2 to 3) \\" in text
    assert r"- & - \\" in text
    assert "resizebox" not in text
    wide = dataclasses.replace(narrow, rows=[["x" * 90, "1"]], name="slices-item.kind")
    text = "\n".join(table.render_latex(wide))
    start, end = text.index(r"\resizebox{\linewidth}{!}{%"), text.index(r"\end{tabular}}")
    assert start < text.index(r"\begin{tabular}") < end
    assert r"\label{tab:slices-item-kind}" in text
    assert text.count("{") == text.count("}")


def test_the_document_of_tables_holds_slices_and_no_users(two):
    text = page.render_latex(compared(two, slices=("history",)))
    labels = ("quality", "differences", "cost", "slices-history")
    assert all(rf"\label{{tab:{name}}}" in text for name in labels)
    assert "graphicx" in text
    assert "u17" not in text
    assert main(["--help"]) == 0

"""Titles beside the ids of examples, or a note why there are none."""

import dataclasses

import polars as pl
import pytest

from recsys.compare.finished_runs import FinishedRun
from recsys.compare.measures import examples
from recsys.compare.measures.examples import LENGTH, shorten_text
from recsys.compare.report import table, tables
from recsys.config.compose import compose, format_config
from recsys.data import prepare
from recsys.data.batches.impressions import make_impression_lists
from recsys.data.splits.split import TEST
from recsys.data.tables import compute_fingerprint
from tests.assembly.test_protocols import made
from tests.compare.samples import TWO, compared, leave, ranks
from tests.compare.samples import cases as cases_of


@pytest.fixture
def run(shop_words, tmp_path):
    """A run's folder as far as titles are concerned, with the data it was made from."""
    composed = compose(shop_words)
    (tmp_path / "config.yaml").write_text(format_config(composed))
    found, split = prepare.prepare_data(composed.data)
    result = {"data": {"fingerprint": compute_fingerprint(found)}}
    return FinishedRun(tmp_path, {}, result, pl.DataFrame()), split


def test_a_case_is_told_by_its_target_and_what_was_liked_last(run, shop):
    past, split = run
    names = dict(pl.read_csv(shop / "items.csv", infer_schema=False).iter_rows())
    # The id of each target is given: the number of a case is that of its first event, which in a
    # list of several need not be the one that was liked.
    given = {int(case): f"{at % 7:03}" for at, case in enumerate(split.list_cases(TEST))}
    assert set(given.values()) <= set(names)
    told, note = examples.read_case_texts(past, given)
    assert not note
    events = pl.read_csv(shop / "events.csv", schema_overrides={"what": pl.String})
    for case, (_, own) in zip(
        split.list_cases(TEST), events.group_by("who", maintain_order=True), strict=True
    ):
        items = own.sort("when")["what"].to_list()
        assert told[case].target == names[given[case]]
        assert told[case].history == tuple((item, names[item]) for item in items[3:0:-1])


def test_an_impression_is_told_by_what_was_clicked_not_by_what_it_showed_first(
    tmp_path, monkeypatch
):
    """The number of a case is that of the impression's first event: `c`, which was not clicked."""
    rows = [
        ("u", "a", 1, 1, None, "train"),
        ("u", "c", 4, 0, "4", "test"),
        ("u", "e", 4, 1, "4", "test"),
    ]
    found, split = made(rows)
    (case,) = make_impression_lists(split, TEST).at.tolist()
    assert found.items["item"][int(split.item[case])] == "c"
    (tmp_path / "config.yaml").write_text(format_config(compose(TWO)))
    monkeypatch.setattr(prepare, "prepare_data", lambda data: (found, split))
    past = FinishedRun(
        tmp_path, {}, {"data": {"fingerprint": compute_fingerprint(found)}}, pl.DataFrame()
    )
    told, _ = examples.read_case_texts(past, {case: "e"})
    assert told == {case: examples.CaseText("e", (("a", "a"),))}


def test_data_that_is_gone_or_other_leaves_a_note(run, tmp_path):
    past, split = run
    at = {int(case): "000" for case in split.list_cases(TEST)}
    other = dataclasses.replace(past, result={"data": {"fingerprint": "0"}})
    assert examples.read_case_texts(other, at) == (
        {},
        "Ids only, as the data has changed since the runs.",
    )
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("events.csv", "gone.csv"))
    told, note = examples.read_case_texts(past, at)
    assert not told
    assert note.startswith("Ids only, as the data cannot be loaded: ")
    assert "gone.csv" in note
    config.unlink()
    assert "config.yaml is missing" in examples.read_case_texts(past, at)[1]
    assert examples.read_case_texts(past, {}) == ({}, "")


def test_a_text_is_cut_between_words_and_lies_on_one_line():
    assert shorten_text("red\n lamp ") == "red lamp"
    cut = shorten_text("a lamp of many words " * 9)
    assert len(cut) <= LENGTH
    assert cut.startswith("a lamp of many words a lamp")
    assert cut.endswith("\N{HORIZONTAL ELLIPSIS}")
    assert ("a lamp of many words " * 9)[len(cut) - 1] == " "
    assert len(shorten_text("x" * 99)) == LENGTH


@pytest.fixture
def result(tmp_path):
    """Two methods whose data is not to be had."""
    folders = [
        leave(tmp_path, f"{name}", [*TWO, f"tuning={name}"], cases_of(ranks(seed, shift=seed)))
        for seed, name in enumerate(("frozen", "lora"))
    ]
    return compared(folders)


def test_the_tables_show_titles_escaped_or_the_note(result):
    (plain,) = tables.make_example_tables(result)
    assert plain.note.startswith("Ids only, as the data")
    assert len(plain.head) == 5
    side = result.users[0]
    odd = dataclasses.replace(
        side.gains[0], title="<b>red</b> | lamp", history=(("i1", "A & B"), ("i2", "C"))
    )
    side = dataclasses.replace(side, gains=[odd, *side.gains[1:]], note="")
    (told,) = tables.make_example_tables(dataclasses.replace(result, users=[side]))
    assert told.head[:3] == ["user", "target", "liked before, latest first"]
    assert told.rows[0][1:3] == [f"{odd.target} <b>red</b> | lamp", "i1 A & B; i2 C"]
    assert {len(row) for row in told.rows} == {6}
    page = "\n".join(table.render_html(told))
    assert "&lt;b&gt;red&lt;/b&gt; | lamp" in page
    assert "A &amp; B; i2 C" in page
    assert "<b>" not in page
    assert "&lt;b>red&lt;/b> \\| lamp" in "\n".join(table.render_markdown(told))


def test_the_data_is_read_once_for_all_methods(tmp_path, monkeypatch):
    calls = []

    def read(run, targets):
        calls.append((run.folder.name, dict(targets)))
        return {next(iter(targets)): examples.CaseText("red lamp", ())}, ""

    monkeypatch.setattr(examples, "read_case_texts", read)
    folders = [
        leave(tmp_path, name, [*TWO, f"tuning={name}"], cases_of(ranks(seed, shift=seed)))
        for seed, name in enumerate(("frozen", "lora", "adapter"))
    ]
    found = compared(folders)
    assert len(calls) == 1
    shown = [e for side in found.users for e in (*side.gains, *side.losses)]
    assert calls[0][1] == {e.case: e.target for e in shown}
    assert all((e.title == "red lamp") == (e.case == shown[0].case) for e in shown)

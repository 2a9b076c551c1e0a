"""Which metrics, measures and slices a comparison shows, whichever run comes first."""

import json

import numpy as np
import polars as pl
import pytest

from recsys.compare import methods
from recsys.compare.__main__ import main
from recsys.compare.finished_runs import find_runs, read_run
from recsys.compare.report import tables
from recsys.runtime.files import write_atomic
from tests.compare.samples import TWO, USERS, cases, compared, error_of, leave, ranks


def test_impressions_show_what_tables_of_mind_hold(tmp_path):
    said = {"auc": 0.6, "mrr_all": 0.3, "ndcg@5": 0.31, "ndcg@10": 0.37}
    frame = cases(ranks(0)).with_columns(
        positives=pl.lit(2), **{name: pl.lit(value) for name, value in said.items()}
    )
    a = leave(
        tmp_path, "a", [*TWO, "evaluation.protocol=impressions"], frame,
        lambda result: result.update(test=said),
    )  # fmt: skip
    found = compared([a], baseline="lora two_tower")
    assert found.columns == [*said, "warm/ndcg@10", "cold/ndcg@10"]
    metrics = found.rows[0].metrics
    assert {name: metrics[name].mean for name in said} == pytest.approx(said)


def with_column(name):
    return cases(ranks(0)).with_columns(pl.Series(name, np.arange(USERS) % 2 == 0))


@pytest.mark.parametrize("baseline", ["frozen two_tower", "lora two_tower"])
def test_slices_do_not_depend_on_the_baseline(tmp_path, baseline):
    a = leave(tmp_path, "a", [*TWO, "tuning=frozen"], cases(ranks(0)))
    b = leave(tmp_path, "b", [*TWO, "tuning=lora"], with_column("item.kind"))
    found = compared([a, b], baseline=baseline, slices=("item.kind", "history"))
    assert [p.column for p in found.parts if p.column == "item.kind"] == ["item.kind"] * 2
    lengths = compared([a, b], baseline="frozen two_tower", slices=("history",)).parts
    assert [p.label for p in found.parts if p.column == "history"] == [p.label for p in lengths]


def test_users_without_training_are_a_slice_of_their_own_by_default(tmp_path):
    a = leave(tmp_path, "a", [*TWO, "tuning=frozen"], cases(ranks(0)))
    b = leave(tmp_path, "b", [*TWO, "tuning=lora"], with_column("cold_user"))
    found = compared([a, b], slices=None)
    assert [(p.label, p.cases) for p in found.parts if p.column == "cold_user"] == [
        ("cold", 75),
        ("warm", 75),
    ]
    assert any(
        "by user seen in training or not" in each.title for each in tables.make_slice_tables(found)
    )


def test_a_slice_that_no_run_has_is_told_with_run_and_remedy(tmp_path, capsys):
    a = leave(tmp_path, "a", [*TWO, "tuning=frozen"], cases(ranks(0)))
    b = leave(tmp_path, "b", [*TWO, "tuning=lora"], with_column("item.kind"))
    error = error_of([a, b, "slices=genres"], capsys)
    assert str(a) in error
    assert "evaluation.slices=[genres], and ask for slices=item.genres" in error
    assert "Did you mean 'item.kind'?" in error_of([a, b, "slices=kind"], capsys)
    assert "of an older version" in error_of([a, "slices=cold_user"], capsys)


def test_what_a_glob_of_the_shell_names_between_the_runs_is_passed_over(tmp_path):
    for place in ("one", "seeds/0", "seeds/1"):
        write_atomic(tmp_path / "runs" / place / "config.yaml", "")
    write_atomic(tmp_path / "runs" / "seeds" / "seeds.json", "{}")
    (tmp_path / "runs" / "one" / "checkpoints").mkdir()
    words = [str(path) for path in sorted(tmp_path.glob("runs/*/*"))]
    assert any(word.endswith("seeds.json") for word in words)
    assert any(word.endswith("checkpoints") for word in words)
    assert [run.name for run in find_runs([*words, str(tmp_path / "runs/one")])] == [
        "0",
        "1",
        "one",
    ]


def test_the_folder_of_the_seeds_is_the_name_of_a_baseline(tmp_path, capsys):
    folders = [
        leave(tmp_path, f"{name}-seeds/{seed}", [*TWO, f"tuning={name}", f"seed={seed}"], cases(r))
        for at, name in enumerate(("frozen", "lora"))
        for seed in range(2)
        for r in [ranks(10 * at + seed)]
    ]
    found = methods.group_runs([read_run(folder) for folder in folders])
    for name in ("lora-seeds", f"{tmp_path}/lora-seeds", f"{tmp_path}/./lora-seeds/"):
        assert methods.choose_method(name, found) is found[1]
    words = [tmp_path / "frozen-seeds", tmp_path / "lora-seeds", "slices=none"]
    out = tmp_path / "out"
    assert main([*map(str, words), f"baseline={tmp_path / 'lora-seeds'}", f"output={out}"]) == 0
    question = json.loads((out / "comparison.json").read_text())["question"]
    assert question["baseline"] == "lora two_tower"
    flat = [
        leave(tmp_path, f"all/{n}", [*TWO, f"tuning={n}"], cases(ranks(0)))
        for n in ("bitfit", "full")
    ]
    error = error_of([*flat, f"baseline={tmp_path / 'all'}"], capsys)
    assert "holds several methods: bitfit two_tower; full two_tower" in error


def looked(**measures):
    """A run that looked at some measures beyond accuracy."""

    def edit(result):
        result["beyond"] = {**measures, "cases": 150, "seconds": 0.1}

    return edit


@pytest.fixture
def beyond(tmp_path):
    """Frozen of two seeds with measures at two cut-offs, LoRA without."""
    both = [
        leave(tmp_path, f"f{seed}", [*TWO, "tuning=frozen", f"seed={seed}"], cases(ranks(seed)),
              looked(**{"coverage@5": 0.1, "coverage@10": share, "novelty@10": 8.5}))
        for seed, share in ((0, 0.2), (1, 0.4))
    ]  # fmt: skip
    return [*both, leave(tmp_path, "lora", [*TWO, "tuning=lora"], cases(ranks(5)))]


def test_measures_beyond_accuracy_stand_in_every_output(beyond, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*map(str, beyond), "slices=none", "details=true", f"output={out}"]) == 0
    mean = "0.3 \N{PLUS-MINUS SIGN} 0.14"
    shown = [
        capsys.readouterr().out,
        *((out / f).read_text() for f in ("report.md", "report.html")),
    ]
    for text in shown:
        assert "Beyond accuracy: the best 10 of each case" in text
        assert mean in text
    tex = (out / "table.tex").read_text()
    assert r"0.3 $\pm$ 0.14" in tex
    assert r"\label{tab:beyond}" in tex
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    assert rows[0]["beyond"]["coverage@10"]["mean"] == pytest.approx(0.3)
    assert rows[0]["beyond"]["coverage@5"]["mean"] == pytest.approx(0.1)
    assert rows[1]["beyond"] == {"coverage@5": None, "coverage@10": None, "novelty@10": None}
    found = compared(beyond)
    table = tables.make_beyond_table(found)
    assert list(table.head) == ["method", "coverage", "novelty, bits"]
    assert table.rows[1] == ["lora two_tower", "-", "-"]


def test_without_measures_there_is_no_table_and_other_categories_are_told(beyond, tmp_path):
    assert tables.make_beyond_table(compared(beyond[2:], baseline="lora two_tower")) is None
    words = [*TWO, "tuning=full", "evaluation.category=kind"]
    own = looked(**{"calibration@10": 1.0})
    other = leave(tmp_path, "other", words, cases(ranks(7)), own)
    base = leave(tmp_path, "base", [*TWO, "tuning=frozen"], cases(ranks(8)), own)

    def told(*folders):
        return any("Calibration may not be" in note for note in compared(folders).notes)

    assert told(base, other)
    assert not told(beyond[0], other), "which has no calibration"


def test_a_floor_without_the_metric_in_question_is_no_row_of_dashes(tmp_path):
    floor = leave(tmp_path, "p", ["architecture=popularity"], cases(ranks(9)))
    own = compared([floor], baseline="popularity").rows[0].metrics

    def edit(result):
        known = {name: own[name].mean for name in ("ndcg@10", "mrr")}
        result["floors"] = {"popularity": known, "tfidf": {"ndcg@10": 0.2, "mrr": 0.1}}

    def shown(folders, metric):
        return [
            row[0] for row in tables.make_summary_table(compared(folders, metric=metric), {}).rows
        ]

    a = leave(tmp_path, "a", [*TWO, "tuning=frozen"], cases(ranks(0)), edit)
    assert set(shown([a], "ndcg@10")) == {"frozen two_tower", "popularity", "tfidf"}
    assert shown([a], "ndcg@20") == ["frozen two_tower"]
    found = compared([a, floor], metric="ndcg@20")  # a run of its own tells all of it
    assert [row.label for row in found.rows] == ["frozen two_tower", "popularity", "tfidf"]

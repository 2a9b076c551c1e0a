"""What may be compared, and what the sentences claim."""

import dataclasses
import json
import shutil

import numpy as np
import polars as pl
import pytest

from recsys.compare import methods
from recsys.compare.__main__ import main
from recsys.compare.analysis import compare_methods
from recsys.compare.finished_runs import find_runs, read_run
from recsys.compare.measures import slices
from recsys.compare.report import sentences
from recsys.compare.statistics.contrasts import adjust_holm
from recsys.runtime.files import write_atomic
from tests.compare.samples import TWO, USERS, cases, compared, error_of, leave, question, ranks


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two methods of two seeds, the second one planted to be better."""
    root = tmp_path_factory.mktemp("pair")
    return [
        leave(root, f"{name}{seed}", [*TWO, f"tuning={name}", f"seed={seed}"], cases(r))
        for name, shift, offset in (("frozen", 0.0, 0), ("lora", 1.0, 10))
        for seed in range(2)
        for r in [ranks(seed + offset, shift)]
    ]


@pytest.fixture(scope="module")
def planted(pair):
    return compared(pair)


@pytest.mark.parametrize(
    ("edit", "field", "remedy"),
    [
        (lambda r: r["data"].update(fingerprint="0" * 64), "data.fingerprint", "same data"),
        (lambda r: r["data"].update(split="time"), "data.split", "same way"),
        (lambda r: r["data"].update(roles_sha256="0" * 64), "data.roles_sha256", "same way"),
        (lambda r: r["protocol"].update(name="labels"), "protocol.name", "evaluation.protocol"),
        (lambda r: r["protocol"].update(mask_history=False), "mask_history", "mask_history"),
        (lambda r: r["protocol"].update(repeated="apart"), "repeated", "evaluation.repeated"),
        (lambda r: r["protocol"].update(catalog=499), "protocol.catalog", "catalog"),
        (
            lambda r: r["data"].update(lists_sha256={"test": "a", "val": "b"}),
            "data.lists_sha256.test",
            "candidate lists",
        ),
    ],
)
def test_runs_that_answered_another_question_are_refused(tmp_path, capsys, edit, field, remedy):
    a = leave(tmp_path, "a", [*TWO, "tuning=frozen"], cases(ranks(0)))
    b = leave(tmp_path, "b", [*TWO, "tuning=lora"], cases(ranks(1)), edit)
    error = error_of([a, b, f"output={tmp_path / 'out'}"], capsys)
    assert all(part in error for part in (str(a), str(b), field, remedy))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda f: f.head(100), "the number of test cases is 150 in the one and 100"),
        (lambda f: f.with_columns(target=pl.lit("x")), "target in cases.parquet is i0"),
        (lambda f: f.with_columns(cold=pl.lit(True)), "cold in cases.parquet is False"),
    ],
)
def test_other_cases_are_refused(tmp_path, capsys, change, part):
    a = leave(tmp_path, "a", [*TWO, "tuning=frozen"], cases(ranks(0)))
    b = leave(tmp_path, "b", [*TWO, "tuning=lora"], change(cases(ranks(1))))
    assert part in error_of([a, b], capsys)


def test_other_training_users_are_refused_unless_nothing_trains(tmp_path, capsys):
    a = leave(tmp_path, "a", [*TWO, "tuning=frozen"], cases(ranks(0)))
    b = leave(tmp_path, "b", [*TWO, "tuning=lora", "data.train_users=9"], cases(ranks(1)))
    assert "data.train_users is None in the one and 9" in error_of([a, b], capsys)
    floor = ["architecture=popularity", "data.train_users=9"]
    c = leave(tmp_path, "c", floor, cases(ranks(1)))
    assert main([str(a), str(c), "slices=none", f"output={tmp_path / 'out'}"]) == 0


def test_another_sample_is_named_as_the_reason(tmp_path, capsys):
    words = [*TWO, "data.max_users=20"]
    a = leave(tmp_path, "a", words, cases(ranks(0)))
    other = lambda r: r["data"].update(fingerprint="0" * 64)  # noqa: E731
    b = leave(tmp_path, "b", [*words, "data.sample_seed=1"], cases(ranks(1)), other)
    assert "data.sample_seed draws other users or cases" in error_of([a, b], capsys)


def test_other_samples_of_training_users_are_refused(tmp_path, capsys):
    words = [*TWO, "data.train_users=9"]
    a = leave(tmp_path, "a", words, cases(ranks(0)))
    b = leave(tmp_path, "b", [*words, "tuning=full", "data.sample_seed=1"], cases(ranks(1)))
    assert "data.sample_seed is 0 in the one and 1" in error_of([a, b], capsys)


def test_an_unfinished_run_is_refused_with_how_to_resume(tmp_path, pair, capsys):
    folder = shutil.copytree(pair[1], tmp_path / "stopped")
    (folder / "result.json").unlink()
    assert f"python -m recsys.fit resume={folder}" in error_of([folder], capsys)


def test_the_same_method_and_seed_twice_is_refused(tmp_path, capsys):
    a = leave(tmp_path, "a", [*TWO, "tuning=lora"], cases(ranks(0)))
    b = leave(tmp_path, "b", [*TWO, "tuning=lora", "trainer.threads=1"], cases(ranks(0)))
    error = error_of([a, b], capsys)
    assert all(part in error for part in (str(a), str(b), "same seed (0)"))


def test_files_that_are_not_of_one_run_are_refused(tmp_path, capsys):
    wrong = lambda r: r["test"].update({"hr@10": 0.5})  # noqa: E731
    a = leave(tmp_path, "a", [*TWO, "tuning=lora"], cases(ranks(0)), wrong)
    assert "result.json says 0.500000" in error_of([a, "metric=hr@10"], capsys)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["metrc=mrr"], "Did you mean 'metric'?"),
        (["metric=ndgc@10"], "Did you mean 'ndcg@10'?"),
        (["metric=auc"], "no AUC is kept"),
        (["metric=repeated/hr@1"], "counted apart, which compare does not test; set metric=hr@1"),
        (["names=nowhere.yaml"], "nowhere.yaml: not a YAML mapping"),
        (["baseline=lora two_towr"], "Did you mean 'lora two_tower'?"),
        (["slices=histroy"], "Did you mean 'history'?"),
        (["margin=-1"], "margin is '-1'"),
        (["margin=some"], "margin is 'some'"),
        (["level=95"], "level is '95'"),
        (["level=0.9", "level=0.95"], "level is there twice"),
        (["--config-dif"], "Did you mean '--config-diff'?"),
        (["nowhere"], "nowhere names no run"),
    ],
)
def test_a_mistake_is_one_sentence(pair, capsys, words, part):
    assert part in error_of([pair[0], pair[2], *words], capsys)


def test_nothing_to_compare_is_said(capsys):
    assert "name the runs" in error_of(["metric=mrr"], capsys)
    assert "two runs, not 0" in error_of(["--config-diff"], capsys)
    keys = error_of(["--config-diff", "a", "b", "output=x"], capsys)
    assert "takes the folders of two runs and no keys; leave out output=x" in keys


def test_help_names_every_key(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    keys = ("names=", "metric=", "baseline=", "margin=", "family=", "level=", "output=", "slices=")
    assert all(key in out for key in (*keys, "--config-diff"))


def test_runs_are_found_in_folders_and_globs_once(tmp_path, pair, capsys):
    root = pair[0].parent
    words = [root, pair[0], f"{root}/lora*", "slices=none", f"output={tmp_path / 'out'}"]
    assert main([str(word) for word in words]) == 0
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [row["seeds"] for row in found["rows"]] == [[0, 1], [0, 1]]


def test_runs_are_found_in_folders_of_seeds_beside_others(tmp_path):
    places = ["single", "lora/0", "lora/1"]
    for place in places:
        write_atomic(tmp_path / place / "config.yaml", "")
    inside = [tmp_path / place for place in sorted(places)]
    assert find_runs([str(tmp_path)]) == find_runs([f"{tmp_path}/*"]) == inside
    assert find_runs([f"{tmp_path}/lora/[1]"]) == inside[1:2]
    odd = tmp_path / "[1]"  # a glob that would not match itself
    write_atomic(odd / "config.yaml", "")
    assert find_runs([str(odd)]) == [odd]


def test_holm_is_applied_within_the_family(tmp_path):
    folders = [
        leave(tmp_path, f"{name}{seed}", [*TWO, f"tuning={name}", f"seed={seed}"], cases(r))
        for at, (name, shift) in enumerate(
            (("frozen", 0.0), ("lora", 0.12), ("full", 0.1), ("adapter", 0.0))
        )
        for seed in range(2)
        for r in [ranks(seed + 10 * at, shift)]
    ]
    found = compared(folders, margin=3.0)
    raw = [difference.found.p for difference in found.differences]
    assert [d.p_holm for d in found.differences] == adjust_holm(raw)
    assert [d.p_holm for d in found.differences] != raw
    tests = [difference.found.equivalent for difference in found.differences]
    assert [d.equivalent_holm for d in found.differences] == adjust_holm(tests)


def test_a_planted_difference_is_told_with_its_side(pair, planted):
    (text,) = sentences.describe_comparison(planted)[:1]
    assert text.startswith("lora two_tower is better than frozen two_tower by ")
    assert "one contrast" in text
    back = compared(pair, baseline="lora two_tower")
    (text,) = sentences.describe_comparison(back)[:1]
    assert text.startswith("frozen two_tower is worse than lora two_tower by ")


def test_many_contrasts_are_summed_up_first(planted):
    (one,) = planted.differences
    found = one.found

    def another(label, difference, p, within=1.0):
        moved = dataclasses.replace(
            found, difference=difference, low=difference - 0.01, high=difference + 0.01
        )
        return dataclasses.replace(one, label=label, found=moved, p_holm=p, equivalent_holm=within)

    several = [
        another("a", 0.02, 0.01),
        another("b", 0.005, 0.5),
        another("c", -0.03, 0.01),
        another("d", 0.04, 0.01),
        another("e", 0.001, 0.9, 0.01),
        another("f", 0.02, 0.2),  # its interval leaves out 0, its corrected test does not reject
    ]
    rows = [dataclasses.replace(planted.rows[0], label=d.label) for d in several]
    many = dataclasses.replace(planted, differences=several, rows=[*planted.rows, *rows])
    first, *rest = sentences.describe_comparison(many)
    assert first.endswith(
        "better: d (+4.00), a (+2.00); worse: c (-3.00); within the margin: e (+0.10); "
        "not shown to differ: f (+2.00), b (+0.50)."
    )
    assert "Holm over the 6 contrasts" in first
    assert [text.split()[0] for text in rest[:6]] == ["a", "b", "c", "d", "e", "f"]
    assert not any("Holm over" in text for text in rest), "the first sentence has said it"
    assert "p = .200 after Holm" in rest[5]
    few = dataclasses.replace(many, differences=several[:4])
    assert sentences.describe_comparison(few)[0].startswith("a ")
    assert "Holm over the 4 contrasts" in sentences.describe_comparison(few)[0]


def test_no_difference_is_not_called_equality(tmp_path):
    folders = [
        leave(tmp_path, f"{name}{seed}", [*TWO, f"tuning={name}", f"seed={seed}"], cases(r))
        for name, offset in (("frozen", 0), ("lora", 10))
        for seed in range(2)
        for r in [ranks(seed + offset)]
    ]
    found = methods.group_runs([read_run(folder) for folder in folders])
    (text,) = sentences.describe_comparison(compare_methods(found, question()))[:1]
    assert "is not shown to differ from" in text
    assert "in about 80 % of repetitions or more" in text
    assert "equal" not in text.replace("equally", "")
    (text,) = sentences.describe_comparison(compare_methods(found, question(margin=20.0)))[:1]
    assert "differ by less than 20 points of ndcg@10 (equivalence, p" in text
    (text,) = sentences.describe_comparison(compare_methods(found, question(margin=0.01)))[:1]
    assert "nor to be within 0.01 points of it" in text


def test_one_seed_speaks_of_models_only(tmp_path):
    folders = [
        leave(tmp_path, name, [*TWO, f"tuning={name}"], cases(ranks(at, shift)))
        for at, (name, shift) in enumerate((("frozen", 0.0), ("lora", 1.0)))
    ]
    (text,) = sentences.describe_comparison(compared(folders))[:1]
    assert "holds for the trained models at hand, not for the methods" in text
    assert "(one seed of lora two_tower and frozen two_tower)" in text
    more = ["tuning=lora", "seed=1"]
    folders.append(leave(tmp_path, "more", [*TWO, *more], cases(ranks(5, 1.0))))
    (text,) = sentences.describe_comparison(compared(folders))[:1]
    assert "One seed of frozen two_tower: its spread over seeds is taken from other" in text


@pytest.mark.parametrize(
    ("low", "p", "told"),
    [(0.001, 0.01, True), (-0.001, 0.01, False), (0.001, 0.2, False), (-0.001, 0.2, False)],
)
def test_a_claim_needs_interval_and_corrected_test(planted, low, p, told):
    (difference,) = planted.differences
    contrast = dataclasses.replace(difference.found, difference=0.02, low=low, high=0.04, p=p)
    changed = dataclasses.replace(difference, found=contrast, p_holm=p)
    (text,) = sentences.describe_comparison(dataclasses.replace(planted, differences=[changed]))[:1]
    assert ("is better than" in text) is told
    assert ("is not shown to differ" in text) is not told


@pytest.mark.parametrize(
    ("mine", "base", "text"),
    [
        (6.0, 10.0, "took 0.6 of the CPU seconds of"),
        (17.0, 10.0, "took 1.7 times the CPU seconds of"),
        (10.1, 10.0, "took as many CPU seconds as frozen"),
    ],
)
def test_the_cost_stands_in_the_sentence(tmp_path, mine, base, text):
    def seconds(value):
        return lambda result: result["cost"].update(cpu_seconds=value)

    a = leave(tmp_path, "a", [*TWO, "tuning=frozen"], cases(ranks(0)), seconds(base))
    b = leave(tmp_path, "b", [*TWO, "tuning=lora"], cases(ranks(1)), seconds(mine))
    assert text in sentences.describe_comparison(compared([a, b]))[0]
    c = leave(tmp_path, "c", [*TWO, "tuning=full", "trainer.threads=3"], cases(ranks(1)))
    found = compared([a, c])
    assert "CPU seconds" not in " ".join(sentences.describe_comparison(found))
    assert any("Seconds may not be compared" in note for note in found.notes)


def test_several_positives_have_means_but_no_rank_metric(tmp_path, capsys):
    frame = cases(ranks(0)).with_columns(
        positives=pl.lit(2), auc=pl.when(pl.col("case") % 3 == 0).then(None).otherwise(0.25)
    )
    frame = frame.with_columns(pl.col("auc").fill_null(float("nan")))
    own = lambda r: r["protocol"].update(name="labels")  # noqa: E731
    a = leave(tmp_path, "a", [*TWO, "tuning=lora"], frame, own)
    error = error_of([a, "metric=ndcg@10"], capsys)
    assert "several positives" in error
    assert "metric= to one of auc" in error
    assert main([str(a), "slices=none", f"output={tmp_path / 'out'}"]) == 0
    got = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert got["question"]["metric"] == "auc"
    assert got["rows"][0]["metrics"]["auc"]["mean"] == pytest.approx(0.25)
    said = json.loads((a / "result.json").read_text())["test"]["hr@10"]
    assert got["rows"][0]["metrics"]["hr@10"]["mean"] == said
    assert got["rows"][0]["metrics"]["mrr"] is None


def test_equals_share_their_ranks_in_the_examples(tmp_path):
    tied = cases(np.full(USERS, 1)).with_columns(ties=pl.lit(1))
    low = cases(np.full(USERS, 9))
    a = leave(tmp_path, "a", [*TWO, "tuning=frozen"], low, lambda r: r["test"].clear())
    b = leave(tmp_path, "b", [*TWO, "tuning=lora"], tied, lambda r: r["test"].clear())
    (side,) = compared([a, b]).users
    assert (side.better, side.worse, side.equal) == (USERS, 0, 0)
    assert {(e.rank, e.base_rank) for e in side.gains} == {(1.5, 9.0)}
    assert side.losses == []


def test_the_front_leaves_out_what_is_dominated(tmp_path):
    def seconds(value):
        return lambda result: (result["cost"].update(cpu_seconds=value), result["test"].clear())

    plan = {"frozen": (1.0, 20), "lora": (2.0, 5), "full": (2.0, 9), "adapter": (4.0, 1)}
    folders = [
        leave(tmp_path, name, [*TWO, f"tuning={name}"], cases(np.full(USERS, rank)), seconds(s))
        for name, (s, rank) in plan.items()
    ]
    front = compared(folders).front
    assert front == ["frozen two_tower", "lora two_tower", "adapter two_tower"]


def test_floors_that_differ_are_told_apart_by_a_method_of_each(tmp_path):
    def start(value):
        return lambda result: result["floors"].update({"zero-shot": {"ndcg@10": value}})

    plan = {"frozen": 0.1, "lora": 0.2, "full": 0.1, "bitfit": 0.1}
    folders = [
        leave(tmp_path, name, [*TWO, f"tuning={name}"], cases(ranks(at)), start(value))
        for at, (name, value) in enumerate(plan.items())
    ]
    floors = {row.label: row.metrics["ndcg@10"] for row in compared(folders).rows if row.floor}
    means = {label: spread.mean for label, spread in floors.items()}
    assert means == pytest.approx(
        {"zero-shot of frozen two_tower and 2 more": 0.1, "zero-shot of lora two_tower": 0.2}
    )


def test_a_floor_is_left_out_where_a_method_has_its_figures(tmp_path):
    """By figures and not by name: recent popularity is not the popularity of all time.

    Where a method has the floor's name, the floor is told by the run that measured it.
    """
    words = ["architecture=popularity", "architecture.kind=recent"]
    recent = leave(tmp_path, "recent", words, cases(ranks(3)))
    figures = {}
    for name, change, shown in (
        ("none", None, []),
        ("same", 0.0, []),
        ("near", 1e-9, []),
        ("other", 1e-3, ["popularity of frozen two_tower"]),
    ):

        def floor(result, change=change, figures=figures):
            told = {column: value + change for column, value in figures.items()}
            result["floors"].update({"popularity": told} if told else {})

        two = leave(tmp_path, name, [*TWO, "tuning=frozen"], cases(ranks(1)), floor)
        rows = compared([two, recent]).rows
        assert [row.label for row in rows if row.floor] == shown
        figures = {c: spread.mean for c, spread in rows[1].metrics.items() if spread}
        assert figures["ndcg@10"] > 0


def test_a_sampled_metric_keeps_its_name(tmp_path, capsys):
    def sampled(result):
        result["protocol"].update(name="sampled")
        result["test"] = {"sampled100-mrr": float((1 / np.maximum(ranks(0), 1)).mean())}

    words = [*TWO, "tuning=lora", "evaluation.protocol=sampled"]
    a = leave(tmp_path, "a", words, cases(ranks(0)), sampled)
    assert "set metric=sampled100-ndcg@10." in error_of([a, "metric=ndcg@10"], capsys)
    assert main([str(a), "slices=none", f"output={tmp_path / 'out'}"]) == 0
    got = json.loads((tmp_path / "out" / "comparison.json").read_text())
    names = ["hr@10", "ndcg@10", "mrr", "auc"]
    assert got["columns"][:4] == [f"sampled100-{name}" for name in names]
    assert got["rows"][0]["metrics"]["warm/sampled100-ndcg@10"]["mean"] > 0
    page = (tmp_path / "out" / "report.md").read_text()
    assert "**Test metrics in percent: sampled (sampled100-...), 150" in page
    assert "| method | seeds | hr@10 | ndcg@10 | mrr | auc | warm/ndcg@10 | cold/ndcg@10 |" in page


def test_metrics_that_a_case_keeps_need_no_rank(tmp_path):
    values = np.linspace(0, 1, USERS)
    frame = (
        cases(ranks(0)).with_columns(positives=pl.lit(2)).with_columns(pl.Series("ndcg@10", values))
    )
    a = leave(tmp_path, "a", [*TWO, "tuning=frozen"], frame)
    assert compared([a]).rows[0].metrics["ndcg@10"].mean == pytest.approx(values.mean())


def test_the_length_of_a_history_is_not_cut_by_what_the_method_reads():
    frame = cases(ranks(0)).with_columns(past=pl.col("case"), history=pl.lit(3))
    assert [part.label for part in slices.slice_cases(frame, "history")] == [
        "0 to 37",
        "38 to 74",
        "75 to 112",
        "113 to 149",
    ]

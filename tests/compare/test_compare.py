"""The command on real runs: two methods of two seeds each, and a floor, on the made-up shop."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from recsys.assembly import build
from recsys.compare.__main__ import main
from recsys.compare.command import FILES
from recsys.compare.measures.case_values import compute_per_case
from recsys.config.compose import compose
from recsys.fit.__main__ import main as fit

WORDS = ["margin=2", "slices=cold,history,popularity"]


@pytest.fixture(scope="module")
def words(shop_base):
    return [*shop_base, "evaluation.k=[5,10]"]


@pytest.fixture(scope="module")
def runs(words, tmp_path_factory):
    root = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))
        for seed in (0, 1):
            for name in ("frozen", "lora"):
                own = [f"tuning={name}", f"seed={seed}", f"output={root / name}"]
                assert fit([*words, *own]) == 0
        floor = [word for word in words if not word.startswith(("encoder", "trainer", "opt"))]
        output = f"output={root / 'popularity'}"
        assert fit([*floor, "architecture=popularity", output]) == 0
    return root


@pytest.fixture(scope="module")
def report(runs):
    folder = runs / "report"
    named = [str(runs / name) for name in ("frozen", "lora", "popularity")]
    assert main([*named, *WORDS, f"output={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def found(report):
    return json.loads((report / "comparison.json").read_text())


def results(runs, name):
    return [json.loads(path.read_text()) for path in sorted((runs / name).glob("*/result.json"))]


def row(found, label):
    return next(r for r in found["rows"] if r["label"] == label and not r["floor"])


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("frozen two_tower", "frozen"),
        ("lora two_tower", "lora"),
        ("popularity", "popularity"),
    ],
)
def test_means_are_those_of_the_runs(runs, found, label, name):
    said = [result["test"] for result in results(runs, name)]
    metrics = row(found, label)["metrics"]
    assert set(metrics) == {"hr@10", "ndcg@10", "mrr", "warm/ndcg@10", "cold/ndcg@10"}
    for metric, spread in metrics.items():
        if None in (values := [test[metric] for test in said]):
            assert spread is None
        else:
            wanted = np.mean(values)
            assert spread["mean"] == pytest.approx(wanted, abs=1e-12, rel=0)
            assert (spread["deviation"] is None) is (len(said) == 1)


def test_intervals_hold_the_means_and_differences_are_those_of_the_means(found):
    base = row(found, "frozen two_tower")
    for difference in found["differences"]:
        other, contrast = row(found, difference["label"]), difference["found"]
        gap = other["metrics"]["ndcg@10"]["mean"] - base["metrics"]["ndcg@10"]["mean"]
        assert contrast["difference"] == pytest.approx(gap, abs=1e-12)
        assert contrast["low"] <= gap <= contrast["high"]
        assert difference["p_holm"] >= contrast["p"]
        assert difference["equivalent_holm"] >= contrast["equivalent"]
    assert base["interval"]["low"] <= base["interval"]["mean"] <= base["interval"]["high"]


def test_a_method_that_does_not_train_is_a_method_with_one_run(found):
    contrast = next(d["found"] for d in found["differences"] if d["label"] == "popularity")
    assert contrast["about"] == "methods"
    assert contrast["seeds"] == [1, 2]


def test_floors_of_other_runs_are_rows_without_interval(runs, found):
    floors = {r["label"]: r for r in found["rows"] if r["floor"]}
    # popularity has a run of its own here
    assert "popularity" not in floors
    said = results(runs, "frozen")[0]["floors"]["tfidf"]["ndcg@10"]
    assert floors["tfidf"]["metrics"]["ndcg@10"]["mean"] == pytest.approx(said, abs=1e-12)
    assert floors["tfidf"]["interval"] is None


def test_every_kind_of_cost_stands_beside(runs, found):
    cost, said = row(found, "lora two_tower")["cost"], [r["cost"] for r in results(runs, "lora")]
    assert cost["tokens"] == np.mean([c["tokens"] for c in said])
    assert cost["trained_share"] == pytest.approx(
        100 * said[0]["trained_parameters"] / said[0]["parameters"]
    )
    files = list((runs / "lora").glob("*/checkpoints/best.safetensors"))
    size = np.mean([file.stat().st_size for file in files])
    assert cost["disk_mb"] == pytest.approx(size / 2**20)
    assert cost["cpu_seconds"] == pytest.approx(np.mean([c["cpu_seconds"] for c in said]))
    assert row(found, "popularity")["cost"]["train_flops"] is None


def test_any_cutoff_comes_from_the_rows(runs, tmp_path):
    assert main([str(runs / "lora"), "metric=hr@3", f"output={tmp_path / 'out'}"]) == 0
    got = json.loads((tmp_path / "out" / "comparison.json").read_text())
    frames = [pl.read_parquet(path) for path in sorted((runs / "lora").glob("*/cases.parquet"))]
    assert all(frame["ties"].max() == 0 for frame in frames)
    wanted = np.mean([(frame["rank"] <= 3).mean() for frame in frames])
    assert got["rows"][0]["metrics"]["hr@3"]["mean"] == pytest.approx(wanted, abs=1e-12)
    assert any(row["floor"] for row in got["rows"])
    assert got["sentences"] == []  # one method is on no front


def test_slices_cover_all_cases_once(found):
    columns = {part["column"] for part in found["parts"]}
    assert {"cold", "history", "popularity"} == columns
    whole = row(found, "lora two_tower")["interval"]["mean"]
    for column in columns:
        parts = [part for part in found["parts"] if part["column"] == column]
        assert sum(part["cases"] for part in parts) == found["held"]["cases"] == 40
        means = [next(r for r in p["rows"] if r["label"] == "lora two_tower") for p in parts]
        mean = sum(p["cases"] * m["mean"] for p, m in zip(parts, means, strict=True))
        assert mean / 40 == pytest.approx(whole, abs=1e-12)


def test_a_case_knows_how_often_training_shows_its_target(runs, words):
    made = build.assemble(compose([*words, "tuning=frozen", "encoder.cache=false"]))
    counts = dict(zip(made.tables.items["item"], made.examples.count_train_items(), strict=True))
    for path in runs.glob("*/*/cases.parquet"):
        frame = pl.read_parquet(path)
        assert frame["popularity"].to_list() == [counts[item] for item in frame["target"]]


def test_users_are_counted_once_and_examples_are_real_cases(runs, found):
    frame = pl.read_parquet(next((runs / "lora").glob("*/cases.parquet")))
    pairs = set(zip(frame["user"], frame["target"], strict=True))
    for side in found["users"]:
        assert side["better"] + side["worse"] + side["equal"] == 40
        assert all((e["user"], e["target"]) in pairs for e in side["gains"] + side["losses"])
        gains = [e["gain"] for e in side["gains"]]
        assert gains == sorted(gains, reverse=True)
        assert all(e["rank"] < e["base_rank"] for e in side["gains"])
        assert all(e["rank"] > e["base_rank"] for e in side["losses"])


def test_curves_are_the_validations_of_each_run(runs, found):
    assert found["curve_metric"] == "ndcg@10"
    assert len(found["curves"]) == 4
    for curve in found["curves"]:
        assert len(curve["values"]) == 3  # at the start and after each of two epochs
        assert curve["seconds"] == sorted(curve["seconds"])


class Balanced(HTMLParser):
    """Every tag that opens closes in order; void elements of HTML aside."""

    def __init__(self):
        super().__init__()
        self.open, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(report, found):
    text = (report / "report.html").read_text()
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    for word in ("http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link"):
        assert word not in text
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    whole = [ElementTree.fromstring(drawing) for drawing in drawings]
    figures = [drawing for drawing in whole if drawing.get("role") == "img"]
    # Pareto front, differences, curves, and the slices.
    assert len(figures) == 3 + len({part["column"] for part in found["parts"]})
    assert all(drawing.get("aria-label") for drawing in figures)


def test_nothing_is_drawn_outside_and_no_label_stands_on_another(report):
    text = (report / "report.html").read_text()
    for figure in re.findall(r"<figure><svg.*?</svg>", text, flags=re.DOTALL):
        drawing = ElementTree.fromstring(figure.removeprefix("<figure>"))
        _, _, wide, high = map(float, drawing.get("viewBox").split())
        boxes = []
        for label in drawing.iter("text"):
            if label.get("transform"):
                continue
            x, y = float(label.get("x")), float(label.get("y"))
            size = 6.2 * len(label.text)
            left = {"start": x, "middle": x - size / 2, "end": x - size}[label.get("text-anchor")]
            assert left >= 0
            assert left + size <= wide
            assert 8 <= y <= high
            for a, b, c, d in boxes:
                apart = left + size <= a or left >= c or y <= b or y - 9 >= d
                assert apart, label.text
            boxes.append((left, y - 9, left + size, y))


def test_the_same_command_gives_the_same_bytes(runs, report):
    before = {name: (report / name).read_bytes() for name in FILES}
    named = [str(runs / name) for name in ("frozen", "lora", "popularity")]
    assert main([*named, *WORDS, f"output={report}"]) == 0
    assert {name: (report / name).read_bytes() for name in FILES} == before


def test_the_terminal_shows_what_the_report_says(runs, found, capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # where no one says how wide, a pipe is wide
    named = [str(runs / name) for name in ("frozen", "lora", "popularity")]
    asked = [*named, *WORDS, f"output={tmp_path / 'out'}", "details=true"]
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert all(sentence in out for sentence in found["sentences"])
    assert "can be shown" in out
    assert "CPU, s" in out
    assert f"report: {tmp_path / 'out' / 'report.html'}" in out
    for file in ("report.md", "report.html"):
        assert found["verdict"] in (tmp_path / "out" / file).read_text()


def test_80_columns_have_a_verdict_and_one_table(runs, found, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    named = [str(runs / name) for name in ("frozen", "lora", "popularity")]
    assert main([*named, *WORDS, f"output={tmp_path / 'out'}"]) == 0
    verdict, *lines = capsys.readouterr().out.splitlines()
    assert verdict.startswith("By ndcg@10, against frozen: ")
    assert "two_tower" not in verdict
    # It knows the baselines that were measured on the way too.
    best = max((r for r in found["rows"] if not r["trains"]), key=lambda r: mean(r))
    assert f"{best['label']} ({100 * mean(best):.2f})" in verdict
    assert "by the means" in verdict
    assert "details=true prints the rest of the report" in lines
    table = [line for line in lines if not line.startswith(("note: ", "report: "))]
    assert max(map(len, table)) <= 80
    heads = [line for line in table if line.startswith("method")]
    assert len(heads) == 1
    rows = [line.split()[0] for line in table if line[:6] in ("frozen", "lora  ", "popula")]
    assert sorted(rows) == ["frozen", "lora", "popularity"]
    assert "|" not in "".join(lines)
    assert not any(sentence in "\n".join(lines) for sentence in found["sentences"])


def mean(row):
    return row["metrics"]["ndcg@10"]["mean"]


def test_without_an_output_the_folder_is_named_by_the_question(runs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for words in ([], [], ["metric=mrr"]):
        assert main([str(runs / "lora"), *words]) == 0
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert len(folders) == 2
    assert all(re.fullmatch(r"comparison-[0-9a-f]{8}", name) for name in folders)


def test_config_diff_prints_what_differs_and_nothing_else(runs, capsys):
    left, right = (
        next(
            path.parent
            for path in (runs / name).glob("*/config.yaml")
            if "\nseed: 0\n" in path.read_text()
        )
        for name in ("frozen", "lora")
    )
    capsys.readouterr()
    assert main(["--config-diff", str(left), str(right)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["output", str(runs / "frozen"), str(runs / "lora")] in lines
    assert ["tuning.name", "frozen", "lora"] in lines
    assert ["tuning.rank", "-", "8"] in lines
    assert {line[0].partition(".")[0] for line in lines} == {"output", "tuning"}
    assert main(["--config-diff", str(left), str(left)]) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_lists_of_one_positive_are_told_by_their_rank(words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    own = [
        "evaluation.protocol=candidates",
        "evaluation.candidates=9",
        "architecture=popularity",
        f"output={tmp_path / 'runs'}",
    ]
    floor = [word for word in words if not word.startswith(("encoder", "trainer", "opt"))]
    assert fit([*floor, *own]) == 0
    assert main([str(tmp_path / "runs"), "metric=auc", f"output={tmp_path / 'out'}"]) == 0
    got = json.loads((tmp_path / "out" / "comparison.json").read_text())
    (path,) = (tmp_path / "runs").glob("*/result.json")
    test = json.loads(path.read_text())["test"]
    for name in ("auc", "hr@5", "ndcg@5", "mrr"):
        mean = got["rows"][0]["metrics"][name]["mean"]
        assert mean == pytest.approx(test[name], abs=1e-12)


def test_values_of_a_case_are_expectations_over_equals(runs):
    """Popularity has many equals: a half rank would be wrong at the cut-off."""
    from recsys.compare.finished_runs import read_run

    (folder,) = (runs / "popularity").glob("*")
    run = read_run(folder)
    assert run.cases["ties"].max() > 0
    got = compute_per_case(run, "hr@5")
    above, tied = run.cases["rank"].to_numpy() - 1, run.cases["ties"].to_numpy() + 1
    assert got == pytest.approx(np.clip((5 - above) / tied, 0, 1), abs=1e-12)

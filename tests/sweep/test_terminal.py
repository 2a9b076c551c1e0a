"""What a sweep says at its end: verdict, keys that were set, and what fits a terminal."""

import html
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from recsys.sweep import __main__ as command
from recsys.sweep import status, terminal
from recsys.sweep.command import find_sweep
from recsys.sweep.record import read_record, write_record
from recsys.sweep.report import formatting, importance, optuna_study, page, sentences, tables
from tests.sweep import made

LR = {"optimizer.lr": 3e-4}


def instead(folder, **changes):
    """A sweep in which the learning rate of the frozen method is that of its heads."""
    sweep = made.realistic(folder, count=20)
    axes = [
        replace(axis, keys={"frozen": "optimizer.head_lr"}) if axis == made.LR else axis
        for axis in sweep.axes
    ]
    return replace(sweep, axes=tuple(axes), **changes)


def test_every_output_names_the_key_that_was_set(tmp_path, capsys):
    sweep = instead(tmp_path)
    best = sweep.find_best("frozen")
    rate = f"optimizer.head_lr {formatting.format_parameter(best.values['optimizer.lr'])}"
    status.print_status(sweep)
    printed = capsys.readouterr().out
    line = status.format_progress(sweep, best, 1, made.BEGAN)
    status_of = next(row for row in printed.splitlines() if row.startswith("best of frozen"))
    assert rate in status_of
    for text in (page.render_page(sweep), page.render_markdown(sweep)):
        assert rate in text
        assert f"frozen: {rate}" in text or f"| {rate}" in text
    for sentence in (
        *sentences.describe_choices(sweep, "learning rate"),
        *sentences.describe_sensitivity(sweep),
    ):
        if sentence.startswith("frozen: "):
            assert "optimizer.head_lr" in sentence
            assert "optimizer.lr" not in sentence
    rows = [row for row in tables.make_sensitivity_table(sweep).rows if row[1] == "frozen"]
    assert [row[0] for row in rows if "lr" in row[0]] == ["optimizer.head_lr"]
    study = optuna_study.make_study(sweep, "frozen")
    assert {name for t in study.trials for name in t.params if "lr" in name} == {
        "optimizer.head_lr"
    }
    assert {
        n for t in optuna_study.make_study(sweep, "lora").trials for n in t.params if "lr" in n
    } == {"optimizer.lr"}
    if (shares := importance.compute_importances(sweep, "frozen")) is not None:
        assert "optimizer.head_lr" in shares
    lone = replace(sweep, methods=("frozen",), trials=tuple(sweep.select_trials("frozen")))
    assert f"({rate}" in status.format_progress(lone, best, 1, made.BEGAN)
    assert line


FLOORS = {"popularity": {"ndcg@10": 0.0525}, "tfidf": {"ndcg@10": 0.0334}}


@pytest.mark.parametrize(
    ("means", "said"),
    [
        ({"lora": 0.0483, "frozen": 0.0362}, "Neither is above popularity, 5.25."),
        ({"lora": 0.06, "frozen": 0.0362}, "Only lora is above popularity, 5.25."),
        ({"lora": 0.06, "frozen": 0.07}, "Both are above the best baseline, popularity, 5.25."),
        ({"lora": 0.01}, "It is not above popularity, 5.25."),
        ({"lora": 0.03, "frozen": 0.02, "full": 0.01}, "None is above popularity, 5.25."),
    ],
)
def test_the_verdict_sets_the_methods_beside_the_baselines(tmp_path, means, said):
    trials = [made.trial(method, 0, 0.1, values=LR) for method in means]
    tests = {method: ({"ndcg@10": mean}, {"ndcg@10": mean}) for method, mean in means.items()}
    sweep = made.sweep(tmp_path, trials, tests=tests, floors=FLOORS)
    verdict = sentences.describe_verdict(sweep)
    best = max(means, key=lambda each: means[each])
    start = f"{best} is best on the test: ndcg@10 {100 * means[best]:.2f} percent (2 seeds)"
    assert verdict.startswith(start)
    assert verdict.endswith(f". {said}")
    page_text = page.render_page(sweep)
    assert f'<p class="verdict">{html.escape(verdict)}</p>' in page_text
    assert page.render_markdown(sweep).splitlines()[2] == f"**{verdict}**"
    assert [row[0] for row in tables.make_brief_table(sweep).rows][-2:] == ["popularity", "tfidf"]


@pytest.mark.parametrize("details", [False, True])
def test_the_end_of_a_sweep_fits_eighty_columns(tmp_path, details):
    command = "python -m recsys.fit experiment=lora_two_tower " + "optimizer.lr=0.001 " * 12
    commands = {method: f"{command}name={method}" for method in made.PEAKS}
    sweep = instead(tmp_path, floors=FLOORS, commands=commands)
    out = io.StringIO()
    said = ["frozen is not shown to differ from lora.", "The rest of it."]
    terminal.print_summary(sweep, said, details, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    printed = " ".join(out.getvalue().split())
    assert printed.startswith(f"{sentences.describe_verdict(sweep)} frozen is not shown")
    assert "frozen is not shown to differ from lora." in out.getvalue()
    assert ("The rest of it." in out.getvalue()) == details
    # Whole, so that it can be copied; nothing else is wider, and no column has a letter a line.
    copied = [line for line in lines if line.startswith("python -m")]
    top = sentences.find_leader(sweep)
    assert copied == (list(commands.values()) if details else [commands[top]])
    assert max(len(line) for line in lines if line not in copied) <= 80
    assert not any(line.startswith("|") or "| ---" in line for line in lines)
    assert ("Sensitivity" in out.getvalue()) == details


def test_a_failed_closing_is_marked_on_the_page(tmp_path):
    why = "Weights & Biases lacks the end of this run (x)."
    sweep = made.sweep(tmp_path, [made.trial("full", 0, 0.1, warning=why)])
    write_record(sweep)
    assert read_record(tmp_path).trials[0].warning == why
    assert html.escape(why) in page.render_page(sweep)


DAMAGE = [
    lambda node: [],
    lambda node: {**node, "finals": None},
    lambda node: {**node, "trials": [{**node["trials"][0], "objectives": ["x"]}]},
    lambda node: {**node, "trials": [{**node["trials"][0], "figures": {"train.loss": None}}]},
    lambda node: {**node, "axes": "x"},
    lambda node: {k: v for k, v in node.items() if k != "trials"},
]


@pytest.mark.parametrize("change", DAMAGE)
def test_a_damaged_record_is_told_in_a_sentence(tmp_path, change, capsys):
    write_record(made.realistic(tmp_path, count=2))
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    for what in ("status", "page"):
        assert command.main([what, str(tmp_path)]) == 2
        assert f"error: {path} is damaged; the sweep's command" in capsys.readouterr().err
    path.write_text("[" * 100_000)
    assert command.main(["status", str(tmp_path)]) == 2


def begin(folder, name):
    """The folder of a sweep that has a page to write."""
    place = folder / name
    write_record(made.realistic(place, count=2))
    (place / "command.json").write_text("[]")
    return place


def test_a_sweep_is_found_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ("smoke-00000001", "smoke-00000002", "smoke-more-00000003", "other-00000004")
    places = [begin(tmp_path / "runs", name) for name in names]
    for age, place in enumerate(places):
        os.utime(place / "command.json", (age, age))
    assert find_sweep("smoke") == Path("runs", names[1])
    assert find_sweep("smoke-more") == Path("runs", names[2])
    assert find_sweep("last") == Path("runs", names[3])
    assert find_sweep("runs/gone") == Path("runs/gone")
    assert command.main(["page", "smoke"]) == 0
    assert capsys.readouterr().out == f"page: runs/{names[1]}/report.html\n"
    assert command.main(["status", "smok"]) == 2
    assert "'smok' is neither a folder nor a sweep in runs. Did you mean 'smoke'?" in (
        capsys.readouterr().err
    )
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert command.main(["page", "other", "output=elsewhere"]) == 0
    assert capsys.readouterr().out == f"page: elsewhere/{names[3]}/report.html\n"

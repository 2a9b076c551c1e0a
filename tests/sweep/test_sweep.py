"""Sweeps with real runs, as a user types them."""

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.boards import offline_run, specification
from recsys.config.compose import compose, read_config
from recsys.fit.command import resolve
from recsys.sweep import __main__ as command
from recsys.sweep import parsing, record
from recsys.sweep.report import sentences
from recsys.sweep.running import driver, finals
from recsys.sweep.running.launcher_client import TrialLauncher

SPY = '''
import os
from dataclasses import dataclass
from recsys.tuning import lora


@dataclass
class Config(lora.Config):
    """LoRA, and a line from each process with what it was told."""


def apply(encoder, cfg):
    with open(os.environ["SPY"], "a") as file:
        file.write(f"{os.environ.get('LOCAL_RANK', '0')} {cfg.rank} {cfg.alpha}\\n")
    return lora.apply(encoder, cfg)
'''


@pytest.fixture(scope="module")
def prepared():
    """One process with the imports for all sweeps of this file."""
    with TrialLauncher(prepare=True) as launcher:
        yield launcher


@pytest.fixture
def shared(prepared, monkeypatch):
    class Shared:
        def __init__(self, prepare):
            self.prepare, self.start = prepare, prepared.start

        def __enter__(self):
            return prepared

        def __exit__(self, *_):
            """The process lives on for the next sweep."""

    monkeypatch.setattr(driver, "TrialLauncher", Shared)


def the_sweep(words):
    folder = parsing.read_definition(words).folder
    return folder, record.read_record(folder)


@pytest.mark.parametrize("name", parsing.list_sweeps())
def test_every_shipped_sweep_runs_two_trials(name, shared, shop_base, tmp_path, monkeypatch):
    monkeypatch.setattr(finals.page, "write_page", lambda sweep: sweep.folder / "report.html")
    methods = list(parsing.read_definition([f"sweep={name}"]).methods)
    picked = ["lora", "frozen"] if "frozen" in methods else methods[:2]
    words = [f"sweep={name}", *shop_base, f"output={tmp_path}", "trainer.epochs=1"]
    words += [f"trials={2 // len(picked)}", "final_seeds=0", f"methods={','.join(picked)}"]
    words = [word for word in words if word != "methods=all"]
    assert command.main(words) == 0
    _, found = the_sweep(words)
    assert [t.state for t in found.trials] == ["complete", "complete"], found.trials
    for trial in found.trials:
        run = read_config(found.folder / trial.runs[0] / "config.yaml")
        assert run.evaluation.test is False
        assert not (found.folder / trial.runs[0] / "cases.parquet").exists()


@pytest.mark.slow
def test_a_sweep_from_its_command_to_its_page(shared, shop_base, tmp_path, capsys):
    words = ["sweep=smoke", *shop_base, f"output={tmp_path}", "trainer.epochs=2", "trials=2"]
    words += ["final_seeds=1", "pruner=none", "tracking.wandb=offline"]
    assert command.main(words) == 0
    said = capsys.readouterr().out
    folder, found = the_sweep(words)
    _check_wandb(folder, found)
    _check_commands(found, said)
    assert "trial 4 of 4" in said
    assert (folder / "report.html").stat().st_size > 1_000_000
    assert (folder / "comparison" / "report.html").is_file()
    for method in ("lora", "frozen"):
        best = found.find_best(method)
        (run,) = found.finals[method]
        result = json.loads((folder / run / "result.json").read_text())
        test = {name: value for name, value in result["test"].items() if value is not None}
        assert found.tests[method][0] == test
        # As many steps as the trial's best validation says, with a seed that no trial had.
        assert result["validation"]["steps"] == best.figures["validation.step"]
        assert read_config(folder / run / "config.yaml").seed == 1
        trial = json.loads((folder / best.runs[0] / "result.json").read_text())
        assert best.objectives == (trial["validation"]["best"],)
        assert "test" not in trial
    capsys.readouterr()
    assert command.main(["status", str(folder)]) == 0
    assert "lora" in capsys.readouterr().out


def _check_wandb(folder, sweep):
    """Every run reached its end at Weights & Biases, with each key that is plotted."""
    plan = specification.read_board(folder)
    trials = [offline_run.read_logged_run(folder / trial.runs[0]) for trial in sweep.trials]
    tested = [
        offline_run.read_logged_run(folder / run) for runs in sweep.finals.values() for run in runs
    ]
    assert len(trials) == 4
    assert [run.exit for run in (*trials, *tested)] == [0] * 6
    names = [f"{trial.method} #{trial.number}" for trial in sweep.trials]
    assert [(run.name, run.kind) for run in trials] == [(name, "trial") for name in names]
    assert {run.kind for run in tested} == {"closing"}
    assert {run.name for run in tested} == {"lora best, seed 1", "frozen best, seed 1"}
    for trial, run in zip(sweep.trials, trials, strict=True):
        assert run.config["method"] == trial.method
        assert run.config["searched.optimizer.lr"] == trial.values["optimizer.lr"]
        assert run.summary["validation/best"] == trial.objectives[0]
        assert "closing table" in run.summary
    panels = {section.title: section.panels for section in plan.sections}
    for title, runs in {
        "Which method, which values": trials,
        "Cost": trials,
        "Tested, beside the baselines": tested,
    }.items():
        keys = {key for panel in panels[title] for key in panel.keys}
        assert keys
        shared = {key for key in keys if "rank" not in key.name}  # LoRA's alone
        for run in runs:
            assert [key for key in shared if not specification.has_key(run, key)] == []
    first = panels["Which method, which values"][0]
    assert (first.kind, first.by, first.pick) == ("bar", "method", "max")
    curves = {key.name for panel in panels["Learning curves"] for key in panel.keys}
    assert {"val/ndcg@10", "train/loss"} <= curves
    (tests,) = panels["Tested, beside the baselines"]
    assert [key.name for key in tests.keys] == [
        *("test/ndcg@10", "baseline/popularity/ndcg@10", "baseline/tfidf/ndcg@10"),
        "baseline/zero-shot/ndcg@10",
    ]


def _check_commands(sweep, said):
    """What is printed trains the same configuration again, and is tested."""
    assert sweep.commands[sentences.find_leader(sweep)] in said
    for method, line in sweep.commands.items():
        python, flag, module, *words = shlex.split(line)
        assert (python, flag, module) == ("python", "-m", "recsys.fit")
        best = read_config(sweep.folder / sweep.find_best(method).runs[0] / "config.yaml")
        again = resolve(compose(words))
        assert again.evaluation.test
        again.evaluation.test, again.output, again.tracking = False, best.output, best.tracking
        assert again == best


@pytest.mark.slow
def test_the_password_of_a_database_lies_in_no_file_of_a_sweep(postgres, shop_base, tmp_path):
    words = ["sweep=smoke", *shop_base, f"output={tmp_path / 'runs'}", "trainer.epochs=1"]
    words += ["methods=frozen", "trials=1", "final_seeds=1", "tracking.wandb=offline"]
    words.append(f"storage={postgres}")
    command_line = [sys.executable, "-m", "recsys.sweep", *words]
    with (tmp_path / "said.txt").open("w") as said:
        assert subprocess.run(command_line, stdout=said, stderr=said, check=False).returncode == 0
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    # A trial, a closing run and the summary; the password is se{cret}%, as a URL has it or plain.
    assert len([path for path in found if path.suffix == ".wandb"]) == 3
    secret = re.compile(rb"se({|%7b)cret", re.IGNORECASE)
    assert [path for path in found if secret.search(path.read_bytes())] == []


@pytest.mark.slow
def test_ranks_of_a_trial_see_the_values_that_were_suggested_once(shop_base, tmp_path, monkeypatch):
    (tmp_path / "spying").mkdir()
    (tmp_path / "spying" / "own.py").write_text(SPY)
    (tmp_path / "spying" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    root = Path(command.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    monkeypatch.setenv("SPY", str(tmp_path / "told.txt"))
    (tmp_path / "two.yaml").write_text(
        "experiment: lora_two_tower\nwith: {tuning: spying.own}\nfinal_seeds: 0\n"
        "space:\n  tuning.rank: {low: 1, high: 32}\n  tuning.alpha: {low: 1.0, high: 99.0}\n"
        "sampler: random\nbudget: {trials: 1}\n"
    )
    words = [f"sweep={tmp_path / 'two.yaml'}", *shop_base, f"output={tmp_path}"]
    words += ["trainer.epochs=1", "trainer.devices=2", "trainer.batch_size=16"]
    assert command.main(words) == 0
    _, found = the_sweep(words)
    (trial,) = found.trials
    assert trial.state == "complete", trial
    told = sorted((tmp_path / "told.txt").read_text().split("\n")[:-1])
    values = f"{trial.values['tuning.rank']} {trial.values['tuning.alpha']}"
    assert told == [f"0 {values}", f"1 {values}"]
    assert len(list((found.folder / "trials").rglob("config.yaml"))) == 1
    (log,) = (found.folder / "trials").rglob("metrics.csv")
    assert list(csv.DictReader(log.open()))

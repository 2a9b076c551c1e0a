"""Sweeps with real runs, as a user types them."""

import csv
import json
from pathlib import Path

import pytest

from recsys import sweep as command
from recsys.config import stored
from recsys.sweeps import driver, finals, reading, record
from recsys.sweeps.launch import Launcher

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
    with Launcher(prepare=True) as launcher:
        yield launcher


@pytest.fixture
def shared(prepared, monkeypatch):
    class Shared:
        def __init__(self, prepare):
            self.prepare = prepare

        def __enter__(self):
            return prepared

        def __exit__(self, *_):
            """The process lives on for the next sweep."""

    monkeypatch.setattr(driver, "Launcher", Shared)


def the_sweep(words):
    folder = reading.read(words).folder
    return folder, record.load(folder)


@pytest.mark.parametrize("name", reading.names())
def test_every_shipped_sweep_runs_two_trials(name, shared, shop_base, tmp_path, monkeypatch):
    monkeypatch.setattr(finals.page, "write", lambda sweep: sweep.folder / "report.html")
    methods = list(reading.read([f"sweep={name}"]).methods)
    picked = ["lora", "frozen"] if "frozen" in methods else methods[:2]
    words = [f"sweep={name}", *shop_base, f"output={tmp_path}", "trainer.epochs=1"]
    words += [f"trials={2 // len(picked)}", "final_seeds=0", f"methods={','.join(picked)}"]
    words = [word for word in words if word != "methods=all"]
    assert command.main(words) == 0
    _, found = the_sweep(words)
    assert [t.state for t in found.trials] == ["complete", "complete"], found.trials
    for trial in found.trials:
        run = stored(found.folder / trial.runs[0] / "config.yaml")
        assert run.evaluation.test is False
        assert not (found.folder / trial.runs[0] / "cases.parquet").exists()


def test_a_sweep_from_its_command_to_its_page(shared, shop_base, tmp_path, capsys):
    words = ["sweep=smoke", *shop_base, f"output={tmp_path}", "trainer.epochs=2", "trials=2"]
    words += ["final_seeds=1", "pruner=none"]
    assert command.main(words) == 0
    said = capsys.readouterr().out
    folder, found = the_sweep(words)
    assert "trial 4 of 4" in said
    assert (folder / "report.html").stat().st_size > 1_000_000
    assert (folder / "comparison" / "report.html").is_file()
    for method in ("lora", "frozen"):
        best = found.best(method)
        (run,) = found.finals[method]
        result = json.loads((folder / run / "result.json").read_text())
        assert found.tests[method][0] == result["test"]
        # As many steps as the trial's best validation says, with a seed that no trial had.
        assert result["validation"]["steps"] == best.figures["validation.step"]
        assert stored(folder / run / "config.yaml").seed == 1
        trial = json.loads((folder / best.runs[0] / "result.json").read_text())
        assert best.objectives == (trial["validation"]["best"],)
        assert "test" not in trial
    capsys.readouterr()
    assert command.main(["status", str(folder)]) == 0
    assert "lora" in capsys.readouterr().out


def test_ranks_of_a_trial_see_the_values_that_were_suggested_once(shop_base, tmp_path, monkeypatch):
    (tmp_path / "spying").mkdir()
    (tmp_path / "spying" / "own.py").write_text(SPY)
    (tmp_path / "spying" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    root = Path(command.__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    monkeypatch.setenv("SPY", str(tmp_path / "told.txt"))
    (tmp_path / "two.yaml").write_text(
        "experiment: lora_two_tower\nwith: {tuning: spying.own}\nfinal_seeds: 0\n"
        "space:\n  tuning.rank: {low: 1, high: 1000}\n  tuning.alpha: {low: 1.0, high: 99.0}\n"
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

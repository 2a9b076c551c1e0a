"""What does not train runs without a Trainer, and leaves all that a run leaves."""

import csv
import json
import math
import subprocess
import sys

import pytest

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.errors import ConfigError
from recsys.fit.__main__ import main

HEAVY = ("lightning", "torchmetrics", "transformers", "peft")

RUN = f"""
import sys
from recsys.fit.__main__ import main
code = main(sys.argv[1:])
loaded = {{name.partition(".")[0] for name in sys.modules}}
print("loaded:", *sorted(loaded & set({HEAVY!r})))
raise SystemExit(code)
"""

KEYS = {"test", "floors", "slices", "beyond", "validation", "train", "protocol", "cost", "data"}
KEYS |= {"versions", "code", "notes"}
COST = {"trained_parameters", "parameters", "texts", "tokens", "train_flops", "train_seconds"}
COST |= {"seconds", "cpu_seconds", "startup_seconds", "startup_cpu_seconds", "method_seconds"}
COST |= {"method_cpu_seconds", "kept_seconds", "kept_cpu_seconds", "anonymous_peak_mb_sampled"}
COST |= {"largest_rank_peak_mb_sampled", "ranks", "devices", "resumes"}


def read_only(tmp_path):
    (folder,) = (tmp_path / "runs").iterdir()
    return folder, json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("experiment", ["popularity", "ease"])
def test_lightning_is_not_imported_and_the_result_is_whole(shop_words, tmp_path, experiment):
    words = [w for w in shop_words if not w.startswith(("tuning", "objective"))]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words, f"experiment={experiment}"],
        capture_output=True,
        text=True,
        env={"PATH": "", "RECSYS_CACHE": str(tmp_path / "cache"), "WANDB_MODE": "disabled"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
    folder, result = read_only(tmp_path)
    assert {p.name for p in folder.iterdir()} == {
        *("config.yaml", "start.json", "log", "result.json", "cases.parquet", "catalog.parquet")
    }
    assert set(result) == KEYS
    assert set(result["cost"]) == COST
    assert result["train"] == {"loss": None, "distance": {}}
    assert result["validation"]["metrics"] == {}
    assert (result["cost"]["trained_parameters"], result["cost"]["ranks"]) == (0, 1)
    (row,) = csv.DictReader((folder / "log" / "metrics.csv").open())
    assert row["step"] == "0"
    logged = {k.removeprefix("test/"): float(v) for k, v in row.items() if k != "step"}
    assert logged.keys() == result["test"].keys()
    for name, value in result["test"].items():
        exact = math.nan if value is None else value
        assert logged[name] == pytest.approx(exact, rel=1e-6, nan_ok=True)  # single precision


def test_its_figures_are_those_that_stand_beside_a_run_that_trains(shop_words, tmp_path):
    assert main([*shop_words, "trainer.max_steps=0", f"output={tmp_path / 'trains'}"]) == 0
    assert main([*shop_words, "experiment=popularity"]) == 0
    _, own = read_only(tmp_path)
    beside = json.loads(next((tmp_path / "trains").glob("*/result.json")).read_text())
    assert own["test"] == beside["floors"]["popularity"]


def test_without_a_test_the_validation_is_its_figure(shop_words, tmp_path, capsys):
    assert main([*shop_words, "experiment=popularity", "evaluation.test=false"]) == 0
    folder, result = read_only(tmp_path)
    found = result["validation"]
    assert "test" not in result
    assert found["best"] == found["start"] == found["last"] == found["metrics"]["ndcg@10"]
    (line,) = (folder / "validations.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 0, "epoch": 0.0, "value": found["best"], "seconds": 0.0}
    (row,) = csv.DictReader((folder / "log" / "metrics.csv").open())
    assert float(row["val/ndcg@10"]) == pytest.approx(found["best"], rel=1e-6)
    assert f"start  val ndcg@10 {100 * found['best']:.2f}" in capsys.readouterr().out


def test_several_devices_are_one_for_what_does_not_train(shop_words, tmp_path, capsys):
    assert main([*shop_words, "experiment=popularity", "trainer.devices=2"]) == 0
    _, result = read_only(tmp_path)
    assert (result["cost"]["devices"], result["cost"]["ranks"]) == (1, 1)
    assert "trainer.devices=2 changes nothing: popularity does not train" in capsys.readouterr().err


def test_a_model_that_cannot_train_is_refused_where_its_config_says_it_trains(
    shop_words, tmp_path, monkeypatch
):
    (tmp_path / "still_pkg").mkdir()
    (tmp_path / "still_pkg" / "model.py").write_text(
        "from dataclasses import dataclass\n"
        "from recsys.architectures import two_tower\n"
        "from recsys.models.popularity import Model as Popularity\n"
        "from recsys.architectures import popularity\n"
        "@dataclass\n"
        "class Config(two_tower.Config):\n    '''Options.'''\n"
        "class Model(Popularity):\n"
        "    def __init__(self, parts, config):\n"
        "        super().__init__(parts, popularity.Config())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"still_pkg\.model: its Config has trains=True"):
        build.assemble(compose([*shop_words, "architecture=still_pkg.model"]))

"""Trials as jobs of SLURM, on a stand-in for its commands."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsys.config.groups import TrainerOptions
from recsys.errors import ConfigError
from recsys.sweep import __main__ as command
from recsys.sweep import parsing
from recsys.sweep.running import slurm_launcher
from recsys.testing.shop import make_shop_words
from tests.sweep.running import cluster
from tests.sweep.running.test_driver import calls, drive, play

__all__ = ["play"]

pytest.importorskip("submitit")

SPACE = """
experiment: lora_two_tower
with: {trainer.epochs: 3}
space:
  optimizer.lr: {low: 1e-5, high: 1e-1, log: true}
sampler: sobol
budget: {trials: 3}
final_seeds: 1
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of a stand-in cluster, whose commands are found."""
    root = tmp_path / "cluster"
    root.mkdir()
    monkeypatch.setenv("CLUSTER", str(root))
    monkeypatch.setenv("PATH", cluster.install(tmp_path / "bin"))
    monkeypatch.setattr(slurm_launcher, "PACE", 0.2)
    yield root
    for path in root.glob("*.json"):
        cluster.kill_group(json.loads(path.read_text())["pid"])


@pytest.mark.slow
def test_a_sweep_whose_trials_are_jobs(slurm, play, tmp_path):
    words = play(SPACE, {"0001": "killed once", "0002": "nan"})
    words += ["launcher=slurm", "workers=2", "slurm={partition: gpu, time: 90, mem: 4GB}"]
    found, code, lines = drive(words)
    assert code == 0, lines
    assert [trial.state for trial in found.trials].count("complete") == 2, found.trials
    reasons = sorted(trial.reason for trial in found.trials if trial.state == "failed")
    assert "not finite" in reasons[0]
    assert "signal 9" in reasons[1]
    assert len(reasons) == 2
    scripts = sorted(found.folder.glob("jobs/*/*_submission.sh"))
    assert len(scripts) == len(calls(tmp_path)), "each run is a job, closing ones too"
    text = scripts[0].read_text()
    for line in ("--partition=gpu", "--time=90", "--mem=4GB", "--nodes=1", "--ntasks-per-node=1"):
        assert f"#SBATCH {line}" in text
    assert found.find_best("all") is not None


def wait_for(condition, limit=120):
    until = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
def test_a_driver_that_is_stopped_has_its_jobs_save_and_leave(slurm, play, tmp_path):
    words = [*play(SPACE, {"0000": "slow"}), "launcher=slurm"]
    driver = subprocess.Popen(
        [sys.executable, str(tmp_path / "outside.py"), *words],
        stdout=(tmp_path / "driver.log").open("a"),
        stderr=subprocess.STDOUT,
    )
    folder = parsing.read_definition(words).folder
    wait_for(lambda: list(folder.glob("**/pids")))
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=120) == 128 + signal.SIGTERM, (tmp_path / "driver.log").read_text()
    (saved,) = folder.glob("**/saved")
    assert saved.read_text() == "state"
    assert not any(
        cluster.is_alive(json.loads(path.read_text())["pid"]) for path in slurm.glob("*.json")
    )


@pytest.mark.slow
def test_a_trial_whose_time_is_over_goes_on_in_the_same_job(
    slurm, shop, tiny_bert, tmp_path, monkeypatch
):
    """The real command: submitit's SIGUSR2 has the run save, and scontrol queue its job again."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    (tmp_path / "made.yaml").write_text(SPACE.replace("trials: 3", "trials: 1"))
    words = [f"sweep={tmp_path / 'made.yaml'}", *make_shop_words(shop, tiny_bert)]
    words += [f"output={tmp_path / 'runs'}", "launcher=slurm", "final_seeds=0"]
    words += ["trainer.epochs=40", "checkpoint.every_minutes=0", "tracking.wandb=off"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "recsys.sweep", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: list((tmp_path / "runs").glob("**/checkpoints/last.ckpt")), limit=300)
    subprocess.run(["scancel", "--signal=USR2", "100"], check=True)
    out, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, out
    assert (slurm / "scontrol.log").read_text() == "requeue 100\n"
    (result,) = (tmp_path / "runs").glob("**/result.json")
    assert json.loads(result.read_text())["cost"]["resumes"] == 1


@pytest.mark.slow
def test_the_batch_file_of_the_page_trains_on_two_nodes(
    slurm, shop, tiny_bert, tmp_path, monkeypatch
):
    """As it stands, but for the shop, a process a node, and where things lie."""
    page = (Path(__file__).parents[3] / "docs" / "machines.md").read_text()
    (script,) = re.findall(r"```text\n(#!/bin/bash\n.*?)```", page, re.DOTALL)
    words = [*make_shop_words(shop, tiny_bert), "tracking.wandb=off", "trainer.accelerator=cpu"]
    changes = {
        "--ntasks-per-node=4": "--ntasks-per-node=1",
        "/shared/recsys-cache": str(tmp_path / "cache"),
        "output=/shared/runs": shlex.join([f"output={tmp_path / 'runs'}", *words]),
        "python -m": f"{sys.executable} -m",
    }
    for old, new in changes.items():
        assert old in script
        script = script.replace(old, new)
    (tmp_path / "job.sh").write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    done = subprocess.run(
        ["sbatch", str(tmp_path / "job.sh")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "Submitted batch job 100\n"
    wait_for(lambda: not cluster.is_alive(json.loads((slurm / "100.json").read_text())["pid"]), 400)
    printed = (slurm / "100.out").read_text()
    assert "on: 2 nodes x 1 x cpu" in printed
    assert printed.count("result: ") == 1
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "job.json").read_text())["slurm_job"] == "100"


def test_what_cannot_be_submitted_is_refused(play, tmp_path, capsys, monkeypatch):
    words = play(SPACE)
    assert command.main([*words, "slurm={time: 5}"]) == 2
    assert "slurm= describes jobs of launcher=slurm" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.main([*words, "launcher=slurm"]) == 2
    assert "there is no sbatch on this machine" in capsys.readouterr().err
    monkeypatch.setenv("PATH", cluster.install(tmp_path / "bin"))
    for value, part in (
        ("{partitoin: gpu}", "'partitoin' is no parameter"),
        ("{nodes: 2}", "slurm.nodes follows from"),
    ):
        assert command.main([*words, "launcher=slurm", f"slurm={value}"]) == 2
        assert part in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_without_submitit_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install 'recsys\[slurm\]'"):
        slurm_launcher.check_slurm({})


def test_a_job_that_is_gone_without_a_result_was_ended_from_outside(slurm, tmp_path):
    launcher = slurm_launcher.SlurmLauncher(tmp_path / "jobs", {"time": 5})
    with launcher:
        trial = launcher.start(["x=1"], tmp_path / "log.txt", "http.server", TrainerOptions())
        assert trial.poll() is None
        subprocess.run(["scancel", "100"], check=True)
        assert trial.wait(30) == -signal.SIGKILL

"""What the commands do, as calls that return what they made."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

import recsys
from recsys.config.yaml_file import parse_word, write_words
from recsys.errors import ConfigError, DataError, RecsysError, make_error
from recsys.fit.__main__ import main as fit


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def test_no_public_name_is_that_of_a_module():
    inside = {path.stem for path in Path(recsys.__file__).parent.iterdir()}
    assert not inside & set(recsys.__all__)
    assert set(recsys.__all__) <= set(dir(recsys))


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 3e-4, 1e-5, "a b", "'{name}'", "{title}", "null", "007", [1, "a"], {"a": None}],
)
def test_a_keyword_is_the_word_that_the_command_reads(value):
    (word,) = write_words([], {"some.key": value})
    assert word.startswith("some.key=")
    found = parse_word(word.partition("=")[2])
    assert found == value
    assert type(found) is type(value)


def test_train_does_what_the_command_does(shop_words, tmp_path, capsys):
    keys = {"trainer.max_steps": 3, "tuning": "lora", "tuning.rank": 2, "optimizer.lr": 0.01}
    words = [word for word in shop_words if not word.startswith("optimizer")]
    run = recsys.train(*words, **keys)
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == f"run: {run.folder}"
    assert f"result: {run.folder}" in said.out
    assert run.config.tuning.rank == 2
    written = json.loads((run.folder / "result.json").read_text())["test"]
    assert run.metrics == pytest.approx(
        {k: math.nan if v is None else v for k, v in written.items()}, nan_ok=True
    )
    assert fit([*words, *write_words([], keys), f"output={tmp_path / 'other'}"]) == 0
    (other,) = (tmp_path / "other").iterdir()
    one, two = (load_file(f / "checkpoints/best.safetensors") for f in (run.folder, other))
    assert one.keys() == two.keys()
    assert all(one[name].equal(two[name]) for name in one)


def test_a_program_of_torchrun_is_refused(shop_words, monkeypatch):
    own = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="torchrun has started 2 processes of this program"):
        recsys.train(*shop_words, experiment="popularity")


@pytest.mark.slow
def test_two_ranks_start_from_a_call(shop_words, tmp_path, capsys):
    words = [*shop_words, "tuning=frozen", "trainer.epochs=1", "trainer.threads=1"]
    run = recsys.train(*words, **{"trainer.devices": 2})
    assert run.result["cost"]["devices"] == run.result["cost"]["ranks"] == 2
    said = capsys.readouterr().out
    assert said.count("result: ") == said.count("run: ") == 1
    with pytest.raises(ConfigError, match=r"^tuning\.rank is 99; set it from 1 to 32"):
        recsys.train(*words, **{"trainer.devices": 2, "tuning": "lora", "tuning.rank": 99})
    assert "error: tuning.rank is 99" in capsys.readouterr().err


@pytest.mark.slow
def test_seeds_come_back_together_and_go_on(shop_words, tmp_path, capsys):
    seeds = recsys.train(*shop_words, "architecture=popularity", seeds=2)
    assert list(seeds.runs) == [0, 1]
    assert seeds.metrics == pytest.approx(seeds.runs[1].metrics, nan_ok=True)
    assert seeds.spread["ndcg@10"] == 0
    assert "<th>seed 1</th>" in seeds._repr_html_()
    assert f"seeds: {seeds.folder}" in capsys.readouterr().out
    again = recsys.train(resume=seeds.folder)
    assert again.folder == seeds.folder
    assert [run.folder for run in again.runs.values()] == [r.folder for r in seeds.runs.values()]
    result = recsys.compare_runs(
        seeds.folder, output=tmp_path / "report", slices=["cold", "history"]
    )
    assert result.folder == tmp_path / "report"
    assert (result.folder / "report.html").is_file()
    assert result.comparison.question.slices == ("cold", "history")
    assert result.verdict in capsys.readouterr().out.replace("\n", " ")
    assert "popularity" in result._repr_html_()


@pytest.mark.slow
def test_a_sweep_comes_back_with_what_it_found(shop_words, tmp_path, capsys):
    (tmp_path / "own.yaml").write_text(
        "experiment: lora_two_tower\nmethods:\n  lora: {}\n  frozen: {tuning: frozen}\n"
        "  full: {tuning: full}\nspace:\n  optimizer.lr: {low: 0.001, high: 0.1, log: true}\n"
        "budget: {trials: 1}\nsampler: random\nfinal_seeds: 1\n"
    )
    keys = {"trainer.epochs": 1, "methods": ["lora", "frozen"]}
    result = recsys.run_sweep(*shop_words, sweep=tmp_path / "own.yaml", **keys)
    assert f"sweep: {result.folder}" in capsys.readouterr().out
    assert list(result.sweep.methods) == list(result.metrics) == ["lora", "frozen"]
    assert 0 <= result.metrics["lora"]["ndcg@10"] <= 1
    assert "optimizer.lr=" in result.commands["lora"]
    assert "frozen" in result._repr_html_()
    assert recsys.run_sweep(resume=result.folder).sweep.trials == result.sweep.trials


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: recsys.train("optimizer.lrr=1"), "Did you mean 'lr'"),
        (lambda: recsys.train(experiment="lora_two_towr"), "Did you mean 'lora_two_tower'"),
        (lambda: recsys.train("--print-config"), "is a flag of the command"),
        (lambda: recsys.train(3), "3 is no word"),
        (lambda: recsys.train(resume="nowhere"), "nowhere/config.yaml is missing"),
        (lambda: recsys.compare_runs("nowhere"), "nowhere"),
        (lambda: recsys.run_sweep(sweep="smok"), "Did you mean 'smoke'"),
        (lambda: recsys.load("nowhere"), "nowhere/config.yaml is missing"),
    ],
)
def test_a_mistake_raises_an_error_and_ends_nothing(call, said):
    with pytest.raises(ConfigError, match=said):
        call()


def test_an_error_of_another_process_is_of_its_kind():
    assert type(make_error(3, "x")).__name__ == "DivergenceError"
    assert type(make_error(2, "x")) is ConfigError
    assert type(make_error(1, "x")) is RecsysError
    assert isinstance(make_error(5, "x"), DataError)


INTERRUPTED = """
import sys
import recsys
try:
    recsys.train(*sys.argv[1:])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_an_interruption_saves_the_state_and_reaches_the_notebook(shop_words, tmp_path, devices):
    words = [*shop_words, "tuning=lora", f"trainer.devices={devices}", "trainer.threads=1"]
    words += ["trainer.epochs=3000", "checkpoint.every_minutes=0.001"]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    killer = threading.Timer(240, process.kill)
    killer.start()
    while not list((tmp_path / "runs").glob("*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate()
    killer.cancel()
    assert process.returncode == 0, errors
    assert said.splitlines()[-1] == "interrupted"
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"stopped by SIGINT; go on with: python -m recsys.fit resume={folder}" in errors

"""What a kill, a full disk or a hand has done to a run's folder: mended, or told in a sentence."""

import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from recsys.boards import offline_run
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommend.__main__ import main as recommend
from recsys.runtime.files import remove_temporary_files, write_atomic
from recsys.tracking import wandb_run
from recsys.tracking.wandb_files import list_files, read_last_step
from recsys.tracking.wandb_run import keep_order
from recsys.training.resume import AtomicCheckpointIO
from tests.fit.test_resume import Crash, break_at, crash, only, outcome, straight, terminate, words
from tests.sweep.running.test_trial_ends import at_step, not_a_number

__all__ = ["words"]  # a fixture


@pytest.fixture
def stopped(words, tmp_path, monkeypatch):
    """A run that was stopped after its third step."""
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 3, terminate)
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    return only(tmp_path)


@pytest.fixture
def finished(words, tmp_path):
    assert main([*words, "trainer.epochs=1", f"output={tmp_path / 'runs'}"]) == 0
    return only(tmp_path)


def told(capsys):
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (line,) = (line for line in error.splitlines() if line.startswith("error: "))
    return line


@pytest.mark.parametrize(
    ("file", "content", "remedy"),
    [
        ("checkpoints/last.ckpt", b"", "delete it"),
        ("checkpoints/last.ckpt", b"PK\x03\x04 cut", "delete it"),
        ("log/metrics.csv", b"stop,loss\n1,2\n", "move the file away"),
        ("log/metrics.csv", b"step,train/loss\n1,2\nx,\xff\n", "move the file away"),
        ("validations.jsonl", b'{"step": "a"}\n', "delete the file"),
        ("validations.jsonl", b"[1]\n", "delete the file"),
    ],
)
def test_a_damaged_file_of_a_stopped_run_is_a_sentence(stopped, capsys, file, content, remedy):
    (stopped / file).write_bytes(content)
    capsys.readouterr()
    assert main([f"resume={stopped}"]) == 2
    line = told(capsys)
    assert str(stopped / file) in line
    assert remedy in line


def test_a_run_whose_state_was_deleted_trains_from_its_beginning(words, stopped, tmp_path):
    expected = straight(words, tmp_path)
    (stopped / "checkpoints" / "last.ckpt").unlink()
    assert main([f"resume={stopped}"]) == 0
    assert outcome(stopped) == expected


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda v: v[:1], "has the shape"),
        (lambda v: v.to(torch.int8), "holds int8 in place of float32"),
        (lambda v: v * float("nan"), "not finite"),
    ],
    ids=["shape", "kind", "nan"],
)
def test_weights_that_do_not_fit_are_refused_and_not_stretched(finished, capsys, change, part):
    path = finished / "checkpoints" / "best.safetensors"
    state = load_file(path)
    name = max(state, key=lambda key: state[key].ndim)
    save_file(state | {name: change(state[name]).contiguous()}, path)
    capsys.readouterr()
    assert recommend([f"run={finished}", "user=u1"]) == 2
    line = told(capsys)
    assert f"'{name}'" in line
    assert part in line


def test_cut_weights_are_a_sentence(finished, capsys):
    path = finished / "checkpoints" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert recommend([f"run={finished}", "user=u1"]) == 2
    assert "missing or damaged; run fit again" in told(capsys)


def test_a_configuration_that_was_edited_is_refused(stopped, capsys):
    path = stopped / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("lr: 0.01", "lr: 0.02"))
    capsys.readouterr()
    assert main([f"resume={stopped}"]) == 2
    assert "has changed since the run began" in told(capsys)
    path.write_text(text)
    assert main([f"resume={stopped}"]) == 0


def test_a_kill_right_after_a_checkpoint_loses_no_row_of_the_log(words, tmp_path, monkeypatch):
    words = [*words, "checkpoint.every_minutes=0"]
    expected = straight(words, tmp_path)
    write, calls = AtomicCheckpointIO.save_checkpoint, []

    def save(self, checkpoint, path, storage_options=None):
        write(self, checkpoint, path, storage_options)
        calls.append(path)
        if len(calls) == 5:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", save)
        with pytest.raises(Crash):
            main([*words, f"output={tmp_path / 'runs'}"])
    assert main([f"resume={only(tmp_path)}"]) == 0
    assert outcome(only(tmp_path)) == expected


def test_what_killed_writers_left_goes_when_the_run_goes_on(stopped, tmp_path):
    half = stopped / "checkpoints" / f".last.ckpt.{'a' * 32}.tmp"
    half.write_bytes(b"half a state")
    own = stopped / ".notes.tmp"
    own.write_text("of the user")
    assert main([f"resume={stopped}"]) == 0
    assert not half.exists()
    assert own.read_text() == "of the user"


def test_files_that_are_whole_are_no_leftovers(tmp_path):
    write_atomic(tmp_path / "a" / "x.json", "{}")
    remove_temporary_files(tmp_path)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.json"]


KILLED = """
import json, os, signal, sys
from recsys.fit.__main__ import main
from recsys.recommender.trainable import TrainableRecommender
step, calls = TrainableRecommender.training_step, []

def killed(self, batch, batch_idx):
    calls.append(batch_idx)
    if len(calls) == 6:
        os.killpg(0, signal.SIGKILL)
    return step(self, batch, batch_idx)

TrainableRecommender.training_step = killed
main(json.loads(sys.argv[1]))
"""


@pytest.mark.slow
def test_rows_that_a_kill_took_from_weights_and_biases_are_sent_again(words, tmp_path, monkeypatch):
    words = [w for w in words if not w.startswith(("tracking.", "trainer.epochs"))]
    words += ["tracking.wandb=offline", "trainer.epochs=2", "checkpoint.every_minutes=0"]
    command = [sys.executable, "-c", KILLED, json.dumps([*words, f"output={tmp_path / 'runs'}"])]
    ended = subprocess.run(command, start_new_session=True, check=False, timeout=200)
    assert ended.returncode == -signal.SIGKILL
    folder = only(tmp_path)
    name = offline_run.read_run_id(folder)
    assert read_last_step(folder, name) < 5, "the test needs rows that were lost"
    assert main([f"resume={folder}"]) == 0
    rows = [row for row in offline_run.read_logged_run(folder).history if "train/loss" in row]
    log = pl.read_csv(folder / "log" / "metrics.csv").drop_nulls("train/loss")
    assert [row["_step"] for row in rows] == log["step"].to_list() == list(range(1, 15))
    assert [row["train/loss"] for row in rows] == pytest.approx(log["train/loss"].to_list())
    values = [
        row["val/ndcg@10"]
        for row in offline_run.read_logged_run(folder).history
        if "val/ndcg@10" in row
    ]
    assert len(values) == 3


def test_files_of_the_future_are_sent_before_what_comes_next(tmp_path, monkeypatch):
    base = datetime.now()

    def attempt(begun):
        stamp = begun.strftime(wandb_run.STAMP)
        folder = tmp_path / "wandb" / f"offline-run-{stamp}-abc"
        folder.mkdir(parents=True)
        (folder / "run-abc.wandb").write_text(begun.isoformat())

    begun = [base - timedelta(days=1), base + timedelta(hours=1), base + timedelta(hours=2)]
    for one in begun:
        attempt(one)
    keep_order(tmp_path, "abc")
    attempt(datetime.now())
    found = list_files(tmp_path, "abc")
    assert [path.read_text() for path in found][:3] == [one.isoformat() for one in begun]
    assert found[-1].parent.name.split("-")[2] >= base.strftime(wandb_run.STAMP)


@pytest.mark.parametrize(
    ("environment", "words_more", "part"),
    [
        ({"WORLD_SIZE": "abc"}, [], "WORLD_SIZE is 'abc'"),
        ({"WORLD_SIZE": "9" * 5000}, [], "WORLD_SIZE is"),
        ({"WANDB_MODE": "Disabled"}, ["tracking.wandb=auto"], "Did you mean 'disabled'"),
        ({}, ["optimizer.lr=inf"], "optimizer.lr is inf; set it to a finite number"),
        ({}, ["regularization.weight_decay=inf"], "weight_decay is inf"),
        ({}, ["checkpoint.every_minutes=nan"], "every_minutes is nan"),
        ({}, ["tuning=lora", "tuning.rank=100000000"], "tuning.rank is 100000000"),
        ({}, ["tuning=adapter", "tuning.width=100000000"], "tuning.width is 100000000"),
        ({}, ["architecture.hidden=0"], "architecture.hidden is 0"),
        ({}, ["seed=4294967295", "seeds=2"], "seed is 4294967296"),
        ({}, [f"seeds={'9' * 5000}"], "from 1 to 10000"),
        ({}, ["seeds=²"], "from 1 to 10000"),
        ({}, ["data.max_history=99999999999999999999"], "set it to 2147483647 or less"),
        ({}, ["evaluation.k=[99999999999999999999]"], "whole numbers from 1"),
    ],
)
def test_nonsense_is_refused_before_anything_trains(
    words, tmp_path, capsys, monkeypatch, environment, words_more, part
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 1, crash)
        assert main([*words, *words_more, f"output={tmp_path / 'runs'}"]) == 2
    assert part in told(capsys)


def test_a_loss_that_was_never_a_number_blames_no_learning_rate(
    words, tmp_path, capsys, monkeypatch
):
    at_step(monkeypatch, 1, not_a_number)
    assert main([*words, f"output={tmp_path / 'runs'}"]) == 3
    line = told(capsys)
    assert "before any weight was trained" in line
    assert "lower optimizer.lr" not in line


def test_a_result_is_json_that_any_reader_takes(finished):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = (finished / "result.json").read_text()
    result = json.loads(text, parse_constant=refuse)
    assert result["test"]["cold/ndcg@10"] is None, "the shop has no cold case"
    assert os.path.getsize(finished / "result.json") == len(text.encode())


@pytest.mark.parametrize("count", ["²", "٣", "9" * 5000, "1.5", "0", ""])
def test_a_count_that_is_none_is_told(finished, capsys, count):
    capsys.readouterr()
    assert recommend([f"run={finished}", "user=u1", f"k={count}"]) == 2
    assert "give a whole number from 1" in told(capsys)


def test_the_ranks_of_another_launcher_are_counted_in_numbers_only():
    from recsys.runtime.launching.launches import read_env_number

    assert read_env_number("WORLD_SIZE", 1, {}) == 1
    assert read_env_number("WORLD_SIZE", 1, {"WORLD_SIZE": "3"}) == 3
    with pytest.raises(ConfigError, match="unset it"):
        read_env_number("WORLD_SIZE", 1, {"WORLD_SIZE": "²"})

"""A run that was stopped ends as if it had not been: the whole log and all weights bit by bit."""

import errno
import json
import os
import signal
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommender.trainable import TrainableRecommender
from recsys.runs import results
from recsys.runs.folder import is_busy, lock_folder
from recsys.testing.shop import make_shop_words


@pytest.fixture
def words(shop, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return [
        *make_shop_words(shop, tiny_bert),
        "tracking.wandb=off",
        "trainer.epochs=3",
        "trainer.batch_size=6",
        "trainer.log_every=1",
        "regularization.l2_sp=0.1",
    ]


class Crash(RuntimeError):
    """As a kill -9: nothing is saved on the way out."""


def break_at(monkeypatch, method, call, action):
    """Does something in the middle of the n-th call of a step."""
    original, calls = getattr(TrainableRecommender, method), []

    def step(self, batch, batch_idx):
        out = original(self, batch, batch_idx)
        calls.append(batch_idx)
        if len(calls) == call and (method != "validation_step" or self.trainer.state.fn == "fit"):
            action()
        return out

    monkeypatch.setattr(TrainableRecommender, method, step)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def crash():
    raise Crash


def outcome(folder):
    result = json.loads((folder / "result.json").read_text())
    log = pl.read_csv(folder / "log" / "metrics.csv", infer_schema=False)
    return (
        log.drop("seconds").to_dicts(),  # a clock never repeats
        {k: v for k, v in result["test"].items() if v == v},
        result["validation"],
        result["floors"]["zero-shot"]["ndcg@10"],
        {k: v.tolist() for k, v in load_file(folder / "checkpoints/best.safetensors").items()},
        pl.read_parquet(folder / "cases.parquet").to_dicts(),
    )


def straight(words, tmp_path):
    assert main([*words, f"output={tmp_path / 'straight'}"]) == 0
    (folder,) = (tmp_path / "straight").iterdir()
    return outcome(folder)


def only(tmp_path) -> Path:
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


STOPS = [
    ("training_step", 3, terminate, 143),
    ("training_step", 7, interrupt, 130),
    ("training_step", 9, terminate, 143),
    ("training_step", 21, terminate, 143),
    ("validation_step", 2, interrupt, 130),
    ("validation_step", 4, terminate, 143),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "call", "action", "code"), STOPS)
@pytest.mark.parametrize(
    "more",
    [["tuning=full"], ["tuning=lora", "tuning.dropout=0.3", "trainer.accumulate=3"]],
    ids=["full", "lora_accumulated"],
)
def test_a_stopped_run_ends_as_an_unbroken_one(
    words, tmp_path, capsys, monkeypatch, method, call, action, code, more
):
    # 40 users make 7 batches of 6 an epoch.
    expected = straight([*words, *more], tmp_path)
    command = [*words, *more, f"output={tmp_path / 'runs'}"]
    with monkeypatch.context() as patch:
        break_at(patch, method, call, action)
        assert main(command) == code
    folder = only(tmp_path)
    assert f"resume={folder}" in capsys.readouterr().err
    assert not (folder / "result.json").exists()
    assert main([f"resume={folder}"]) == 0
    assert outcome(folder) == expected
    assert not (folder / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_a_resumed_run_trains_from_the_same_changes(words, tmp_path, monkeypatch):
    changed = "data.augment={crop: .5, mask: .2, reorder: .5, substitute: .3, drop_words: .3}"
    words = [*words, "tuning=full", changed]
    expected = straight(words, tmp_path)
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 9, terminate)
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    assert main([f"resume={only(tmp_path)}"]) == 0
    assert outcome(only(tmp_path)) == expected


def test_many_stops_and_early_stopping(words, tmp_path, monkeypatch):
    words = [*words, "tuning=full", "trainer.patience=1", "trainer.epochs=6"]
    expected = straight(words, tmp_path)
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 2, terminate)
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    last = ["resume=last", f"output={tmp_path / 'runs'}"]
    for call in (1, 4, 2):
        with monkeypatch.context() as patch:
            break_at(patch, "training_step", call, terminate)
            assert main(last) == 143
    assert main(last) == 0
    assert outcome(only(tmp_path)) == expected


@pytest.mark.parametrize(
    "more",
    [[], ["trainer.max_steps=10"], ["trainer.patience=1", "trainer.epochs=9", "optimizer.lr=0"]],
    ids=["epochs", "steps", "early"],
)
@pytest.mark.parametrize("place", ["in the test", "after it"])
def test_a_stop_after_training_trains_nothing_again(words, tmp_path, monkeypatch, place, more):
    words = [*words, "tuning=full", *more]
    expected = straight(words, tmp_path)
    with monkeypatch.context() as patch:
        if place == "in the test":
            break_at(patch, "test_step", 2, terminate)  # the first is of the encoder as it is
        else:
            patch.setattr(results, "make_cases_frame", lambda *_: terminate())
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    folder = only(tmp_path)
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 1, crash)
        break_at(patch, "validation_step", 1, crash)
        assert main([f"resume={folder}"]) == 0
    assert outcome(folder) == expected
    assert not (folder / "checkpoints" / "last.ckpt").exists()


def test_a_stop_in_the_validation_that_ends_training_early_ends_it(words, tmp_path, monkeypatch):
    words = [*words, "trainer.patience=1", "trainer.epochs=9", "optimizer.lr=0", "tuning=full"]
    expected = straight(words, tmp_path)
    with monkeypatch.context() as patch:
        break_at(patch, "validation_step", 3, terminate)
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    assert main([f"resume={only(tmp_path)}"]) == 0
    assert outcome(only(tmp_path)) == expected


def test_cost_adds_up_over_stops(words, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 3, terminate)
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    folder = only(tmp_path)
    start = json.loads((folder / "start.json").read_text())
    assert start["seconds"] > 0
    assert start["cpu_seconds"] > 0
    start |= {"seconds": 5000.0, "cpu_seconds": 7000.0, "peak_mb": 1e6}
    (folder / "start.json").write_text(json.dumps(start))
    assert main([f"resume={folder}"]) == 0
    cost = json.loads((folder / "result.json").read_text())["cost"]
    assert 5000 < cost["seconds"] < 5500
    assert 7000 < cost["cpu_seconds"] < 7500
    assert cost["anonymous_peak_mb_sampled"] == 1e6
    assert 0 < cost["train_seconds"] < cost["seconds"] - 5000 + start["seconds"]
    excluded = cost["cpu_seconds"] - cost["method_cpu_seconds"]
    # What stands between is a small difference of large numbers.
    assert start["beside_cpu_seconds"] - 1e-6 < excluded < 500, "of all attempts, and of none twice"
    assert cost["resumes"] == 1


def test_a_run_in_use_is_left_alone(words, tmp_path, capsys, monkeypatch):
    seen = []
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 2, lambda: seen.append(is_busy(only(tmp_path))))
        break_at(patch, "training_step", 3, terminate)
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    folder = only(tmp_path)
    assert seen == [True]
    assert not is_busy(folder)
    last = ["resume=last", f"output={tmp_path / 'runs'}"]
    with lock_folder(folder):
        capsys.readouterr()
        assert main([f"resume={folder}"]) == 2
        assert "still running" in capsys.readouterr().err
        assert main(last) == 2
        assert "no run to go on with" in capsys.readouterr().err
        with pytest.raises(ConfigError, match="still running"), lock_folder(folder):
            pass
    assert main(last) == 0


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"fingerprint": 1, "wandb": "a"}', "\xff"]
)
def test_a_damaged_start_is_a_sentence(words, tmp_path, capsys, monkeypatch, content):
    with monkeypatch.context() as patch:
        patch.setattr(build, "make_baseline", lambda *_: terminate())
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    folder = only(tmp_path)
    (folder / "start.json").write_text(content, encoding="latin-1")
    capsys.readouterr()
    assert main([f"resume={folder}"]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert "start.json is damaged" in error


def test_a_crash_loses_what_came_after_the_last_checkpoint_only(words, tmp_path, monkeypatch):
    words = [*words, "tuning=full", "checkpoint.every_minutes=0"]
    expected = straight(words, tmp_path)
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 12, crash)
        with pytest.raises(Crash):
            main([*words, f"output={tmp_path / 'runs'}"])
    folder = only(tmp_path)
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 11
    assert main([f"resume={folder}"]) == 0
    assert outcome(folder) == expected


def test_a_crash_before_the_first_checkpoint_begins_again(words, tmp_path, monkeypatch):
    expected = straight(words, tmp_path)
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 5, crash)
        with pytest.raises(Crash):
            main([*words, f"output={tmp_path / 'runs'}"])
    with monkeypatch.context() as patch:
        # What is known of the start is not made again.
        patch.setattr(build, "make_baseline", None)
        assert main([f"resume={only(tmp_path)}"]) == 0
    assert outcome(only(tmp_path)) == expected


def test_a_checkpoint_holds_only_what_trains(words, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 3, terminate)
        main([*words, "tuning=lora", "tuning.layers=1", f"output={tmp_path / 'runs'}"])
    kept = torch.load(only(tmp_path) / "checkpoints" / "last.ckpt", weights_only=True)
    made = build.assemble(compose([*words, "tuning=lora", "tuning.layers=1"]))
    assert kept["state_dict"].keys() == made.recommender.get_trained_parameters().keys()


def test_a_signal_before_training_leaves_at_once(words, tmp_path, capsys, monkeypatch):
    def step(self, batch, batch_idx):
        terminate()

    with monkeypatch.context() as patch:
        patch.setattr(TrainableRecommender, "test_step", step)
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    before = signal.getsignal(signal.SIGTERM)
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert main([f"resume={only(tmp_path)}"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_only_neutral_words_may_change_and_a_finished_run_stays(words, tmp_path, capsys):
    assert main([*words, "architecture=popularity", f"output={tmp_path / 'runs'}"]) == 0
    folder = only(tmp_path)
    for asked, part in (
        ([f"resume={folder}"], "finished"),
        ([f"resume={folder}", "optimizer.lr=1"], "optimizer.lr cannot change"),
        (["resume=last", f"output={tmp_path / 'runs'}"], "no run to go on with"),
        ([f"resume={tmp_path / 'nowhere'}"], "config.yaml is missing"),
    ):
        capsys.readouterr()
        assert main(asked) == 2
        error = capsys.readouterr().err
        assert error.splitlines()[-1].startswith("error: ")
        assert part in error


def test_neutral_words_do_change(words, tmp_path, monkeypatch):
    words = [*words, "tuning=full", "tracking.tensorboard=false"]
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 3, terminate)
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    folder = only(tmp_path)
    assert main([f"resume={folder}", "trainer.log_every=1000"]) == 0
    steps = pl.read_csv(folder / "log" / "metrics.csv").filter(pl.col("train/loss").is_not_null())
    assert steps["step"].to_list() == [1, 2, 3]


def test_other_data_is_refused(words, shop, tmp_path, capsys, monkeypatch):
    own = tmp_path / "events.csv"
    text = (shop / "events.csv").read_text()
    own.write_text(text)
    words = [*words, f"data.source.interactions={own}", f"output={tmp_path / 'runs'}"]
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 3, terminate)
        assert main(words) == 143
    own.write_text("\n".join(text.splitlines()[:-4]) + "\n")
    assert main([f"resume={only(tmp_path)}"]) == 2
    assert "the data has changed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.yaml", "best.safetensors", "result.json", "last.ckpt"])
def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_written(
    words, tmp_path, capsys, monkeypatch, name
):
    from recsys.runtime import files

    sync = os.fsync

    def full(handle):
        target = os.readlink(f"/proc/self/fd/{handle}")
        if Path(target).name.startswith(f".{name}."):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    words = [*words, "checkpoint.every_minutes=0", f"output={tmp_path / 'runs'}"]
    assert main(words) == 5  # no fault of the run
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert "disk or the quota is full" in error
    assert "Traceback" not in error
    left = list((tmp_path / "runs").rglob("*"))
    assert not [path for path in left if path.name.endswith(".tmp")]
    assert not [path for path in left if path.name == name]
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == (0 if name == "config.yaml" else 1)

"""How a run that is a trial ends: divergence, memory, signals, several ranks."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from recsys.boards import offline_run
from recsys.config.compose import compose
from recsys.errors import OutOfMemoryError
from recsys.fit import __main__ as fit
from recsys.fit.__main__ import main
from recsys.objectives import in_batch
from recsys.recommender.trainable import TrainableRecommender
from recsys.runs.failures import raise_out_of_memory
from recsys.runs.validation_log import ValidationLog
from recsys.runtime.files import RANK_ERROR
from recsys.runtime.rank_errors import raise_rank_error, write_rank_error
from tests.sweep.running.test_trial_runs import TRIAL, done, kept, lines, read, same, trial_words


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def words(shop_base):
    return trial_words(shop_base)


def at_step(monkeypatch, call, action):
    """Does something in the n-th training step, to its loss or instead of it."""
    original, calls = TrainableRecommender.training_step, []

    def step(self, batch, batch_idx):
        calls.append(batch_idx)
        loss = original(self, batch, batch_idx)
        return action(self, loss) if len(calls) == call else loss

    monkeypatch.setattr(TrainableRecommender, "training_step", step)


def not_a_number(model, loss):
    model.window.sums = model.window.sums * float("nan")
    return loss * float("nan")


def terminate(model, loss):
    os.kill(os.getpid(), signal.SIGTERM)
    return loss


def lacking(error):
    def action(model, loss):
        raise error

    return action


@pytest.mark.parametrize(
    ("more", "step"),
    [
        (["trainer.log_every=1"], 2),
        (["trainer.log_every=1000"], 5),
        (["trainer.log_every=1000", "checkpoint.every_minutes=0"], 2),
    ],
    ids=["at a row", "at a validation", "before a checkpoint"],
)
def test_a_training_that_diverges_ends_with_3(words, tmp_path, capsys, monkeypatch, more, step):
    at_step(monkeypatch, 2, not_a_number)
    folder = done(tmp_path / "runs", [*words, TRIAL, *more], code=3)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (told,) = (line for line in error.splitlines() if line.startswith("error: "))
    assert f"at step {step}" in told
    assert "head" in told
    assert "lower optimizer.lr" in told
    assert not (folder / "result.json").exists()
    assert [line["step"] for line in lines(folder)] == [0]
    last = folder / "checkpoints" / "last.ckpt"
    assert last.is_file() is ("checkpoint.every_minutes=0" in more)
    if last.is_file():  # that of the step before
        assert torch.load(last, weights_only=True)["global_step"] == 1


def test_scores_that_training_made_useless_are_a_divergence(words, tmp_path, capsys, monkeypatch):
    score = TrainableRecommender.index_catalog

    def spoilt(self, block=1024):
        return score(self, block) * (float("nan") if self.trainer.global_step else 1.0)

    monkeypatch.setattr(TrainableRecommender, "index_catalog", spoilt)
    done(tmp_path / "runs", [*words, TRIAL], code=3)
    assert "the validation cannot be ranked" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at x.cpp:1] err == 0. can't allocate memory: you tried"),
    ],
    ids=["cuda", "python", "host"],
)
def test_lack_of_memory_ends_with_4(words, tmp_path, capsys, monkeypatch, error):
    at_step(monkeypatch, 3, lacking(error))
    done(tmp_path / "runs", [*words, TRIAL], code=4)
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    (told,) = (line for line in shown.splitlines() if line.startswith("error: "))
    for remedy in ("trainer.batch_size", "trainer.batch_tokens", "encoder.checkpoint_chunks"):
        assert remedy in told


def test_what_torch_says_without_memory_is_understood():
    with pytest.raises(OutOfMemoryError), raise_out_of_memory():
        torch.empty(1 << 55, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shape"), raise_out_of_memory():
        torch.zeros(3).view(2)


def test_another_error_stays_what_it_is(words, tmp_path, monkeypatch):
    at_step(monkeypatch, 3, lacking(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        main([*words, TRIAL, f"output={tmp_path / 'runs'}"])


@pytest.mark.slow
def test_lines_of_validations_are_those_of_an_unbroken_run(words, tmp_path, monkeypatch):
    words = [*words, TRIAL, "trainer.epochs=3", "trainer.max_steps=12"]
    straight = done(tmp_path / "straight", [*words, "checkpoint.every_minutes=0"])
    with monkeypatch.context() as patch:
        at_step(patch, 7, terminate)
        folder = done(tmp_path / "runs", words, code=143)
    assert [line["step"] for line in lines(folder)] == [0, 5]
    # As after a crash: a later validation was told, and a line is not whole.
    with (folder / "validations.jsonl").open("a") as file:
        file.write('{"step": 10, "epoch": 2.0, "value": 0.0, "seconds": 9.0}\n{"step": 1')
    assert main([f"resume={folder}", "tracking.tags=[again]"]) == 0
    assert lines(folder, "seconds") == lines(straight, "seconds")
    assert same(read(folder)["validation"], read(straight)["validation"])
    assert read(folder)["train"] == read(straight)["train"]
    assert kept(folder) == kept(straight)


def test_an_old_state_is_refused_with_a_sentence(words, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 7, terminate)
        folder = done(tmp_path / "runs", [*words, TRIAL], code=143)
    path = folder / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    del state["callbacks"]["Best"]["metrics"]
    torch.save(state, path)
    assert main([f"resume={folder}"]) == 2
    assert "of another version; start a new run" in capsys.readouterr().err


def test_lines_are_cut_only_where_there_is_something_to_cut(tmp_path):
    told = ValidationLog(tmp_path / "validations.jsonl")
    told.rewind(3)
    assert not told.path.exists()
    for step in (0, 5):
        told.add(step, step / 5, 0.25, 1.0)
    before = told.path.stat().st_ino
    told.rewind(5)
    assert told.path.stat().st_ino == before  # who reads along keeps its place
    told.rewind(4)
    assert told.path.read_text() == '{"step": 0, "epoch": 0.0, "value": 0.25, "seconds": 1.0}\n'


def test_weights_and_biases_is_told_how_a_trial_ended(words, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    words = [*words, TRIAL, "tracking.wandb=offline", "tracking.tags=[sweep=x,tuning=full,trial 3]"]
    whole = done(tmp_path / "whole", words)
    found, result = offline_run.read_logged_run(whole), read(whole)
    assert {"sweep=x", "trial 3", "tuning=full"} <= set(found.tags)
    assert not {"trial/state", "trial/reason"} & set(found.summary)
    for name, value in result["validation"]["metrics"].items():
        # Of the monitored one the service keeps the largest that was logged, in single precision.
        kept_apart = f"val/{name}" == result["validation"]["monitor"]
        if value == value and not kept_apart and not name.startswith("undefined/"):
            assert found.summary[f"val/{name}"] == value
    assert found.summary["validation/best"] == result["validation"]["best"]
    assert found.summary["train/distance/encoder"] == result["train"]["distance"]["encoder"]

    def prune(model, loss):
        (folder,) = (tmp_path / "pruned").iterdir()
        told = {"state": "pruned", "reason": "below the median"}
        (folder / "ended.json").write_text(json.dumps(told))
        return terminate(model, loss)

    for name, action, code in (
        ("pruned", prune, 143),
        ("stopped", terminate, 143),
        ("failed", not_a_number, 3),
    ):
        with monkeypatch.context() as patch:
            at_step(patch, 2, action)
            folder = done(tmp_path / name, words, code=code)
        found = offline_run.read_logged_run(folder)
        assert found.exit == 1
        if name == "stopped":
            assert "trial/state" not in found.summary
            continue
        assert found.summary["trial/state"] == name
        part = "below the median" if name == "pruned" else "the loss is nan at step 2"
        assert part in found.summary["trial/reason"]


FORKED = """
import json, os, runpy, sys
import torch, lightning.pytorch, recsys.fit.run
codes = []
for argv in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        code = 1
        try:
            sys.argv = ["recsys.fit", *argv]
            runpy.run_module("recsys.fit", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
        finally:
            sys.stdout.flush()
            os._exit(code)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


@pytest.mark.slow
def test_a_prepared_parent_forks_one_run_after_the_other(words, tmp_path):
    words = [*words, TRIAL, "trainer.epochs=1", "trainer.threads=1"]  # sums depend on their number
    asked = [[*words, "optimizer.rate=1"], [*words, f"output={tmp_path / 'forked'}"]]
    command = [sys.executable, "-c", FORKED, json.dumps(asked)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    assert json.loads(ended.stdout.splitlines()[-1]) == [2, 0], ended.stderr
    (forked,) = (tmp_path / "forked").iterdir()
    straight = done(tmp_path / "straight", words)
    assert same(read(forked)["validation"], read(straight)["validation"])
    assert kept(forked) == kept(straight)


BROKEN = """
import os
from dataclasses import dataclass, replace
from recsys.objectives import in_batch

@dataclass
class Config(in_batch.Config):
    kind: str = "nan"

class Objective(in_batch.Objective):
    def __init__(self, logq, label_smoothing, chunk, negatives, kind):
        super().__init__(logq, label_smoothing, chunk, negatives)
        self.kind = kind

    def __call__(self, scored, batch, around):
        loss = super().__call__(scored, batch, around)
        if self.kind == "memory" and os.environ.get("LOCAL_RANK") == "1":
            raise MemoryError
        return replace(loss, total=loss.total * float("nan"))
"""


@pytest.mark.slow
def test_two_ranks_end_with_the_code_of_their_error(words, tmp_path):
    assert {f.name for f in dataclasses.fields(in_batch.Config)} == FIELDS
    hidden = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "RECSYS_RUN_FOLDER")
    env = {k: v for k, v in os.environ.items() if k not in hidden and "MASTER_" not in k}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    own = [*words, TRIAL, "trainer.devices=2", "trainer.threads=1"]
    own.append("objective.name=broken.objective")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").touch()
    (tmp_path / "broken" / "objective.py").write_text(BROKEN)
    command = [sys.executable, "-m", "recsys.fit", *own]
    started = {
        code: subprocess.Popen(
            [*command, f"objective.kind={kind}", f"output={tmp_path / kind}"],
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for kind, code in (("nan", 3), ("memory", 4))
    }
    for code, process in started.items():
        _, error = process.communicate(timeout=200)  # every rank has let go of the output
        assert process.returncode == code, error
        assert error.count("error: ") == 1, error


FIELDS = {"logq", "label_smoothing", "chunk", "negatives"}


def test_a_note_of_another_rank_takes_the_place_of_a_broken_connection(tmp_path):
    write_rank_error(tmp_path, OutOfMemoryError("too little"))
    with pytest.raises(OutOfMemoryError, match="too little"), raise_rank_error(tmp_path):
        raise RuntimeError("Connection closed by peer")
    assert (tmp_path / RANK_ERROR).is_file()


def test_a_rank_leaves_a_note_and_goes_quietly(words, tmp_path, monkeypatch, capsys):
    run = compose([*words, TRIAL])
    monkeypatch.setattr(fit, "get_rank", lambda: 1)
    monkeypatch.setattr(fit, "find_seeds", lambda *_, **__: None)
    monkeypatch.setattr(fit, "find_run", lambda words: (run, tmp_path))

    def fail(run, folder, meeting):
        raise OutOfMemoryError("too little")

    monkeypatch.setattr(fit, "fit", fail)
    assert main(["experiment=lora_two_tower"]) == 0
    assert capsys.readouterr().err == ""
    assert json.loads((tmp_path / RANK_ERROR).read_text()) == {"code": 4, "message": "too little"}

"""What a run shows of itself: on a terminal, and where there is none."""

import math
import os
import pty
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.fit import progress_bars
from recsys.fit.__main__ import main
from recsys.fit.header import describe_run
from recsys.fit.progress_bars import ProgressBar, RemainingTime
from recsys.fit.training import TrainingExecutor
from recsys.runtime import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests move; the last line was said at 0."""
    at = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: at[0]))
    monkeypatch.setattr(progress_bars, "time", SimpleNamespace(monotonic=lambda: at[0]))
    monkeypatch.setattr(progress, "_said", 0.0)
    monkeypatch.setattr(progress, "_is_on_terminal", lambda: False)
    return at


def test_where_no_terminal_is_a_line_comes_every_half_minute(clock, capsys):
    with progress.track("item vectors", 1000, "texts") as task:
        for _ in range(100):
            clock[0] += 1
            task.advance(10)
    assert capsys.readouterr().err.splitlines() == [
        "item vectors: 300 of 1,000 texts (30%), left 1 min",
        "item vectors: 600 of 1,000 texts (60%), left 40 s",
        "item vectors: 900 of 1,000 texts (90%), left 10 s",
    ]


def test_what_is_short_or_has_just_been_told_has_no_line(clock, capsys):
    clock[0] = 100.0
    with progress.track("test of popularity", 4, "batches") as task:
        clock[0] += 1
        task.advance()
    with progress.track("test", 4, "batches") as task:
        clock[0] += 40
        progress.mark_output()
        task.advance()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3570, "1 h 0 min"), (7800, "2 h 10 min")],
)
def test_a_duration_is_said_as_people_do(seconds, text):
    assert progress.format_duration(seconds) == text


def trainer(step, *, batches=10, epochs=4, most=-1, accumulate=1):
    done = SimpleNamespace(total=SimpleNamespace(ready=step * accumulate))
    plan = SimpleNamespace(count_batches=lambda epoch: batches)
    steps = math.ceil(batches / accumulate) * epochs
    steps = steps if most < 0 else min(steps, most)
    data = SimpleNamespace(plan=plan, count_steps=lambda *asked: steps)
    return SimpleNamespace(
        global_step=step,
        max_epochs=epochs,
        max_steps=most,
        accumulate_grad_batches=accumulate,
        num_training_batches=batches,
        datamodule=data,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=done)),
    )


def test_the_time_left_is_that_of_training_validations_and_test(clock):
    course = RemainingTime(tests=True)
    course.add_pass("test", 7.0)
    assert course.estimate_seconds(trainer(0)) is None
    course.begin(0)
    assert course.estimate_seconds(trainer(0)) is None
    clock[0] = 20.0
    course.add_pass("val", 5.0)
    # 15 s for 10 steps, 30 to go; three validations; the test
    assert course.estimate_seconds(trainer(10)) == pytest.approx(45 + 3 * 5 + 7)
    assert course.estimate_seconds(trainer(10, most=15)) == pytest.approx(7.5 + 5 + 7)
    assert course.estimate_seconds(trainer(40)) == pytest.approx(7)
    untested = RemainingTime(tests=False)
    untested.begin(0)
    assert untested.estimate_seconds(trainer(40)) == 0


def test_a_run_that_goes_on_is_timed_from_where_it_goes_on(clock):
    course = RemainingTime(tests=False)
    course.begin(30)
    clock[0] = 4.0
    assert course.estimate_seconds(trainer(32)) == pytest.approx(16)


def test_a_validation_line_says_epoch_total_cold_best_and_time(capsys):
    run = compose(["experiment=lora_two_tower"])

    def say(step, kept, left, **how):
        course = SimpleNamespace(estimate_seconds=lambda trainer: left)
        executor = SimpleNamespace(run=run, course=course)
        TrainingExecutor._print_validation(executor, trainer(step, **how), found, step, kept)
        return capsys.readouterr().out

    found = {"ndcg@10": 0.0613, "cold/ndcg@10": 0.012}
    assert say(20, True, 180.0) == ("epoch 2/4  val ndcg@10 6.13 (best)  cold 1.20  left 3 min\n")
    found["cold/ndcg@10"] = math.nan
    assert say(0, True, None) == "start  val ndcg@10 6.13\n"
    assert say(15, False, 0.4, most=15) == "step 15/15  val ndcg@10 6.13  left 0 s\n"


def test_the_bar_draws_now_and_then_and_after_the_last_batch(monkeypatch, clock):
    made, drawn = ProgressBar(RemainingTime(tests=True)), []
    made._steps = SimpleNamespace(advance_to=lambda done, note: drawn.append(done))
    for batch, at in enumerate(np.arange(1000.0, 1000.3, 0.03)):
        clock[0] = float(at)
        made.on_train_batch_end(trainer(1), None, None, None, batch)
    assert drawn == [1, 5, 9, 10]


def test_the_bar_shows_the_last_loss(shop_words):
    model = build.assemble(compose([*shop_words, "tuning=frozen"])).recommender
    made = ProgressBar(RemainingTime(tests=True))
    assert made._format_note(trainer(0), model) == ""
    model.window.add(torch.tensor([2.46912, 2.0]), begins=True, ends=True)
    assert made._format_note(trainer(0), model) == "loss 1.2346"


def test_a_log_has_a_header_and_one_line_a_validation(shop_words, capsys):
    assert main([*shop_words, "tuning=frozen"]) == 0
    out, error = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("run: ")
    assert lines[-1].startswith("result: ")
    (data,) = [line for line in lines if line.startswith("data: ")]
    assert data.startswith(
        "data: 40 users, 30 items, 200 events; leave_one_out: 40 validation cases"
    )
    (on,) = [line for line in lines if line.startswith("on: ")]
    assert re.fullmatch(r"on: cpu, fp32; [\d,]+ of [\d,]+ parameters train \(\d+\.\d\d%\)", on)
    told = [line for line in lines if "  val ndcg@10 " in line]
    assert [line.split("  ")[0] for line in told] == ["start", "epoch 1/2", "epoch 2/2"]
    assert "Testing" not in out + error
    assert error.splitlines()[:2] == ["two_tower: loading libraries", "reading the data: tables"]


@pytest.mark.slow
def test_a_terminal_shows_bars_that_say_what_they_do(shop_words):
    """Lines stay; bars go when they are done."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "recsys.fit", *shop_words, "tuning=frozen"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end was closed
                break
            shown += part
    os.close(ours)
    assert child.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    for what in ("zero-shot test", "validation", "epoch 1/2", "test of popularity"):
        assert re.search(rf"{what} +[━╸╺]", text), what
    assert re.search(r"epoch 2/2  val ndcg@10 \d+\.\d\d", text)


def test_the_header_tells_users_that_are_left_without_events(shop_words):
    run = compose([*shop_words, "data.max_items=12", "architecture=popularity"])
    made = build.assemble(run)
    active = made.tables.interactions["user"].n_unique()
    assert active < made.tables.users.height == 40
    assert describe_run(run, made)[0].startswith(
        f"data: 40 users ({active} with events), 12 items, "
    )


def test_what_does_not_train_has_no_notes_on_training(shop_words):
    words = [*shop_words, "tuning=frozen", "data.max_history=1", "data.queries=all"]
    for more, told in (([], True), (["trainer.max_steps=0"], False)):
        notes = build.assemble(compose([*words, *more])).split.notes
        assert any(note.startswith("training: ") for note in notes) == told

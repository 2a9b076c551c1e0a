"""What is spent beside a method is counted once, and is no cost of it."""

import json
import os
import resource
import subprocess
import sys
import time

import pytest

from recsys.assembly import build
from recsys.fit.__main__ import main
from recsys.runtime import excluded_time
from recsys.runtime.store import Store


def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def spent(work):
    before = excluded_time.get_excluded_total()
    work()
    return excluded_time.get_excluded_total().subtract(before)


def test_what_is_within_is_counted_once_and_the_rest_not():
    def work():
        burn(0.1)
        with excluded_time.excluded_time():
            burn(0.05)
            with excluded_time.excluded_time():
                burn(0.05)
        burn(0.1)

    found = spent(work)
    assert 0.1 <= found.cpu_seconds < 0.15
    assert found.seconds >= found.cpu_seconds - 0.02


def test_an_error_ends_the_count():
    def work():
        with pytest.raises(KeyError), excluded_time.excluded_time():
            raise KeyError
        burn(0.1)

    assert spent(work).cpu_seconds < 0.05


@pytest.mark.parametrize(("own", "low", "high"), [(False, 0.1, 0.3), (True, 0.0, 0.05)])
def test_what_runs_share_is_no_cost_of_one_but_its_own_work_is(tmp_path, own, low, high):
    store = Store(tmp_path)
    first = spent(lambda: store.get_or_build("made", {"a": 1}, lambda folder: burn(0.1), own))
    assert low <= first.cpu_seconds < high
    again = spent(lambda: store.get_or_build("made", {"a": 1}, lambda folder: burn(0.1), own))
    assert again.cpu_seconds < 0.05


def test_floors_and_the_start_are_no_cost_of_a_method(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    floor = build.make_baseline

    def slow(name, parts):
        burn(0.5)
        return floor(name, parts)

    monkeypatch.setattr(build, "make_baseline", slow)
    assert main([*shop_words, "tuning=frozen"]) == 0
    (result,) = (tmp_path / "runs").glob("*/result.json")
    cost = json.loads(result.read_text())["cost"]
    assert 0 < cost["method_cpu_seconds"] < cost["cpu_seconds"] - 1.0, "two floors"
    assert 0 < cost["method_seconds"] < cost["seconds"] - 1.0
    # Both were made on this machine: tokens and vectors, which the next run finds.
    assert cost["kept_cpu_seconds"] > 0
    assert main([*shop_words, "tuning=frozen", "seed=1", "evaluation.test=false"]) == 0
    again = max((tmp_path / "runs").glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    found = json.loads(again.read_text())["cost"]
    assert found["cache"]["built"] is False
    assert found["kept_cpu_seconds"] == pytest.approx(cost["kept_cpu_seconds"])
    assert found["kept_seconds"] == pytest.approx(cost["kept_seconds"])


def test_what_runs_share_is_known_to_each_of_them_and_counts_once(tmp_path):
    store = Store(tmp_path)

    def used(own):
        excluded_time.begin_run()
        folder = store.get_or_build("made", {"own": own}, lambda folder: burn(0.1), own)
        return folder, excluded_time.compute_build_time()

    for own in (False, True):
        folder, first = used(own)
        # What was its own work is in its own seconds already.
        assert (first.cpu_seconds < 0.01) is own
        assert 0.1 <= used(own)[1].cpu_seconds < 0.3
        used(own)
        store.get_or_build("made", {"own": own}, lambda folder: None, own)
        assert excluded_time.compute_build_time().cpu_seconds < 0.3, (
            "one folder, however often it is asked for"
        )
        (folder / "built.json").unlink()
        assert used(own)[1] is None, "of a version that noted nothing"


def test_a_command_costs_from_the_start_of_its_process(shop_words, tmp_path):
    """Imports are seconds of the user's, and no cost of a method."""
    data = [word for word in shop_words if word.startswith(("data", "output"))]
    command = [sys.executable, "-m", "recsys.fit", *data, "architecture=popularity"]
    env = {**os.environ, "RECSYS_CACHE": str(tmp_path / "cache"), "WANDB_MODE": "disabled"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    subprocess.run(command, env=env, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (result,) = (tmp_path / "runs").glob("*/result.json")
    cost = json.loads(result.read_text())["cost"]
    said = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    whole = result.stat().st_mtime - began
    assert 0.8 * whole < cost["seconds"] < whole
    # How the interpreter ends, and git, which is asked for the commit, are no part of it.
    assert 0.5 * said < cost["cpu_seconds"] <= said + 0.05
    assert 0.5 < cost["startup_cpu_seconds"] < cost["cpu_seconds"]
    assert 0.5 < cost["startup_seconds"] < cost["seconds"] - cost["method_seconds"] + 0.01
    # A run of a program that was there before begins where it is asked for.
    assert main([*data, "architecture=popularity", "seed=1"]) == 0
    other = max((tmp_path / "runs").glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    assert json.loads(other.read_text())["cost"]["startup_seconds"] < 1


def test_what_takes_no_step_trains_nothing(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    assert main([*shop_words, "tuning=frozen", "trainer.max_steps=0"]) == 0
    (result,) = (tmp_path / "runs").glob("*/result.json")
    cost = json.loads(result.read_text())["cost"]
    assert cost["trained_parameters"] == 0 < cost["parameters"]

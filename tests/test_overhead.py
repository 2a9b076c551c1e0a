"""What is spent beside a method is counted once, and is no cost of it."""

import json
import time

import pytest

from recsys import build, overhead
from recsys.data.store import Store
from recsys.fit import main


def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def spent(work):
    before = overhead.spent()
    work()
    return overhead.spent().minus(before)


def test_what_is_within_is_counted_once_and_the_rest_not():
    def work():
        burn(0.1)
        with overhead.beside():
            burn(0.05)
            with overhead.beside():
                burn(0.05)
        burn(0.1)

    found = spent(work)
    assert 0.1 <= found.cpu_seconds < 0.15
    assert found.seconds >= found.cpu_seconds - 0.02


def test_an_error_ends_the_count():
    def work():
        with pytest.raises(KeyError), overhead.beside():
            raise KeyError
        burn(0.1)

    assert spent(work).cpu_seconds < 0.05


@pytest.mark.parametrize(("own", "low", "high"), [(False, 0.1, 0.3), (True, 0.0, 0.05)])
def test_what_runs_share_is_no_cost_of_one_but_its_own_work_is(tmp_path, own, low, high):
    store = Store(tmp_path)
    first = spent(lambda: store.folder("made", {"a": 1}, lambda folder: burn(0.1), own))
    assert low <= first.cpu_seconds < high
    again = spent(lambda: store.folder("made", {"a": 1}, lambda folder: burn(0.1), own))
    assert again.cpu_seconds < 0.05


def test_floors_and_the_start_are_no_cost_of_a_method(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    floor = build.floor

    def slow(name, parts):
        burn(0.5)
        return floor(name, parts)

    monkeypatch.setattr(build, "floor", slow)
    assert main([*shop_words, "tuning=frozen"]) == 0
    (result,) = (tmp_path / "runs").glob("*/result.json")
    cost = json.loads(result.read_text())["cost"]
    assert 0 < cost["method_cpu_seconds"] < cost["cpu_seconds"] - 1.0, "two floors"
    assert 0 < cost["method_seconds"] < cost["seconds"] - 1.0

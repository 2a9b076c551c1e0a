from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing as mp
import shutil
import sys
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from recsys.errors import DataError
from recsys.runtime import files
from recsys.runtime.files import open_atomic_folder, write_atomic
from recsys.runtime.store import Store, format_key, get_default_root

KEY = {"a": 1, "b": ["x", 2.5]}


def _fill(folder: Path) -> None:
    (folder / "data.txt").write_text("whole" * 1000)


def _race(root: str, barrier: Barrier, number: int, out: mp.SimpleQueue[tuple[str, str]]) -> None:
    def build(folder: Path) -> None:
        barrier.wait(30)  # both stand inside the build before either can end it
        _fill(folder)
        (folder / f"by{number}").write_text("")

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    fcntl.flock = none  # in this process only
    path = Store(Path(root)).get_or_build("kind", KEY, build)
    out.put((str(path), (path / "data.txt").read_text()))


def test_without_locks_two_builders_at_once_both_end_with_one_whole_folder(tmp_path: Path) -> None:
    context = mp.get_context("fork")
    barrier, out = context.Barrier(2), context.SimpleQueue()
    workers = [
        context.Process(target=_race, args=(str(tmp_path), barrier, n, out)) for n in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    (path, text), second = out.get(), out.get()
    assert second == (path, text)
    assert text == "whole" * 1000
    assert [p.name for p in (tmp_path / "kind").iterdir()] == [Path(path).name]
    assert len(list(Path(path).glob("by*"))) == 1  # never a mixture of both


def _queue(root: str, barrier: Barrier, out: mp.SimpleQueue[tuple[bool, str]]) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(True)
        time.sleep(0.2)
        _fill(folder)

    barrier.wait(30)
    path = Store(Path(root)).get_or_build("kind", KEY, build)
    out.put((bool(built), (path / "data.txt").read_text()))


def test_of_many_at_once_one_builds_and_the_others_wait_for_it(tmp_path: Path) -> None:
    context = mp.get_context("fork")
    barrier, out = context.Barrier(5), context.SimpleQueue()
    workers = [context.Process(target=_queue, args=(str(tmp_path), barrier, out)) for _ in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    found = sorted(out.get() for _ in workers)
    assert found == [(False, "whole" * 1000)] * 4 + [(True, "whole" * 1000)]
    assert len(list((tmp_path / "kind").iterdir())) == 1  # no lock, nothing aside


def _stall(root: str, key: dict[str, object], pipe: Connection) -> None:
    def build(folder: Path) -> None:
        _fill(folder)
        pipe.send("inside")
        time.sleep(60)

    Store(Path(root)).get_or_build("kind", key, build)


def _stalled(root: Path, key: dict[str, object]) -> mp.process.BaseProcess:
    context = mp.get_context("fork")
    here, there = context.Pipe()
    worker = context.Process(target=_stall, args=(str(root), key, there))
    worker.start()
    assert here.recv() == "inside"
    return worker


def test_a_killed_builder_blocks_nobody_and_its_leftovers_go(tmp_path: Path) -> None:
    other = {**KEY, "a": 2}
    dead, living = _stalled(tmp_path, KEY), _stalled(tmp_path, other)
    dead.kill()
    dead.join(10)
    assert len(list((tmp_path / "kind").glob(".*.tmp"))) == 2
    third = Store(tmp_path).get_or_build("kind", {**KEY, "a": 3}, _fill)  # clears up after others
    (aside,) = (tmp_path / "kind").glob(".*.tmp")
    path = Store(tmp_path).get_or_build("kind", KEY, _fill)
    assert (path / "data.txt").read_text() == "whole" * 1000
    assert aside.is_dir()  # that of the living one
    assert {p.name for p in (tmp_path / "kind").iterdir() if p.name[0] != "."} == {
        path.name,
        third.name,
    }
    living.kill()
    living.join(10)
    shutil.rmtree(path)
    path = Store(tmp_path).get_or_build("kind", KEY, _fill)
    assert {p.name for p in (tmp_path / "kind").iterdir()} == {path.name, third.name}


def test_key_names_the_content_whatever_the_order_and_is_built_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def build(folder: Path) -> None:
        calls.append(folder)
        _fill(folder)

    store = Store(tmp_path)
    first = store.get_or_build("kind", KEY, build)
    assert store.get_or_build("kind", {"b": ["x", 2.5], "a": 1}, build) == first
    assert len(calls) == 1
    assert store.get_or_build("kind", {**KEY, "a": 2}, build) != first
    assert store.get_or_build("other", KEY, build) != first
    assert json.loads((first / "key.json").read_text()) == KEY


def test_leftovers_of_a_dead_builder_do_not_hurt(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = store.get_or_build("kind", KEY, _fill).name
    shutil.rmtree(tmp_path / "kind" / name)
    dead = tmp_path / "kind" / f".{name}.0123.tmp"
    dead.mkdir()
    (dead / "data.txt").write_text("par")
    assert (store.get_or_build("kind", KEY, _fill) / "data.txt").read_text() == "whole" * 1000


def test_torn_folder_is_built_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.get_or_build("kind", KEY, _fill)
    (path / "key.json").unlink()
    (path / "data.txt").write_text("par")
    assert store.get_or_build("kind", KEY, _fill) == path
    assert (path / "data.txt").read_text() == "whole" * 1000
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_failing_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        _fill(folder)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        Store(tmp_path).get_or_build("kind", KEY, build)
    assert not list((tmp_path / "kind").iterdir())


def test_full_disk_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    def build(folder: Path) -> None:
        _fill(folder)
        full()

    def make() -> None:
        with open_atomic_folder(tmp_path / "out") as folder:
            build(folder)

    with pytest.raises(DataError, match=r"out could not be written.*full"):
        make()
    write_atomic(tmp_path / "file", "old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="file could not be written"):
        write_atomic(tmp_path / "file", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_atomic_folder_never_replaces_content(tmp_path: Path) -> None:
    with open_atomic_folder(tmp_path / "out") as folder:
        assert not (tmp_path / "out").exists()
        _fill(folder)
    with pytest.raises(DataError, match="exists already"), open_atomic_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "data.txt").stat().st_size == 5000
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_takes_the_place_of_another_one(tmp_path, monkeypatch, exchanges) -> None:
    if not exchanges:  # as on a system that cannot do so in one step
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    target = tmp_path / "models" / "out"
    link = tmp_path / "link"
    for turn in range(3):
        with open_atomic_folder(target, replace=True) as folder:
            (folder / f"{turn}.txt").write_text(str(turn))
        assert [path.name for path in target.iterdir()] == [f"{turn}.txt"]
        assert [path.name for path in target.parent.iterdir()] == ["out"]
    link.symlink_to(target)
    with open_atomic_folder(link, replace=True) as folder:
        (folder / "linked.txt").write_text("")
    assert link.is_symlink()
    assert [path.name for path in target.iterdir()] == ["linked.txt"]
    with pytest.raises(ZeroDivisionError), open_atomic_folder(target, replace=True) as folder:
        (folder / "never.txt").write_text(str(1 / 0))
    assert [path.name for path in target.iterdir()] == ["linked.txt"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it takes two steps")
def test_a_reader_finds_a_folder_at_any_time(tmp_path) -> None:
    target, missed, over = tmp_path / "out", [], threading.Event()
    with open_atomic_folder(target) as folder:
        (folder / "a.txt").write_text("")

    def read() -> None:
        while not over.is_set():
            missed.append(not target.is_dir())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(100):
        with open_atomic_folder(target, replace=True) as folder:
            (folder / "a.txt").write_text("")
    over.set()
    reader.join()
    assert len(missed) > 100
    assert not any(missed)


@pytest.mark.parametrize(
    "parts", [{"a": {1: 2}}, {"a": [Path("x")]}, {"a": float("nan")}, {"a": {"b": {3}}}]
)
def test_key_refuses_what_json_would_change(parts: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"key\.a"):
        format_key(parts)


@pytest.mark.parametrize("kind", ["", "..", "a/b", ".x"])
def test_kind_stays_inside_the_store(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="kind"):
        Store(tmp_path).get_or_build(kind, KEY, _fill)


def test_default_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))
    assert Store().root == tmp_path
    monkeypatch.delenv("RECSYS_CACHE")
    assert get_default_root() == Path.home() / ".cache" / "recsys"

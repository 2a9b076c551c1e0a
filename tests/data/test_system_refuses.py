"""What the system refuses, and files that were damaged since: one sentence, or built again."""

import errno
import json
import os
import resource
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from recsys.data.__main__ import main
from recsys.data.readers import jsonl, tabular
from recsys.errors import DataError, describe_file_error, raise_file_error
from recsys.fit.__main__ import main as fit
from recsys.runtime.files import make_temporary_path, translate_write_errors, write_atomic
from recsys.runtime.store import Store

LONG = "x" * 300


@pytest.fixture
def words(shop):
    return [
        *("source=tables", f"interactions={shop / 'events.csv'}", f"items={shop / 'items.csv'}"),
        *("user=who", "item=what", "time=when", "item_text='{name}'", "split=leave_one_out"),
    ]


def last_one_wins(words, *more):
    given = {word.partition("=")[0]: word for word in (*words, *more)}
    return list(given.values())


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ([f"interactions=/tmp/{LONG}.csv"], ["xxx", "File name too long"]),
        ([f"output=/tmp/{LONG}"], ["xxx", "File name too long"]),
        (["output=/proc/x"], ["/proc/x", "choose another"]),
        (["interactions=~nosuchuser/x.csv"], ["~nosuchuser/x.csv does not exist"]),
    ],
)
def test_paths_that_cannot_be_are_one_sentence(more, parts, words, capsys):
    assert main(last_one_wins(words, *more)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert all(part in said for part in parts), said
    assert len(said) < 500


@pytest.mark.parametrize(
    ("cache", "parts"),
    [
        ("~nosuchuser/x", ["RECSYS_CACHE=~nosuchuser/x", "whole path"]),
        ("/proc/x", ["RECSYS_CACHE", "/proc/x", "no folder can be made"]),
        ("FILE/x", ["RECSYS_CACHE", "Not a directory"]),
        (f"/tmp/{LONG}", ["File name too long"]),
    ],
)
def test_a_cache_that_cannot_be_is_one_sentence(
    cache, parts, shop_words, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECSYS_CACHE", cache.replace("FILE", str(tmp_path / "file")))
    assert fit(["experiment=zero_shot", *shop_words]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    assert all(part in said for part in parts), said
    assert not list((tmp_path / "runs").glob("*/result.json"))


@pytest.mark.skipif(os.getuid() == 0, reason="root may read and write everything")
def test_what_this_user_may_not_is_one_sentence(words, tmp_path, capsys):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    assert main([*words, f"output={closed / 'out'}"]) == 2
    assert str(closed) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "part"),
    [
        (errno.EACCES, "change its rights"),
        (errno.EROFS, "can be written"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EISDIR, "a file was to be there"),
        (errno.ELOOP, "mend the links"),
        (errno.EIO, "another disk"),
    ],
)
def test_each_refusal_names_the_path_and_a_remedy(number, part, tmp_path):
    error = OSError(number, os.strerror(number), str(tmp_path / "a"))
    assert str(tmp_path / "a") in describe_file_error(error)
    with pytest.raises(DataError, match=part), raise_file_error():
        raise error
    with pytest.raises(DataError, match=part), translate_write_errors(tmp_path / "a"):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("error", [FileNotFoundError(2, "no", "x"), BrokenPipeError(32, "gone")])
def test_what_may_be_our_own_mistake_passes(error):
    with pytest.raises(type(error)), raise_file_error():
        raise error


def test_numpy_tells_a_full_disk_without_a_number(tmp_path):
    with (
        pytest.raises(DataError, match=r"could not be written .*ulimit -f"),
        translate_write_errors(tmp_path),
    ):
        raise OSError("4096 requested and 1024 written")


def test_a_limit_on_the_size_of_files_is_one_sentence_and_leaves_nothing(words, tmp_path):
    """In a process of its own: a limit cannot be raised again."""
    done = subprocess.run(
        [sys.executable, "-m", "recsys.data", *words, f"output={tmp_path / 'out'}"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'out'} cannot be written")
    assert not list(tmp_path.glob("*out*"))


def test_a_name_of_255_bytes_is_written(tmp_path):
    path = tmp_path / ("é" * 127 + "x")
    assert len(os.fsencode(path.name)) == 255
    write_atomic(path, "whole")
    assert path.read_text() == "whole"
    assert len(os.fsencode(make_temporary_path(path).name)) <= 255
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def fill(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, fill, empty, os.unlink])
@pytest.mark.parametrize("name", ["a.npy", "deep/b.json", "files.json", "key.json"])
def test_a_damaged_folder_of_the_store_is_built_again(name, damage, tmp_path):
    def build(folder):
        calls.append(folder)
        np.save(folder / "a.npy", np.arange(100))
        (folder / "deep").mkdir()
        (folder / "deep" / "b.json").write_text("{}")

    calls = []
    store = Store(tmp_path)
    path = store.get_or_build("kind", {"a": 1}, build)
    assert store.get_or_build("kind", {"a": 1}, build) == path
    assert len(calls) == 1
    damage(path / name)
    assert store.get_or_build("kind", {"a": 1}, build) == path
    assert len(calls) == 2
    assert np.load(path / "a.npy").sum() == 4950
    assert json.loads((path / "deep" / "b.json").read_text()) == {}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("depth", [150, 3000, 100_000])
def test_json_of_any_depth_is_one_sentence(depth, tmp_path):
    deep = "[" * depth + "]" * depth
    (tmp_path / "x.json").write_text(f'{{"a": {deep}}}\n')
    with pytest.raises(DataError, match=r"x.json: line 1 holds no JSON object"):
        jsonl.read_records(tmp_path / "x.json", {"a": jsonl.make_text_column("a")})
    (tmp_path / "y.json").write_text(f"({deep}, )\n".replace("[", "(").replace("]", ")"))
    with pytest.raises(DataError, match=r"y.json: line 1 holds no JSON object"):
        list(jsonl.read_objects(tmp_path / "y.json"))
    (tmp_path / "x.jsonl").write_text(f'{{"a": {deep}}}\n')
    if depth > 150:
        with pytest.raises(DataError, match=r"x.jsonl cannot be read"):
            tabular.read_table(tmp_path / "x.jsonl")
        with pytest.raises(DataError, match=r"x.json is no JSON"):
            tabular.read_json_by_id(tmp_path / "x.json")


@pytest.mark.parametrize("value", ["²", "٣²", "9" * 400, "1_0"])
def test_what_looks_like_a_number_is_told(value, tmp_path):
    if value.startswith("9"):
        assert tabular.parse_numbers(pl.Series("n", [value]), "f").is_infinite().all()
        return
    with pytest.raises(DataError, match=rf"row 1 of column 'n' holds '{value}'"):
        tabular.parse_numbers(pl.Series("n", [value]), "f")

"""A user is deleted everywhere at once, and everything else stays as it was."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import recsys
import recsys.errors
from recsys.data.__main__ import main as data
from recsys.fit.__main__ import main as fit
from recsys.forget.__main__ import main
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.write import write_bundle


@pytest.fixture
def place(shop, shop_base, tmp_path, monkeypatch):
    """Prepared data, a run on it, its bundle with users, and feedback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    source = [
        w.removeprefix("data.").removeprefix("source.") for w in shop_base if w[:5] == "data."
    ]
    (tmp_path / "runs").mkdir()
    assert data([*source, "output=runs/data"]) == 0
    run = ["architecture=item_knn", "data.source=tables", "data.source.path=runs/data"]
    assert fit([*run, "data.split=leave_one_out", "output=runs"]) == 0
    write_bundle(recsys.load("last"), tmp_path / "runs" / "bundle", users=True)
    rows = [{"user": u, "item": "001", "event": "like", "time": 1} for u in ("u3", "u30", "u3")]
    (tmp_path / "runs" / "state").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "runs" / "state" / "feedback.jsonl").write_text(lines)
    return tmp_path


def read_all(place):
    """Every text of every file in which the user could stand."""
    out = {}
    for path in (place / "runs").rglob("*"):
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
            out[path] = frame["user"].cast(str).to_list() if "user" in frame.columns else []
        elif path.suffix == ".jsonl":
            out[path] = [json.loads(x).get("user") for x in path.read_text().splitlines()]
    return out


def test_a_user_is_gone_from_data_feedback_bundle_and_cases(place, capsys):
    before = read_all(place)
    bundle = open_bundle(place / "runs" / "bundle")
    others = bundle.recommend(users=["u4", "u39"], k=5)
    case = next((place / "runs").glob("*/cases.parquet"))
    figures = pl.read_parquet(case).drop("user")
    capsys.readouterr()
    assert main(["user=u3", "yes=true"]) == 0
    out = capsys.readouterr().out
    assert "weights and counts" in out
    after = read_all(place)
    assert sum("u3" in users for users in before.values()) == 5
    assert not any("u3" in users for users in after.values())
    for path, users in before.items():  # and nobody else is touched
        assert [u for u in users if u != "u3"] == [
            u for u in after[path] if not (u or "").startswith("deleted-")
        ]
    assert pl.read_parquet(case).drop("user").equals(figures)
    # The bundle opens, checksums and all, and answers the others as before.
    again = open_bundle(place / "runs" / "bundle")
    assert again.recommend(users=["u4", "u39"], k=5).equals(others)
    with pytest.raises(recsys.errors.DataError, match="u3"):
        again.recommend(users=["u3"], k=5)
    history = place / "runs" / "bundle" / "history"
    assert len(np.load(history / "items.npy")) == np.load(history / "offsets.npy")[-1]
    assert main(["user=u3", "yes=true"]) == 0
    assert "stands in none" in capsys.readouterr().out


def test_without_a_yes_nothing_changes(place, capsys):
    before = read_all(place)
    code = [sys.executable, "-m", "recsys.forget", "user=u3"]
    done = subprocess.run(code, input="", capture_output=True, text=True)
    assert done.returncode == 0
    assert "nobody can be asked" in done.stdout
    assert "feedback" in done.stdout
    assert read_all(place) == before


LOCK = """
import sys
from pathlib import Path
from recsys.runtime.locks import try_lock
with try_lock(Path("runs/state/service.lock")):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_feedback_that_a_service_writes_to_stays(place, capsys):
    with subprocess.Popen(
        [sys.executable, "-c", LOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout.readline() == "held\n"
        before = read_all(place)
        assert main(["user=u3", "yes=true"]) == 2
        assert read_all(place) == before, "nothing is deleted by halves"
        service.communicate("\n")
    assert "a service writes to it; stop that first" in capsys.readouterr().err
    feedback = place / "runs" / "state" / "feedback.jsonl"
    assert feedback.read_text().count('"u3"') == 2
    feedback.chmod(0o600)
    assert main(["user=u3", "in=runs/state", "yes=true"]) == 0
    assert '"u3"' not in feedback.read_text()
    assert feedback.stat().st_mode & 0o777 == 0o600, "nobody else reads it now"


def test_a_tampered_bundle_gets_no_new_checksums(place, capsys):
    path = place / "runs" / "bundle" / "items.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(["user=u3", "in=runs/bundle", "yes=true"]) == 2
    assert "items.parquet" in capsys.readouterr().err
    assert "u3" in pl.read_parquet(place / "runs" / "bundle" / "users.parquet")["user"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["in=runs"], "name whom to delete"),
        (["user="], "user is empty"),
        (["usr=u3"], "Did you mean 'user'?"),
        (["user=u3", "in=nowhere"], "is not there"),
        (["user=u3", "yes=1"], "set it to true"),
    ],
)
def test_a_wrong_word_is_one_sentence(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert main(words) == 2
    assert says in capsys.readouterr().err

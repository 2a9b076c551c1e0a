"""Newer events make a new run, which is put to use where it is not worse, and can be taken back."""

import json
import random

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import recsys
from recsys.assembly import build
from recsys.clean.__main__ import main as clean
from recsys.config.compose import read_config
from recsys.fit.__main__ import main as fit
from recsys.recommender.trainable import require_trainable
from recsys.refresh.__main__ import main
from recsys.refresh.events import NewerEvents, merge_events
from recsys.runs.current import CurrentRun

LATER = 1_700_000_000
COUNTING = ("architecture=popularity",)
IDS = (
    *("tuning=frozen", "architecture.item=text+id", "objective=full_softmax"),
    *("trainer.max_steps=6", "optimizer.lr=0.05", "checkpoint.pick=last"),
)


@pytest.fixture
def place(shop, tmp_path, monkeypatch):
    """Newer events: known users, ten new ones, and a new item, told with its text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    rng = random.Random(1)
    items = [line.split(",")[0] for line in (shop / "items.csv").read_text().splitlines()[1:]]
    rows = []
    for step in range(6):
        for user in range(50):  # u40 to u49 are new
            item = rng.choice([*items[5 * (user % 6) : 5 * (user % 6) + 5], "900"])
            event = "like" if step or user else "dislike"
            row = {"user": f"u{user}", "item": item, "event": event, "label": 1.0}
            rows.append({**row, "time": 1000 * (LATER + 1000 * step + user)})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "feedback.jsonl").write_text(lines)
    (tmp_path / "new.csv").write_text("item,name\n900,green lamp\n")
    return tmp_path


@pytest.fixture
def trained(place, shop_base):
    def run(*words):
        assert fit([*shop_base, *words, "output=runs"]) == 0
        return newest(place)

    return run


def newest(place):
    runs = [path.parent for path in (place / "runs").glob("*/result.json")]
    return max(runs, key=lambda run: (run / "config.yaml").stat().st_mtime_ns)


def said(capsys, *words, code=0):
    capsys.readouterr()
    assert main([*words]) == code
    out = capsys.readouterr()
    return out.err if code else out.out


def test_the_promoted_run_knows_new_users_and_items_and_can_be_taken_back(
    trained, place, capsys, monkeypatch
):
    old = trained(*IDS)
    files = ("events=feedback.jsonl", "items=new.csv", "margin=100")
    out = said(capsys, f"run=runs/{old.name}", *files)
    new = newest(place)
    assert new != old
    assert "299 newer events, 10 new users, 1 new items." in out
    assert f"promoted: runs/current.json names runs/{new.name}" in out
    assert recsys.load("current").folder.name == new.name
    shown = recsys.load("current").recommend(users=["u45"], k=31)
    assert len(shown) > 20
    shown = recsys.load("current").recommend(histories=[["900"]], k=5)
    assert shown["item"].n_unique() == 5
    result = json.loads((new / "result.json").read_text())
    assert [row["run"] for row in result["built_on"]] == [f"runs/{old.name}"]
    # Both of them stay while the new one is in use.
    assert clean(["what=runs", "yes=true"]) == 0
    assert old.is_dir()
    assert new.is_dir()
    assert "in use again: runs/" + old.name in said(capsys, "rollback=true")
    assert recsys.load("current").folder.name == old.name
    assert "no run that was in use before" in said(capsys, "rollback=true", code=2)
    assert "no event of it is new" in said(
        capsys, f"run=runs/{new.name}", "events=feedback.jsonl", code=2
    )


def test_training_starts_from_the_old_weights_row_by_row(trained, place, capsys):
    old = trained(*IDS)
    files = ("events=feedback.jsonl", "items=new.csv")
    said(capsys, f"run=runs/{old.name}", *files, "trainer.max_steps=0")
    new = newest(place)
    before = load_file(old / "checkpoints" / "best.safetensors")
    config = read_config(new / "config.yaml")
    model = require_trainable(build.assemble(config).recommender)
    model.load_trained(old / "checkpoints" / "best.safetensors", grown=True)
    after = {name: p.detach() for name, p in model.get_saved_parameters().items()}
    assert any(len(after[name]) == len(before[name]) + 1 for name in before if before[name].ndim)
    for name, value in before.items():
        rows = after[name][: len(value)] if value.ndim == 2 else after[name]
        assert torch.equal(rows, value), name
    # Without a step the new run is the old one: the same figures on the same cases.
    record = json.loads((new / "refresh.json").read_text())
    result = json.loads((new / "result.json").read_text())
    assert record["new"] == result["test"][record["metric"]]
    assert record["difference"] == pytest.approx(0, abs=1e-9)


def test_both_are_tested_on_the_latest_events_alone(trained, place, capsys):
    old = trained(*COUNTING)
    said(capsys, f"run=runs/{old.name}", "events=feedback.jsonl", "items=new.csv")
    new = newest(place)
    config = read_config(new / "config.yaml")
    events = pl.read_parquet(f"{config.data.source.path}/interactions.parquet")
    late = events.filter(pl.col("split") == "test")
    assert late["time"].min() > events.filter(pl.col("split") != "test")["time"].max()
    cases = pl.read_parquet(new / "cases.parquet")
    pairs = sorted(late.select("user", "item").rows())
    assert sorted(cases.select("user", "target").rows()) == pairs
    record = json.loads((new / "refresh.json").read_text())
    assert record["cases"] == len(cases)
    # What trains in the data of the old run is what it was trained on, and no more.
    newer = NewerEvents(place / "feedback.jsonl", "new.csv")
    run = read_config(old / "config.yaml")
    merged = merge_events(run, newer, 0.1, 0.2)
    made = build.assemble(run)
    rows = made.split.row[made.split.role == 0].tolist()
    trained_on = made.tables.interactions[rows].select("user", "item")
    again = merged.old.interactions.filter(pl.col("split") == "train").select("user", "item")
    assert sorted(again.rows()) == sorted(trained_on.rows())
    assert merged.old.interactions.filter(pl.col("split") == "test").height == len(cases)


def test_what_may_be_worse_is_not_promoted(trained, place, capsys):
    old = trained(*IDS)
    CurrentRun(old).write(place / "runs")
    words = ("events=feedback.jsonl", "items=new.csv", "margin=0")
    # A rate at which nothing is left of what it had learned.
    out = said(capsys, *words, "optimizer.lr=3", "trainer.max_steps=20")
    record = json.loads((newest(place) / "refresh.json").read_text())
    assert record["promoted"] is (record["low"] >= 0)
    assert not record["promoted"]
    assert "not promoted" in out
    assert CurrentRun.read(place / "runs").run == old


def test_a_wrong_word_or_file_is_one_sentence(trained, place, capsys):
    old = f"run=runs/{trained(*COUNTING).name}"
    (place / "odd.csv").write_text("who,item,time\na,900,1700000000\n")
    for words, says in (
        ((), "name the newer events"),
        ((old, "events=none.csv"), "is no file"),
        ((old, "events=odd.csv"), "has no column 'user'"),
        ((old, "evnts=odd.csv"), "Did you mean 'events'?"),
        ((old, "events=odd.csv", "margin=-1"), "give a number from 0"),
        ((old, "events=odd.csv", "user=who"), "no event of it is new"),
        ((old, "events=odd.csv", "data.max_history=3"), "data. keys cannot change"),
        (("events=odd.csv",), "no run has been promoted"),
        (("rollback=true", "events=odd.csv"), "does not go with rollback"),
    ):
        if words:
            error = said(capsys, *words, code=2)
            assert says in error, words
            assert error.strip().count("\n") == 0
    assert not list((place / "runs").glob("refreshed/*"))

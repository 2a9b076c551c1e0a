"""A run as the trial of a sweep: it never reads the test part and tells how it goes and ends."""

import json
import random
import re

import polars as pl
import pytest
from safetensors.torch import load_file

from recsys.assembly import build
from recsys.compare.__main__ import main as compare
from recsys.config.compose import compose
from recsys.data.batches.batching import TokenBudgetPlan
from recsys.data.batches.examples import TEST, VAL
from recsys.errors import ConfigError
from recsys.fit import seeds
from recsys.fit.__main__ import main
from recsys.recommend.__main__ import main as recommend
from recsys.runs.validation_log import compute_epochs
from recsys.training.log import TrainingLog

TRIAL = "evaluation.test=false"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def words(shop_base):
    return trial_words(shop_base)


def trial_words(shop_base):
    """5 batches an epoch, of which there are 2."""
    own = [word for word in shop_base if not word.startswith("trainer.batch_size")]
    return [*own, "trainer.batch_size=8", "tuning=full", "trainer.log_every=1"]


def done(root, words, code=0):
    """The folder of a run that ends with a code."""
    assert main([*words, f"output={root}"]) == code
    (folder,) = root.iterdir()
    return folder


def read(folder):
    return json.loads((folder / "result.json").read_text())


def lines(folder, *without):
    text = (folder / "validations.jsonl").read_text()
    assert text.endswith("\n")
    found = map(json.loads, text.splitlines())
    return [{k: v for k, v in line.items() if k not in without} for line in found]


def kept(folder):
    found = load_file(folder / "checkpoints" / "best.safetensors")
    return {name: value.tolist() for name, value in found.items()}


def same(one, two):
    """Equal, an undefined metric to another one."""
    return repr(one) == repr(two)


def swapped(words, shop, path):
    """The words with another last event of every user: those are the test targets."""
    rng = random.Random(1)
    header, *rows = (shop / "events.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    last = {who: max(int(row[2]) for row in cells if row[0] == who) for who, *_ in cells}
    for row in cells:
        if int(row[2]) == last[row[0]]:
            had = {other[1] for other in cells if other[0] == row[0]}
            row[1] = rng.choice([f"{i:03d}" for i in range(30) if f"{i:03d}" not in had])
    path.write_text("\n".join([header, *map(",".join, cells)]) + "\n")
    return [w for w in words if "interactions" not in w] + [f"data.source.interactions={path}"]


@pytest.mark.parametrize(
    "protocol",
    [
        [],
        ["evaluation.protocol=candidates", "evaluation.candidates=9"],
        [
            "evaluation.protocol=sampled",
            "evaluation.sampled_negatives=9",
            "evaluation.monitor=sampled9-ndcg@10",
        ],
    ],
    ids=["catalog", "candidates", "sampled"],
)
def test_the_test_part_is_never_read(words, shop, tmp_path, capsys, protocol):
    words = [*words, *protocol]
    usual = done(tmp_path / "usual", words)
    capsys.readouterr()
    trial = done(tmp_path / "trial", [*words, TRIAL])
    shown = capsys.readouterr().out
    other_words = swapped(words, shop, tmp_path / "events.csv")
    other = done(tmp_path / "other", [*other_words, TRIAL])
    for folder in (trial, other):
        assert same(read(folder)["validation"], read(usual)["validation"])
        assert read(folder)["train"] == read(usual)["train"]
        assert kept(folder) == kept(usual)
        assert lines(folder, "seconds") == lines(usual, "seconds")
    assert read(trial)["data"]["fingerprint"] != read(other)["data"]["fingerprint"]
    more = {"test", "floors", "slices"} | ({"beyond"} if not protocol else set())
    assert set(read(usual)) - set(read(trial)) == more
    assert (usual / "cases.parquet").is_file()
    assert not (trial / "cases.parquet").exists()
    assert "validation, in percent" in shown
    for step in (0, read(trial)["validation"]["step"]):
        assert re.search(rf"step {step}\b", shown)
    # Other test events do change a test.
    assert not same(read(done(tmp_path / "tested", other_words))["test"], read(usual)["test"])


def test_test_cases_cannot_be_had_in_a_trial(words):
    protocol = ["evaluation.protocol=candidates", "evaluation.candidates=9"]
    made = build.assemble(compose([*words, *protocol, TRIAL])).datamodule
    with pytest.raises(ConfigError, match=r"evaluation\.test=false"):
        made.test_dataloader()
    assert list(made.lists) == [VAL]
    assert len(made.val_dataloader())
    usual = build.assemble(compose([*words, *protocol])).datamodule
    assert set(usual.lists) == {VAL, TEST}
    assert len(usual.test_dataloader())


def test_a_trial_without_training_validates(words, tmp_path, capsys):
    folder = done(tmp_path / "runs", [w for w in words if "tuning" not in w] + [TRIAL, POPULAR])
    found = read(folder)["validation"]
    assert found["best"] == found["metrics"]["ndcg@10"] > 0
    assert (found["steps"], found["epochs"]) == (0, 0.0)
    assert [line["value"] for line in lines(folder)] == [found["best"]]
    assert recommend([f"run={folder}", "user=u3"]) == 0


POPULAR = "architecture=popularity"


def test_what_reads_runs_handles_a_trial(words, tmp_path, capsys):
    one = done(tmp_path / "one", [*words, TRIAL, "trainer.epochs=1"])
    two = done(tmp_path / "two", [*words, "trainer.epochs=1"])
    capsys.readouterr()
    assert compare([str(one), str(two), f"output={tmp_path / 'page'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{one}: the run only validated" in error
    assert "evaluation.test=true" in error
    shown = []
    for folder in (one, two):
        assert recommend([f"run={folder}", "user=u3"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


def test_seeds_of_a_trial_close_with_validation_metrics(words, tmp_path, capfd):
    own = [w for w in words if "tuning" not in w]
    folder = done(tmp_path / "runs", [*own, POPULAR, TRIAL])
    capfd.readouterr()
    seeds._show(seeds.SeedPlan(tmp_path / "runs", (), (0,)))
    shown = capfd.readouterr().out
    value = read(folder)["validation"]["metrics"]["ndcg@10"]
    assert "validation, in percent" in shown
    (row,) = [line for line in shown.splitlines() if line.split()[:1] == ["ndcg@10"]]
    assert row.split()[1] == f"{100 * value:.2f}"
    assert "recsys.compare" not in shown


@pytest.mark.parametrize("steps", [7, None])
def test_a_result_tells_gap_and_distance(words, tmp_path, steps):
    more = [] if steps is None else [f"trainer.max_steps={steps}"]
    folder = done(tmp_path / "runs", [*words, TRIAL, *more])
    found, log = read(folder), pl.read_csv(folder / "log" / "metrics.csv")
    validation, rows = found["validation"], log.filter(pl.col("train/loss").is_not_null())
    assert validation["steps"] == validation["planned_steps"] == (steps or 10)
    assert validation["epochs"] == (1.4 if steps else 2.0)
    assert validation["best"] == validation["metrics"]["ndcg@10"]
    assert validation["best"] == max(line["value"] for line in lines(folder))
    assert validation["start"] == lines(folder)[0]["value"]
    assert validation["last"] == lines(folder)[-1]["value"]
    assert lines(folder, "value", "seconds") == [
        {"step": 0, "epoch": 0.0},
        {"step": 5, "epoch": 1.0},
        {"step": steps or 10, "epoch": validation["epochs"]},
    ]
    seconds = [line["seconds"] for line in lines(folder)]
    assert seconds == sorted(seconds)
    assert seconds[0] == 0.0
    # The last whole epoch and what came after it.
    losses = rows.filter(pl.col("step") > (0 if steps else 5))["train/loss"]
    assert found["train"]["loss"] == pytest.approx(losses.mean(), rel=1e-6)
    for role, distance in found["train"]["distance"].items():
        assert distance == pytest.approx(rows[f"distance/{role}"][-1], rel=1e-6)
    assert found["train"]["distance"]["encoder"] > 0


def test_epochs_are_counted_by_batches():
    class Uneven(TokenBudgetPlan):
        def count_batches(self, epoch):
            return (3, 2, 4)[epoch]

    plan = Uneven(lambda epoch: None, lambda order: None)
    assert [compute_epochs(plan, n) for n in (0, 1, 3, 4, 5, 9)] == [0.0, 1 / 3, 1.0, 1.5, 2.0, 3.0]


@pytest.mark.parametrize(
    ("steps", "more"),
    [
        (5, []),
        (7, []),
        (3, ["tuning=lora", "tuning.dropout=0.3", "trainer.accumulate=2"]),
        (4, ["trainer.accumulate=2", "optimizer.schedule=cosine"]),
    ],
    ids=["validated", "within_an_epoch", "end_of_an_epoch", "accumulated"],
)
def test_a_short_run_ends_where_a_long_one_was(words, tmp_path, monkeypatch, steps, more):
    words, seen = [*words, *more, "regularization.l2_sp=0.1", TRIAL], {}
    original = TrainingLog.on_train_batch_end

    def watched(self, trainer, model, *rest):
        if trainer.global_step == steps:
            seen.update({k: p.detach().clone() for k, p in model.get_trained_parameters().items()})
        return original(self, trainer, model, *rest)

    long = [*words, "trainer.epochs=3"]
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "on_train_batch_end", watched)
        planned = read(done(tmp_path / "long", long))["validation"]["planned_steps"]
    assert planned == 9 if "trainer.accumulate=2" in more else planned == 15
    short = [*long, f"trainer.max_steps={steps}", f"optimizer.schedule_steps={planned}"]
    folder = done(tmp_path / "short", [*short, "checkpoint.pick=last"])
    assert kept(folder) == {name: value.tolist() for name, value in seen.items()}
    found = read(folder)["validation"]
    assert (found["step"], found["steps"], found["planned_steps"]) == (steps, steps, planned)
    if steps != 4:  # where the rate has fallen, the schedule of the short run makes a difference
        return
    other = done(tmp_path / "other", [*long, "trainer.max_steps=4", "checkpoint.pick=last"])
    assert kept(other) != kept(folder)


def test_what_is_kept_does_not_depend_on_validations_unless_the_best_is_picked(words, tmp_path):
    words = [*words, TRIAL, "optimizer.lr=0.02", "optimizer.schedule=constant", "seed=1"]
    best, last = (done(tmp_path / p, [*words, f"checkpoint.pick={p}"]) for p in ("best", "last"))
    assert read(best)["validation"]["step"] < 10  # such rates make it worse
    assert read(last)["validation"]["step"] == 10
    assert read(last)["validation"]["best"] == lines(last)[-1]["value"]
    assert kept(best) != kept(last)
    assert lines(best, "seconds") == lines(last, "seconds")


def test_no_step_keeps_the_untrained_parameters(words, tmp_path):
    words = [*words, "tuning=lora", "trainer.max_steps=0"]
    folder = done(tmp_path / "runs", words)
    fresh = build.assemble(compose(words)).recommender.get_saved_parameters()
    assert kept(folder) == {name: p.tolist() for name, p in fresh.items()}
    found = read(folder)
    assert found["test"] == pytest.approx(found["floors"]["zero-shot"], nan_ok=True)
    assert (found["validation"]["steps"], found["validation"]["epochs"]) == (0, 0.0)
    assert found["train"] == {"loss": None, "distance": {"tuned": 0.0, "head": 0.0}}


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["trainer.max_steps=9", "optimizer.schedule_steps=8"], "optimizer.schedule_steps=8"),
        (["checkpoint.pick=last", "trainer.patience=1"], "trainer.patience=null"),
        (["checkpoint.pick=first"], "checkpoint.pick"),
        ([f"tracking.tags=[{'x' * 65}]"], "1 to 64"),
    ],
)
def test_a_mistake_is_one_sentence(words, tmp_path, capsys, more, part):
    assert main([*words, *more, f"output={tmp_path / 'runs'}"]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert part in error

"""Items that a user had before are ranked with what was had, and counted in no other metric."""

import json

import polars as pl
import pytest
import torch

from recsys.evaluation.evaluator import Evaluator
from recsys.fit.__main__ import main
from recsys.metrics.ranking import RankingMetrics
from tests.data.sources.test_redial import INFO, dialogue, write
from tests.evaluation.test_evaluator import COUNTS, Given, batch

SCORES = torch.tensor([[4.0, 3.0, 2.0, 1.0]]).expand(3, 4)


def rank(apart, mask):
    """Targets 1, 2 and 1 of three users who had 0; 0 and 1; 0 and 1."""
    seen = [[0, 0], [1, 0], [1, 1], [2, 0], [2, 1]]
    work = batch([[1], [2], [1]], [[1.0], [1.0], [1.0]], seen)
    evaluator = Evaluator("catalog", (1, 2), mask, COUNTS, apart=apart)
    ranker = Given(SCORES)
    evaluator.start(ranker)
    evaluator.step(ranker, work)
    return evaluator.end(), evaluator.rows[0]


def test_a_repeated_target_is_ranked_with_what_was_had():
    metrics, rows = rank(apart=True, mask=True)
    assert rows["rank"].tolist() == [1, 1, 2]
    assert rows["repeated"].tolist() == [False, False, True]
    assert (metrics["hr@1"], metrics["cases"]) == (1, 2)
    assert (metrics["repeated/hr@1"], metrics["repeated/hr@2"]) == (0, 1)
    assert metrics["repeated/cases"] == 1


def test_without_it_nothing_changes():
    metrics, rows = rank(apart=False, mask=True)
    assert rows["rank"].tolist() == [1, 1, 5]
    assert "repeated" not in rows
    assert metrics["hr@1"] == pytest.approx(2 / 3)
    assert not any(name.startswith("repeated") for name in metrics)
    assert rank(apart=True, mask=False)[1]["rank"].tolist() == [2, 3, 2]


def test_slices_add_up_over_ranks():
    whole, parts = RankingMetrics(["hr@1"], apart=True), RankingMetrics(["hr@1"], apart=True)
    value, cold = torch.tensor([1.0, 0, 1, 1]), torch.tensor([True, False, True, False])
    again, counted = torch.tensor([False, False, True, True]), torch.ones(4, dtype=torch.bool)
    whole.update({"hr@1": value}, counted, cold, again)
    for at in (slice(0, 1), slice(1, 4)):
        parts.update({"hr@1": value[at]}, counted[at], cold[at], again[at])
    assert whole.compute() == parts.compute()
    got = whole.compute()
    assert [float(got[n]) for n in ("hr@1", "cold/hr@1", "warm/hr@1", "repeated/hr@1")] == [
        *(0.5, 1, 0, 1),
    ]
    assert int(got["cold/cases"]) == int(got["warm/cases"]) == 1


def test_a_fit_on_dialogues_says_both(tmp_path, capsys):
    parts = {"train": range(8), "valid": range(8, 12), "test": range(12, 20)}
    write(tmp_path / "d", INFO, **{k: [dialogue(n) for n in v] for k, v in parts.items()})
    words = ["architecture=popularity", "data.source=redial", f"data.source.path={tmp_path / 'd'}"]
    own = ["evaluation.k=[1]", "evaluation.monitor=hr@1", "tracking.wandb=off"]
    assert main([*words, *own, f"output={tmp_path / 'runs'}"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    new, again = (pl.read_parquet(folder / f"{name}.parquet") for name in ("cases", "repeated"))
    # Of each dialogue 9 and 6 are new, and 7 is named again.
    assert (new["target"].to_list(), again["target"].to_list()) == (["9", "6"] * 8, ["7"] * 8)
    assert result["test"]["cases"] == 16
    assert result["test"]["repeated/cases"] == 8
    # 7 is named twice a dialogue, the others once: 6 and 9 are left for 9, and 6 alone for 6.
    hit = {"hr@1": 0.75, "repeated/hr@1": 1}
    assert {name: pytest.approx(result["test"][name]) for name in hit} == hit
    part = result["slices"]["repeated"]
    assert (part["new"]["hr@1"], part["repeated"]["hr@1"]) == (pytest.approx(0.75), 1)
    assert (part["new"]["cases"], part["repeated"]["cases"]) == (16, 8)
    assert result["protocol"]["repeated"] == "apart"
    assert "repeated/hr@1" in capsys.readouterr().out

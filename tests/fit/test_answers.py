"""What benchmarks/quality/answers.py says of a run is what the run's own test says."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest

from recsys.fit.__main__ import main

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks" / "quality"


@pytest.fixture
def answers(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import answers

    yield answers
    del sys.modules["answers"]


@pytest.mark.slow
def test_answers_one_by_one_are_the_test(answers, shop_words, tmp_path):
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=12", "evaluation.k=[1,5,10]"]
    tuned = ["tuning=lora", "architecture=cross_encoder", "objective=bpr", "trainer.max_steps=3"]
    assert main([*shop_words, *tuned, *lists, "checkpoint.pick=last", "trainer.patience=null"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    answers.answer(folder, None)
    said = json.loads((folder / answers.ANSWERS).read_text())
    test = json.loads((folder / "result.json").read_text())["test"]
    for name in ("hr@1", "ndcg@5", "ndcg@10", "mrr", "auc"):
        assert said["test"][name] == pytest.approx(test[name], abs=1e-6)
    own = pl.read_parquet(folder / "cases.parquet").sort("case")
    rows = pl.read_parquet(folder / answers.ROWS).sort("case")
    assert rows.select("user", "target", "size").equals(own.select("user", "target", "size"))
    assert said["cases"] == len(own)
    assert said["tokens"] > 12 * 2  # of a list, each of whose pairs has a title
    assert said["milliseconds"] > 0


def test_likes_have_a_score_a_user(answers, shop_words, tmp_path):
    labelled = ["data.source.rating=stars", "data.positive_from=3", "data.targets=labelled"]
    own = ["experiment=document_two_tower", "evaluation.k=[1]", "evaluation.monitor=hr@1"]
    few = ["tuning=frozen", "trainer.max_steps=1", "evaluation.test=false"]
    words = [w for w in shop_words if not w.startswith("data.split")]
    assert main([*words, *own, *labelled, *few, "checkpoint.pick=last"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    answers.answer(folder, 4)
    rows = pl.read_parquet(folder / answers.ROWS)
    assert rows["user"].n_unique() == len(rows) == 4
    assert rows["score"].is_finite().all()
    assert rows["score"].n_unique() > 1

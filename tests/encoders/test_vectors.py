from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from recsys import build
from recsys.config import compose
from recsys.data.store import FILES_FILE, listed
from recsys.encoders.encoder import Encoder
from recsys.errors import DataError
from recsys.fit import fit


@pytest.fixture
def words(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return [*shop_words, "tuning=frozen"]


def assembled(words, *more):
    return build.assemble(compose([*words, *more])).recommender.eval()


@pytest.mark.parametrize("towers", ["shared", "separate"])
def test_kept_vectors_give_the_scores_of_an_encoder_that_runs(words, towers):
    word = f"architecture.towers={towers}"
    kept, plain = assembled(words, word), assembled(words, word, "encoder.cache=false")
    assert kept.parts.vectors is not None
    assert plain.parts.vectors is None
    made = build.assemble(compose([*words, word]))
    batch = next(iter(made.datamodule.train_dataloader()))
    torch.testing.assert_close(kept(batch).scores, plain(batch).scores, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kept.index_catalog(), plain.index_catalog(), rtol=1e-5, atol=1e-6)


def test_a_second_run_computes_no_more_than_the_sample(words, monkeypatch):
    first, counts, forward = assembled(words), [], Encoder.forward

    def counted(self, tokens):
        counts.append(len(tokens.sizes))
        return forward(self, tokens)

    monkeypatch.setattr(Encoder, "forward", counted)
    second = assembled(words)
    second.index_catalog()
    assert counts == [16]
    assert (first.parts.vectors.report.built, second.parts.vectors.report.built) == (True, False)
    assert torch.equal(first.index_catalog(), second.index_catalog())
    other = assembled(words, "encoder.pooling=cls")
    assert other.parts.vectors.report.built


def test_damaged_vectors_are_refused(words, tmp_path):
    assembled(words)
    (path,) = (tmp_path / "cache" / "vectors").glob("*/vectors.npy")
    np.save(path, np.roll(np.load(path), 1, axis=0))
    (path.parent / FILES_FILE).write_text(
        json.dumps(listed(path.parent))
    )  # as far into a large one
    with pytest.raises(DataError, match=r"kept vectors differ.*remove the folder"):
        assembled(words)


def test_vectors_that_would_be_too_large_are_not_kept(words, capsys):
    assert assembled(words, "encoder.cache_gb=1e-6").parts.vectors is None
    assert "encoder.cache_gb=1e-06" in capsys.readouterr().err


def test_the_result_tells_what_keeping_cost(words):
    for what, asked in (("vectors", []), ("states", ["tuning=lora", "tuning.layers=1"])):
        for built in (True, False):
            folder = fit(compose([*words, *asked, "trainer.max_steps=1", "tracking.wandb=off"]))
            cost = json.loads((folder / "result.json").read_text())["cost"]
            assert cost["cache"]["what"] == what
            assert cost["cache"]["built"] is built
            assert cost["cache"]["dtype"] == "fp32"
            assert 0 < cost["cache"]["gb"] < 1e-3
            assert cost["cache"]["max_error"] < 1e-5
            assert cost["cache_seconds"] == cost["cache"]["seconds"] > 0
            assert cost["cache"]["build_seconds"] > 0

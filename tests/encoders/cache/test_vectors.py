from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.encoders.cut import SplitModel
from recsys.encoders.encoder import Encoder
from recsys.errors import DataError
from recsys.fit.command import fit
from recsys.runtime.store import FILES_FILE, list_files


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
    assert kept.encoding.vectors is not None
    assert plain.encoding.vectors is None
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
    assert (
        first.encoding.vectors.report.built,
        second.encoding.vectors.report.built,
    ) == (True, False)
    assert torch.equal(first.index_catalog(), second.index_catalog())
    other = assembled(words, "encoder.pooling=cls")
    assert other.encoding.vectors.report.built


@pytest.mark.parametrize("tuning", [["tuning=frozen"], ["tuning=lora", "tuning.layers=1"]])
def test_one_more_and_one_changed_text_are_all_that_is_encoded(
    words, shop, tuning, tmp_path, monkeypatch, capsys
):
    own = tmp_path / "items.csv"
    text = (shop / "items.csv").read_text()
    own.write_text(text)
    words = [*words, *tuning, f"data.source.items={own}"]

    def kept(*more):
        parts = assembled(words, *more).parts
        found = parts.encoding.vectors or parts.encoding.prefix
        return found.report, found, torch.arange(len(parts.texts))

    first, *_ = kept()
    assert (first.built, first.encoded, first.taken) == (True, 30, 0)
    capsys.readouterr()
    # In front, so that every row moves.
    lines = text.replace("red lamp", "red lamp lamp chair").splitlines()
    own.write_text("\n".join([lines[0], "999,white white lamp", *lines[1:]]) + "\n")
    counted = []
    for owner, name in ((Encoder, "forward"), (SplitModel, "run_below")):
        call = getattr(owner, name)

        def count(self, tokens, *rest, call=call, **named):
            counted.append(len(tokens))
            return call(self, tokens, *rest, **named)

        monkeypatch.setattr(owner, name, count)
    second, found, rows = kept()
    assert (second.built, second.encoded, second.taken) == (True, 2, 29)
    assert second.build_seconds >= first.build_seconds * 29 / 30
    assert "2 texts encoded, 29 taken from another catalog" in capsys.readouterr().err
    # Besides the two: the sample that every start computes again, and the trial of the cut.
    assert sum(counted) <= 2 + 16 + 16 + 2
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "fresh"))
    _, fresh, _ = kept()
    make = "look_up" if tuning == ["tuning=frozen"] else "compute_vectors"
    with torch.no_grad():
        got, want = getattr(found, make)(rows), getattr(fresh, make)(rows)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_damaged_vectors_are_refused(words, tmp_path):
    assembled(words)
    (path,) = (tmp_path / "cache" / "vectors").glob("*/vectors.npy")
    np.save(path, np.roll(np.load(path), 1, axis=0))
    (path.parent / FILES_FILE).write_text(
        json.dumps(list_files(path.parent))
    )  # as far into a large one
    with pytest.raises(DataError, match=r"kept vectors differ.*remove the folder"):
        assembled(words)


def test_vectors_that_would_be_too_large_are_not_kept(words, capsys):
    assert assembled(words, "encoder.cache_gb=1e-6").encoding.vectors is None
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

"""Vectors of which the front is kept: the same numbers, brought to length 1 where compared."""

import numpy as np
import polars as pl
import pytest
import torch

from recsys.encoders.pretrained.load import load_pretrained
from recsys.errors import ConfigError
from recsys.export.__main__ import main as export
from recsys.fit.__main__ import main as fit
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.run import load
from tests.encoders.families import texts


@torch.no_grad()
def test_the_front_of_a_vector_is_kept(tiny_bert):
    shape = {"pooling": "mean", "max_length": 16}
    whole = load_pretrained(str(tiny_bert), **shape).encoder.eval()
    cut = load_pretrained(str(tiny_bert), **shape, width=12).encoder.eval()
    tokens = texts(3, 1, 7)
    tokens.values.remainder_(14)
    assert cut(tokens).equal(whole(tokens)[:, :12])
    assert (cut.whole_width, cut.vector_width, cut(texts()).shape) == (32, 12, (0, 12))
    with pytest.raises(ConfigError, match=r"encoder\.width is 33, and .* have 32 numbers; set it"):
        load_pretrained(str(tiny_bert), **shape, width=33)


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_a_run_ranks_and_hands_on_what_is_kept(tuning, shop_words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = [*shop_words, f"tuning={tuning}", "architecture.heads=true", "trainer.epochs=1"]
    assert fit([*words, "encoder.width=12"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    asked = {"texts": ["red lamp", "blue chair"], "k": 30}
    own = load(folder).recommend(**asked).sort("query", "item")
    for kind in ("vectors", "bundle", "sentence_transformers"):
        assert export([f"run={folder}", f"to={tmp_path / kind}", f"format={kind}"]) == 0
    table = pl.read_parquet(tmp_path / "vectors" / "vectors.parquet")
    vectors = table["vector"].to_numpy()
    assert vectors.shape == (30, 12)
    bundle = open_bundle(tmp_path / "bundle").recommend(**asked).sort("query", "item")
    np.testing.assert_allclose(bundle["score"], own["score"], atol=1e-4)
    models = pytest.importorskip("sentence_transformers")
    oracle = models.SentenceTransformer(str(tmp_path / "sentence_transformers"), device="cpu")
    theirs = oracle.encode_document(table["title"].to_list())
    np.testing.assert_allclose(theirs, vectors, atol=1e-4)
    capsys.readouterr()
    late = ["architecture=late_interaction", "objective=bce", "encoder.width=12"]
    assert fit([*shop_words, "tuning=lora", *late]) == 2
    assert "cuts the vector of a text, and architecture late_inter" in capsys.readouterr().err

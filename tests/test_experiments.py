"""Every shipped experiment runs two steps, on the made-up shop and with a tiny encoder."""

import json

import pytest

from recsys.config.compose import compose, list_experiments
from recsys.fit.__main__ import main
from recsys.testing.shop import make_decoder_words


@pytest.mark.parametrize("name", list_experiments())
def test_two_steps(shop_words, tiny_decoder, tmp_path, monkeypatch, name):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    own = [w for w in shop_words if not w.startswith("data.split")]
    lists = compose([f"experiment={name}"]).evaluation.protocol == "candidates"
    few = ["evaluation.candidates=9"] if lists else []
    if compose([f"experiment={name}"]).architecture.prompt is not None:
        few += make_decoder_words(tiny_decoder)
    if "document" not in name:
        own.append("data.split=leave_one_out")
    steps = ["trainer.max_steps=2", "data.source.rating=stars"]
    assert main([f"experiment={name}", *own, *few, *steps]) == 0
    (result,) = (tmp_path / "runs").glob("*/result.json")
    cost = json.loads(result.read_text())["cost"]
    trains = compose([f"experiment={name}"]).architecture.trains
    assert (cost["trained_parameters"] > 0) == trains
    assert result.parent.name.startswith(name)

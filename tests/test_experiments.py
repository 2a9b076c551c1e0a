"""Every shipped experiment runs two steps, on the made-up shop and with the tiny encoder."""

import json

import pytest

from recsys.config.compose import compose, list_experiments
from recsys.fit.__main__ import main


@pytest.mark.parametrize("name", list_experiments())
def test_two_steps(shop_words, tmp_path, monkeypatch, name):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    own = [w for w in shop_words if not w.startswith("data.split")]
    few = ["evaluation.candidates=9"] if "cross" in name else []
    if "document" not in name:
        own.append("data.split=leave_one_out")
    steps = ["trainer.max_steps=2", "data.source.rating=stars"]
    assert main([f"experiment={name}", *own, *few, *steps]) == 0
    (result,) = (tmp_path / "runs").glob("*/result.json")
    cost = json.loads(result.read_text())["cost"]
    trains = compose([f"experiment={name}"]).architecture.trains
    assert (cost["trained_parameters"] > 0) == trains
    assert result.parent.name.startswith(name)

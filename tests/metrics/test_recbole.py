"""The places that RecBole gave to the targets, and the figures that it computed from them."""

import json
from pathlib import Path

import pytest
import torch

from recsys.metrics.functional import compute_from_counts

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SPEED = BENCHMARKS / "speed" / "results" / "sasrec-ml-100k.json"
QUALITY = BENCHMARKS / "quality" / "sasrec.json"
NAMES = {"hit@10": "hr@10", "ndcg@10": "ndcg@10", "mrr@10": "map@10", "map@10": "map@10"}
"""With one positive, the reciprocal rank cut at 10 is the average precision cut there."""


def recorded():
    """Of each test that RecBole made: where the targets stood, and its own figures."""
    one = json.loads(SPEED.read_text())
    yield pytest.param(one["cases"], one["metrics"], id="speed")
    for name, run in json.loads(QUALITY.read_text())["runs"].items():
        if name.startswith("recbole"):
            yield pytest.param(run["cases"], run["own"], id=name)


@pytest.mark.parametrize(("cases", "said"), recorded())
def test_ranks_give_the_figures_of_recbole(cases, said):
    above, equal = torch.tensor(cases["greater"]), torch.tensor(cases["equal"])
    assert len(above) == 943
    assert (above < 10).sum() > 30, "so many hits that the figures say something"
    found = compute_from_counts(above, equal, [10])
    assert {"hit@10", "ndcg@10"} <= set(said)
    for name, value in said.items():
        assert found[NAMES[name]].mean().item() == pytest.approx(value, abs=1e-6), name

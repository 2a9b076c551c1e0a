import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from recsys.layers.fusion import (
    fuse_reciprocal_ranks,
    list_simplex_points,
    normalize_scores,
    rank_scores,
)


def test_ranks_are_those_of_scipy_and_equals_share_their_mean():
    scores = torch.randint(0, 6, (7, 40), generator=torch.Generator().manual_seed(0)).float()
    want = np.stack([rankdata(-row) for row in scores.numpy()])
    assert np.array_equal(rank_scores(scores).numpy(), want)


def test_what_is_closed_comes_last_and_moves_no_one():
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0]])
    closed = torch.tensor([[True, False, False, True]])
    assert rank_scores(scores, closed).tolist() == [[3.5, 1.0, 2.0, 3.5]]


def test_reciprocal_ranks_by_hand():
    ranks = torch.tensor([[[1.0, 2.0]], [[4.0, 1.0]]])
    want = [1 / 61 + 1 / 64, 1 / 62 + 1 / 61]
    assert fuse_reciprocal_ranks(ranks, 60).tolist()[0] == pytest.approx(want)


@pytest.mark.parametrize("kind", ["zscore", "minmax"])
def test_a_scale_leaves_shift_and_stretch_of_scores_unseen(kind):
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    closed = torch.zeros(3, 50, dtype=torch.bool)
    closed[:, :5] = True
    once = normalize_scores(scores, kind, closed)
    assert torch.allclose(once, normalize_scores(7 * scores + 100, kind, closed), atol=1e-4)
    part = once[:, 5:]
    if kind == "zscore":
        assert torch.allclose(part.mean(1), torch.zeros(3), atol=1e-5)
        assert torch.allclose(part.std(1, correction=0), torch.ones(3), atol=1e-5)
    else:
        assert torch.equal(part.amin(1), torch.zeros(3))
        assert torch.allclose(part.amax(1), torch.ones(3))


def test_scores_that_are_all_equal_say_nothing():
    scores = torch.full((1, 1000), 0.1)
    for kind in ("zscore", "minmax"):
        assert normalize_scores(scores, kind).abs().max() == 0


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8])
def test_the_lattice_lies_on_the_simplex_with_every_corner_and_the_middle(parts):
    points = list_simplex_points(parts, 500)
    assert torch.allclose(points.sum(1), torch.ones(len(points)))
    assert points.min() >= 0
    assert len(points) <= 501
    assert len(points.unique(dim=0)) == len(points)
    for wanted in (*torch.eye(parts), torch.full((parts,), 1 / parts)):
        assert (points - wanted).abs().amax(1).min() < 1e-6

"""Nearest items by vectors, against a full sort of all cosines."""

import numpy as np
import pytest
import torch

from recsys.layers.vector_neighbours import compute_vector_neighbours


def sort_naively(vectors, k):
    """(I, I) float64: how much nearer the k nearest are than the next one; equals by row."""
    vectors = vectors.double().numpy()
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1)
    cosines, out = unit @ unit.T, np.zeros((len(unit), len(unit)))
    for item, row in enumerate(cosines):
        # what a difference of one bit would not turn round
        order = np.argsort(-np.round(row, 5), kind="stable")
        order = order[order != item]
        out[item, order[:k]] = row[order[:k]] - row[order[k]]
    return out


@pytest.mark.parametrize(("rows", "columns"), [(1024, 8192), (7, 5), (1, 1), (3, 50)])
def test_they_are_those_of_a_full_sort_whatever_the_blocks(rows, columns):
    vectors = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    vectors *= torch.linspace(0.1, 9, 50)[:, None]
    vectors[20] = 0
    for k in (1, 4, 48):
        done = []
        got = compute_vector_neighbours(vectors, k, done.append, rows, columns)
        np.testing.assert_allclose(got.toarray(), sort_naively(vectors, k), atol=1e-6)
        assert sum(done) == 50
    every = compute_vector_neighbours(vectors, 99).toarray()
    np.testing.assert_allclose(every, got.toarray(), atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(1024, 8192), (3, 4)])
def test_equal_cosines_go_by_catalog_row(rows, columns):
    """Twelve items of one direction, four of another, as exact numbers."""
    vectors = torch.zeros(20, 3)
    vectors[:, 0], vectors[4:8, 1], vectors[19, 2] = 1, 1, 1
    got = compute_vector_neighbours(vectors, 3, rows=rows, columns=columns).toarray()
    # with more equals than are kept none stands out; three others of the second direction do
    assert not got[0].any()
    assert np.flatnonzero(got[4]).tolist() == [5, 6, 7]
    assert np.flatnonzero(got[6]).tolist() == [4, 5, 7]
    got = compute_vector_neighbours(vectors, 16, rows=rows, columns=columns).toarray()
    assert np.flatnonzero(got[19]).tolist() == [*range(4), *range(8, 19)]
    assert np.flatnonzero(got[4]).tolist() == [5, 6, 7]


@pytest.mark.parametrize("items", [1, 2, 3])
def test_a_catalog_of_few_items(items):
    got = compute_vector_neighbours(torch.eye(3)[:items] + 1, 50)
    assert got.shape == (items, items)
    assert got.nnz == 0
    far = torch.tensor([[1.0, 0], [1, 0.1], [0, 1]])[:items]
    assert compute_vector_neighbours(far, 50).nnz == (3 if items == 3 else 0)

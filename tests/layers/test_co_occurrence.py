"""Pairs of events near each other, against a loop over all of them, and against whole histories."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.layers.co_occurrence import PairWeights, compute_windowed_neighbours
from recsys.layers.item_item import compute_cosine_neighbours, compute_squares

ITEMS = 9


def make_events(seed, users=14):
    """(N,) users and items; users of 0 to 8 events, some of them repeated; item 8 nobody had."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(users), rng.integers(0, 9, users))
    return owner, rng.integers(0, ITEMS - 1, len(owner))


def make_matrix(users, items, binary):
    one = np.ones(len(users), dtype=np.float32)
    matrix = csr_matrix((one, (users, items)), shape=(users.max() + 1, ITEMS))
    if binary:
        matrix.data[:] = 1
    return matrix


def count_naively(users, items, weights):
    """(I, I) float64: what item i of a history says for item j, in row j."""
    out = np.zeros((ITEMS, ITEMS))
    for user in set(users.tolist()):
        history, own = items[users == user], np.zeros((ITEMS, ITEMS))
        for early in range(len(history)):
            for late in range(early + 1, min(len(history), early + weights.window + 1)):
                i, j = history[early], history[late]
                if i == j:
                    continue
                weight = 1 / (late - early) if weights.gap == "inverse" else 1.0
                for at, one in (((j, i), weight), ((i, j), weight * weights.backward)):
                    own[at] = max(own[at], one) if weights.binary else own[at] + one
        out += own
    return out


def select_naively(counts, squares, k, shrink):
    """(I, I) float64: the k largest of each row, equal ones by column."""
    norms = np.sqrt(np.outer(squares, squares)) + shrink
    similar = np.divide(counts, norms, out=np.zeros_like(counts), where=counts > 0)
    for row in similar:
        row[np.argsort(-row, kind="stable")[k:]] = 0
    return similar


@pytest.mark.parametrize(
    "weights",
    [
        PairWeights(1, "equal", 1.0, True),
        PairWeights(2, "inverse", 0.6, True),
        PairWeights(3, "inverse", 0.0, False),
        PairWeights(99, "inverse", 2.0, False),
        PairWeights(99, "equal", 0.3, True),
    ],
)
def test_pairs_equal_a_loop_over_all_whatever_the_block(weights):
    for seed in range(3):
        users, items = make_events(seed)
        squares = compute_squares(make_matrix(users, items, weights.binary))
        counts = count_naively(users, items, weights)
        assert (counts != counts.T).any() == (weights.backward != 1)
        for k, shrink in ((99, 0.0), (2, 3.0)):
            want = select_naively(counts, squares, k, shrink)
            for block in (1, 13, 1 << 20):
                got = compute_windowed_neighbours(users, items, squares, weights, k, shrink, block)
                np.testing.assert_allclose(got.toarray(), want, atol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_an_endless_window_that_weighs_all_alike_is_the_cosine(binary):
    users, items = make_events(5, users=60)
    matrix = make_matrix(users, items, binary)
    want = compute_cosine_neighbours(matrix, 3, 2.0)
    weights = PairWeights(99, "equal", 1.0, binary)
    got = compute_windowed_neighbours(users, items, compute_squares(matrix), weights, 3, 2.0)
    assert (got != want).nnz == 0
    assert want.nnz == 3 * (ITEMS - 1)


def test_a_pair_leads_from_the_earlier_item_to_the_later_one():
    users, items = np.zeros(3, dtype=np.int64), np.array([4, 2, 7])
    squares = compute_squares(make_matrix(users, items, True))
    weights = PairWeights(1, "equal", 0.25, True)
    got = compute_windowed_neighbours(users, items, squares, weights, 9, 0.0).toarray()
    want = np.zeros((ITEMS, ITEMS))
    want[2, 4] = want[7, 2] = 1
    want[4, 2] = want[2, 7] = 0.25
    np.testing.assert_array_equal(got, want)

"""EASE in closed form, plain and pulled towards item vectors, against dense solves in float64."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse import random as sparse_random

from recsys.errors import DataError
from recsys.layers.ease import (
    ClosedForm,
    EventSide,
    RecentResults,
    TextSide,
    compute_inverse,
    compute_penalty,
)
from recsys.runtime.memory import MemoryMonitor, read_anonymous_mb

ITEMS, COLD, WIDTH = 23, [4, 22], 5
HISTORIES = torch.tensor([[0, 7, 3], [5, 4, 5], [22, -1, -1], [9, 22, 4]])


def make_events(seed=0, users=60):
    """(users, I) zeros and ones; nobody has the cold items."""
    matrix = (np.random.default_rng(seed).random((users, ITEMS)) < 0.2).astype(float)
    matrix[:, COLD] = 0
    return matrix


def make_vectors(seed=1):
    """(I, D) unit vectors in float32."""
    vectors = np.random.default_rng(seed).normal(size=(ITEMS, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def solve_densely(matrix, l2):
    """EASE of a matrix (users, I) as Steck has it: -P_ij / P_jj, and 0 on the diagonal."""
    inverse = np.linalg.inv(matrix.T @ matrix + l2 * np.eye(matrix.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return inverse, weights


def solve_pulled_densely(matrix, vectors, l2, rho, text_l2):
    """B = P (G + rho C + diag(gamma)) with gamma of the zero diagonal: (I, I) float64."""
    inverse, _ = solve_densely(matrix, l2)
    _, own = solve_densely(vectors.T.astype(float), text_l2)
    free = inverse @ (matrix.T @ matrix + rho * own)
    gamma = -np.diag(free) / np.diag(inverse)
    return free + inverse * gamma


def make_sides(matrix, l2, vectors=None):
    seen = np.flatnonzero(matrix.any(0))
    inverse = compute_inverse(csr_matrix(matrix[:, seen], dtype=np.float32), l2)
    return EventSide.compute(inverse, seen, ITEMS, l2, vectors)


def weigh_densely(rows, recency):
    """(Q, I) the latest event of each item, faded."""
    out = np.zeros((len(rows), ITEMS))
    for query, row in enumerate(rows.tolist()):
        had = [item for item in row if item >= 0]
        for age, item in enumerate(reversed(had)):
            out[query, item] = max(out[query, item], np.exp(-recency * age))
    return out


@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_the_inverse_is_one_whatever_the_block(l2):
    matrix = make_events()
    want, _ = solve_densely(matrix, l2)
    for block in (1, 4, 1024):
        got = compute_inverse(csr_matrix(matrix, dtype=np.float32), l2, block)
        assert got.flags.c_contiguous
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_nothing_else_of_its_size_is_held():
    """So that 20,000 items, whose matrix has 1.6 GB, stay far below 4 GB."""
    n = 3000
    matrix = sparse_random(n, n, 0.002, "csr", np.float32, np.random.default_rng(0))
    compute_inverse(matrix[:, :50], 1.0)  # imports
    before = read_anonymous_mb()
    with MemoryMonitor(pace=0.001) as monitor:
        inverse = compute_inverse(matrix, 1.0, block=100)
    if before is None:
        pytest.skip("the system does not tell how much memory a process has")
    assert monitor.peak - before < 1.5 * inverse.nbytes / 2**20


def test_what_cannot_be_inverted_says_so():
    with pytest.raises(DataError, match=r"architecture\.l2=0; raise it"):
        compute_inverse(csr_matrix(make_events(), dtype=np.float32), 0.0)


def test_text_weights_are_those_of_ease_whose_users_are_dimensions():
    vectors = make_vectors()
    _, want = solve_densely(vectors.T.astype(float), 0.7)
    text = TextSide.compute(vectors, 0.7)
    got = vectors @ text.weights
    np.testing.assert_allclose(np.diag(got), text.leverage, rtol=1e-4)
    np.testing.assert_allclose(got - np.diag(np.diag(got)), want, atol=1e-5)


@pytest.mark.parametrize("rho", [0.0, 3.0, 200.0])
@pytest.mark.parametrize(("l2", "text_l2"), [(0.5, 0.1), (20.0, 10.0)])
@pytest.mark.parametrize("recency", [0.0, 0.3])
def test_scores_are_those_of_the_dense_solution(rho, l2, text_l2, recency):
    """Of warm and cold items, with histories that hold either."""
    matrix, vectors = make_events(), make_vectors()
    want = solve_pulled_densely(matrix, vectors, l2, rho, text_l2)
    assert np.abs(np.diag(want)).max() < 1e-9
    events, text = make_sides(matrix, l2, vectors), TextSide.compute(vectors, text_l2)
    form = ClosedForm(events, text, rho, recency)
    scores = form.score(HISTORIES, torch.arange(ITEMS)).numpy()
    # the pull multiplies what float32 has rounded
    bound = 2e-5 * (1 + np.abs(want).max())
    np.testing.assert_allclose(scores, weigh_densely(HISTORIES, recency) @ want, atol=bound)
    assert (scores[:, COLD] != 0).any() == (rho > 0)
    some = torch.tensor([22, 0, 5])
    assert np.array_equal(form.score(HISTORIES, some).numpy(), scores[:, some])


def test_an_item_says_nothing_of_itself():
    """The diagonal of the weights: a history of one item, scored with that item."""
    matrix, vectors = make_events(), make_vectors()
    events, text = make_sides(matrix, 2.0, vectors), TextSide.compute(vectors, 1.0)
    for rho in (0.0, 50.0):
        form = ClosedForm(events, text, rho, 0.0)
        scores = form.score(torch.arange(ITEMS)[:, None], torch.arange(ITEMS))
        assert scores.diag().abs().max() < 2e-4 * scores.abs().max()


def test_without_a_pull_it_is_the_plain_ease():
    matrix, vectors = make_events(), make_vectors()
    _, want = solve_densely(matrix, 5.0)
    events = make_sides(matrix, 5.0)
    plain = ClosedForm(events, None, 0.0, 0.0)
    pulled = ClosedForm(make_sides(matrix, 5.0, vectors), TextSide.compute(vectors, 1.0), 0.0, 0.0)
    scores = [form.score(HISTORIES, torch.arange(ITEMS)) for form in (plain, pulled)]
    assert torch.equal(*scores)
    np.testing.assert_allclose(scores[0], weigh_densely(HISTORIES, 0) @ want, atol=1e-5)
    got = compute_penalty(events, None, 0.0) * events.diagonal
    np.testing.assert_allclose(got, ~np.isin(np.arange(ITEMS), COLD), rtol=1e-6)


def test_what_is_kept_between_forms_changes_no_score():
    matrix, vectors = make_events(), make_vectors()
    events, kept = make_sides(matrix, 2.0, vectors), RecentResults(2)
    texts = [TextSide.compute(vectors, l2) for l2 in (1.0, 4.0)]
    for _ in range(2):
        for rows in (HISTORIES, HISTORIES.flip(0), HISTORIES[:2]):
            for text in (None, *texts):
                for rho, recency in ((0.0, 0.0), (5.0, 0.0), (5.0, 0.3)):
                    if text is None and rho:
                        continue
                    alone = ClosedForm(events, text, rho, recency)
                    sharing = ClosedForm(events, text, rho, recency, kept)
                    every = torch.arange(ITEMS)
                    assert torch.equal(alone.score(rows, every), sharing.score(rows, every))


def test_a_vector_asks_as_a_cold_item_with_it_would():
    """But for the item itself, which is no part of the catalog."""
    matrix, vectors = make_events(), make_vectors()
    events, text = make_sides(matrix, 2.0, vectors), TextSide.compute(vectors, 1.0)
    form = ClosedForm(events, text, 7.0, 0.0)
    got = form.score(torch.from_numpy(vectors[COLD[:1]]), torch.arange(ITEMS))
    want = form.score(torch.tensor([COLD[:1]]), torch.arange(ITEMS)) * 2.0  # the row of P is 1 / l2
    others = [item for item in range(ITEMS) if item != COLD[0]]
    torch.testing.assert_close(got[:, others], want[:, others], rtol=1e-4, atol=1e-4)

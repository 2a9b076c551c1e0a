"""Measures beyond accuracy against hand-worked numbers and plain definitions."""

import math

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.metrics import beyond_accuracy

TOP = np.array([[0, 1], [0, 2], [3, -1]])


def test_coverage_and_gini_by_hand():
    shown = beyond_accuracy.count_exposure(TOP, 5)
    assert shown.tolist() == [2, 1, 1, 1, 0]
    assert beyond_accuracy.compute_coverage(shown) == 4 / 5
    # Half the mean absolute difference of all pairs, over the mean.
    pairs = np.abs(shown[:, None] - shown[None]).mean() / (2 * shown.mean())
    assert beyond_accuracy.compute_gini(shown) == pytest.approx(pairs)
    assert beyond_accuracy.compute_gini(np.array([3, 3, 3])) == 0
    assert beyond_accuracy.compute_gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)
    assert math.isnan(beyond_accuracy.compute_gini(np.zeros(3, dtype=int)))


def test_novelty_and_popularity_by_hand():
    counts = np.array([7, 3, 1, 1, 0])  # with one event more each: 8, 4, 2, 2, 1 of 17
    bits = beyond_accuracy.compute_information(counts)
    assert bits[0] == pytest.approx(math.log2(17 / 8))
    assert bits[4] == pytest.approx(math.log2(17))
    means = beyond_accuracy.compute_list_means(bits, TOP)
    assert means[0] == pytest.approx((math.log2(17 / 8) + math.log2(17 / 4)) / 2)
    assert means[2] == pytest.approx(bits[3])
    assert beyond_accuracy.compute_list_means(counts.astype(float), TOP).tolist() == [5, 4, 1]
    empty = beyond_accuracy.compute_list_means(bits, np.full((1, 2), -1))
    assert math.isnan(empty[0])
    owner, items = np.array([0, 0, 2]), np.array([0, 1, 2])
    ragged = beyond_accuracy.compute_ragged_means(counts.astype(float), owner, items, 3)
    assert ragged[[0, 2]].tolist() == [5, 1]
    assert math.isnan(ragged[1])


def test_diversity_is_one_minus_the_mean_cosine_of_all_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.random((9, 4)) * (rng.random((9, 4)) > 0.4)
    vectors[8] = 0  # a text without a word
    norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    vectors = vectors / norms
    top = np.array([[0, 1, 2], [3, 8, 4], [5, 6, -1], [7, -1, -1]])
    found = beyond_accuracy.compute_diversity(top, csr_matrix(vectors))
    for row, value in zip(top[:3], found, strict=False):
        there = [i for i in row if i >= 0]
        pairs = [vectors[i] @ vectors[j] for i in there for j in there if i != j]
        assert value == pytest.approx(1 - np.mean(pairs))
    assert math.isnan(found[3])


def test_calibration_by_hand():
    kinds = beyond_accuracy.parse_categories(
        pl.Series("genres", ["a", "b", "a|b", None, " b | b "])
    )
    categories = beyond_accuracy.compute_category_shares(kinds)
    assert categories.toarray().tolist() == [[1, 0], [0, 1], [0.5, 0.5], [0, 0], [0, 1]]
    wanted = np.array([[3.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    top = np.array([[0, 2], [0, -1], [0, 1], [3, 3]])
    found = beyond_accuracy.compute_calibration(top, wanted, categories)
    assert found[0] == pytest.approx(0)  # both are 3 to 1
    assert found[1] == pytest.approx(0)
    assert np.isnan(found[2:]).all()  # no history, no category in the list
    other = beyond_accuracy.compute_calibration(
        np.array([[1, 1]]), np.array([[3.0, 1.0]]), categories
    )[0]
    q = (0.01 * 0.75, 0.99 + 0.01 * 0.25)
    assert other == pytest.approx(0.75 * math.log(0.75 / q[0]) + 0.25 * math.log(0.25 / q[1]))


def test_a_column_of_names_is_no_category():
    with pytest.raises(ConfigError, match="1001 categories"):
        beyond_accuracy.parse_categories(pl.Series("title", [f"t{i}" for i in range(1001)]))

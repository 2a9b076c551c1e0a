"""Measures of explanations, on lists that can be counted by hand."""

import math

import pytest

from recsys.trained.explanations.faithfulness import (
    compute_kept_share,
    compute_replaced_gain,
    compute_replaced_share,
)


def test_a_list_of_other_items_is_replaced_as_a_whole():
    assert compute_replaced_share([1, 2, 3], [3, 2, 1]) == 0
    assert compute_replaced_share([1, 2, 3, 4], [5, 1, 2, 6]) == 0.5
    assert compute_replaced_gain([1, 2], [2, 1]) == 0
    assert compute_replaced_gain([1, 2, 3], [4, 5, 6]) == pytest.approx(1)


def test_a_new_item_weighs_by_its_rank():
    total = 1 + 1 / math.log2(3)
    assert compute_replaced_gain([1, 2], [3, 1]) == pytest.approx(1 / total)
    assert compute_replaced_gain([1, 2], [1, 3]) == pytest.approx(1 / math.log2(3) / total)


@pytest.mark.parametrize("size", [3, 10, 23])
def test_removing_what_a_list_depends_on_first_leaves_less_of_it(size):
    """The list is lost with item 0 of the history and with nothing else."""

    def rank(removed):
        return [8, 9] if 0 in removed else [1, 2]

    order = list(range(size))
    assert compute_kept_share([1, 2], order, rank) == 0
    # the last step removes everything, and a short history is gone before
    last = 0.9 if size >= 10 else (size - 1) / 10
    kept = compute_kept_share([1, 2], order[::-1], rank)
    assert kept == pytest.approx(last if size >= 10 else 0.2)


def test_each_set_is_ranked_once():
    seen = []
    compute_kept_share([1], [5, 6], lambda removed: seen.append(tuple(removed)) or [1])
    assert seen == [(5,), (5, 6)]

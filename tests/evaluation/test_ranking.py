"""Scores, mask and choice are the same wherever a catalog is ranked."""

import pytest
import torch

from recsys.evaluation import ranking


class Product:
    """Scores by a product, with popularity for who has no history."""

    needs_history = True

    def score(self, queries, items):
        return queries @ items.T

    def get_popularity(self):
        return torch.tensor([5.0, 1.0, 9.0, 3.0])


def test_best_goes_by_score_then_by_order_and_ends_where_nothing_is_left():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 5, (50, 40), generator=generator).float()
    scores[torch.rand(50, 40, generator=generator) < 0.5] = -torch.inf
    scores[0] = -torch.inf
    for order in (torch.arange(40), torch.randperm(40, generator=generator)):
        ranked = order[scores[:, order].argsort(dim=1, descending=True, stable=True)[:, :25]]
        want = ranked.masked_fill(scores.gather(1, ranked) == -torch.inf, -1)
        assert torch.equal(ranking.select_top(scores, 25, order), want)
        assert torch.equal(ranking.select_top(scores, 60, order)[:, :25], want)
        assert ranking.select_top(scores, 60, order).shape == (50, 60)


def test_without_an_order_the_best_scores_are_the_same():
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(20, 30, generator=generator)
    order = torch.randperm(30, generator=generator)
    assert torch.equal(ranking.select_top(scores, 9), ranking.select_top(scores, 9, order))


def test_a_mask_may_be_told_as_places():
    scores, mask = torch.rand(6, 7), torch.rand(6, 7) < 0.4
    want = ranking.mask_scores(scores, mask)
    assert torch.equal(ranking.mask_scores(scores, mask.nonzero()), want)
    assert torch.equal(want == -torch.inf, mask)
    assert torch.equal(ranking.mask_scores(scores, torch.empty(0, 2, dtype=torch.long)), scores)


def test_popularity_answers_a_query_without_the_history_that_is_needed():
    ranker, items = Product(), torch.eye(4)
    queries, empty = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]]), torch.tensor([False, True])
    scores = ranking.score_items(ranker, queries, items, empty)
    assert scores.tolist() == [[1, 2, 3, 4], [5, 1, 9, 3]]
    rows = torch.tensor([2, 0])
    some = ranking.score_items(ranker, queries, items[rows], empty, rows)
    assert torch.equal(some, scores[:, rows])
    ranker.needs_history = False
    assert ranking.score_items(ranker, queries, items, empty)[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("items", "count"), [(1 << 20, 16), (1 << 24, 1), (1 << 30, 1)])
def test_a_block_of_queries_has_a_bounded_number_of_scores(items, count):
    assert ranking.count_block_queries(items) == count


@pytest.mark.parametrize("size", [1, 5, 12, 40])
@pytest.mark.parametrize("width", [1, 63, 64, 640, 1000])
def test_the_best_of_wide_rows_are_those_of_a_stable_sort(size, width):
    size, generator = min(size, width), torch.Generator().manual_seed(width)
    for levels in (4, 10**6):
        scores = torch.randint(0, levels, (30, width), generator=generator).float()
        scores[torch.rand(30, width, generator=generator) < 0.3] = -torch.inf
        scores[0], scores[1] = -torch.inf, 2.0
        scores[2] = torch.arange(width)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :size]
        values, columns = ranking.select_best(scores, size)
        assert torch.equal(columns, order)
        assert torch.equal(values, scores.gather(1, order))

from __future__ import annotations

import math
from itertools import pairwise, permutations
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score
from torch import Tensor
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_normalized_dcg

from recsys.errors import ConfigError, DataError
from recsys.metrics.functional import (
    compute_from_counts,
    compute_from_lists,
    count_ranks,
)
from recsys.metrics.names import list_metric_names

KS = (1, 2, 3, 10)


def of_order(labels: list[int], ks: tuple[int, ...]) -> dict[str, float]:
    """Textbook definitions on one list without ties, best first."""
    ranks = [place + 1 for place, label in enumerate(labels) if label]
    out = {}
    for k in ks:
        top = [rank for rank in ranks if rank <= k]
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(ranks)) + 1))
        out[f"hr@{k}"] = float(bool(top))
        out[f"recall@{k}"] = len(top) / len(ranks)
        out[f"ndcg@{k}"] = sum(1 / math.log2(rank + 1) for rank in top) / ideal
        precisions = [(number + 1) / rank for number, rank in enumerate(top)]
        out[f"map@{k}"] = sum(precisions) / min(k, len(ranks))
    out["mrr"] = 1 / ranks[0]
    out["mrr_all"] = sum(1 / rank for rank in ranks) / len(ranks)
    negatives = [place + 1 for place, label in enumerate(labels) if not label]
    pairs = [rank < other for rank in ranks for other in negatives]
    out["auc"] = sum(pairs) / len(pairs) if pairs else math.nan
    return out


def oracle(scores: list[float], labels: list[int], ks: tuple[int, ...]) -> dict[str, float]:
    """Mean over every order of the candidates in which no score stands below a lower one."""
    orders = [
        of_order([labels[i] for i in order], ks)
        for order in permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]
    return {name: sum(o[name] for o in orders) / len(orders) for name in orders[0]}


def one(values: dict[str, Tensor], row: int = 0) -> dict[str, float]:
    return {name: value[row].item() for name, value in values.items()}


def lists(scores: Tensor, labels: Tensor, ks: tuple[int, ...] = KS) -> dict[str, Tensor]:
    return compute_from_lists(scores, labels, torch.ones_like(scores, dtype=torch.bool), ks)


candidate = st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 0.5, math.inf, -math.inf]), st.booleans())


@settings(max_examples=120, deadline=None)
@given(
    st.lists(candidate, min_size=1, max_size=6).filter(lambda c: any(label for _, label in c)),
    st.lists(candidate, max_size=3),
    st.randoms(use_true_random=False),
)
def test_lists_equal_the_mean_over_all_orders_whatever_stands_in_invalid_places(
    real: list, junk: list, rng: Random
) -> None:
    places = [(*c, True) for c in real] + [(math.nan, label, False) for _, label in junk]
    rng.shuffle(places)
    scores, labels, valid = (torch.tensor([column]) for column in zip(*places, strict=True))
    want = oracle([s for s, _ in real], [int(label) for _, label in real], KS)
    got = one(compute_from_lists(scores, labels.long(), valid, KS))
    assert got == pytest.approx(want, abs=1e-12, nan_ok=True)


def test_auc_and_ndcg_equal_sklearn_with_many_ties() -> None:
    torch.manual_seed(0)
    scores = torch.randint(-4, 4, (60, 30)).float()
    labels = (torch.rand(60, 30) < 0.2).long()
    labels[:, 0], labels[:, 1] = 1, 0
    got = lists(scores, labels, (5, 10, 100))
    for row in range(60):
        truth, guess = labels[row].numpy(), scores[row].numpy()
        assert got["auc"][row].item() == pytest.approx(roc_auc_score(truth, guess), abs=1e-12)
        for k in (5, 10, 100):
            want = ndcg_score([truth], [guess], k=k, ignore_ties=False)
            assert got[f"ndcg@{k}"][row].item() == pytest.approx(want, abs=1e-12)


def test_ndcg_and_hit_rate_equal_torchmetrics_without_ties() -> None:
    torch.manual_seed(1)
    scores, labels = torch.randn(40, 25), (torch.rand(40, 25) < 0.1).long()
    labels[:, 3] = 1
    got = lists(scores, labels, (1, 5))
    for row in range(40):
        for k in (1, 5):
            ndcg = retrieval_normalized_dcg(scores[row], labels[row], top_k=k).item()
            hit = retrieval_hit_rate(scores[row], labels[row].bool(), top_k=k).item()
            assert got[f"ndcg@{k}"][row].item() == pytest.approx(ndcg, abs=1e-6)
            assert got[f"hr@{k}"][row].item() == hit


@pytest.mark.parametrize("levels", [3, 40, 10**6])
def test_counts_lists_and_full_catalog_agree(levels: int) -> None:
    torch.manual_seed(levels)
    scores = torch.randint(-levels, levels, (200, 50)).float()
    target = torch.randint(0, 50, (200,))
    mask = torch.rand(200, 50) < 0.3  # some rows exclude their own target: it counts all the same
    assert mask.gather(1, target[:, None]).any()
    valid = (~mask).scatter(1, target[:, None], True)
    labels = torch.zeros(200, 50).scatter(1, target[:, None], 1.0)
    greater, equal, size = count_ranks(scores, target, mask)
    pairs = mask.nonzero().repeat(2, 1)  # an exclusion may be told twice
    for found, same in zip(count_ranks(scores, target, pairs), (greater, equal, size), strict=True):
        assert torch.equal(found, same)
    by_count = compute_from_counts(greater, equal, KS, size)
    by_list = compute_from_lists(scores, labels, valid, KS)
    assert tuple(by_count) == tuple(by_list) == list_metric_names(KS)
    assert torch.equal(size, valid.sum(1))
    for name, value in by_count.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, by_list[name], atol=1e-12, rtol=0, equal_nan=True)


def test_constant_scores_are_worth_a_random_order() -> None:
    greater, equal, size = count_ranks(
        torch.zeros(1, 1000), torch.tensor([7]), torch.zeros(1, 1000, dtype=torch.bool)
    )
    got = one(compute_from_counts(greater, equal, (10,), size))
    assert got["hr@10"] == pytest.approx(0.01)
    assert got["auc"] == 0.5
    assert got["mrr"] == pytest.approx(sum(1 / r for r in range(1, 1001)) / 1000)


def test_negative_scores_keep_their_positives() -> None:
    scores, labels = torch.tensor([[-1.0, -2.0, -3.0, -4.0]]), torch.tensor([[0, 1, 0, 1]])
    got = one(lists(scores, labels))
    assert got["mrr"] == 0.5
    assert got["mrr_all"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert got["map@10"] == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_deep_rank_in_a_large_catalog_keeps_its_digits() -> None:
    got = compute_from_counts(torch.tensor([10**7]), torch.tensor([0]), (10,))
    assert got["mrr"].item() == 1 / (10**7 + 1)
    assert "auc" not in got


def test_one_item_and_all_positive_have_no_auc_but_perfect_ranks() -> None:
    for count in (1, 4):
        got = one(lists(torch.randn(1, count), torch.ones(1, count)))
        assert math.isnan(got.pop("auc"))
        assert got.pop("mrr_all") == pytest.approx(sum(1 / r for r in range(1, count + 1)) / count)
        for k in KS:
            assert got.pop(f"recall@{k}") == pytest.approx(min(k, count) / count)
        assert got == pytest.approx(dict.fromkeys(got, 1.0))
    alone = compute_from_counts(torch.tensor([0]), torch.tensor([0]), KS, torch.tensor([1]))
    assert alone["auc"].isnan().all()


@pytest.mark.parametrize("columns", [0, 3])
def test_a_case_without_positive_is_undefined(columns: int) -> None:
    nothing = torch.zeros(2, columns)
    for valid in (torch.zeros(2, columns).bool(), torch.ones(2, columns).bool()):
        got = compute_from_lists(nothing, nothing, valid, KS)
        assert all(value.shape == (2,) and value.isnan().all() for value in got.values())


def test_no_case_at_all_gives_empty_results() -> None:
    got = lists(torch.zeros(0, 5), torch.zeros(0, 5))
    assert all(value.shape == (0,) for value in got.values())


def test_nan_score_names_its_cases() -> None:
    scores = torch.zeros(3, 4)
    scores[1, 2] = scores[2, 0] = math.nan
    everything = torch.ones(3, 4, dtype=torch.bool)
    cases = torch.tensor([70, 81, 92])
    with pytest.raises(DataError, match=r"NaN.* case 81, 92;"):
        compute_from_lists(scores, torch.eye(3, 4), everything, KS, cases)
    with pytest.raises(DataError, match=r"NaN.* row 1, 2;"):
        count_ranks(scores, torch.zeros(3).long(), ~everything)
    hidden = scores.isnan()
    hidden[2] = False  # a masked NaN is no column that is ranked; the target's own always is
    with pytest.raises(DataError, match=r"NaN.* case 92;"):
        count_ranks(scores, torch.zeros(3).long(), hidden, cases)
    with pytest.raises(DataError, match=r"NaN.* case 92;"):
        count_ranks(scores, torch.zeros(3).long(), hidden.nonzero(), cases)
    with pytest.raises(DataError, match=r"NaN.* case 92;"):
        count_ranks(scores, torch.zeros(3).long(), everything, cases)


def test_bad_input_is_refused() -> None:
    scores, valid = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(DataError, match="neither 0 nor 1"):
        compute_from_lists(scores, torch.full((2, 3), 2), valid, KS)
    with pytest.raises(DataError, match="labels has shape"):
        compute_from_lists(scores, torch.zeros(2, 4), valid, KS)
    with pytest.raises(DataError, match=r"torch\.bool"):
        compute_from_lists(scores, scores, valid.long(), KS)
    with pytest.raises(DataError, match="not one of the 3 columns in row 1;"):
        count_ranks(scores, torch.tensor([0, 3]), ~valid)
    with pytest.raises(DataError, match="exceed"):
        compute_from_counts(torch.tensor([2]), torch.tensor([1]), KS, torch.tensor([3]))
    with pytest.raises(DataError, match="negative"):
        compute_from_counts(torch.tensor([-1]), torch.tensor([1]), KS)


@pytest.mark.parametrize("ks", [(0,), (5, 5), (2.0,), (True,)])
def test_bad_cut_offs_are_refused(ks: tuple) -> None:
    with pytest.raises(ConfigError, match=r"cut-off"):
        list_metric_names(ks)

"""How much cases count where weights of an ensemble are chosen."""

import pytest
import torch

from recsys.metrics.names import FEWEST
from recsys.metrics.ranking import RankingMetrics
from recsys.models.fusion.cases import Judge, compute_means


def make_values(cold, warm):
    values = torch.rand(cold + warm, 3, generator=torch.Generator().manual_seed(1)).double()
    return values, torch.arange(cold + warm) < cold


@pytest.mark.parametrize("cold", [0, 1, FEWEST - 1, FEWEST, 200])
@pytest.mark.parametrize("monitor", ["ndcg@10", "balanced/ndcg@10"])
def test_the_mean_is_the_one_that_the_evaluation_reports(cold, monitor):
    values, is_cold = make_values(cold, 100)
    means = compute_means(values, Judge(monitor, "", [10]).weigh_cases(is_cold))
    for way in range(3):
        metrics = RankingMetrics(["ndcg@10"])
        metrics.update({"ndcg@10": values[:, way]}, torch.ones(len(values)).bool(), is_cold)
        torch.testing.assert_close(means[way], metrics.compute()[monitor], rtol=1e-12, atol=0)


def test_bins_add_up_to_the_whole():
    values, is_cold = make_values(40, 100)
    weights = Judge("balanced/ndcg@10", "", [10]).weigh_cases(is_cold)
    odd = torch.arange(140) % 2 == 1
    parts = [
        compute_means(values[part], weights[part]) * weights[part].sum() for part in (odd, ~odd)
    ]
    torch.testing.assert_close(sum(parts) / weights.sum(), compute_means(values, weights))


def test_an_undefined_case_counts_nowhere_and_no_case_is_nan():
    values = torch.tensor([[0.5], [torch.nan], [1.0]]).double()
    weights = Judge("ndcg@10", "", [10]).weigh_cases(torch.tensor([False, True, False]))
    assert compute_means(values, weights).item() == 0.75
    assert compute_means(values[1:2], weights[1:2]).isnan().item()

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.metrics.ranking import RankingMetrics

NAMES = ("ndcg@10", "auc")


def step(size: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    gen = torch.Generator().manual_seed(seed)
    values = {name: torch.rand(size, generator=gen, dtype=torch.float64) for name in NAMES}
    values["auc"][::5] = math.nan
    counted = torch.rand(size, generator=gen) < 0.8
    return values, counted, torch.rand(size, generator=gen) < 0.3


def part(data: tuple[dict[str, Tensor], Tensor, Tensor], where: slice) -> tuple:
    values, counted, cold = data
    return {name: value[where] for name, value in values.items()}, counted[where], cold[where]


def test_means_equal_plain_means_of_the_selected_cases() -> None:
    values, counted, cold = step(101)
    metric = RankingMetrics(NAMES)
    metric.update(values, counted, cold)
    got = metric.compute()
    chosen = {"": counted, "cold/": counted & cold, "warm/": counted & ~cold}
    for prefix, rows in chosen.items():
        assert got[f"{prefix}cases"].item() == rows.sum().item()
        for name in NAMES:
            want = values[name][rows].nanmean().item()
            assert got[f"{prefix}{name}"].item() == pytest.approx(want, abs=1e-14)
            assert got[f"{prefix}{name}"].dtype == torch.float64
    assert got["undefined/auc"].item() == values["auc"][counted].isnan().sum().item() > 0
    assert got["undefined/ndcg@10"].item() == 0


def test_uneven_parts_and_merged_states_equal_one_update() -> None:
    data = step(101)
    whole, split, rank0, rank1 = (RankingMetrics(NAMES) for _ in range(4))
    whole.update(*data)
    for metric, where in (
        (split, slice(0, 7)),
        (split, slice(7, None)),
        (rank0, slice(0, 90)),
        (rank1, slice(90, None)),
    ):
        metric.update(*part(data, where))
    rank0.merge_state(rank1)
    for other in (split, rank0):
        torch.testing.assert_close(
            other.compute(), whole.compute(), atol=1e-14, rtol=0, equal_nan=True
        )


def test_every_state_is_summed_over_ranks() -> None:
    data = step(50)
    ranks = [RankingMetrics(NAMES) for _ in range(3)]  # the last one never sees a case
    ranks[0].update(*part(data, slice(0, 40)))
    ranks[1].update(*part(data, slice(40, None)))
    whole, synced = RankingMetrics(NAMES), RankingMetrics(NAMES)
    whole.update(*data)
    for name, reduce in synced._reductions.items():
        setattr(synced, name, reduce(torch.stack([getattr(rank, name) for rank in ranks])))
    synced._update_count = 1
    assert set(synced._reductions) == {"sums", "counts", "cases"}
    torch.testing.assert_close(synced.compute(), whole.compute(), atol=1e-14, rtol=0)


@pytest.mark.parametrize("junk", [math.nan, math.inf, 1e300])
def test_fillers_never_enter(junk: float) -> None:
    values = {name: torch.tensor([0.25, junk, 0.75]) for name in NAMES}
    metric = RankingMetrics(NAMES)
    metric.update(values, torch.tensor([True, False, True]), torch.tensor([False, True, False]))
    got = metric.compute()
    assert got["ndcg@10"].item() == got["warm/auc"].item() == 0.5
    assert got["cases"].item() == 2
    assert got["cold/cases"].item() == 0
    assert got["undefined/auc"].item() == 0


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_case_is_nan_and_not_zero() -> None:
    metric = RankingMetrics(NAMES)
    for _ in range(2):
        got = metric.compute()
        for key in ("auc", "cold/auc", "warm/ndcg@10"):
            assert got[key].isnan()
        assert got["cases"].item() == 0
        empty = torch.zeros(0, dtype=torch.bool)
        metric.update({name: torch.zeros(0) for name in NAMES}, empty, empty)


def test_results_stay_when_more_cases_follow_and_reset_forgets_them() -> None:
    metric = RankingMetrics(NAMES)
    metric.update(*step(20))
    before = metric.compute()
    kept = {key: value.item() for key, value in before.items()}
    metric.update(*step(30, seed=1))
    assert {key: value.item() for key, value in before.items()} == kept
    metric.reset()
    metric.update(*step(20))
    assert {key: value.item() for key, value in metric.compute().items()} == kept


def test_precision_survives_half_and_pickle() -> None:
    metric = pickle.loads(pickle.dumps(RankingMetrics(NAMES).half()))
    metric.update(*step(20))
    assert metric.sums.dtype == torch.float64
    assert metric.counts.dtype == torch.int64


def test_bad_updates_are_refused() -> None:
    values, counted, cold = step(4)
    metric = RankingMetrics(NAMES)
    with pytest.raises(DataError, match=r"lack \['auc'\]"):
        metric.update({"ndcg@10": values["ndcg@10"]}, counted, cold)
    with pytest.raises(DataError, match=r"unknown \['mrr'\]"):
        metric.update({**values, "mrr": values["auc"]}, counted, cold)
    with pytest.raises(DataError, match=r"counted is torch\.int64"):
        metric.update(values, counted.long(), cold)
    with pytest.raises(DataError, match="ndcg@10 has shape"):
        metric.update({**values, "ndcg@10": torch.zeros(3)}, counted, cold)
    assert metric.cases.sum() == 0


@pytest.mark.parametrize("names", [(), ("auc", "auc"), ("cases",), ("cold/auc",)])
def test_bad_names_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="RankingMetrics"):
        RankingMetrics(names)

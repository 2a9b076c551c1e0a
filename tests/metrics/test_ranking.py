from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.metrics.names import FEWEST
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


def test_uneven_parts_equal_one_update() -> None:
    data = step(101)
    whole, split = RankingMetrics(NAMES), RankingMetrics(NAMES)
    whole.update(*data)
    for where in (slice(0, 7), slice(7, None)):
        split.update(*part(data, where))
    torch.testing.assert_close(split.compute(), whole.compute(), atol=1e-14, rtol=0, equal_nan=True)


def test_every_state_is_summed_over_ranks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = step(50)
    ranks = [RankingMetrics(NAMES) for _ in range(3)]  # the last one never sees a case
    ranks[0].update(*part(data, slice(0, 40)))
    ranks[1].update(*part(data, slice(40, None)))
    whole = RankingMetrics(NAMES)
    whole.update(*data)
    want = whole.compute()
    gathered = []

    def all_gather(out: list[Tensor], state: Tensor) -> None:
        (name,) = (n for n in ("sums", "counts", "cases") if getattr(ranks[2], n) is state)
        gathered.append(name)
        for place, rank in zip(out, ranks, strict=True):
            place.copy_(getattr(rank, name))

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    torch.testing.assert_close(ranks[2].compute(), want, atol=1e-14, rtol=0)
    assert ranks[2].compute() is ranks[2].compute()  # asked again it takes no collective
    assert gathered == ["sums", "counts", "cases"]
    ranks[2].update(*part(data, slice(0, 0)))
    ranks[2].compute()
    assert len(gathered) == 6


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


def test_balanced_counts_cold_cases_as_much_as_warm_ones_and_leaves_out_what_is_noise() -> None:
    values = torch.cat([torch.ones(90), torch.full((FEWEST,), 0.5)])
    cold = torch.arange(len(values)) >= 90
    metric = RankingMetrics(["hr@1"])

    def mean_of(kept: slice) -> dict[str, Tensor]:
        metric.reset()
        counted = torch.ones(len(values[kept]), dtype=torch.bool)
        metric.update({"hr@1": values[kept]}, counted, cold[kept])
        return metric.compute()

    assert mean_of(slice(None))["balanced/hr@1"] == pytest.approx(0.75)
    few = mean_of(slice(None, -1))  # one cold case less
    assert few["balanced/hr@1"] == few["warm/hr@1"] == 1.0
    neither = mean_of(slice(80, 100))
    assert neither["balanced/hr@1"] == neither["hr@1"] == pytest.approx(0.75)
    assert mean_of(slice(0, 0))["balanced/hr@1"].isnan()

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as tmp_mp
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.losses import ObjectiveContext
from recsys.objectives import bce, in_batch, mse, sampled_softmax
from recsys.types import Batch, ItemBatch, Scored

N_ITEMS, N_USERS, WIDTH = 12, 6, 4


def _dot(queries: Tensor, items: Tensor) -> Tensor:
    return queries @ items.T


def _around() -> tuple[ObjectiveContext, list[tuple[int, int]]]:
    made = np.random.default_rng(3)
    pairs = [(int(made.integers(N_USERS)), int(made.integers(N_ITEMS - 1))) for _ in range(40)]
    users, items = torch.tensor(pairs).T
    return ObjectiveContext.from_positives(users, items, N_ITEMS, _dot), pairs


def _batch(seed: int, n_query: int = 9, n_candidates: int = 5) -> Batch:
    """Few items, so that targets repeat; fillers and missing candidates among them."""
    make = torch.Generator().manual_seed(seed)
    plan = torch.randperm(N_ITEMS - 1, generator=make)[:7]
    candidates = torch.randint(-1, 7, (n_query, n_candidates), generator=make)
    candidates[:, 0] = torch.randint(0, 4, (n_query,), generator=make)
    case = torch.arange(n_query)
    if n_query > 4:
        case[2], candidates[4, 0] = -1, -1
    row = torch.randint(0, 3, (n_query,), generator=make)
    return Batch(
        plan=ItemBatch(plan, (1,) * 7),
        users=torch.randperm(N_USERS, generator=make)[:3],
        history=torch.full((3, 1), -1),
        query=torch.stack([row, torch.zeros_like(row)], 1),
        candidates=candidates,
        labels=torch.randint(0, 2, candidates.shape, generator=make).float(),
        weight=torch.rand(candidates.shape, generator=make, dtype=torch.float64),
        case=case,
        seen=torch.empty(0, 2, dtype=torch.long),
    )


def _vectors(batch: Batch, seed: int = 0) -> Scored:
    """Vectors that depend on the item and the case, so that ranks can be joined."""
    make = torch.Generator().manual_seed(seed)
    table = torch.randn(N_ITEMS, WIDTH, generator=make, dtype=torch.float64)
    queries = torch.randn(
        len(batch.case), WIDTH, generator=make.manual_seed(5 + seed), dtype=torch.float64
    )
    items = table[batch.plan.items]
    return Scored(queries=queries.requires_grad_(), items=items.requires_grad_())


def _with_scores(batch: Batch) -> Scored:
    """Vectors, and what they make of the candidates; NaN where there is none."""
    made = _vectors(batch)
    assert made.queries is not None
    assert made.items is not None
    scores = (made.queries @ made.items.T).gather(1, batch.candidates.clamp(min=0))
    return replace(made, scores=scores.masked_fill(batch.candidates < 0, torch.nan))


def _row_loss(logits: dict[int | str, float], target: int, smoothing: float) -> float:
    top = np.log(sum(np.exp(v) for v in logits.values()))
    spread = np.mean([top - v for v in logits.values()])
    return float((1 - smoothing) * (top - logits[target]) + smoothing * spread)


def _slow_in_batch(
    scored: Scored,
    batch: Batch,
    pairs: list[tuple[int, int]],
    logq: float,
    smoothing: float,
    own: bool = False,
) -> tuple[float, int]:
    assert scored.queries is not None
    assert scored.items is not None
    counted = [
        q for q in range(len(batch.case)) if batch.case[q] >= 0 and batch.candidates[q, 0] >= 0
    ]
    targets = {q: int(batch.plan.items[batch.candidates[q, 0]]) for q in counted}
    place = {int(item): n for n, item in enumerate(batch.plan.items)}
    known = set(pairs)
    total, count = 0.0, 0
    for q in counted:
        user = int(batch.users[batch.query[q, 0]])
        logits: dict[int | str, float] = {}
        for item in set(targets.values()):
            if (user, item) in known and item != targets[q]:
                continue
            seen = max(sum(i == item for _, i in pairs), 1)
            inclusion = 1 - (1 - seen / len(pairs)) ** len(counted)
            dot = (scored.queries[q] @ scored.items[place[item]]).item()
            logits[item] = dot - logq * float(np.log(inclusion))
        for column in range(1, batch.candidates.shape[1] if own else 0):
            at = int(batch.candidates[q, column])
            item = int(batch.plan.items[at]) if at >= 0 else -1
            if item < 0 or (user, item) in known or item in targets.values():
                continue  # what is in the pool is there already
            assert scored.scores is not None
            logits[f"{column}"] = scored.scores[q, column].item()
        if len(logits) > 1:
            total += _row_loss(logits, targets[q], smoothing)
            count += 1
    return total, count


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("logq", "smoothing"), [(0.0, 0.0), (1.0, 0.0), (0.4, 0.2)])
def test_in_batch_equals_a_slow_loop(seed: int, logq: float, smoothing: float) -> None:
    around, pairs = _around()
    batch = _batch(seed)
    scored = _vectors(batch)
    loss = in_batch.Objective(logq, smoothing)(scored, batch, around)
    total, count = _slow_in_batch(scored, batch, pairs, logq, smoothing)
    assert int(loss.count) == count > 0
    assert loss.total.item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_in_batch_with_own_negatives_equals_a_slow_loop(seed: int) -> None:
    """Also where blocks of queries are made twice; what is no candidate may score NaN."""
    around, pairs = _around()
    batch = _batch(seed)
    gradients = []
    for chunk in (0, 2):
        scored = _with_scores(batch)
        loss = in_batch.Objective(0.4, 0.2, chunk, 4)(scored, batch, around)
        total, count = _slow_in_batch(scored, batch, pairs, 0.4, 0.2, own=True)
        assert int(loss.count) == count > 0
        assert loss.total.item() == pytest.approx(total, rel=1e-6)
        assert total > _slow_in_batch(scored, batch, pairs, 0.4, 0.2)[0]
        gradients.append(torch.autograd.grad(loss.total, [scored.queries, scored.items]))
    for whole, block in zip(*gradients, strict=True):
        assert torch.isfinite(whole).all()
        torch.testing.assert_close(block, whole)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("logq", [0.0, 1.0])
def test_in_batch_over_planned_unique_targets_is_the_same(seed: int, logq: float) -> None:
    """The loader's count of unique targets saves columns and changes nothing."""
    around, _ = _around()
    batch = _batch(seed, n_query=13, n_candidates=1)
    planned = replace(batch, plan=replace(batch.plan, first=4))
    found, widths = [], []
    for one in (batch, planned):
        scored = _vectors(one)

        def score(queries: Tensor, items: Tensor) -> Tensor:
            widths.append(len(items))
            return _dot(queries, items)

        loss = in_batch.Objective(logq, 0.1)(scored, one, replace(around, score=score))
        found.append((loss, *torch.autograd.grad(loss.total, [scored.queries, scored.items])))
    assert widths == [13, 4]
    (plain, *first), (unique, *second) = found
    assert int(plain.count) == int(unique.count) > 0
    assert unique.total.item() == pytest.approx(plain.total.item(), rel=1e-12)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("sampling", ["uniform", "frequency"])
def test_sampled_softmax_equals_a_slow_loop(sampling: str) -> None:
    around, pairs = _around()
    logq = 0.7 if sampling == "frequency" else 0.0
    for seed in range(4):
        batch = _batch(seed)
        scores = torch.randn(batch.candidates.shape, dtype=torch.float64)
        objective = sampled_softmax.Objective(4, sampling, logq, 0.1)  # type: ignore[arg-type]
        loss = objective(Scored(scores), batch, around)
        total, count = 0.0, 0
        for q in range(len(batch.case)):
            if batch.case[q] < 0 or batch.candidates[q, 0] < 0:
                continue
            row = [int(batch.plan.items[c]) if c >= 0 else -1 for c in batch.candidates[q]]
            user = int(batch.users[batch.query[q, 0]])
            logits = {}
            for c, item in enumerate(row):
                if c and (item < 0 or item == row[0] or (user, item) in set(pairs)):
                    continue
                share = max(sum(i == item for _, i in pairs), 1) / len(pairs)
                logits[c] = float(scores[q, c]) - logq * float(np.log(share))
            if len(logits) > 1:
                total += _row_loss(logits, 0, 0.1)
                count += 1
        assert int(loss.count) == count > 0
        assert float(loss.total) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("drawn", [0, 4])
def test_bce_and_mse_equal_a_slow_loop(drawn: int) -> None:
    around, pairs = _around()
    batch = _batch(1)
    scores = torch.randn(batch.candidates.shape, dtype=torch.float64)
    sums, counts = [0.0, 0.0], [0, 0]
    for q, c in np.ndindex(*batch.candidates.shape):
        if batch.case[q] < 0 or batch.candidates[q, c] < 0:
            continue
        score, label = float(scores[q, c]), float(batch.labels[q, c])
        sums[1] += (score - float(batch.weight[q, c])) ** 2
        counts[1] += 1
        pair = (int(batch.users[batch.query[q, 0]]), int(batch.plan.items[batch.candidates[q, c]]))
        if drawn and c and not label and pair in pairs:  # column 0 is observed, not drawn
            continue
        p = 1 / (1 + np.exp(-score))
        sums[0] -= float(np.log(p if label else 1 - p))
        counts[0] += 1
    assert counts[0] < counts[1] if drawn else counts[0] == counts[1]
    for n, objective in enumerate([bce.Objective(drawn), mse.Objective()]):
        loss = objective(Scored(scores), batch, around)
        assert int(loss.count) == counts[n]
        assert float(loss.total) == pytest.approx(sums[n])


@pytest.mark.parametrize("name", ["in_batch", "sampled_softmax", "bce", "mse"])
def test_gradients_agree_with_finite_differences(name: str) -> None:
    around, _ = _around()
    batch = _batch(2)
    if name == "in_batch":
        made = _vectors(batch)
        assert torch.autograd.gradcheck(
            lambda q, i: in_batch.Objective(0.5, 0.1)(Scored(None, q, i), batch, around).total,
            (made.queries, made.items),
        )
        return
    objective = {
        "sampled_softmax": sampled_softmax.Objective(4, "uniform", 0.0, 0.1),
        "bce": bce.Objective(4),
        "mse": mse.Objective(),
    }[name]
    scores = torch.randn(batch.candidates.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda s: objective(Scored(s), batch, around).total,  # type: ignore[operator]
        (scores,),
    )


@pytest.mark.parametrize("n_query", [0, 3])
def test_nothing_to_count_gives_zero_and_finite_gradients(n_query: int) -> None:
    around, _ = _around()
    batch = _batch(0, n_query)
    batch.case.fill_(-1)
    scores = torch.full(batch.candidates.shape, torch.nan, requires_grad=True)
    made = _vectors(batch)
    losses = [
        in_batch.Objective(1.0, 0.1)(made, batch, around),
        in_batch.Objective(1.0, 0.1, negatives=4)(replace(made, scores=scores), batch, around),
        sampled_softmax.Objective(4, "frequency", 1.0, 0.1)(Scored(scores), batch, around),
        bce.Objective(4)(Scored(scores), batch, around),
        mse.Objective()(Scored(scores), batch, around),
    ]
    for loss in losses:
        assert (float(loss.total), int(loss.count)) == (0.0, 0)
        loss.total.backward()
    for leaf in (scores, made.queries, made.items):
        assert leaf is not None
        assert leaf.grad is not None
        assert not leaf.grad.any()


def test_undefined_scores_of_absent_candidates_reach_no_gradient() -> None:
    around, _ = _around()
    batch = _batch(1)
    absent = (batch.candidates < 0) | (batch.case < 0)[:, None]
    scores = torch.randn(absent.shape).masked_fill(absent, torch.nan).requires_grad_()
    for objective in (sampled_softmax.Objective(4, "uniform", 0.0, 0.1), bce.Objective(0)):
        scores.grad = None
        loss = objective(Scored(scores), batch, around)  # type: ignore[operator]
        loss.total.backward()
        assert scores.grad is not None
        assert torch.isfinite(scores.grad).all()
        assert not scores.grad[absent].any()
        assert scores.grad.any()


def test_repeated_target_is_no_negative_of_itself() -> None:
    around = ObjectiveContext.from_positives(torch.tensor([5]), torch.tensor([0]), N_ITEMS, _dot)
    batch = _batch(0, 3)
    batch.candidates[:, 0] = torch.tensor([1, 1, 2])
    made = _vectors(batch)
    assert made.queries is not None
    assert made.items is not None
    logits = (made.queries @ made.items.T)[:, 1:3]
    want = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 1]), reduction="sum")
    assert torch.allclose(in_batch.Objective(0.0, 0.0)(made, batch, around).total, want)


def test_known_and_inclusion_against_a_set() -> None:
    around, pairs = _around()
    users, items = torch.tensor([0, 5, -1, 3, 1]), torch.tensor([-1, 0, 11, 4, 10])
    got = around.is_known(users, items)
    want = [[(int(u), int(i)) in set(pairs) for i in items] for u in users]
    assert got.tolist() == want
    assert got.any()
    # user 1 with item -1 has the key of user 0 with the last item
    last = ObjectiveContext.from_positives(
        torch.tensor([0]), torch.tensor([N_ITEMS - 1]), N_ITEMS, _dot
    )
    assert not last.is_known(torch.tensor([1]), torch.tensor([-1])).any()
    assert around.seen.tolist() == [any(i == n for _, i in pairs) for n in range(N_ITEMS)]
    rare = ObjectiveContext.from_positives(
        torch.zeros(1_000_000, dtype=torch.int64),
        torch.cat([torch.ones(1), torch.zeros(999_999)]).long(),
        2,
        _dot,
    )
    assert float(rare.compute_log_inclusion(torch.tensor([1]), 3)) == pytest.approx(
        np.log(3e-6), rel=1e-6
    )


def _half(batch: Batch, scored: Scored, part: slice, rank: int) -> tuple[Scored, Batch]:
    """A rank's part, with a plan in an order of its own, as real ranks have."""
    assert scored.queries is not None
    assert scored.items is not None
    order = torch.arange(7).roll(2 * rank)
    chosen = batch.candidates[part]
    chosen = torch.where(chosen >= 0, order.argsort()[chosen.clamp(min=0)], -1)
    return (
        Scored(
            None if scored.scores is None else scored.scores[part],
            scored.queries[part],
            scored.items[order],
        ),
        Batch(
            ItemBatch(batch.plan.items[order], batch.plan.sizes), batch.users, batch.history,
            batch.query[part], chosen, batch.labels[part],
            batch.weight[part], batch.case[part], batch.seen,
        ),
    )  # fmt: skip


def _rank(rank: int, folder: str, cuts: list[int]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    around, _ = _around()
    for own, cut in [(own, cut) for own in (0, 4) for cut in cuts]:
        batch = _batch(1)
        scored = _with_scores(batch)
        part = slice(0, cut) if rank == 0 else slice(cut, None)
        objective = in_batch.Objective(0.6, 0.1, negatives=own)
        loss = objective(*_half(batch, scored, part, rank), around)
        loss.total.backward()
        assert scored.queries is not None
        assert scored.items is not None
        out = [loss.total.detach(), loss.count, scored.queries.grad, scored.items.grad]
        torch.save(out, f"{folder}/{own}-{cut}-{rank}.pt")
    dist.barrier()
    # All is written. Taking gloo's threads down after a backward pass through a collective ends one
    # process in some hundred with SIGABRT ("terminate called without an active exception").
    os._exit(0)


def test_two_ranks_equal_one_process_on_the_union(tmp_path: Path) -> None:
    """Also with negatives of a query's own, which stay on its rank."""
    cuts = [4, 0]  # different sizes, and a rank without any query
    tmp_mp.spawn(_rank, args=(str(tmp_path), cuts), nprocs=2)  # type: ignore[no-untyped-call]
    around, _ = _around()
    batch = _batch(1)
    for own in (0, 4):
        scored = _with_scores(batch)
        loss = in_batch.Objective(0.6, 0.1, negatives=own)(scored, batch, around)
        loss.total.backward()
        assert scored.queries is not None
        assert scored.items is not None
        want = [loss.total.detach(), loss.count, scored.queries.grad, scored.items.grad]
        for cut in cuts:
            ranks = [torch.load(tmp_path / f"{own}-{cut}-{rank}.pt") for rank in range(2)]
            for ours, first, second in zip(want, *ranks, strict=True):
                assert ours is not None
                assert torch.allclose(ours, first + second, rtol=1e-6)


def test_bad_settings_and_missing_vectors_are_one_sentence() -> None:
    around, _ = _around()
    batch = _batch(0)
    with pytest.raises(ConfigError, match="in_batch needs scores"):
        in_batch.Objective(0.0, 0.0, negatives=1)(_vectors(batch), batch, around)
    with pytest.raises(ConfigError, match="in_batch needs query vectors"):
        in_batch.Objective(0.0, 0.0)(Scored(torch.zeros(9, 5)), batch, around)
    with pytest.raises(ConfigError, match="mse needs scores"):
        mse.Objective()(_vectors(batch), batch, around)
    with pytest.raises(DataError, match="outside the 3 items"):
        ObjectiveContext.from_positives(torch.tensor([0]), torch.tensor([3]), 3, _dot)

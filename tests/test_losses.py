"""What the objectives share: losses as sums and counts, and values that do not count."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from recsys import losses

NAN = float("nan")


def test_a_softmax_loss_is_that_of_torch_over_the_columns_kept() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 6)
    keep = torch.ones(4, 6, dtype=torch.bool)
    keep[:, 4:] = False
    target = torch.tensor([0, 3, 2, 1])
    for smoothing in (0.0, 0.1):
        loss = losses.compute_softmax_loss(logits, target, keep, smoothing)
        wanted = F.cross_entropy(logits[:, :4], target, reduction="sum", label_smoothing=smoothing)
        assert loss.total == pytest.approx(wanted.item(), rel=1e-6)
        assert loss.count == 4


def test_what_does_not_count_has_no_gradient_whatever_it_holds() -> None:
    logits = torch.tensor([[1.0, 2.0, NAN], [NAN, NAN, NAN]], requires_grad=True)
    keep = torch.tensor([[True, True, False], [False, False, False]])
    loss = losses.compute_softmax_loss(logits, torch.tensor([0, -1]), keep, 0.0)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert loss.count == 1
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[1].any()


def test_a_weight_counts_in_the_sum_and_in_the_count() -> None:
    each, counted = torch.tensor([[1.0, NAN], [2.0, 3.0]]), torch.tensor([[True, False]] * 2)
    counted[1, 1] = True
    plain = losses.weigh_loss(each, counted, None)
    assert (plain.total, plain.count) == (6.0, 3)
    weighed = losses.weigh_loss(each, counted, torch.tensor([3.0, 0.5]))
    assert (weighed.total, weighed.count) == (3 + 2.5, 3 + 1)

"""Integrated gradients of a score along a straight path from a baseline."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recsys.errors import ConfigError

STEPS = (32, 64, 128, 256, 512)
"""Points of the path; more are taken until the parts sum to the change of the score."""
ENOUGH = 0.005
"""Error of the sum, over the change of the score, that is small enough."""


def integrate_gradients(
    function: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor, column: int
) -> Tensor:
    """What each number of an input adds to a score.

    Sundararajan et al., Axiomatic Attribution for Deep Networks (ICML 2017), with points and
    weights of Gauss and Legendre.

    Args:
        function: (S, ...) inputs -> (S, N) scores.
        inputs: (...) the input.
        baseline: (...) where the path begins.
        column: Which of the N scores.

    Returns:
        (...) parts, which sum to the score less that of the baseline, but for what even the most
        points miss.

    Raises:
        ConfigError: Captum is missing.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise ConfigError(
            "integrated gradients need captum; pip install 'recsys[explain]', or set "
            "method=leave_one_out."
        ) from None
    ends = function(torch.stack([inputs, baseline])).detach()[:, column].double()
    change = ends[0] - ends[1]
    gradients = IntegratedGradients(function)
    for steps in STEPS:
        parts: Tensor = gradients.attribute(
            inputs[None],
            baseline[None],
            target=column,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=32,
        )[0].detach()
        if (parts.double().sum() - change).abs() <= ENOUGH * change.abs():
            break
    return parts

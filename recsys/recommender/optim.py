"""AdamW with parameter groups by role, and the schedule of their learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from recsys.encoders.sharded.tensors import is_sharded
from recsys.encoders.weights.library import BITSANDBYTES
from recsys.errors import ConfigError, DivergenceError

Named = Sequence[tuple[str, nn.Parameter]]

Optimise = Callable[[Mapping[str, Named], frozenset[str], int], tuple[Any, Any]]
"""Makes optimiser and schedule from parameters by role, names without decay, steps."""


def make_parameter_groups(
    roles: Mapping[str, Named], rates: Mapping[str, float], decay: float, no_decay: frozenset[str]
) -> list[dict[str, object]]:
    """Parameter groups, two a role: with and without weight decay.

    Args:
        roles: Parameters by role (encoder, tuned, head).
        rates: Learning rate by role.
        decay: Decoupled weight decay (Loshchilov and Hutter, ICLR 2019).
        no_decay: Names that are not decayed.

    Returns:
        Groups for AdamW; empty ones are left out.
    """
    out: list[dict[str, object]] = []
    for role, named in roles.items():
        for plain in (False, True):
            suffix = "/no_decay" if plain else ""
            every = [p for name, p in named if (name in no_decay) is plain]
            # A fused step takes tensors of one make: those that are spread go by themselves.
            for spread in (False, True):
                chosen = [p for p in every if is_sharded(p) is spread]
                if chosen:
                    out.append(
                        {
                            "params": chosen,
                            "lr": rates[role],
                            "weight_decay": 0.0 if plain else decay,
                            "name": role + suffix,
                        }
                    )
    return out


def compute_lr_factor(step: int, steps: int, warmup: float, schedule: str) -> float:
    """Share of the learning rate at a step.

    Args:
        step: Optimiser steps done.
        steps: Optimiser steps in all.
        warmup: Share of them in which the rate rises.
        schedule: "linear" or "cosine" decay to zero, or "constant".
    """
    rise = math.ceil(steps * warmup)
    if step < rise:
        return (step + 1) / rise
    if schedule == "constant":
        return 1.0
    done = min(1.0, (step - rise) / max(1, steps - rise))
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def make_adamw(
    parameter_groups: list[dict[str, object]],
    betas: tuple[float, float],
    steps: int,
    warmup: float,
    schedule: str,
    kind: str = "adamw",
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The optimiser and its schedule, to be stepped once an optimiser step.

    Args:
        parameter_groups: As `make_parameter_groups` gives them.
        betas: Both decay rates.
        steps: As in `compute_lr_factor`.
        warmup: As there.
        schedule: As there.
        kind: As in `optimizer.kind`.
    """
    optimizer: torch.optim.Optimizer
    if kind == "adamw":
        # The step is one fused pass over each parameter. It offers to divide by the loss scale
        # itself, and Lightning then refuses to clip gradients under mixed precision. Without the
        # offer gradients are unscaled before the clip.
        optimizer = torch.optim.AdamW(parameter_groups, betas=betas, fused=True)
        optimizer._step_supports_amp_scaling = False
    else:
        optimizer = _make_small_adamw(kind, parameter_groups, betas)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: compute_lr_factor(step, steps, warmup, schedule)
    )
    return optimizer, scheduler


def _make_small_adamw(
    kind: str, parameter_groups: list[dict[str, object]], betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """AdamW of bitsandbytes, whose state is smaller, or on the host while a GPU is full.

    Dettmers et al., 8-bit Optimizers via Block-wise Quantization (ICLR 2022); parameters of fewer
    than 4,096 numbers keep a state in fp32.

    Raises:
        ConfigError: The library does not work here.
    """
    try:
        from bitsandbytes import optim

        made = {
            "adamw_8bit": optim.AdamW8bit,
            "paged_adamw": optim.PagedAdamW,
            "paged_adamw_8bit": optim.PagedAdamW8bit,
        }
        out: torch.optim.Optimizer = made[kind](parameter_groups, betas=betas)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"optimizer.kind={kind}: the installed bitsandbytes does not work here ({reason}); "
            f"install another version ({BITSANDBYTES}), or set optimizer.kind=adamw."
        ) from error
    return out


def bind_optimiser(
    rates: Mapping[str, float],
    decay: float,
    betas: tuple[float, float],
    warmup: float,
    schedule: str,
    kind: str = "adamw",
) -> Optimise:
    """Binds everything an optimiser needs but the parameters and the number of steps."""

    def make(roles: Mapping[str, Named], plain: frozenset[str], steps: int) -> tuple[Any, Any]:
        groups = make_parameter_groups(roles, rates, decay, plain)
        return make_adamw(groups, betas, steps, warmup, schedule, kind)

    return make


def make_divergence_error(
    what: str, step: int, optimizers: Sequence[torch.optim.Optimizer], trained: bool = True
) -> DivergenceError:
    """The end of a training that went wrong, with the rates that it went wrong at.

    Args:
        what: What is wrong, as the beginning of a sentence.
        step: Optimiser steps done.
        optimizers: Those of the training; each learning rate is told as it is by now and as it is
            at its height.
        trained: Whether it was seen after an update of a weight; before, no rate is to blame.
    """
    if not trained:
        return DivergenceError(
            f"{what} at step {step}, before any weight was trained, so that no learning rate is to "
            "blame; check the weights of encoder.model (a damaged file) and the event weights of "
            "the data, or set trainer.precision=fp32."
        )
    rates = {
        str(group["name"]).partition("/")[0]: f"{group['lr']:.3g} of {group['initial_lr']:.3g}"
        for optimizer in optimizers
        for group in optimizer.param_groups
    }
    listed = ", ".join(f"{role} {rate}" for role, rate in rates.items())
    return DivergenceError(
        f"{what} at step {step}, with learning rates {listed or 'unknown'}: training has diverged; "
        "lower optimizer.lr (or encoder_lr, head_lr, table_lr), raise optimizer.warmup, or set "
        "optimizer.clip=1."
    )


def set_dropout(model: nn.Module, rate: float | None) -> None:
    """Sets dropout, that of attention included, before a tuning method adds its own.

    Layers below the lowest trained one run in evaluation mode, so that it acts only where
    something trains.

    Args:
        model: A pretrained model.
        rate: Share of the values dropped; None leaves the model as it is.

    Raises:
        ConfigError: The rate is no share, or the model has no place for dropout.
    """
    if rate is None:
        return
    if not 0 <= rate < 1:
        raise ConfigError(f"regularization.dropout is {rate}; set it from 0 to below 1.")
    places = 0
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
            places += 1
        # Families without a module for it keep the share of dropped attention as a number.
        own = vars(module)
        if isinstance(own.get("attention_dropout"), int | float):
            own["attention_dropout"] = float(rate)
            places += 1
    if not places:
        raise ConfigError(
            f"regularization.dropout: {type(model).__name__} has no dropout; set it to null."
        )

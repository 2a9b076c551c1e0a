"""A low-rank update beside a linear map, in as few passes over the tokens as there can be."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn


class FusedLoraLinear(lora.Linear):  # type: ignore[misc]
    """PEFT's LoRA of a linear map with the same numbers, parameters and names, but faster.

    PEFT writes the update, its scaled copy and the sum as arrays of the size of the output; on
    narrow encoders these passes cost more than the products. Here the second factor's product is
    accumulated into the map's own output (Hu et al. 2022, equation 3: W x + s B A x). DoRA,
    dropout, a merged map, autocast, which an accumulating product does not follow, and a hook on
    the second factor, as a count of operations sets one, go PEFT's way.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - as PEFT
        """The map of (..., in) with its update, (..., out)."""
        if args or kwargs or not self._can_fuse(x):
            out: Tensor = super().forward(x, *args, **kwargs)
            return out
        (name,) = self.active_adapters
        flat = x.reshape(-1, x.shape[-1])
        mapped: Tensor = self.get_base_layer()(flat)
        low = self.lora_A[name](flat)
        mapped.addmm_(low, self.lora_B[name].weight.T, alpha=self.scaling[name])
        return mapped.view(*x.shape[:-1], mapped.shape[-1])

    def _can_fuse(self, x: Tensor) -> bool:
        """Whether W x + s B A x is all that there is to do."""
        if self.disable_adapters or self.merged or torch.is_autocast_enabled(x.device.type):
            return False
        name, *others = self.active_adapters
        return (
            not others
            and name not in self.lora_variant
            and not self.lora_B[name]._forward_hooks
            and (not self.training or isinstance(self.lora_dropout[name], nn.Identity))
            and x.dtype == self.lora_A[name].weight.dtype == self.get_base_layer().weight.dtype
        )

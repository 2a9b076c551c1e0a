"""The bottleneck adapter as a tuner of the PEFT library, which has none.

Houlsby et al. 2019 (Parameter-Efficient Transfer Learning for NLP, section 2.1) and Pfeiffer et
al. 2021 (AdapterFusion). The adapter sits behind a linear map that writes to the residual stream,
before dropout, residual sum and norm. Importing the module registers the tuner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig
from peft import mapping as peft_mapping
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

# PEFT's enum is closed, but its look-ups are plain dictionaries keyed by strings.
KIND = "BOTTLENECK"


@dataclass
class BottleneckConfig(PeftConfig):  # type: ignore[misc]
    """Settings of the adapter, in PEFT's terms.

    Attributes:
        width: Width of the bottleneck.
        activation: Name of the activation between the two maps.
        dropout: Share of the bottleneck that is dropped in training.
        target_modules: Full names of the linear maps to put an adapter behind.
        exclude_modules: Names to leave out (PEFT reads it).
        modules_to_save: Further modules to train (PEFT reads it).
        layers_to_transform: Unused; full names say which layers.
        layers_pattern: Unused, likewise.
    """

    width: int = 64
    activation: str = "gelu"
    dropout: float = 0.0
    target_modules: set[str] | list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = KIND
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)


class BottleneckLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """y = base(x), then y + up(dropout(act(down(y)))), where `up` is zero at first.

    Args:
        base_layer: The linear map.
        adapter_name: Name of its first adapter.
        config: Settings of that adapter.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_dropout", "bottleneck_act")
    # What PEFT's untyped base brings, so that it is not taken for a submodule.
    active_adapters: list[str]
    base_layer: nn.Module
    get_base_layer: Callable[[], Any]
    set_adapter: Callable[[list[str]], None]
    _cast_input_dtype: Callable[[Tensor, torch.dtype], Tensor]
    _move_adapter_to_device_of_base_layer: Callable[[str], None]

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_dropout = nn.ModuleDict()
        self.bottleneck_act = nn.ModuleDict()
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Adds (or remakes) the adapter of this name."""
        base = self.get_base_layer()
        width = base.nf if isinstance(base, Conv1D) else base.out_features
        down, up = nn.Linear(width, config.width), nn.Linear(config.width, width)
        # A zero up map makes the adapter the identity, bit for bit, and still lets gradients in.
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_down[adapter_name] = down
        self.bottleneck_up[adapter_name] = up
        self.bottleneck_dropout[adapter_name] = nn.Dropout(config.dropout)
        self.bottleneck_act[adapter_name] = ACT2FN[config.activation]
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., D_in) to (..., D_out)."""
        y: Tensor = self.base_layer(x)
        if self.disable_adapters:
            return y
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                down = self.bottleneck_down[name]
                dtype = next(down.parameters()).dtype
                h = self.bottleneck_act[name](down(self._cast_input_dtype(y, dtype)))
                y = y + self.bottleneck_up[name](self.bottleneck_dropout[name](h)).to(y.dtype)
        return y

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Not supported, as in any PEFT layer that is not linear.

        Raises:
            ValueError: Always: the adapter is not linear.
        """
        raise ValueError("a bottleneck adapter is not linear and cannot be merged")

    def unmerge(self) -> None:
        """Not supported, as nothing was merged.

        Raises:
            ValueError: Always: the adapter is never merged.
        """
        raise ValueError("a bottleneck adapter is never merged, so that nothing can be undone")


class BottleneckModel(BaseTuner):  # type: ignore[misc]
    """Puts a `BottleneckLayer` in the place of every target."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - PEFT's own attribute

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: Any = None,  # noqa: ANN401 - PEFT's signature
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        new = BottleneckLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)
        self._replace_module(parent, target_name, new, target)


peft_mapping.PEFT_TYPE_TO_CONFIG_MAPPING.setdefault(KIND, BottleneckConfig)
peft_mapping.PEFT_TYPE_TO_TUNER_MAPPING.setdefault(KIND, BottleneckModel)
peft_mapping.PEFT_TYPE_TO_PREFIX_MAPPING.setdefault(KIND, BottleneckModel.prefix)

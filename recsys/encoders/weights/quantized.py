"""Linear maps whose weights are held as codes of four or eight bits, and made anew in each pass.

bitsandbytes makes and reads the codes: NF4 (Dettmers et al., QLoRA, NeurIPS 2023, section 3) with a
scale for 64 weights, and eight bits with a scale for each row (Dettmers et al., LLM.int8(), NeurIPS
2022, section 2). Its own layers are not used: on some CPUs they compute otherwise in evaluation
than in training, and those of eight bits round what they read as well, so that a text's vector
would depend on the texts beside it, and kept states would not be what the model computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.encoders.weights.library import BITSANDBYTES, require_bitsandbytes
from recsys.errors import ConfigError

Quantize = Literal["none", "nf4", "int8"]

BLOCK = 64
"""Weights that share a scale, of four bits."""


class QuantizedLinear(nn.Linear):
    """A linear map of frozen codes; what it passes on and its gradient are those of plain weights.

    Args:
        inputs: Width that it takes.
        outputs: Width that it gives.
        codes: Of nf4 (outputs * inputs / 2, 1) uint8, two a byte; of int8 (outputs * inputs, 1).
        scale: Of nf4 (outputs * inputs / 64,), of int8 (outputs,), float32.
        bias: (outputs,) or None.
        kind: nf4 or int8.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        codes: Tensor,
        scale: Tensor,
        bias: nn.Parameter | None,
        kind: Quantize,
    ) -> None:
        nn.Module.__init__(self)  # weights of its own would be drawn and thrown away
        self.in_features, self.out_features, self.kind = inputs, outputs, kind
        # Parameters and no buffers: DDP would send those around in every step.
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.register_parameter("bias", bias)

    def make_weight(self, dtype: torch.dtype) -> Tensor:
        """(outputs, inputs) the weights that the codes stand for."""
        shape = (self.out_features, self.in_features)
        if self.kind == "int8":
            codes = self.weight.view(shape).to(dtype)
            return codes * (self.scale / 127).to(dtype)[:, None]
        # As rows of a block each: the operator lets each row begin a block, on a CPU.
        size = self.in_features * self.out_features
        rows = (1, size) if size % BLOCK else (size // BLOCK, BLOCK)
        out: Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(
            self.weight.data, self.scale.data, BLOCK, "nf4", rows, dtype
        )
        return out.view(shape)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        out: Tensor = _Product.apply(x.to(dtype), self)  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias.to(dtype)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Moves it, but leaves scales in full precision, whatever the rest is cast to."""
        scale = self.scale.data
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scale.data = scale.to(self.scale.device)
        return self

    def extra_repr(self) -> str:
        """Widths and kind."""
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.kind}"


class _Product(torch.autograd.Function):
    """x W^T; the weights are made again in backward, so that none outlive their product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: QuantizedLinear) -> Tensor:  # noqa: ANN401
        ctx.linear = linear
        return F.linear(x, linear.make_weight(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        (grad,) = grads
        return grad @ ctx.linear.make_weight(grad.dtype), None


def probe_quantization(quantize: Quantize, device: torch.device) -> None:
    """Tries the library on a small map, once, before a model is loaded by it.

    Args:
        quantize: nf4 or int8.
        device: Where the model's weights are to be made codes.

    Raises:
        ConfigError: It does not work here.
    """
    require_bitsandbytes(f"encoder.quantize={quantize}")
    reason = "its codes are not those of the weights"
    try:
        import bitsandbytes as bnb

        # Of a width that is no multiple of a block, by which versions differ.
        weight = torch.linspace(-1, 1, BLOCK * (BLOCK - 8)).view(BLOCK, BLOCK - 8).to(device)
        if quantize == "nf4":
            codes, state = bnb.functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
            scale = state.absmax
        else:
            codes, scale, _ = bnb.functional.int8_vectorwise_quant(weight.half())
        tried = QuantizedLinear(BLOCK - 8, BLOCK, codes.view(-1, 1), scale, None, quantize)
        works = bool((tried.make_weight(torch.float32) - weight).abs().max() < 0.2)
    except Exception as error:  # a library of native code raises what it likes
        works = False
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if not works:
        raise ConfigError(
            f"encoder.quantize={quantize}: the installed bitsandbytes does not work on "
            f"{device.type} here ({reason}); install another version ({BITSANDBYTES}), or set "
            "encoder.quantize=none."
        )


def make_loading_options(quantize: Quantize, device: torch.device) -> dict[str, Any]:
    """What transformers is told, so that it makes codes of weights while it reads them.

    Args:
        quantize: nf4 or int8.
        device: Where they are made.
    """
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=quantize == "nf4",
        load_in_8bit=quantize == "int8",
        bnb_4bit_quant_type="nf4",
    )
    return {"quantization_config": config, "device_map": {"": str(device)}}


def adopt_codes(model: Any, quantize: Quantize) -> None:  # noqa: ANN401 - it is changed in many ways
    """Puts maps of this module in the places of those that transformers made.

    Args:
        model: A bare transformers model, loaded with `make_loading_options`.
        quantize: nf4 or int8.

    Raises:
        ConfigError: It has no linear map.
    """
    import bitsandbytes as bnb

    count = 0
    for name, module in list(model.named_modules()):
        if isinstance(module, bnb.nn.Linear4bit):
            codes, scale = module.weight.data, module.weight.quant_state.absmax
        elif isinstance(module, bnb.nn.Linear8bitLt):
            codes, scale = module.weight.data.view(-1, 1), module.weight.SCB
        else:
            continue
        shape = module.in_features, module.out_features
        scale = scale.detach().float()
        model.set_submodule(
            name, QuantizedLinear(*shape, codes.detach(), scale, module.bias, quantize)
        )
        count += 1
    if not count:
        raise ConfigError(
            f"encoder.quantize={quantize}: {type(model).__name__} has no linear map that can be "
            "quantised; set encoder.quantize=none."
        )
    # Nothing of the library is left in the model, which would refuse to be moved or saved for it.
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = model.is_quantized = False
    model.hf_quantizer = None
    model.quantization_method = None
    del model.config.quantization_config
    nn.Module.to(model, "cpu")


def is_quantized(model: nn.Module) -> bool:
    """Whether some of a model's weights are codes."""
    return any(isinstance(module, QuantizedLinear) for module in model.modules())


@torch.no_grad()
def restore_weights(model: nn.Module) -> None:
    """Puts plain maps of the weights that codes stand for in their places, in fp32."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedLinear):
            plain = nn.Linear(1, 1, bias=False)
            plain.in_features, plain.out_features = module.in_features, module.out_features
            plain.weight = nn.Parameter(module.make_weight(torch.float32), requires_grad=False)
            plain.bias = module.bias
            model.set_submodule(name, plain)


def count_parameters(module: nn.Module) -> int:
    """How many numbers a module has, codes counted as the weights that they stand for."""
    total = sum(p.numel() for p in module.parameters())
    for inner in module.modules():
        if isinstance(inner, QuantizedLinear):
            held = inner.weight.numel() + inner.scale.numel()
            total += inner.in_features * inner.out_features - held
    return total

"""The dense maps that a sentence-transformers folder puts behind its pooling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.encoders.pretrained.sentence_transformers import DenseSpec
from recsys.encoders.pretrained.source import ModelFiles, describe_error
from recsys.errors import ConfigError

ACTIVATIONS = {
    kind.__name__: kind
    for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.LeakyReLU, nn.ELU)
}


class Dense(nn.Module):
    """activation(W x + b), and x or its own map of x where it is residual; x of length 1 if asked.

    Args:
        about: Its sizes.
        weights: Its parameters by name: linear.weight, linear.bias, residual.weight.
    """

    def __init__(self, about: DenseSpec, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.about = about
        self.linear = nn.Linear(about.inputs, about.outputs, bias=about.bias)
        maps = about.residual and about.inputs != about.outputs
        self.residual = nn.Linear(about.inputs, about.outputs, bias=False) if maps else None
        self.activation = ACTIVATIONS[about.activation]()
        self.load_state_dict({name: value.float() for name, value in weights.items()})

    def extra_repr(self) -> str:
        """What it is, also for the key of what is kept."""
        return repr(self.about)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        if self.about.unit:
            x = F.normalize(x, dim=-1)
        out: Tensor = self.activation(self.linear(x))
        if not self.about.residual:
            return out
        return out + (x if self.residual is None else self.residual(x))


def load_dense(specs: Sequence[DenseSpec], files: ModelFiles, width: int) -> list[Dense]:
    """The dense maps of a folder.

    Args:
        specs: What the folder says of them.
        files: The model's.
        width: Of the pooled vectors.

    Raises:
        ConfigError: Weights are missing, damaged or of other sizes, or the activation is unknown.
    """
    out = []
    for about in specs:
        who = f"encoder.model: {files.spec}/{about.folder}"
        if about.activation not in ACTIVATIONS:
            raise ConfigError(
                f"{who} has the activation {about.activation}, which is not followed (known: "
                f"{', '.join(ACTIVATIONS)}); set encoder.pooling to pool the bare model."
            )
        if about.inputs != width:
            raise ConfigError(
                f"{who} takes vectors of width {about.inputs}, and those before it have {width}; "
                "download the model again."
            )
        path = _find_weights(files, about.folder)
        try:
            layer = Dense(about, _read_tensors(path))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"encoder.model: {path} does not fit its config.json ({reason}); download the "
                "model again."
            ) from error
        if not all(p.isfinite().all() for p in layer.parameters()):
            raise ConfigError(f"encoder.model: {path} holds NaN or infinity; download it again.")
        out.append(layer)
        width = about.outputs
    return out


def _find_weights(files: ModelFiles, folder: str) -> Path:
    """The file of a dense map's weights."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        path = files.find_file(f"{folder}/{name}")
        if path is not None:
            return path
    raise ConfigError(
        f"encoder.model: {files.spec}/{folder} has no weights (model.safetensors or "
        "pytorch_model.bin); download the model again."
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name; a pickled file is read as data, never as code."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, ValueError, RuntimeError, EOFError) as error:
        raise ConfigError(
            f"encoder.model: cannot read {path} ({describe_error(error)}); download it again."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # pickle.UnpicklingError: it holds more than tensors
        raise ConfigError(
            f"encoder.model: {path} holds more than tensors, and code in it is not run; download "
            "it again, or save it as safetensors."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ConfigError(f"encoder.model: {path} holds no tensors by name; download it again.")
    return found

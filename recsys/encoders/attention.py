"""Which tokens a decoder's attention sees: those before a token, or all of a text.

A decoder that sees the whole text is the first step of LLM2Vec (BehnamGhader et al., COLM 2024,
section 2.1). transformers reads `is_causal` off a model's configuration, so that a folder that such
a model is saved in gives the same vectors wherever it is loaded.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError

Attention = Literal["auto", "causal", "bidirectional"]

_FLAG = "is_causal"


def set_attention(model: nn.Module, attention: Attention, spec: str) -> None:
    """Lets each token see those before it, or all of its text, and tries whether it does.

    Args:
        model: A bare transformers model.
        attention: auto leaves it as the model has it.
        spec: As in `encoder.model`, for the error message.

    Raises:
        ConfigError: The model does not follow.
    """
    if attention != "auto" and probe_attention(model) != attention:
        _set_flags(model, attention == "causal")
        if probe_attention(model) != attention:
            raise ConfigError(
                f"encoder.attention={attention}: the attention of {type(model).__name__} ({spec}) "
                "cannot be switched; set encoder.attention=auto, or choose a decoder of the Llama, "
                "Qwen, SmolLM, Mistral or Gemma families."
            )
    elif vars(model.config).get(_FLAG) is False:
        # As in a folder that such a model was saved in: its attentions do not know it yet, which
        # prefix tuning reads.
        _set_flags(model, False)


def check_pooling(model: nn.Module, pooling: tuple[str, ...], spec: str) -> None:
    """Raises an error for a pooling that reads a token which has seen nothing of the text.

    Args:
        model: A bare transformers model.
        pooling: Names of the poolings.
        spec: As in `encoder.model`, for the error message.

    Raises:
        ConfigError: It pools the first token of a causal model.
    """
    if "cls" in pooling and probe_attention(model) == "causal":
        raise ConfigError(
            f"encoder.pooling=cls reads the first token, which sees no other in {spec} "
            f"({type(model).__name__} is causal), so that texts would have the same vector; set "
            "encoder.pooling=last, eos or mean, or encoder.attention=bidirectional."
        )


@torch.no_grad()
def probe_attention(model: nn.Module) -> Literal["causal", "bidirectional", "mixed"]:
    """Whether a token's state depends on what comes after it: seen by changing a later token.

    Args:
        model: A bare transformers model.

    Returns:
        "mixed" where it does with padding alone or without padding alone, as kernels and masks
        differ.
    """
    table: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    # Ids from the middle: those at an end may be padding, or have never been trained and be alike.
    first = table.shape[0] // 2
    seen = set()
    was = model.training
    model.eval()
    try:
        for padded in (False, True):
            mask = torch.tensor([[1, 1, 1 - padded]], device=table.device)
            states = []
            for second in (first - 1, first - 2):
                ids = torch.tensor([[first, second, first]], device=table.device)
                out = model(input_ids=ids, attention_mask=mask)
                states.append(out.last_hidden_state[0, 0].float())
            seen.add(torch.allclose(states[0], states[1], rtol=1e-4, atol=1e-6))
    finally:
        model.train(was)
    if len(seen) > 1:
        return "mixed"
    return "causal" if seen.pop() else "bidirectional"


def _set_flags(model: nn.Module, causal: bool) -> None:
    """Tells the configuration, by which masks are made, and the attentions, which may have none."""
    setattr(model.config, _FLAG, causal)
    for module in model.modules():
        if _FLAG in vars(module):
            setattr(module, _FLAG, causal)

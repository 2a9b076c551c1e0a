"""Heads that tell tokens: the model's own where its files have one, else a fresh one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.encoders.encoder import Encoder
from recsys.encoders.pretrained.source import ModelFiles
from recsys.recommender.flops import FlopCounter


def get_embeddings(encoder: Encoder) -> nn.Parameter:
    """(V, E) the token embeddings of an encoder, which a head shares."""
    table: nn.Parameter = encoder.model.get_input_embeddings().weight  # type: ignore[operator]
    return table


class TiedOutput(nn.Module):
    """Scores of all tokens by the encoder's own embeddings, and a bias a token.

    Args:
        tokens: V, how many there are.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(tokens))

    def forward(self, states: Tensor, table: Tensor, work: FlopCounter) -> Tensor:
        """(M, E) states and the embeddings (V, E) -> (M, V)."""
        if work.counting:
            grads = (states.requires_grad + table.requires_grad) * torch.is_grad_enabled()
            work.flops += 2.0 * (1 + grads) * len(states) * table.numel()
        return F.linear(states, table.to(states.dtype), self.bias.to(states.dtype))


class FreshHead(nn.Module):
    """BERT's transform of masked states (Devlin et al. 2019), over tied embeddings.

    Args:
        width: D, of states.
        table: (V, E) the embeddings, for their sizes alone.
    """

    def __init__(self, width: int, table: Tensor) -> None:
        super().__init__()
        self.transform = nn.Linear(width, table.shape[1])
        self.norm = nn.LayerNorm(table.shape[1])
        self.output = TiedOutput(table.shape[0])

    def forward(self, states: Tensor, table: Tensor, work: FlopCounter) -> Tensor:
        """(M, D) states -> (M, V) scores."""
        moved: Tensor = self.norm(F.gelu(self.transform(states)))
        scores: Tensor = self.output(moved, table, work)
        return scores


class OwnHead(nn.Module):
    """The head of a model's own files, whatever its family: its model, with states handed over.

    Args:
        model: A transformers model for masked tokens, its body taken out.
        stub: What stands in the place of the body.
    """

    def __init__(self, model: nn.Module, stub: _BodyStub) -> None:
        super().__init__()
        self.model, self.stub = model, stub

    def forward(self, states: Tensor, table: Tensor, work: FlopCounter) -> Tensor:
        """(M, D) states -> (M, V) scores."""
        self.stub.states = states[None]
        # Ids are for the body, which is not there.
        ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        scores: Tensor = self.model(input_ids=ids).logits[0]
        self.stub.states = None
        return scores


class _BodyStub(nn.Module):
    """Gives the states that it was handed, as a body would."""

    def __init__(self) -> None:
        super().__init__()
        self.states: Tensor | None = None

    def forward(self, *args: object, **named: object) -> Any:  # noqa: ANN401 - transformers' type
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=self.states)


def load_own_head(files: ModelFiles, encoder: Encoder) -> OwnHead | None:
    """The head for masked tokens in a model's files, tied to the encoder's embeddings.

    Args:
        files: The model's.
        encoder: What was loaded of them; its embeddings take the place of the head's copy.

    Returns:
        None where the family has no such head, or the files do not hold all of it.
    """
    from transformers import AutoModelForMaskedLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    config: Any = encoder.model.config
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        return None
    where: dict[str, Any] = {} if files.revision is None else {"revision": files.revision}
    model, info = AutoModelForMaskedLM.from_pretrained(
        files.where,
        output_loading_info=True,
        use_safetensors=True,
        dtype=torch.float32,
        trust_remote_code=False,
        **where,
    )
    body = str(model.base_model_prefix)
    if any(not name.startswith(f"{body}.") for name in info["missing_keys"]):
        return None
    if not isinstance(getattr(model, body), type(encoder.model)):
        return None
    setattr(model, body, encoder.model)
    model.tie_weights()
    stub = _BodyStub()
    setattr(model, body, stub)
    return OwnHead(model, stub)

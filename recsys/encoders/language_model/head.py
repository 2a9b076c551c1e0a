"""The rows of a language-model head that give the logits of two words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from recsys.encoders.pretrained import source
from recsys.encoders.pretrained.source import INDEX, WEIGHTS, ModelFiles
from recsys.errors import ConfigError


@dataclass(frozen=True)
class HeadSource:
    """Where the head of a language model lies.

    Attributes:
        weight: Name of its weight among those of the model; None: it is the table of embeddings.
        bias: Name of its bias, or None.
        model: The model of that kind, without weights.
    """

    weight: str | None
    bias: str | None
    model: nn.Module


def find_head(files: ModelFiles) -> HeadSource:
    """Looks for the head that a model's files have; of the weights only names are read.

    Args:
        files: The model's.

    Raises:
        ConfigError: It is no decoder, or has no head.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    who = f"encoder.model: {files.spec}"
    try:
        config = AutoConfig.from_pretrained(
            files.where, revision=files.revision or "main", trust_remote_code=False
        )
    except Exception as error:  # the parsers behind it raise what they like
        raise ConfigError(
            source.describe_load_failure("configuration", files.spec, error)
        ) from error
    known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    if not known or config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise ConfigError(
            f"{who} is of the family {config.model_type}, which has no head that says what comes "
            "next; choose a decoder, such as HuggingFaceTB/SmolLM2-135M-Instruct, or "
            "architecture=cross_encoder."
        )
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        model: Any = kind(config)
    model.tie_weights()
    head = model.get_output_embeddings()
    path = next((name for name, module in model.named_modules() if module is head), None)
    if path is None or not isinstance(head, nn.Linear):
        raise ConfigError(
            f"{who}: the head of {type(model).__name__} is no linear map; choose another decoder."
        )
    bias = None if head.bias is None else f"{path}.bias"
    if head.weight is model.get_input_embeddings().weight:
        return HeadSource(None, bias, model)
    weight = f"{path}.weight"
    missing = [name for name in (weight, bias) if name and _find_file(files, name) is None]
    if missing:
        raise ConfigError(
            f"{who} has no language-model head ({missing[0]} is not among its weights); take the "
            "model that was saved with it, as AutoModelForCausalLM does, or "
            "architecture=cross_encoder."
        )
    return HeadSource(weight, bias, model)


def _find_file(files: ModelFiles, name: str) -> str | None:
    """The file of the weights with a tensor, or None where none has it."""
    index = None if files.find_file(WEIGHTS) is not None else files.find_file(INDEX)
    if index is not None:
        found = source.read_json(index).get("weight_map", {}).get(name)
        path = None if found is None else files.find_file(str(found))
    else:
        path = files.find_file(WEIGHTS)
    if path is None:
        return None
    try:
        with safe_open(path, "pt") as content:
            return str(path) if name in content.keys() else None  # noqa: SIM118 - no mapping
    except Exception as error:  # a damaged file, of which the loader says what is wrong
        source.check_weights(files.folder)
        raise ConfigError(source.describe_load_failure("weights", files.spec, error)) from error


def _read_rows(files: ModelFiles, name: str, rows: tuple[int, int]) -> Tensor:
    """Two rows (2, ...) of a tensor of the weights, in fp32."""
    path = _find_file(files, name)
    assert path is not None, "find_head has seen it"
    with safe_open(path, "pt") as content:
        part = content.get_slice(name)
        return torch.cat([part[row : row + 1] for row in rows]).float()


class WordHead(nn.Module):
    """The logit of one word less that of another, of final states.

    Where the head is the table of embeddings, its rows are looked up in it, so that they train
    where it does; else they stay as they are.

    Args:
        files: The model's.
        model: The bare model, which was read from them.
        words: Token ids of both.
        kept: What `get_state` gave of the same head, where the files lack it; None: they have it.

    Raises:
        ConfigError: The files have no head, or one that is more than a linear map.
    """

    rows: Tensor
    bias: Tensor

    def __init__(
        self,
        files: ModelFiles,
        model: nn.Module,
        words: tuple[int, int],
        kept: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        config: Any = model.config
        found = None if kept else find_head(files)
        self.words, self.tied = words, found is not None and found.weight is None
        rows, bias = torch.zeros(2, int(config.hidden_size)), torch.zeros(2)
        if kept:
            rows, bias = kept["head_rows"].clone(), kept["head_bias"].clone()
        elif found is not None:
            rows = rows if found.weight is None else _read_rows(files, found.weight, words)
            bias = bias if found.bias is None else _read_rows(files, found.bias, words)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.cap = _get_number(config, "final_logit_softcapping")
        self.scale = (_get_number(config, "logit_scale") or 1.0) / (
            _get_number(config, "logits_scaling") or 1.0
        )
        if found is not None:
            self._check(found.model, model, files.spec)

    def get_state(self, table: Tensor) -> dict[str, Tensor]:
        """What makes it again without the files; the arguments are those of `forward`."""
        rows = table[list(self.words)] if self.tied else self.rows
        return {"head_rows": rows.detach().float(), "head_bias": self.bias}

    def forward(self, states: Tensor, table: Tensor) -> Tensor:
        """Scores (P,) of final states (P, D).

        Args:
            states: The states.
            table: (V, D) the table of embeddings.
        """
        rows = table[list(self.words)] if self.tied else self.rows
        # In fp32 also under autocast: rounded to bf16, candidates would tie.
        with torch.autocast(states.device.type, enabled=False):
            logits = (states.float() @ rows.float().T + self.bias) * self.scale
            if self.cap is not None:
                logits = torch.tanh(logits / self.cap) * self.cap
            score: Tensor = logits[:, 0] - logits[:, 1]
        return score

    @torch.no_grad()
    def _check(self, whole: Any, model: Any, spec: str) -> None:  # noqa: ANN401 - untyped
        """Compares with what the model of that kind makes of the same states.

        Raises:
            ConfigError: It is something else.
        """
        table = model.get_input_embeddings().weight
        rows = table[list(self.words)] if self.tied else self.rows.to(table.device)
        head = _FullPrecision(rows.shape[1], 2, bias=True, device=table.device)
        head.weight.copy_(rows)
        head.bias.copy_(self.bias)
        was = model.training
        model.eval()
        try:
            setattr(whole, whole.base_model_prefix, model)
            whole.set_output_embeddings(head)
            ids = torch.tensor([self.words], device=table.device)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            want = whole(**inputs, use_cache=False).logits[0].float()
            states = model(**inputs, use_cache=False).last_hidden_state[0]
        finally:
            model.train(was)
        got = self.to(table.device)(states, table)
        if not torch.allclose(want[:, 0] - want[:, 1], got, rtol=1e-3, atol=1e-3):
            raise ConfigError(
                f"encoder.model: the head of {type(whole).__name__} ({spec}) is more than a linear "
                "map of the final states; choose another decoder."
            )


class _FullPrecision(nn.Linear):
    """A linear map in fp32 of states in any precision: what bf16 rounds is no other head."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float())


def _get_number(config: Any, name: str) -> float | None:  # noqa: ANN401 - no typed base
    """A number that only some families have."""
    value = getattr(config, name, None)
    return None if value is None else float(value)

"""Tiny random decoders, and folders of them as a user would have them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    Gemma3TextConfig,
    Gemma3TextModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    SmolLM3Config,
    SmolLM3Model,
)

from recsys.encoders.encoder import Encoder
from recsys.encoders.special_tokens import SpecialTokens
from recsys.testing.shop import COLOURS, THINGS
from tests.encoders.families import WHOLE

GROUPED = {**WHOLE, "num_key_value_heads": 2}
WINDOW = 4
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
DECODERS = {
    "llama": lambda **more: LlamaModel(LlamaConfig(**WHOLE | more)),
    # SmolLM and SmolLM2 are Llamas with fewer key heads; version 3 has layers without positions.
    "smollm": lambda **more: LlamaModel(LlamaConfig(**GROUPED | more)),
    "smollm3": lambda **more: SmolLM3Model(
        SmolLM3Config(**GROUPED | more, no_rope_layers=[1, 0, 1])
    ),
    "qwen3": lambda **more: Qwen3Model(Qwen3Config(**GROUPED | more, head_dim=8)),
    "gemma3": lambda **more: Gemma3TextModel(
        Gemma3TextConfig(**GROUPED | more, head_dim=8, sliding_window=WINDOW, layer_types=SLIDING)
    ),
    "gpt2": lambda **more: GPT2Model(
        GPT2Config(
            vocab_size=more.get("vocab_size", 50),
            n_embd=32,
            n_layer=3,
            n_head=4,
            n_positions=40,
        )
    ),
}
BEFORE = SpecialTokens(prefix=(1,), separators=(), suffix=(), pad=0)
WORDS = ["<unk>", "<s>", "</s>", *THINGS, *COLOURS]


def make_decoder(family: str, pooling: str = "last", **how) -> Encoder:
    torch.manual_seed(0)
    return Encoder(DECODERS[family]().eval(), BEFORE, pooling, 20, 24, **how).eval()


def write_decoder(folder: Path, family: str = "llama", end: bool = True) -> Path:
    """A folder of a decoder whose tokens are the words of the shop, and that names no padding."""
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    names = {"bos_token": "<s>", "unk_token": "<unk>"} | ({"eos_token": "</s>"} if end else {})
    torch.manual_seed(0)
    DECODERS[family](vocab_size=len(WORDS)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=raw, padding_side="left", **names).save_pretrained(
        folder
    )
    return folder

"""Tiny random language models of several families; windows are shorter than the texts."""

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

WINDOW = 6
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
EVERY_SECOND = ["sliding_attention", "full_attention"] * 2


def qwen3_sliding():
    config = Qwen3Config(
        **SIZES,
        head_dim=8,
        use_sliding_window=True,
        sliding_window=WINDOW,
        layer_types=EVERY_SECOND,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config)


def gemma2():
    config = Gemma2Config(
        **SIZES,
        head_dim=8,
        sliding_window=WINDOW,
        layer_types=EVERY_SECOND,
        query_pre_attn_scalar=8,
    )
    return Gemma2ForCausalLM(config)


def gemma3():
    config = Gemma3TextConfig(
        **SIZES,
        head_dim=8,
        sliding_window=WINDOW,
        layer_types=EVERY_SECOND,
        query_pre_attn_scalar=8,
    )
    return Gemma3ForCausalLM(config)


def gpt2():
    sizes = {"vocab_size": 60, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.2, bos_token_id=1))


DECODERS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    # SmolLM2 is a Llama whose head is its embeddings.
    "smollm2": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "smollm3": lambda: SmolLM3ForCausalLM(SmolLM3Config(**SIZES, no_rope_layer_interval=2)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
    "qwen3_sliding": qwen3_sliding,
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=WINDOW)),
    "gemma2": gemma2,
    "gemma3": gemma3,
    "gpt2": gpt2,
}


def make_decoder(family: str):
    """A model of a family with its head, in evaluation mode, the same each time."""
    torch.manual_seed(0)
    model = DECODERS[family]()
    with torch.no_grad():  # the usual start of a bias is zero, of a norm one
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model.eval()

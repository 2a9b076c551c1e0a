"""Random models in the shape of known ones, and made-up data: files, as a user would have them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import Setting
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

WORDS = ("yes", "no", "Yes", "No", ".", ":", ",", "?")
"""Words that prompts may ask for, each a token by itself."""


@dataclass(frozen=True)
class Shape:
    """A model's shape.

    Attributes:
        name: Whose it is.
        make: Makes the model with random weights.
        vocabulary: Number of its tokens.
        causal: Whether it is a decoder, with its head.
    """

    name: str
    make: Callable[[], Any]
    vocabulary: int
    causal: bool


def minilm(dry: bool) -> Shape:
    """all-MiniLM-L6-v2: 22.7 M parameters, 10.6 M of them in linear maps."""
    sizes = {
        "vocab_size": 200 if dry else 30_522,
        "hidden_size": 32 if dry else 384,
        "num_hidden_layers": 3 if dry else 6,
        "num_attention_heads": 4 if dry else 12,
        "intermediate_size": 64 if dry else 1536,
        "max_position_embeddings": 512,
    }
    make = lambda: BertModel(BertConfig(**sizes), add_pooling_layer=False)  # noqa: E731
    return Shape("MiniLM", make, sizes["vocab_size"], False)


def smollm2(dry: bool) -> Shape:
    """SmolLM2-135M."""
    sizes = {
        "vocab_size": 200 if dry else 49_152,
        "hidden_size": 36 if dry else 576,
        "num_hidden_layers": 3 if dry else 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 64 if dry else 1536,
        "max_position_embeddings": 8192,
    }
    config = LlamaConfig(**sizes, tie_word_embeddings=True)
    return Shape("SmolLM2-135M", lambda: LlamaForCausalLM(config), sizes["vocab_size"], True)


def qwen(dry: bool) -> Shape:
    """Qwen3-0.6B."""
    sizes = {
        "vocab_size": 200 if dry else 151_936,
        "hidden_size": 32 if dry else 1024,
        "num_hidden_layers": 3 if dry else 28,
        "num_attention_heads": 4 if dry else 16,
        "num_key_value_heads": 2 if dry else 8,
        "head_dim": 16 if dry else 128,
        "intermediate_size": 64 if dry else 3072,
        "max_position_embeddings": 32_768,
    }
    config = Qwen3Config(**sizes, tie_word_embeddings=True)
    return Shape("Qwen3-0.6B", lambda: Qwen3ForCausalLM(config), sizes["vocab_size"], True)


def write_model(setting: Setting, shape: Shape) -> Path:
    """Writes a model with random weights and a tokenizer of whole words; returns its folder."""
    folder = setting.scratch / shape.name
    if folder.is_dir():
        return folder
    torch.manual_seed(0)
    # Drawn where it will be used: half a billion numbers take a CPU a while.
    with torch.device(setting.device):
        model = shape.make()
    model.cpu().save_pretrained(folder)
    ends = ["[EOS]"] if shape.causal else ["[CLS]", "[SEP]"]
    words = ["[PAD]", "[UNK]", *ends, *WORDS]
    words += [f"w{n}" for n in range(shape.vocabulary - len(words))]
    table = {word: n for n, word in enumerate(words)}
    raw = Tokenizer(models.WordLevel(table, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    if shape.causal:
        names |= {"eos_token": "[EOS]"}
    else:
        raw.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=raw, **names).save_pretrained(folder)
    return folder


def write_shop(
    setting: Setting, shape: Shape, items: int, users: int, tokens: int, events: int = 12
) -> list[str]:
    """Writes items and events, and gives the words of a command that read them.

    Args:
        setting: Where.
        shape: Whose words the titles have.
        items: How many there are.
        users: How many there are.
        tokens: Tokens of a title in the mean, log-normal.
        events: Of each user.
    """
    folder = setting.scratch / f"shop-{shape.name}-{items}-{users}-{tokens}-{events}"
    if not folder.is_dir():
        folder.mkdir()
        draw = random.Random(0)
        words = shape.vocabulary - 20
        with (folder / "items.csv").open("w") as file:
            file.write("item,title\n")
            for item in range(items):
                length = max(2, min(4 * tokens, round(draw.lognormvariate(0, 0.6) * tokens / 1.2)))
                title = " ".join(f"w{draw.randrange(words)}" for _ in range(length))
                file.write(f"i{item},{title}\n")
        with (folder / "events.csv").open("w") as file:
            file.write("user,item,time\n")
            for user in range(users):
                for step in range(events):
                    # Few items have most of the events, as everywhere.
                    item = int(items * draw.random() ** 3)
                    file.write(f"u{user},i{item},{1_600_000_000 + 60 * (events * user + step)}\n")
    return [
        "data.source=tables",
        f"data.source.interactions={folder / 'events.csv'}",
        f"data.source.items={folder / 'items.csv'}",
        "data.source.user=user",
        "data.source.item=item",
        "data.source.time=time",
        "data.source.item_text='{title}'",
        "data.split=leave_one_out",
        f"encoder.model={write_model(setting, shape)}",
    ]

"""A made-up shop and a tiny random encoder, both as a user would have them: files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

THINGS = ("lamp", "chair", "table", "shelf", "mirror")
COLOURS = ("red", "blue", "green", "black", "white", "brown")


def write_shop(folder: Path) -> Path:
    """Writes items.csv and events.csv: 30 items, 40 users with five events each.

    Every user likes one colour, so that the text tells what comes next.

    Args:
        folder: Where they are written.

    Returns:
        The folder.
    """
    items = [
        (f"0{i:02d}", f"{c} {t}")
        for i, (c, t) in enumerate((c, t) for c in COLOURS for t in THINGS)
    ]
    (folder / "items.csv").write_text("what,name\n" + "".join(f"{i},{n}\n" for i, n in items))
    rng = random.Random(0)
    rows = []
    for user in range(40):
        own = items[5 * (user % 6) : 5 * (user % 6) + 5]
        for time, (item, _) in enumerate(rng.sample(own, 5)):
            stars = rng.randint(1, 5)
            rows.append(f"u{user},{item},{1_600_000_000 + 100 * user + time},{stars}\n")
    (folder / "events.csv").write_text("who,what,when,stars\n" + "".join(rows))
    return folder


def write_encoder(folder: Path, more: Sequence[str] = ()) -> Path:
    """Writes a random BERT of three layers and width 32, whose tokens are the words of the shop.

    Args:
        folder: Where it is written.
        more: Further tokens, such as "[MASK]".

    Returns:
        The folder, for `encoder.model=`.
    """
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *THINGS, *COLOURS, *more]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return save_encoder(folder, raw, len(words))


def save_encoder(folder: Path, raw: Tokenizer, size: int) -> Path:
    """Writes a tiny random BERT with a tokenizer.

    Args:
        folder: Where it is written.
        raw: The tokenizer; its special tokens are those of BERT.
        size: Number of its tokens.

    Returns:
        The folder.
    """
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    if raw.token_to_id("[UNK]") is not None:
        names["unk_token"] = "[UNK]"
    if raw.token_to_id("[MASK]") is not None:
        names["mask_token"] = "[MASK]"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **names)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_decoder(folder: Path, **more: bool) -> Path:
    """Writes a random Llama of four layers and width 32 with its head, which is its embeddings.

    Args:
        folder: Where it is written.
        more: Further settings of its configuration, or other values of them.

    Returns:
        The folder, for `encoder.model=`.
    """
    words = ["[PAD]", "[UNK]", "[EOS]", *THINGS, *COLOURS, "Yes", "No", "user", "liked", "like"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[EOS]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **names)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    own: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
    }
    # A spread with which texts differ: with the usual one all states would be nearly alike.
    config = LlamaConfig(**{**own, "initializer_range": 0.2, **more})
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_decoder_words(decoder: Path) -> list[str]:
    """What a user adds to `make_shop_words` for an architecture that reads prompts.

    Args:
        decoder: Folder of `write_decoder`.
    """
    return [f"encoder.model={decoder}", "encoder.max_length=128"]


def make_shop_words(shop: Path, encoder: Path) -> list[str]:
    """What a user types to run on the shop, but for where the run goes.

    Args:
        shop: Folder of `write_shop`.
        encoder: Folder of `write_encoder`.
    """
    return [
        "data.source=tables",
        f"data.source.interactions={shop / 'events.csv'}",
        f"data.source.items={shop / 'items.csv'}",
        "data.source.user=who",
        "data.source.item=what",
        "data.source.time=when",
        "data.source.item_text='{name}'",
        "data.split=leave_one_out",
        f"encoder.model={encoder}",
        "encoder.max_length=32",
        "trainer.accelerator=cpu",
        "trainer.epochs=2",
        "trainer.batch_size=16",
        "optimizer.lr=0.01",
    ]

"""An optimiser step of every tuning method on a MiniLM-shaped encoder."""

from __future__ import annotations

from functools import partial

import shapes
from bench import Bench, merge
from encoding import AUTO, COMPILED, OFF
from measuring import Row, Setting

METHODS: dict[str, list[str]] = {
    "full": ["tuning=full"],
    "LoRA, all layers": ["tuning=lora", "tuning.layers=all"],
    "LoRA, last 2 layers, kept states": ["tuning=lora", "tuning.layers=2", "encoder.cache=true"],
    "adapter, all layers": ["tuning=adapter", "tuning.layers=all"],
    "BitFit, all layers": ["tuning=bitfit"],
    "IA3, all layers": ["tuning=ia3"],
    "prefix, all layers": ["tuning=prefix"],
    "top layers, kept states": ["tuning=top_layers", "encoder.cache=true"],
    "frozen, kept vectors": ["tuning=frozen", "encoder.cache=true"],
}
WAYS: dict[str, tuple[str, list[str], bool]] = {
    "fp32, padded": ("fp32", [OFF], False),
    "bf16, padded": ("bf16-mixed", [OFF], True),
    "bf16, packed": ("bf16-mixed", [AUTO], True),
    "bf16, packed, AdamW's state of 8 bits, paged": (
        "bf16-mixed",
        [AUTO, "optimizer.kind=paged_adamw_8bit"],
        True,
    ),
    "bf16, packed, activations computed again": (
        "bf16-mixed",
        [AUTO, "encoder.checkpoint_chunks=true"],
        True,
    ),
    "bf16, packed, compiled": ("bf16-mixed", [AUTO, COMPILED], True),
}
"""Precision, further words, and whether a CPU cannot do it. What compiles comes last."""


def tune(setting: Setting) -> None:
    """Seconds, tokens, utilisation, memory and host syncs of a step."""
    shape = shapes.minilm(setting.dry)
    users, items = setting.pick(4000, 40), setting.pick(20_000, 60)
    words = shapes.write_shop(setting, shape, items, users, 16)
    words += ["architecture=two_tower", "regularization.dropout=0", "encoder.pooling=mean"]
    words += [f"trainer.batch_size={setting.pick(512, 8)}", "encoder.cache=false"]
    words += [f"encoder.chunk_tokens={setting.pick(16_384, 256)}"]
    table = f"a step of each method, {setting.pick('bf16', 'fp32')}"
    for name, more in METHODS.items():
        fill = partial(measure_step, words=merge(words, more), precision="bf16-mixed")
        setting.measure(table, name, fill)
    for name, (precision, more, cuda) in WAYS.items():
        own = merge(words, ["tuning=full", *more])
        fill = partial(measure_step, words=own, precision=precision)
        setting.measure("full, other ways", name, fill, cuda)


def measure_step(row: Row, words: list[str], precision: str) -> None:
    """One way to make a step."""
    Bench(row.setting, words, precision).measure_step(row)

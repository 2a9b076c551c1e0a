"""Encoding a catalog of titles: padded and packed, in each precision."""

from __future__ import annotations

from functools import partial

import shapes
from bench import Bench
from measuring import Row, Setting

OFF, AUTO, ON = "encoder.packing=off", "encoder.packing=auto", "encoder.packing=on"
COMPILED = "encoder.compile=on"
VARIANTS: dict[str, tuple[str, list[str], bool]] = {
    "fp32, padded": ("fp32", [OFF], False),
    "bf16, padded": ("bf16-mixed", [OFF], True),
    "fp16, padded": ("fp16-mixed", [OFF], True),
    "bf16, packed": ("bf16-mixed", [AUTO], True),
    "fp32, packed, padded for the attention": ("fp32", [ON], False),
}
"""Precision, further words, and whether a CPU cannot do it."""


def encode(setting: Setting) -> None:
    """Texts and tokens a second of a MiniLM-shaped encoder."""
    shape = shapes.minilm(setting.dry)
    items = setting.pick(50_000, 60)
    words = shapes.write_shop(setting, shape, items, setting.pick(2000, 20), 16)
    words += ["experiment=frozen_two_tower", "encoder.cache=false", "encoder.pooling=mean"]
    for chunk in setting.pick((16_384, 1024, 131_072), (64, 256)):
        table = f"{items:,} titles, encoder.chunk_tokens={chunk}"
        for name, (precision, more, cuda) in VARIANTS.items():
            own = [*words, *more, f"encoder.chunk_tokens={chunk}"]
            fill = partial(measure_variant, words=own, precision=precision, texts=items)
            setting.measure(table, name, fill, cuda)
    # Last: what compiles takes a while before its first text.
    chunk = setting.pick(16_384, 256)
    own = [*words, AUTO, COMPILED, f"encoder.chunk_tokens={chunk}"]
    fill = partial(measure_variant, words=own, precision="bf16-mixed", texts=items)
    table = f"{items:,} titles, encoder.chunk_tokens={chunk}"
    setting.measure(table, "bf16, packed, compiled", fill, cuda=True)


def measure_variant(row: Row, words: list[str], precision: str, texts: int) -> None:
    """One way to encode the same texts."""
    Bench(row.setting, words, precision).measure_encoding(row, texts)

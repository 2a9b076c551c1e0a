"""Decoders in the shape of SmolLM2-135M and Qwen3-0.6B: as encoders, and under LoRA."""

from __future__ import annotations

from functools import partial

import shapes
from bench import merge
from encoding import OFF, measure_variant
from measuring import Setting
from steps import measure_step


def smollm2(setting: Setting) -> None:
    """SmolLM2-135M."""
    measure(setting, shapes.smollm2(setting.dry), setting.pick(20_000, 40), setting.pick(64, 4))


def qwen(setting: Setting) -> None:
    """Qwen3-0.6B."""
    measure(setting, shapes.qwen(setting.dry), setting.pick(6_000, 40), setting.pick(24, 4))


def measure(setting: Setting, shape: shapes.Shape, texts: int, users: int) -> None:
    """Every row of a decoder.

    Args:
        setting: Where.
        shape: Its shape.
        texts: Texts to encode.
        users: Queries of a step.
    """
    words = shapes.write_shop(setting, shape, setting.pick(20_000, 60), setting.pick(2000, 30), 48)
    words += ["architecture=two_tower", "regularization.dropout=0", "encoder.pooling=last"]
    words += [f"encoder.max_length={setting.pick(128, 64)}", "encoder.cache=false"]
    words += [f"encoder.chunk_tokens={setting.pick(32_768, 256)}"]
    words += [f"trainer.batch_size={users}"]
    computed = setting.pick("bf16", "fp32")
    packed = f"encoder.packing={setting.pick('auto', 'on')}"  # on a CPU auto does not pack
    for name, word in (("padded", OFF), ("packed", packed)):
        own = merge(words, ["tuning=frozen", word])
        fill = partial(measure_variant, words=own, precision="bf16-mixed", texts=texts)
        setting.measure(f"{shape.name}: encoding", f"{computed}, {name}", fill)
    last = setting.pick(4, 2)
    lora = ["tuning=lora", "tuning.layers=all", packed]
    ways = {
        "LoRA, all layers": lora,
        "LoRA, all layers, activations computed again": [*lora, "encoder.checkpoint_chunks=true"],
        f"LoRA, last {last} layers, kept states": [
            *merge(lora, [f"tuning.layers={last}", "encoder.cache=true"])
        ],
    }
    for name, more in ways.items():
        fill = partial(measure_step, words=merge(words, more), precision="bf16-mixed")
        setting.measure(f"{shape.name}: a step, {computed}", name, fill)

"""Decoders in the shape of SmolLM2-135M and Qwen3-0.6B: as encoders, under LoRA, as re-rankers."""

from __future__ import annotations

from functools import partial

import shapes
import torch
from bench import Bench, merge
from encoding import OFF, measure_variant
from measuring import Row, Setting, measure_seconds
from steps import measure_step


def smollm2(setting: Setting) -> None:
    """SmolLM2-135M."""
    shape = shapes.smollm2(setting.dry)
    measure(setting, shape, setting.pick(20_000, 40), setting.pick(64, 4))
    rerank(setting, shape, setting.pick(16, 2))


def qwen(setting: Setting) -> None:
    """Qwen3-0.6B."""
    shape = shapes.qwen(setting.dry)
    measure(setting, shape, setting.pick(6_000, 40), setting.pick(24, 4))
    rerank(setting, shape, setting.pick(8, 2))


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
        "LoRA, all layers, bf16 weights": [*lora, "encoder.dtype=bf16"],
        "QLoRA, nf4 weights": [*lora, "encoder.quantize=nf4", "encoder.dtype=bf16"],
        "LoRA, all layers, activations computed again": [*lora, "encoder.checkpoint_chunks=true"],
        f"LoRA, last {last} layers, kept states": [
            *merge(lora, [f"tuning.layers={last}", "encoder.cache=true"])
        ],
    }
    for name, more in ways.items():
        fill = partial(measure_step, words=merge(words, more), precision="bf16-mixed")
        setting.measure(f"{shape.name}: a step, {computed}", name, fill)


def rerank(setting: Setting, shape: shapes.Shape, users: int) -> None:
    """Yes or no for each of 20 candidates behind a user's history of some 300 tokens.

    Args:
        setting: Where.
        shape: The decoder.
        users: Queries of a step.
    """
    items, people = setting.pick(5000, 60), setting.pick(400, 30)
    words = shapes.write_shop(setting, shape, items, people, 16, setting.pick(20, 8))
    words += ["architecture=prompt", "objective=bce", "objective.negatives=19"]
    words += ["evaluation.protocol=candidates", "evaluation.candidates=20", "data.queries=last"]
    words += [f"evaluation.max_cases={setting.pick(64, 4)}", f"trainer.batch_size={users}"]
    words += [f"evaluation.batch_size={users}", "encoder.max_length=512", "encoder.cache=false"]
    words += ["regularization.dropout=0", f"encoder.chunk_tokens={setting.pick(16_384, 1024)}"]
    words += ["tuning=lora", "tuning.layers=all"]
    for name, shared in (("the user's tokens once", True), ("again for each item", False)):
        own = [*words, f"architecture.share_prefix={str(shared).lower()}"]
        fill = partial(measure_ranking, words=own)
        setting.measure(f"{shape.name}: re-ranking 20 items, LoRA", f"ranking, {name}", fill)
        fill = partial(measure_step, words=own, precision="bf16-mixed")
        setting.measure(f"{shape.name}: re-ranking 20 items, LoRA", f"a step, {name}", fill)


def measure_ranking(row: Row, words: list[str]) -> None:
    """Scores the candidates of a batch of test cases."""
    bench = Bench(row.setting, words, "bf16-mixed")
    model, data = bench.model, bench.made.datamodule
    data.trainer = None
    batch = next(iter(data.test_dataloader())).to(row.setting.device)
    model.eval()

    @torch.no_grad()
    def rank() -> torch.Tensor:
        with bench.fabric.autocast():
            return model.score_candidates(batch, model.index(batch.plan))

    work = model.work
    before, work.counting = work.tokens, True
    rank()
    work.counting = False
    seconds = measure_seconds(rank, row.setting)
    row.figures["queries"] = float(len(batch.query))
    row.figures["items/s"] = int((batch.candidates >= 0).sum()) / seconds
    row.add_rates(seconds, tokens=work.tokens - before)
    row.add_memory()

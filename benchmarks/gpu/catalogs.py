"""Ranking large catalogs: the best of ten million items, and an evaluation over all items."""

from __future__ import annotations

import statistics
import time
from functools import partial

import shapes
import torch
from bench import Bench
from measuring import Row, Setting, measure_seconds, synchronize
from torch import Tensor

from recsys.evaluation.ranking import count_block_queries, select_best
from recsys.recommender.trainable import TrainableRecommender
from recsys.types import Batch

WIDTH = 384


def choose(setting: Setting) -> None:
    """The best 100 of ten million items of width 384, as lists of users are made."""
    items, top = setting.pick(10_000_000, 5000), setting.pick(100, 10)
    table = f"the best {top} of {items:,} x {WIDTH}"
    ours = min(count_block_queries(items), setting.pick(64, 4))
    for name, dtype in (("fp16", torch.float16), ("fp32", torch.float32)):
        for block in sorted({ours, setting.pick(16, 4), setting.pick(128, 8)}):
            fill = partial(rank_block, items=items, top=top, block=block, dtype=dtype)
            shown = f"{name}, {block} {'query' if block == 1 else 'queries'} at a time"
            setting.measure(table, shown, fill, cuda=dtype == torch.float16)


def rank_block(row: Row, items: int, top: int, block: int, dtype: torch.dtype) -> None:
    """Scores a block of queries with all items, and chooses."""
    device = row.setting.device
    vectors = torch.randn(items, WIDTH, device=device, dtype=dtype)
    queries = torch.randn(block, WIDTH, device=device, dtype=dtype)

    def rank() -> tuple[Tensor, Tensor]:
        return select_best((queries @ vectors.T).float(), top)

    seconds = measure_seconds(rank, row.setting, rounds=3)
    row.figures["ms"] = 1e3 * seconds
    row.figures["queries/s"] = block / seconds
    row.figures["items read GB/s"] = vectors.numel() * vectors.element_size() / seconds / 1e9
    row.add_memory()
    scores = (queries[:4] @ vectors.T).float()
    same = torch.equal(select_best(scores, top)[0], scores.topk(top).values)
    row.figures["as torch.topk"] = "yes" if same else "NO"


def evaluate(setting: Setting) -> None:
    """Cases a second of a whole evaluation, the look-up of the catalog apart."""
    items, users = setting.pick(100_000, 80), setting.pick(20_000, 30)
    fill = partial(rank_cases, items=items, users=users)
    setting.measure(f"{users:,} cases among {items:,} items", "Evaluator", fill)


def rank_cases(row: Row, items: int, users: int) -> None:
    """Ranks the test part with a frozen encoder's vectors."""
    setting, shape = row.setting, shapes.minilm(row.setting.dry)
    words = shapes.write_shop(setting, shape, items, users, 8)
    words += ["experiment=frozen_two_tower", "encoder.pooling=mean", "data.queries=last"]
    words += [f"evaluation.batch_size={setting.pick(1024, 16)}"]
    bench = Bench(setting, words, "bf16-mixed")
    model, data = bench.model, bench.made.datamodule
    data.trainer = None
    batches = [batch.to(setting.device) for batch in data.test_dataloader()]
    cases = sum(int((batch.case >= 0).sum()) for batch in batches)
    model.eval()
    spent: list[tuple[float, float]] = []
    for _ in range(setting.pick(4, 2)):
        with bench.fabric.autocast():
            spent.append(rank_all(model, batches, setting))
    # The first one prepares what the others find.
    catalog, ranked = (statistics.median(column) for column in zip(*spent[1:], strict=True))
    row.figures["cases"] = float(cases)
    row.figures["catalog s"], row.figures["ranking s"] = catalog, ranked
    row.figures["cases/s"] = cases / ranked
    row.add_memory()


def rank_all(
    model: TrainableRecommender, batches: list[Batch], setting: Setting
) -> tuple[float, float]:
    """Seconds until the catalog is there, and of the cases from then on."""
    began = time.perf_counter()
    model.evaluator.start(model)
    synchronize(setting.device)
    ready = time.perf_counter()
    for batch in batches:
        model.evaluator.step(model.ranker, batch)
    model.evaluator.end()
    synchronize(setting.device)
    return ready - began, time.perf_counter() - ready

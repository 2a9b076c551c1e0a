"""Levers: one optimiser step of a two-tower on real titles, as it is typical and as it is here."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typical
from measure import Part, Timing, alternate, fresh_store, memory, percent, row
from sides import Found, Loop, Ours, Places, apart, move
from torch import Tensor

from recsys.config.compose import compose
from recsys.encoders.pretrained.source import ModelFiles
from recsys.encoders.pretrained.tokenizer import load_tokenizer
from recsys.recommender.flops import probe
from recsys.training.profiling import measure_gemm_peak
from recsys.types import Batch, ItemBatch

FULL, LORA, ADAPTER, FROZEN = "full", "LoRA, last 2 layers", "adapter, last 2 layers", "frozen"
TUNINGS = {
    FULL: ["tuning=full"],
    "LoRA, all layers": ["tuning=lora", "tuning.layers=all"],
    LORA: ["tuning=lora", "tuning.layers=2"],
    ADAPTER: ["tuning=adapter", "tuning.layers=2"],
    FROZEN: ["tuning=frozen"],
}
TARGETS = {FULL: 4.0, LORA: 15.0, ADAPTER: 15.0, FROZEN: 300.0}
"""How many times faster than the typical full step a method should be."""

ENCODE_TARGET = 0.75  # of the GEMM peak
NO_CHUNKS = "encoder.chunk_tokens=1000000000"  # all texts of a call in one padded batch
TITLES = 1024  # of the table on encoding


@dataclass(frozen=True)
class Side:
    """Everything about a side but its seconds.

    Attributes:
        call: A step.
        extra: Columns that are known beforehand.
        exact: How far from the typical loop.
        useful: Operations of the encoder that cannot be left out here.
        computed: Operations on all places, padding included.
    """

    call: Callable[[], float]
    extra: dict[str, float | str]
    exact: dict[str, float]
    useful: float
    computed: float


def levers(data: Path, runs: int) -> Part:
    """The steps and the encoding.

    Args:
        data: Folder that holds `amazon-instruments`.
        runs: Rounds of each.
    """
    with fresh_store():
        return _levers(data, runs)


def _levers(data: Path, runs: int) -> Part:
    first = Ours(data, TUNINGS[FULL])
    key = representative(first)
    batch = first.batch(key)
    texts, tokens = len(batch.plan.items), sum(first.lengths(batch))
    shapes = probe(first.model.encoder, None).shapes
    peak = measure_gemm_peak(shapes, 1024, torch.float32, torch.device("cpu"))[0]
    sides: dict[str, Side] = {}
    for name, words in TUNINGS.items():
        sides |= _tuning(data, name, words, first if name == FULL else None, key)
    print(f"timing {len(sides)} sides", flush=True)
    warm = [name for name in sides if "typical" not in name]
    times = alternate({name: side.call for name, side in sides.items()}, runs, warm)
    peak = max(peak, measure_gemm_peak(shapes, 1024, torch.float32, torch.device("cpu"))[0])

    def line(what: str, name: str, shown: str) -> dict[str, Any]:
        side = sides[name]
        rates: dict[str, float | str] = {
            "useful GFLOP/s": side.useful / times[name].median / 1e9,
            "of the GEMM peak": percent(side.useful / times[name].median / 1e9 / peak),
            "with padding": percent(side.computed / times[name].median / 1e9 / peak),
        }
        extra = side.extra | (rates if side.computed else {})
        exact = side.exact
        return row(what, shown, times[name], texts=texts, tokens=tokens, exact=exact, extra=extra)

    step, full = "One optimiser step, 32 users", "Full fine-tuning, a lever at a time"
    top = "LoRA in the last 2 layers, without and with the kept prefix"
    rows = [line(step, f"{name}, {who}", f"{name}, {who}") for name in TUNINGS for who in WHO]
    rows += [line(full, f"{FULL}, {name}", shown) for name, shown in FULL_LEVERS.items()]
    rows += [line(top, f"{LORA}, {name}", shown) for name, shown in TOP_LEVERS.items()]
    encoded, note = encoding(first, runs, peak)
    size = len(first.model.parts.texts)
    notes = [SETTING.format(texts=texts, tokens=tokens, items=size, peak=peak)]
    notes += [verdict(sides, times, peak, name) for name in TARGETS]
    return Part("Levers", rows + encoded, [*notes, note])


WHO = ("typical", "ours")
FULL_LEVERS = {
    "typical": "typical",
    "plain": "no padding texts",
    "unique": "no padding texts, unique texts",
    "sorted": "no padding texts, length-sorted micro-batches",
    "ours": "all three (ours)",
    "embeddings": "all three, embedding tables train too",
}
TOP_LEVERS = {"typical": "typical", "uncached": "ours, prefix computed", "ours": "ours"}

SETTING = (
    "A batch of 32 users with their real histories of up to 20 titles, of middling size among the "
    "first 40: {texts} unique texts, {tokens:,} tokens. A sample of 1,000 users and {items:,} "
    "items. Dropout off and no clipping on all sides; making the batch is part of a step on both. "
    "The GEMM peak of this run on the model's shapes: {peak:.1f} GFLOP/s. Useful operations are "
    "those on unique texts without padding, through the layers that the method has to run; *with "
    "padding* counts all that was computed. *First step* is everything from reading the data to "
    "the first gradients, what is kept of frozen layers included: the adapter finds the states "
    "that LoRA's run has kept. *Apart* is relative, against the typical loop at the same weights; "
    "gradients as a whole."
)


def representative(ours: Ours) -> tuple[int, Any]:
    """Of the first 40 batches the one for which the typical loop computes a middling amount."""
    keys = ours.batches(40)

    def places(key: tuple[int, Any]) -> int:
        batch = ours.batch(key)
        lengths = torch.tensor(ours.lengths(batch))
        target = int(lengths[batch.candidates[:, 0]].max()) * len(batch.users)
        longest = int(lengths[batch.history[batch.history >= 0]].max())
        return int(batch.history.numel()) * longest + target

    keys.sort(key=places)
    return keys[len(keys) // 2]


def repeated(batch: Batch) -> Batch:
    """The batch with a text for every occurrence, as if nobody looked for repeats."""
    inside, count = batch.history >= 0, int((batch.history >= 0).sum())
    rows = batch.plan.items[batch.history[inside]]
    targets = batch.plan.items[batch.candidates[:, 0]]
    history = batch.history.clone()
    history[inside] = torch.arange(count)
    candidates = torch.arange(count, count + len(targets))[:, None]
    plan = ItemBatch(torch.cat([rows, targets]), ())
    return dataclasses.replace(batch, plan=plan, history=history, candidates=candidates)


def _tuning(
    data: Path, name: str, words: list[str], made: Ours | None, key: tuple[int, Any]
) -> dict[str, Side]:
    """All sides of a way of tuning; the typical loop's own pass is its warm-up."""
    print(name, flush=True)
    ours = Ours(data, words) if made is None else made
    move(ours.model)
    batch = ours.batch(key)
    loop = Loop(ours, batch, whole=name == FULL)
    right: list[Found] = []
    mb = memory(lambda: right.append(loop.gradients()))
    places = loop.places(ours)
    lengths = ours.lengths(batch)
    extra = _shares(places, len(lengths)) | {"peak MB": mb}
    useful = _operations(ours, lengths, False)
    out = {f"{name}, typical": Side(loop.step, extra, {}, useful, places.flops)}
    plans: dict[str, tuple[Ours, bool]] = {"ours": (ours, False)}
    if name == FULL:
        padded = Ours(data, [*words, NO_CHUNKS])
        plans |= {"plain": (padded, True), "unique": (padded, False), "sorted": (ours, True)}
        plans["embeddings"] = (Ours(data, [*words, "tuning.embeddings=true"]), False)
    if name == LORA:
        plans["uncached"] = (Ours(data, [*words, "encoder.cache=false"]), False)
    for variant, (side, repeats) in plans.items():
        move(side.model)
        out[f"{name}, {variant}"] = _side(side, key, repeats, right[0])
    return out


def _side(ours: Ours, key: tuple[int, Any], repeats: bool, right: Found) -> Side:
    """One of our sides, checked against the typical loop's gradients."""

    def make() -> Batch:
        batch = ours.batch(key)
        return repeated(batch) if repeats else batch

    began = time.perf_counter()
    found = ours.gradients(make())
    first = ours.seconds + time.perf_counter() - began
    mb = memory(lambda: ours.gradients(make()))
    lengths = ours.lengths(make())
    plan = [[lengths[r] for r in rows] for rows in ours.model.encoder.plan_micro_batches(lengths)]
    padded = [max(part) for part in plan for _ in part]
    kept = ours.model.encoding.prefix is not None
    useful = _operations(ours, ours.lengths(ours.batch(key)), kept)
    places = Places(len(lengths), sum(lengths), sum(padded), _operations(ours, padded, kept))
    extra = _shares(places, len(set(make().plan.items.tolist())))
    if not ours.model.encoding.tuned.trained:
        extra, useful, places = {}, 0.0, Places(0, 0, 0, 0.0)
    extra |= {"peak MB": mb, "first step s": first}
    return Side(ours.step(make), extra, apart(found, right), useful, places.flops)


def _shares(places: Places, unique: int) -> dict[str, float | str]:
    return {
        "texts encoded": float(places.texts),
        "unique": percent(unique / places.texts),
        "padding": percent(1 - places.real / places.padded),
    }


def _operations(ours: Ours, lengths: Sequence[int], kept: bool) -> float:
    """Operations of the encoder in a training step on texts of these lengths."""
    rate = probe(ours.model.encoder, ours.model.encoding.prefix if kept else None)
    return rate.token * sum(lengths) + rate.square * sum(n * n for n in lengths)


def verdict(sides: dict[str, Side], times: dict[str, Timing], peak: float, name: str) -> str:
    """Whether a figure was reached, and what limits it."""
    slow, fast = f"{FULL}, typical", f"{name}, ours"
    factor = times[slow].median / times[fast].median
    state = "reached" if factor >= TARGETS[name] else "not reached"
    cpu = statistics.median(times[slow].cpu) / statistics.median(times[fast].cpu)
    line = (
        f"**{name}: {factor:,.1f} times** the typical full step's speed (aim {TARGETS[name]:.0f}: "
        f"{state}; {cpu:,.1f} times in CPU seconds)."
    )
    if not sides[fast].computed:
        return (
            f"{line} No text passes the encoder; what is left are the heads and small calls. The "
            "first step, which encodes the catalog, is not in it."
        )
    less = sides[slow].computed / sides[fast].computed
    shares = [percent(sides[s].computed / times[s].median / 1e9 / peak) for s in (slow, fast)]
    return (
        f"{line} It computes {less:.1f} times fewer operations in the encoder, at {shares[1]} of "
        f"the GEMM peak where the typical full step runs at {shares[0]}."
    )


def encoding(ours: Ours, runs: int, peak: float) -> tuple[list[dict[str, Any]], str]:
    """Titles to vectors: batches of 32 in the catalog's order, and sorted micro-batches."""
    model, texts = ours.model, ours.model.parts.texts[:TITLES]
    encoder, catalog = model.encoder, model.encoding.catalog
    if catalog is None:
        raise RuntimeError("this recommender reads no tokens")
    tokens = catalog.gather_tokens(torch.arange(len(texts)))
    tower = typical.TwoTower(encoder.model, encoder.width)
    collate = typical.Collate(
        load_tokenizer(ModelFiles.locate(compose([]).encoder.model)), max_length=66
    )

    @torch.no_grad()
    def plain() -> list[Tensor]:
        return [
            tower.pooled(collate.texts(list(texts[i : i + 32]))) for i in range(0, len(texts), 32)
        ]

    @torch.no_grad()
    def ordered() -> Tensor:
        vectors: Tensor = encoder(tokens)
        return vectors

    model.eval()
    times = alternate({"plain": plain, "ours": ordered}, runs)
    with torch.no_grad():
        operations = _operations(ours, encoder.compute_lengths(tokens.sizes), False)
    right = torch.cat(plain())
    off = float((ordered() - right).norm() / right.norm())
    count = sum(encoder.compute_lengths(tokens.sizes))
    rows = []
    for name, shown in (("plain", "typical, batches of 32"), ("ours", "ours")):
        rate = operations / times[name].median / 1e9
        extra: dict[str, float | str] = {
            "useful GFLOP/s": rate,
            "of the GEMM peak": percent(rate / peak),
        }
        exact = {"vectors apart": off} if name == "ours" else {}
        what = f"Encoding {TITLES:,} titles"
        found = times[name]
        rows.append(row(what, shown, found, texts=TITLES, tokens=count, exact=exact, extra=extra))
    share = operations / times["ours"].median / 1e9 / peak
    state = "reached" if share >= ENCODE_TARGET else "not reached"
    lengths = encoder.compute_lengths(tokens.sizes)
    places = sum(
        len(part) * max(lengths[i] for i in part) for part in encoder.plan_micro_batches(lengths)
    )
    return rows, (
        f"**Encoding at {percent(share)} of the GEMM peak** (aim {percent(ENCODE_TARGET)}: "
        f"{state}). "
        f"Where its CPU time goes: {spent(ordered)}. Of the token places "
        f"{percent(1 - count / places)} "
        "are padding."
    )


def spent(call: Callable[[], object]) -> str:
    """The operations that take the most CPU time in a call, with their shares."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        call()
    times = {event.key: float(event.self_cpu_time_total) for event in seen.key_averages()}
    most = sorted(times, key=lambda name: -times[name])[:4]
    whole = sum(times.values())
    return ", ".join(f"{percent(times[n] / whole)} {n.removeprefix('aten::')}" for n in most)

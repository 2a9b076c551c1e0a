"""What a query costs at least: python benchmarks/serve/limits.py BUNDLE [TOKENS].

A history reads the vectors of all items once: their bytes over the bandwidth of this machine's
memory. A text of so many tokens is so many products and sums of the encoder: over the most that a
product of large matrices reaches here. Both are measured now, on one thread, the best of many.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from recsys.trained.bundle import manifest


def time_best(work: Callable[[], object], times: int = 15) -> float:
    """Seconds of the quickest of some calls."""
    out = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        out.append(time.perf_counter() - start)
    return min(out)


def measure_bandwidth() -> float:
    """Bytes a second that one thread reads of memory, of more than any cache holds."""
    values = np.ones(100_000_000, dtype=np.float32)
    return values.nbytes / time_best(lambda: np.dot(values, values))


def measure_peak() -> float:
    """Products and sums a second, in fp32, of one thread."""
    size = 1024
    left, right = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / time_best(lambda: left @ right)


def count_operations(config: dict[str, int], tokens: int) -> int:
    """Products and sums of an encoder for one text, with those of attention."""
    width, layers, inner = (
        config[name] for name in ("hidden_size", "num_hidden_layers", "intermediate_size")
    )
    a_token = 4 * width * width + 2 * width * inner + 2 * tokens * width
    return 2 * layers * tokens * a_token


def main(bundle: Path, tokens: int = 10) -> None:
    """Prints both limits."""
    torch.set_num_threads(1)
    index = (bundle / manifest.CATALOG).stat().st_size
    bandwidth = measure_bandwidth()
    print(
        f"history: {index / 1e6:.1f} MB at {bandwidth / 1e9:.1f} GB/s: "
        f"{1000 * index / bandwidth:.2f} ms"
    )
    config = json.loads((bundle / manifest.ENCODER / "config.json").read_text(encoding="utf-8"))
    work, peak = count_operations(config, tokens), measure_peak()
    print(
        f"text of {tokens} tokens: {work / 1e9:.2f} GFLOP at {peak / 1e9:.0f} GFLOP/s: "
        f"{1000 * work / peak:.2f} ms, and what a history takes"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

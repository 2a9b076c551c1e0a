"""The inverse that EASE needs, beside the limit: its operations at the rate of matrix products."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from measure import Part, Timing, alternate, memory, once, percent, row
from threadpoolctl import threadpool_limits

from recsys.layers.ease import invert_in_place

Floats = npt.NDArray[np.float32]

SIZES = tuple(int(n) for n in os.environ.get("SIZES", "2000,8000,17000").split(","))
THREADS = tuple(int(n) for n in os.environ.get("THREADS", "1,2").split(","))
WIDTH = 2048
"""Of the square matrices whose product sets the rate."""

OURS, PEER = "spotrf, spotri (scipy), in place", "cholesky, cholesky_inverse (torch)"


def inverse(data: Path, runs: int) -> Part:
    """Each size with each number of threads, in the same process as the products; no DATA."""
    rows: list[dict[str, Any]] = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            for n in SIZES:
                rows += measure_size(n, threads, runs)
    note = (
        "An inverse of n items by Cholesky takes n^3 operations: a third for the factor, two "
        f"thirds for the inverse. The limit is that many at the rate of a product of {WIDTH} x "
        f"{WIDTH} matrices, the best of the run's; with one thread both in CPU seconds, which "
        "other programs on the machine touch least. GB is anonymous memory beside the matrix."
    )
    return Part("EASE: the inverse beside its limit", rows, [note])


def measure_size(n: int, threads: int, runs: int) -> list[dict[str, Any]]:
    """Rows of one size."""
    kept: dict[str, Floats] = {}

    def invert() -> None:
        kept[OURS] = make_gram(n)
        assert invert_in_place(kept[OURS])

    def invert_by_torch() -> None:
        factor = torch.linalg.cholesky(torch.from_numpy(make_gram(n)))
        kept[PEER] = torch.cholesky_inverse(factor).numpy()

    making = once(lambda: make_gram(n))
    sides = {OURS: invert, PEER: invert_by_torch}
    best = measure_product(threads)
    times = alternate(sides, runs, warm=())
    limit = n**3 / max(best, measure_product(threads))
    added = {name: memory(call) / 1e3 - n**2 * 4 / 1e9 for name, call in sides.items()}
    apart = np.abs(np.tril(kept[OURS] - kept[PEER])).max() / np.abs(kept[PEER]).max()
    out = []
    for name, timing in times.items():
        own = Timing(
            [s - making[0] for s in timing.wall], [max(s - making[1], 1e-3) for s in timing.cpu]
        )
        seconds = min(own.cpu if threads == 1 else own.wall)
        extra = {"limit s": limit, "of the limit": percent(limit / seconds), "GB": added[name]}
        what = f"{n:,} items, {threads} thread{'s' * (threads > 1)}"
        exact = {} if name == OURS else {"apart": float(apart)}
        out.append(row(what, name, own, texts=0, tokens=0, exact=exact, extra=extra))
    return out


def make_gram(n: int) -> Floats:
    """(n, n) a matrix as EASE inverts it, made anew since it is overwritten."""
    rng = np.random.default_rng(0)
    few = rng.random((n, 32), dtype=np.float32)
    gram = np.asfortranarray(few @ few.T)
    gram[np.diag_indices(n)] += np.float32(300)
    return gram


def measure_product(threads: int) -> float:
    """Operations a second of the best product of two matrices, by the better of two libraries."""
    left = np.random.default_rng(1).random((WIDTH, WIDTH), dtype=np.float32)
    a = torch.from_numpy(left)
    rates = []
    for _ in range(8):
        for call in (lambda: left @ left, lambda: a @ a):
            wall, cpu = once(call)
            rates.append(2 * WIDTH**3 / (cpu if threads == 1 else wall))
    return max(rates)

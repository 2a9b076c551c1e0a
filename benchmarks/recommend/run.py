"""Times the lists of many users: `python benchmarks/recommend/run.py`, some minutes.

Makes a bundle of two towers with random vectors, writes the lists of its users, and prints a table
in Markdown. Each row is a process of its own. Beside it stands what the products of vectors alone
take at the rate of the largest product that the same process measures.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from recsys.testing.vectors import write_vector_bundle
from recsys.trained.bundle.bundle import open_bundle

MILLION = 1_000_000
ROUNDS = 5


@dataclass(frozen=True)
class Measured:
    """One file of lists.

    Attributes:
        seconds: Wall clock.
        cpu: Seconds of all threads.
        peak_mb: Largest resident memory of the process, mapped files included.
        gflops: Of the product of vectors alone, by CPU seconds of a thread.
    """

    seconds: float
    cpu: float
    peak_mb: float
    gflops: float


def measure_product(items: int, width: int, queries: int = 160) -> float:
    """GFLOP of products of matrices in a CPU second, the best of a few rounds."""
    vectors, users = torch.randn(items, width), torch.randn(queries, width)
    out, best = torch.empty(queries, items), 0.0
    for _ in range(ROUNDS):
        start = time.process_time()
        torch.mm(users, vectors.T, out=out)
        best = max(best, 2 * queries * items * width / (time.process_time() - start) / 1e9)
    return best


def measure(folder: Path, output: Path, items: int, width: int) -> Measured:
    """Writes the lists of all users, in this process."""
    start, cpu = time.perf_counter(), time.process_time()
    open_bundle(folder, check=False).write_lists(output)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(seconds, cpu, peak, measure_product(items, width))


def main() -> None:
    """Prints a row for each number of users."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--bundle", type=Path, help="measure this one, in this process")
    options = parser.parse_args()
    if options.bundle is not None:
        with tempfile.TemporaryDirectory() as out:
            path = Path(out, "lists.parquet")
            made = measure(options.bundle, path, options.items, options.width)
        print(json.dumps(asdict(made)))
        return
    print("| users | s | CPU s | CPU s, a million users | of products alone | peak MB |")
    print("|---|---|---|---|---|---|")
    for users in options.users:
        with tempfile.TemporaryDirectory() as work:
            folder = write_vector_bundle(Path(work, "bundle"), users, options.items, options.width)
            sizes = [f"--items={options.items}", f"--width={options.width}"]
            command = [sys.executable, __file__, f"--bundle={folder}", *sizes]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = Measured(**json.loads(out))
        products = 2 * MILLION * options.items * options.width / row.gflops / 1e9
        print(
            f"| {users:,} | {row.seconds:.0f} | {row.cpu:.0f} | {row.cpu * MILLION / users:,.0f} | "
            f"{products:,.0f} ({row.gflops:.0f} GFLOP a CPU second) | {row.peak_mb:,.0f} |"
        )


if __name__ == "__main__":
    main()

"""Times requests of a running service: python benchmarks/serve/load.py URL [SECONDS] [ITEMS].

ITEMS is how many there are, with numbers for ids, as ml-100k has them and as enlarge.py makes them.

The client is a process of its own on the same machine, with so many connections, each of which
sends its next request when it has the answer to the last one (a closed loop): more clients wait
for each other, and latencies hold that. It prints a table in Markdown.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

import httpx

CLIENTS = (1, 8, 32)
WORDS = [
    "space",
    "robots",
    "love",
    "war",
    "comedy",
    "murder",
    "family",
    "music",
    "night",
    "city",
    "island",
    "dream",
    "ghost",
    "train",
]


def make_body(kind: str, items: int, rng: random.Random) -> dict[str, object]:
    """A request: ids, or words that few requests share."""
    if kind == "history":
        return {"history": [str(rng.randint(1, items - 1)) for _ in range(10)]}
    if kind == "user":
        return {"user": str(rng.randint(1, 943))}
    return {"text": " ".join(rng.choices(WORDS, k=6))}


async def measure(
    url: str, kind: str, clients: int, seconds: float, items: int
) -> tuple[list[float], int]:
    """Seconds of each request, and how many failed."""
    taken: list[float] = []
    failed = 0

    async def ask(seed: int) -> None:
        nonlocal failed
        rng = random.Random(seed)
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            await client.post(
                "/recommend", json=make_body(kind, items, rng)
            )  # opens the connection
            while time.perf_counter() < end:
                start = time.perf_counter()
                answer = await client.post("/recommend", json=make_body(kind, items, rng))
                taken.append(time.perf_counter() - start)
                failed += answer.status_code != 200

    end = time.perf_counter() + seconds
    await asyncio.gather(*(ask(seed) for seed in range(clients)))
    return taken, failed


def main(url: str, seconds: float = 8.0, items: float = 1_600) -> None:
    """Prints a row for each kind of query and number of clients."""
    print("| query | clients | requests a second | p50 ms | p95 ms | p99 ms | failed |")
    print("|---|---|---|---|---|---|---|")
    for kind in ("history", "user", "text"):
        for clients in CLIENTS:
            taken, failed = asyncio.run(measure(url, kind, clients, seconds, int(items)))
            ordered = sorted(taken)
            last = len(ordered) - 1
            times = " | ".join(f"{1000 * ordered[int(q * last)]:.1f}" for q in (0.5, 0.95, 0.99))
            rate = len(ordered) / seconds
            print(f"| {kind} | {clients} | {rate:.0f} | {times} | {failed} |")


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))

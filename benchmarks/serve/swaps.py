"""Swaps a served model under load, then stops it: python benchmarks/serve/swaps.py BUNDLE [SWAPS].

A link names one of two copies of BUNDLE in turn; eight clients ask on without a pause. Each swap is
over once the service says that the newer model answers. Then SIGTERM comes, under the same load.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

from recsys.trained.bundle.bundle import open_bundle

CLIENTS = 8


async def ask_on(url: str, history: list[str], codes: Counter[str]) -> None:
    """Asks until nobody listens any more."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        said_to_close = False
        while True:
            try:
                answer = await client.post("/recommend", json={"history": history})
            except httpx.ConnectError:
                return
            except httpx.TransportError:
                codes["told to close" if said_to_close else "failed"] += 1
                return
            codes[str(answer.status_code)] += 1
            said_to_close = answer.headers.get("connection") == "close"


async def swap(url: str, link: Path, copies: list[Path], times: int) -> list[float]:
    """Seconds of each swap."""
    taken = []
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for number in range(1, times + 1):
            start = time.perf_counter()
            point(link, copies[number % 2])
            while (await client.get("/health")).json()["version"] <= number:
                await asyncio.sleep(0.05)
            taken.append(time.perf_counter() - start)
    return taken


def point(link: Path, target: Path) -> None:
    """Makes a link name another folder, in one step."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(target.name)
    fresh.replace(link)


def main(bundle: Path, times: int = 20) -> None:
    """Prints how many requests were answered and how, and how long swaps took."""
    items = open_bundle(bundle, check=False).recommend(histories=[[]], k=10)["item"].to_list()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        copies = [Path(shutil.copytree(bundle, root / name)) for name in ("one", "two")]
        point(root / "live", copies[0])
        words = [f"folder={root / 'live'}", "port=0", "watch=1"]
        with subprocess.Popen(
            [sys.executable, "-m", "recsys.serve", *words], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            match = re.search(r"http://\S+", process.stdout.readline())
            assert match is not None, "it did not begin"
            codes: Counter[str] = Counter()

            async def run(url: str) -> list[float]:
                asking = [asyncio.create_task(ask_on(url, items, codes)) for _ in range(CLIENTS)]
                taken = await swap(url, root / "live", copies, times)
                process.send_signal(signal.SIGTERM)
                await asyncio.gather(*asking)
                return taken

            taken = sorted(asyncio.run(run(match[0])))
            print(f"{times} swaps, {taken[len(taken) // 2]:.1f} s each in the middle")
            print(f"exit code {process.wait()}; answers: {dict(codes)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

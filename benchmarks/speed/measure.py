"""How the parts measure: sides in turn, medians, and the machine they ran on."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

SHORTEST = 0.2  # seconds: a quicker call is repeated within a run, or the clock would decide


@dataclass
class Timing:
    """Seconds of a call, a number a run.

    Attributes:
        wall: On the clock.
        cpu: Of all threads of the process; other processes on the machine do not enter.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median seconds on the clock."""
        return statistics.median(self.wall)


@dataclass(frozen=True)
class Part:
    """One file of results, and its section of the page.

    Attributes:
        title: Heading of the section.
        rows: What `row` made; rows with the same `what` are a table, the first its baseline.
        notes: Paragraphs in Markdown, between heading and tables.
    """

    title: str
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def once(call: Callable[[], object], times: int = 1) -> tuple[float, float]:
    """Wall and CPU seconds of a call, the mean over `times` of them."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        call()
    return (time.perf_counter() - wall) / times, (time.process_time() - cpu) / times


def alternate(
    sides: Mapping[str, Callable[[], object]], runs: int, warm: Collection[str] | None = None
) -> dict[str, Timing]:
    """Times several sides in turn, so that whatever else the machine does meets all of them alike.

    Args:
        sides: What to call, by name.
        runs: Rounds; every side is timed once in each.
        warm: The sides that are called once before the first round and that may be repeated within
            a run; None for all. Leave out what is slow and has been called before.
    """
    times = dict.fromkeys(sides, 1)
    for name, call in sides.items():
        if warm is None or name in warm:
            call()
            times[name] = max(1, math.ceil(SHORTEST / max(once(call)[0], 1e-6)))
    out = {name: Timing() for name in sides}
    for _ in range(runs):
        for name, call in sides.items():
            wall, cpu = once(call, times[name])
            out[name].wall.append(wall)
            out[name].cpu.append(cpu)
    return out


def row(
    what: str,
    variant: str,
    timing: Timing,
    *,
    texts: int,
    tokens: int,
    exact: Mapping[str, float] | None = None,
    extra: Mapping[str, float | str] | None = None,
) -> dict[str, Any]:
    """A row of results.

    Args:
        what: The table it belongs to.
        variant: Which side it is.
        timing: Its seconds.
        texts: Useful texts of a call: unique ones; 0 where that means nothing.
        tokens: Useful tokens of a call: of unique texts, without padding; 0 as above.
        exact: By how much it differs from its reference, by name.
        extra: Further columns, a number or a text each.
    """
    return {
        "what": what,
        "variant": variant,
        "median_s": timing.median,
        "min_s": min(timing.wall),
        "max_s": max(timing.wall),
        "cpu_s": statistics.median(timing.cpu),
        "runs": len(timing.wall),
        "texts": texts,
        "tokens": tokens,
        "exact": dict(exact or {}),
        "extra": dict(extra or {}),
    }


def percent(share: float) -> str:
    """A share as the page shows it."""
    return f"{100 * share:.0f} %"


@contextmanager
def fresh_store() -> Iterator[None]:
    """What is kept between runs goes to a folder that is removed, so that its cost shows."""
    before = os.environ.get("RECSYS_CACHE")
    with tempfile.TemporaryDirectory() as store:
        os.environ["RECSYS_CACHE"] = store
        try:
            yield
        finally:
            del os.environ["RECSYS_CACHE"]
            if before is not None:
                os.environ["RECSYS_CACHE"] = before


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.is_file() else [])
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def result(name: str, command: str, part: Part) -> dict[str, Any]:
    """The content of a part's file."""
    return {
        "name": name,
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        **asdict(part),
    }


def memory(call: Callable[[], object]) -> float:
    """Anonymous memory that a call adds at its peak, in MB (10^6 bytes).

    Files that are mapped do not count: their pages can be given back at any time. Sampled every few
    milliseconds, so that a very short peak can be missed; 0 on a system without /proc.
    """
    if not Path("/proc/self/status").is_file():
        return 0.0
    gc.collect()
    _give_back()
    start = peak = _anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, _anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return max(0.0, (max(peak, _anonymous()) - start) / 1e6)


def _give_back() -> None:
    """Hands freed memory back to the system, where glibc would keep it for the next call."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def _anonymous() -> int:
    """Anonymous resident memory of the process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0

"""How the parts measure: a deadline, seconds of a device, and rows written as they come."""

from __future__ import annotations

import gc
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Figures = Mapping[str, float | str]
CUDA_ONLY = "not run: needs CUDA"
LATE = "not run: no time left"


@dataclass
class Setting:
    """Where a part runs, and what it may take.

    Attributes:
        part: Its name.
        dry: Whether sizes are toys, on a CPU.
        deadline: Moment of `time.monotonic` at which nothing new is begun.
        out: File that rows go to, one JSON object a line.
        scratch: Folder for models and data.
        peak: 10^12 operations a second of the largest bf16 product; None where it is not known.
    """

    part: str
    dry: bool
    deadline: float
    out: Path
    scratch: Path
    peak: float | None = None
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        self.device = torch.device("cpu" if self.dry else "cuda")

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    @property
    def accelerator(self) -> str:
        """As in `trainer.accelerator`."""
        return "cpu" if self.dry else "gpu"

    def pick(self, real: Any, toy: Any) -> Any:  # noqa: ANN401 - any pair of sizes
        """One of two sizes."""
        return toy if self.dry else real

    def note(self, table: str, row: str, figures: Figures) -> None:
        """Writes a row: what was measured, or a text that says why not."""
        line = {"part": self.part, "table": table, "row": row, "figures": dict(figures)}
        with self.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        shown = ", ".join(f"{name} {show(value)}" for name, value in figures.items())
        print(f"  {self.part} | {table} | {row}: {shown}", flush=True)

    def measure(
        self, table: str, row: str, fill: Callable[[Row], None], cuda: bool = False
    ) -> None:
        """Writes a row, or why it was not measured.

        Args:
            table: Which table it belongs to.
            row: Its name there.
            fill: Measures, and fills the row.
            cuda: Whether a CPU cannot do it.
        """
        out = Row(self)
        try:
            out.require(not (cuda and self.dry), CUDA_ONLY)
            out.require(self.left > 0, LATE)
            start_memory(self.device)
            fill(out)
        except NotRunError as error:
            out.figures = {"not run": str(error).removeprefix("not run: ")}
        except Exception as error:  # the next row is measured all the same
            traceback.print_exc()
            out.figures = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        self.note(table, row, out.figures)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class NotRunError(Exception):
    """A row is not measured; the reason is the message."""


@dataclass
class Row:
    """What a row holds by now.

    Attributes:
        setting: Where it is measured.
        figures: By column.
    """

    setting: Setting
    figures: dict[str, float | str] = field(default_factory=dict)

    def require(self, condition: bool, reason: str) -> None:
        """Ends a row that cannot be measured here.

        Raises:
            NotRunError: The condition does not hold.
        """
        if not condition:
            raise NotRunError(reason)

    def add_rates(
        self, seconds: float, *, texts: int = 0, tokens: int = 0, flops: float = 0.0
    ) -> None:
        """Adds what a call of so many seconds comes to."""
        self.figures["ms"] = 1e3 * seconds
        if texts:
            self.figures["texts/s"] = texts / seconds
        if tokens:
            self.figures["tokens/s"] = tokens / seconds
        if flops:
            rate = flops / seconds / 1e12
            self.figures["TFLOP/s"] = rate
            if self.setting.peak is not None:
                self.figures["of the bf16 peak"] = f"{100 * rate / self.setting.peak:.2g} %"

    def add_memory(self) -> None:
        """Adds the peak of the device's memory since the row began."""
        self.figures["peak GB"] = read_memory(self.setting.device)


def synchronize(device: torch.device) -> None:
    """Waits for a device that works behind the host's back."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def start_memory(device: torch.device) -> None:
    """Begins to look for the peak of a device's memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def read_memory(device: torch.device) -> float | str:
    """Peak of the device's memory since `start_memory` in 10^9 bytes; said where it has none."""
    if device.type != "cuda":
        return CUDA_ONLY
    return torch.cuda.max_memory_allocated(device) / 1e9


def measure_seconds(call: Callable[[], object], setting: Setting, rounds: int = 5) -> float:
    """Median seconds of a call, the device's own work included.

    A quick call is repeated within a round, so that launches and the clock do not decide.

    Args:
        call: What is measured; it is called twice before.
        setting: Where.
        rounds: How often, fewer where the deadline comes.
    """
    for _ in range(1 if setting.dry else 2):
        call()
    synchronize(setting.device)
    began = time.perf_counter()
    call()
    synchronize(setting.device)
    once = time.perf_counter() - began
    times = max(1, min(200, int(setting.pick(0.2, 0.0) / max(once, 1e-6))))
    found = []
    for _ in range(setting.pick(rounds, 2)):
        began = time.perf_counter()
        for _ in range(times):
            call()
        synchronize(setting.device)
        found.append((time.perf_counter() - began) / times)
        if setting.left <= 0:
            break
    return statistics.median(found)


def show(value: float | str) -> str:
    """A figure with three places, thousands in groups; a text as it is."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def read_setting(part: str) -> Setting:
    """The setting that the driver hands to a part, by environment."""
    env = os.environ
    return Setting(
        part,
        env["GPU_DRY"] == "1",
        time.monotonic() + float(env["GPU_SECONDS"]),
        Path(env["GPU_ROWS"]),
        Path(env["GPU_SCRATCH"]),
        float(env["GPU_PEAK"]) if env.get("GPU_PEAK") else None,
    )

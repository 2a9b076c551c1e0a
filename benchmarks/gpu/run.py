"""Every measurement on one GPU: each part in a process of its own, with a budget of seconds.

Usage: benchmarks/gpu/run.sh [--dry] [--out=FOLDER] [--seconds=N] [PART ...]

Writes results.json and results.md to FOLDER (gpu-results), anew after each part, so that a stop at
any moment leaves what was measured until then. A part that fails, hangs or takes the memory away
leaves its rows, and the others run. --dry runs the same code at toy sizes on a CPU; what a CPU
cannot do says so, and no figure stands in its place.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import page

HERE = Path(__file__).resolve().parent

PARTS: dict[str, tuple[str, int]] = {
    "machine": ("machine:describe", 25),
    "tests": ("checks:run_tests", 90),
    "encode": ("encoding:encode", 60),
    "tuning": ("steps:tune", 100),
    "topk": ("catalogs:choose", 30),
    "evaluation": ("catalogs:evaluate", 35),
    "smollm2": ("decoders:smollm2", 60),
    "qwen": ("decoders:qwen", 75),
}
"""Name of a part to `module:function`, and the seconds that it may take. In this order: what
decides most comes first."""

TOTAL = 460
"""Seconds of all parts; those of a dry run may be more, as its sizes say nothing of them."""

GRACE = 12
"""Seconds behind a part's deadline, by which what it has begun is to end."""


def main(argv: list[str]) -> int:
    """Runs the parts that were asked for; 0 where all of them ended by themselves."""
    dry, out, total, names = "--dry" in argv, Path("gpu-results"), TOTAL, []
    for word in argv:
        key, _, value = word.partition("=")
        if word == "--dry":
            continue
        if key == "--out" and value:
            out = Path(value)
        elif key == "--seconds" and value.isdecimal() and int(value):
            total = int(value)
        elif word in PARTS:
            names.append(word)
        else:
            print(f"not understood: {word}; parts: {', '.join(PARTS)}\n\n{__doc__}")
            return 2
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("GPU_SCRATCH", scratch)
        os.environ.setdefault("RECSYS_CACHE", str(Path(scratch) / "cache"))
        return run_parts(names or list(PARTS), dry, out.resolve(), total)


def run_parts(names: list[str], dry: bool, out: Path, total: int) -> int:
    """Runs parts one after the other, and writes both files after each."""
    began = time.monotonic()
    content: dict[str, Any] = {
        "dry": dry,
        "command": f"benchmarks/gpu/run.sh {'--dry ' if dry else ''}{' '.join(names)}".strip(),
        "date": time.strftime("%Y-%m-%d"),
        "parts": {},
        "rows": [],
    }
    for name in names:
        left = total - (time.monotonic() - began)
        budget = left - GRACE if dry else min(PARTS[name][1], left - GRACE)
        if budget < 5:
            content["parts"][name] = {"ended": "not run: no time left", "seconds": 0}
        else:
            print(f"{name}: {budget:.0f} s at most", flush=True)
            content["parts"][name], rows = run_part(name, dry, budget, content["rows"])
            content["rows"] += rows
        content["seconds"] = round(time.monotonic() - began, 1)
        page.write(content, out)
    print((out / "results.md").read_text())
    return int(any(part["ended"] != "well" for part in content["parts"].values()))


def run_part(
    name: str, dry: bool, budget: float, before: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs a part in a process of its own; how it ended, and its rows.

    Args:
        name: The part.
        dry: Whether sizes are toys.
        budget: Seconds until its deadline; some more until it is ended.
        before: Rows of earlier parts, one of which may know the device's peak.
    """
    rows = Path(os.environ["GPU_SCRATCH"]) / f"{name}.jsonl"
    rows.touch()
    # What the parts share, so that the seconds of each start at its own first line.
    env = {
        **os.environ,
        "GPU_PART": name,
        "GPU_CALL": PARTS[name][0],
        "GPU_DRY": str(int(dry)),
        "GPU_SECONDS": str(budget),
        "GPU_ROWS": str(rows),
        "GPU_PEAK": find_peak(before),
        "PYTHONPATH": os.pathsep.join(
            [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")]), str(HERE.parents[1])]
        ),
    }
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(HERE / "part.py")], env=env, start_new_session=True
    )
    ended = "well"
    try:
        code = process.wait(budget + GRACE)
        if code:
            ended = f"with code {code}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: itself and what it started
        process.wait()
        ended = "stopped: its time was over"
    lines = [json.loads(line) for line in rows.read_text().splitlines() if line.endswith("}")]
    if any("failed" in line["figures"] for line in lines) and ended == "well":
        ended = "with rows that failed"
    return {"ended": ended, "seconds": round(time.monotonic() - began, 1)}, lines


def find_peak(rows: list[dict[str, Any]]) -> str:
    """10^12 operations a second of the largest bf16 product, where a part measured it."""
    for row in rows:
        if row["part"] == "machine" and row["row"].startswith(page.PEAK):
            return str(row["figures"].get("TFLOP/s", ""))
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

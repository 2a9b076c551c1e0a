"""What a trial costs beside its training: as a command, and from the prepared process.

Usage: python benchmarks/sweeps/overhead.py DATA [RUNS]

The same short run (frozen two towers, one epoch, ml-100k in the folder DATA, no test) three ways,
in turn: inside a process that has done it before, as a fork of the launcher, and as a command of
its own. Prints the medians of the wall seconds and writes `overhead.json`.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from recsys.config.compose import compose
from recsys.fit.command import fit
from recsys.sweep.running.launcher_client import TrialLauncher

HERE = Path(__file__).resolve().parent


def main(data: str, runs: int) -> None:
    """Measures and writes."""
    with tempfile.TemporaryDirectory() as place, TrialLauncher(prepare=True) as launcher:
        words = ["experiment=frozen_two_tower", "data.source=movielens", "evaluation.test=false"]
        words += [f"data.source.path={data}", "encoder.model=package:cognition/model"]
        words += ["trainer.epochs=1", "trainer.threads=1", "trainer.accelerator=cpu"]
        words += ["tracking.wandb=off", f"output={place}"]

        def inside() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                fit(compose(words))

        def started(fork: bool) -> None:
            child = launcher.start(words, Path(place) / "log.txt", {}, fork)
            code = None
            while code is None:
                code = child.wait(60)
            if code:
                raise SystemExit((Path(place) / "log.txt").read_text())

        ways: dict[str, Callable[[], None]] = {
            "in one process": inside,
            "from the prepared process": lambda: started(True),
            "as a command": lambda: started(False),
        }
        for run in ways.values():
            run()  # caches, imports
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, run in ways.items():
                began = time.monotonic()
                run()
                seconds[name].append(time.monotonic() - began)
    base = statistics.median(seconds["in one process"])
    for name, found in seconds.items():
        middle = statistics.median(found)
        print(
            f"{name}: {middle:.2f} s ({min(found):.2f} to {max(found):.2f}), +{middle - base:.2f}"
        )
    (HERE / "overhead.json").write_text(json.dumps(seconds, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 5)

"""Experiments with language models that recommend.

What the commands do is here for a notebook: `train`, `load`, `open_bundle`, `compare_runs`,
`run_sweep`. Each is imported when it is first asked for, so that the package itself loads at once.
"""

import sys
from typing import TYPE_CHECKING

from recsys import lazy

if TYPE_CHECKING:
    from recsys.compare.command import ComparisonResult, compare_runs
    from recsys.sweep.command import SweepResult, run_sweep
    from recsys.trained.bundle.bundle import Bundle, open_bundle
    from recsys.trained.run import TrainedRun, load
    from recsys.trained.train import TrainedSeeds, train

__version__ = "0.2.0"

__all__ = [
    "Bundle",
    "ComparisonResult",
    "SweepResult",
    "TrainedRun",
    "TrainedSeeds",
    "__version__",
    "compare_runs",
    "load",
    "open_bundle",
    "run_sweep",
    "train",
]

__getattr__, __dir__ = lazy.make_lazy_names(
    __name__,
    Bundle="recsys.trained.bundle.bundle",
    ComparisonResult="recsys.compare.command",
    SweepResult="recsys.sweep.command",
    TrainedRun="recsys.trained.run",
    TrainedSeeds="recsys.trained.train",
    compare_runs="recsys.compare.command",
    load="recsys.trained.run",
    open_bundle="recsys.trained.bundle.bundle",
    run_sweep="recsys.sweep.command",
    train="recsys.trained.train",
)


def _check_system() -> None:
    """Ends a program in one sentence where the system has no locks of files.

    Every command holds such locks and leaves by signals, so that none would do what it says.
    """
    try:
        import fcntl  # noqa: F401
    except ImportError:
        print(
            "error: recsys runs on Linux and macOS; this system has no file locks of theirs (fcntl)"
            "; on Windows, run it in WSL 2.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None


_check_system()

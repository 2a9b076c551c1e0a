"""What a job of a sweep runs: one trial, as the command that it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from recsys.fit.parent import tie_child

_PASSED = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    # submitit has SLURM send it before a job's time is over: the run saves, and queues its job.
    signal.SIGUSR2: signal.SIGUSR1,
}


def run_task(module: str, words: Sequence[str], log: str) -> int:
    """Runs a trial to its end, in the job.

    Args:
        module: Run as `__main__`.
        words: Its arguments.
        log: File to which its output and errors are appended.

    Returns:
        Its exit code, negative for a signal.
    """
    rank = os.environ.get("SLURM_PROCID", "0")
    path = Path(log) if rank == "0" else Path(f"{log}.{rank}")
    with path.open("ab") as out, tie_child() as (env, descriptor):
        child = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=env,
            pass_fds=(descriptor,),
        )

        def pass_on(signum: int, frame: FrameType | None) -> None:
            child.send_signal(_PASSED[signal.Signals(signum)])

        for signum in _PASSED:
            signal.signal(signum, pass_on)
        return child.wait()

"""A job of SLURM: which one this is, which signals have it saved and queued again, and how."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from typing import Literal

from recsys.runtime.launching.launches import read_env_number

Requeue = Literal["usr1", "term", "off"]

_SIGNALS: dict[Requeue, tuple[signal.Signals, ...]] = {
    "usr1": (signal.SIGUSR1,),
    # scancel sends it as well, and whoever cancels a job does not want it back.
    "term": (signal.SIGUSR1, signal.SIGTERM),
    "off": (),
}


def find_job(environment: Mapping[str, str] = os.environ) -> str | None:
    """The job that this process belongs to, the same after each start of it; None: to none."""
    return environment.get("SLURM_JOB_ID") or None


def count_restarts(environment: Mapping[str, str] = os.environ) -> int:
    """How often the job was queued again and has started anew.

    Raises:
        ConfigError: The environment holds no number.
    """
    return read_env_number("SLURM_RESTART_COUNT", 0, environment)


def list_requeue_signals(
    requeue: Requeue, environment: Mapping[str, str] = os.environ
) -> tuple[signal.Signals, ...]:
    """Signals at which a run is saved and its job queued again; none outside of a job."""
    return _SIGNALS[requeue] if find_job(environment) is not None else ()


def requeue_job(job: str) -> str | None:
    """Has SLURM queue this job again; it ends what runs of it.

    Returns:
        Why it did not, or None.
    """
    command = shutil.which("scontrol")
    if command is None:
        return "there is no scontrol on this machine"
    try:
        done = subprocess.run(
            [command, "requeue", job], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scontrol requeue {job}: {error}"
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"code {done.returncode}"
        return f"scontrol requeue {job}: {said}"
    return None

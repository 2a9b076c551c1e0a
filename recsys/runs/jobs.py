"""Which run a job of a cluster was at work on: so that it goes on when the job is started again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from recsys.runtime.files import JOB, write_atomic
from recsys.runtime.launching import slurm


def note_job(folder: Path, asked: str, environment: Mapping[str, str] = os.environ) -> None:
    """Notes by which job a folder was made; nothing outside of a job.

    Args:
        folder: Of a run, or of several seeds.
        asked: What the command asked for, every `auto` undecided.
        environment: The variables.

    Raises:
        DataError: The disk is full.
    """
    job = slurm.find_job(environment)
    if job is not None:
        note = {"slurm_job": job, "asked": _digest(asked)}
        write_atomic(folder / JOB, json.dumps(note, indent=1) + "\n")


def find_job_folder(
    output: str, asked: str, environment: Mapping[str, str] = os.environ
) -> Path | None:
    """The newest folder that an earlier start of this job made for the same.

    Args:
        output: Where folders lie.
        asked: As `note_job` was given it.
        environment: The variables.

    Returns:
        The folder; None where there is none, and where the job is started for the first time.

    Raises:
        ConfigError: The environment holds no number.
    """
    job = slurm.find_job(environment)
    if job is None or not slurm.count_restarts(environment):
        return None
    wanted = {"slurm_job": job, "asked": _digest(asked)}
    notes = [path for path in Path(output).glob(f"*/{JOB}") if _read(path) == wanted]
    return max(notes, key=lambda path: path.stat().st_mtime).parent if notes else None


def _read(path: Path) -> object:
    """A note; None for one that is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _digest(asked: str) -> str:
    return hashlib.sha256(asked.encode()).hexdigest()

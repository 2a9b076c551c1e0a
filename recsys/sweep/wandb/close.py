"""Ends the Weights & Biases run of a trial that was killed, in a process of its own.

A killed process loses what its run has not written yet. The framework's own files have it, and so
it is logged again, under the same id. Offline, that is a second folder beside the first, and
`wandb sync` sends both, in order, into one run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.boards.offline_run import LoggedRun, read_logged_rows, read_run_id, replay
from recsys.config.yaml_file import read_mapping
from recsys.errors import DataError, RecsysError
from recsys.runtime.files import CONFIG, START
from recsys.tracking.wandb_files import list_files, read_last_step
from recsys.tracking.wandb_run import COUNTED, WandbRunInfo, open_run

SECONDS = 180.0
"""Time after which a service that cannot be reached is given up."""

INHERITED = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_RUN_GROUP", "WANDB_TAGS")
"""Environment of another run, which must not reach this one."""


def close_trial(folder: Path, state: str, reason: str) -> str:
    """Logs again what a killed trial has lost, and ends its run as failed.

    A run that has been ended with a state of its own is left as it is, so that it may be called
    again. Nothing is raised: a sweep goes on without this.

    Args:
        folder: Of the trial's run.
        state: pruned or failed.
        reason: In a sentence.

    Returns:
        Why it could not be done, in a sentence; empty where it was done, or not needed.
    """
    environment = {k: v for k, v in os.environ.items() if k not in INHERITED}
    words = [sys.executable, "-m", "recsys.sweep.wandb.close", str(folder), state, reason]
    try:
        done = subprocess.run(
            words,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{folder}: its run at Weights & Biases could not be ended in {SECONDS:.0f} s."
    if not done.returncode:
        return ""
    said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"{folder}: its run at Weights & Biases could not be ended ({said})."


def main(argv: Sequence[str]) -> int:
    """Ends one run: folder, state and reason.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    folder, state, reason = argv
    try:
        _end_run(Path(folder), state, reason)
    except RecsysError as error:
        print(error, file=sys.stderr)
        return error.code
    return 0


def _end_run(folder: Path, state: str, reason: str) -> None:
    """Logs what is missing and closes the run.

    Raises:
        RecsysError: A file is damaged, or the service refuses.
    """
    config = read_mapping(folder / CONFIG)
    mode = config["tracking"]["wandb"]
    if mode == "off" or not (folder / START).is_file():
        return  # it ended before it had a run
    name = read_run_id(folder)
    paths = list_files(folder, name)
    newest = _read_logged_run(paths[-1:])
    if newest is not None and newest.exit is not None and "trial/state" in newest.summary:
        return
    # Online, what reached the service is not known; it leaves out by itself what it has.
    last = read_last_step(folder, name) if mode == "offline" else -1
    monitor = f"val/{config['evaluation']['monitor']}"
    lost = [(step, row) for step, row in read_logged_rows(folder, monitor) if step > last]
    summary = {"trial/state": state, "trial/reason": reason}
    # Offline files are named by the second: within that of the last, they would be written over.
    while paths and time.strftime("%Y%m%d_%H%M%S") in paths[-1].parent.name:
        time.sleep(0.05)
    _log_end(folder, name, config, mode, lost, summary)


def _read_logged_run(paths: Sequence[Path]) -> LoggedRun | None:
    """What the run's files hold already; None where that is not even its name."""
    try:
        return replay(paths) if paths else None
    except DataError:
        return None


def _log_end(
    folder: Path,
    name: str,
    config: Mapping[str, Any],
    mode: str,
    lost: Iterable[tuple[int, Mapping[str, float]]],
    summary: Mapping[str, str],
) -> None:
    """Opens the run again, logs rows and summary, and closes it with exit code 1.

    Raises:
        DataError: The service cannot be reached or refuses.
    """
    import wandb

    try:
        run = open_run(
            folder, name, mode == "offline", WandbRunInfo.from_config(config, folder), config
        )
        for step, row in lost:
            run.log({key: v for key, v in row.items() if COUNTED not in key}, step=step)
        run.summary.update(dict(summary))
        run.finish(exit_code=1)
        wandb.teardown(exit_code=1)
    except wandb.Error as error:
        raise DataError((str(error).splitlines() or ["no reason given"])[0]) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

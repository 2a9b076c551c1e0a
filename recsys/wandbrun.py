"""Opening a run at Weights & Biases: the same options wherever that is done.

Lightning is not imported here, so that a process that only closes a run begins quickly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.errors import DataError

if TYPE_CHECKING:
    import wandb


def begin(
    folder: Path,
    run_id: str,
    offline: bool,
    name: str,
    place: tuple[str, str, Sequence[str]],
    config: Mapping[str, Any],
    job_type: str | None = None,
) -> wandb.Run:
    """Opens a run, or goes on with it where its id is known.

    Args:
        folder: Where its files lie, in `wandb/`.
        run_id: The same after every stop.
        offline: Write files only.
        name: What it is called.
        place: Project, group and tags.
        config: Its configuration.
        job_type: Kind of run, where it is no training.

    Raises:
        wandb.Error: The service cannot be reached or refuses the key.
    """
    import wandb

    project, group, tags = place
    keep_order(folder, run_id)
    return wandb.init(
        dir=str(folder),
        id=run_id,
        mode="offline" if offline else "online",
        project=project,
        group=group,
        name=name,
        job_type=job_type,
        tags=list(tags),
        config=dict(config),
        resume="allow",
        save_code=False,
        settings=wandb.Settings(silent=True, console="off"),
    )


STAMP = "%Y%m%d_%H%M%S"
"""How the name of a run's files says when they were begun."""


def keep_order(folder: Path, run_id: str) -> None:
    """Renames the files of earlier attempts that seem to be of the future.

    Folders are sent in the order of their names, which hold the time of their start; after a clock
    was set back, what a resumed run writes would be sent before what came first.

    Args:
        folder: Of the run.
        run_id: Of the run.
    """
    latest = datetime.now() - timedelta(seconds=1)
    for path in reversed(attempts(folder, run_id)):
        mode, stamp = path.name.removesuffix(f"-{run_id}").rsplit("-", 1)
        try:
            begun = datetime.strptime(stamp, STAMP)
        except ValueError:
            continue  # not named by the client
        if begun > latest:
            path.rename(path.with_name(f"{mode}-{latest.strftime(STAMP)}-{run_id}"))
            begun = latest
        latest = begun - timedelta(seconds=1)


def attempts(folder: Path, run_id: str) -> list[Path]:
    """The folders that the processes of a run have left, oldest first.

    Args:
        folder: Of the run.
        run_id: Of the run.
    """
    found = [path.parent for path in (folder / "wandb").glob(f"*run-*-{run_id}/run-{run_id}.wandb")]
    # The name holds the time of the start: offline-run-20260131_120000-ID, or run-...
    return sorted(found, key=lambda path: path.name.removeprefix("offline-"))


def last_step(folder: Path, run_id: str) -> int:
    """The last step whose row lies in the files of a run; -1 where none does.

    A process that was killed has written whole blocks of its file only.

    Args:
        folder: Of the run.
        run_id: Of the run.
    """
    from recsys.boards.logged import files, records

    last = -1
    for path in files(folder, run_id):
        with suppress(DataError):  # killed before it wrote the head of its file
            for record in records(path):
                if record.WhichOneof("record_type") == "history":
                    last = max(last, record.history.step.num)
    return last

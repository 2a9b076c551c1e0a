"""Opening a run at Weights & Biases: the same options wherever that is done.

Lightning is not imported here, so that a process that only closes a run begins quickly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

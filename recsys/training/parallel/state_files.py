"""A state to go on from in parts, one file a process, and how they become one again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:  # a run that does not train has a state to delete and needs no Lightning
    from lightning.fabric.plugins import CheckpointIO

PARTS = "parts"
"""Key of a state whose tensors lie in files of their own: their names, and what they hold."""


def write_parts(
    checkpoint: dict[str, Any],
    path: Path,
    spread: set[str],
    entries: Sequence[Sequence[tuple[int, str]]],
    rank: int,
    world: int,
    files: CheckpointIO,
    wait: Callable[[], object],
) -> None:
    """Writes this process' part, and from the first process the state that names all parts.

    Args:
        checkpoint: The state; `state_dict` and `optimizer_states` hold this process' parts.
        path: The state.
        spread: Names of weights that are spread over processes.
        entries: Of each optimiser, which tensors of its state are: number of the weight, and key.
        rank: Of this process.
        world: How many there are.
        files: Writes a file whole.
        wait: Returns when all processes have come so far.

    Raises:
        DataError: The disk is full; the last state stands.
    """
    step = checkpoint["global_step"]
    names = [f"{path.stem}.{step}.{i}-of-{world}.ckpt" for i in range(world)]
    weights, optimizers = checkpoint["state_dict"], checkpoint["optimizer_states"]
    own = {
        "weights": {name: weights.pop(name) for name in sorted(spread)},
        "optimizers": [
            [state["state"][i].pop(key) for i, key in listed]
            for state, listed in zip(optimizers, entries, strict=True)
        ],
    }
    files.save_checkpoint(own, path.with_name(names[rank]))
    wait()  # a state names files that are there
    if rank == 0:
        places = [[list(place) for place in listed] for listed in entries]
        files.save_checkpoint({**checkpoint, PARTS: {"files": names, "entries": places}}, path)
        for part in list_parts(path):
            if part.name not in names:
                part.unlink(missing_ok=True)
    wait()  # nobody goes on to the next state before this one is whole


def list_parts(path: Path) -> list[Path]:
    """The files of parts beside a state, of this one and of others."""
    return sorted(path.parent.glob(f"{path.stem}.*-of-*.ckpt"))


def restore_whole(
    checkpoint: dict[str, Any], path: Path, read: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """A state with all of its tensors, each of them whole.

    Args:
        checkpoint: What was read of its file.
        path: The file.
        read: Reads a file of parts.

    Returns:
        The state, as one process alone would have saved it.

    Raises:
        ConfigError: A part is missing or damaged.
    """
    listed = checkpoint.pop(PARTS)
    parts = [read(path.with_name(name)) for name in listed["files"]]
    checkpoint["state_dict"] |= {
        name: _join([part["weights"][name] for part in parts]) for name in parts[0]["weights"]
    }
    for n, (state, places) in enumerate(
        zip(checkpoint["optimizer_states"], listed["entries"], strict=True)
    ):
        for place, (i, key) in enumerate(places):
            state["state"][i][key] = _join([part["optimizers"][n][place] for part in parts])
    return checkpoint


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Parts of a tensor one below the other; a process beyond the last row has none."""
    return torch.cat([part for part in parts if part.numel()] or list(parts[:1]))


def remove_state(path: Path) -> None:
    """Deletes a state, and its parts where it has some."""
    path.unlink(missing_ok=True)
    for part in list_parts(path):
        part.unlink(missing_ok=True)

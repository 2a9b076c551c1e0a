"""Encoders that learned from a run, kept by what made them: one serves all widths and bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recsys.encoders.encoder import Encoder
from recsys.runtime.store import Store
from recsys.trained.compression.cut import Student, cut_encoder
from recsys.trained.compression.distil import Distillation
from recsys.trained.compression.folder import make_map
from recsys.trained.compression.settings import STATIC, CompressionSettings
from recsys.trained.compression.static import fit_tokens, make_static_encoder
from recsys.trained.compression.teacher import Teacher

FORMAT = 1
"""Raised when what is learned changes, so that nothing of before is taken for it."""

WEIGHTS = "student.safetensors"


@dataclass(frozen=True)
class Origin:
    """By what a student is told from others.

    Attributes:
        digest: SHA-256 of the run that it learned from.
        state: Where the state of a distillation lies until it is over.
    """

    digest: str
    state: Path


def make_student(
    teacher: Teacher, settings: CompressionSettings, origin: Origin
) -> tuple[Encoder, nn.Linear] | None:
    """An encoder and the map to the run's vectors, in the teacher's basis; learned now or before.

    Args:
        teacher: The run.
        settings: What it is to be.
        origin: Of which run.

    Returns:
        None where the run's own encoder stays.
    """
    if not settings.distils:
        return None
    key = {"what": "student", "format": FORMAT, "of": origin.digest, **_list_key(settings)}
    if settings.layers == STATIC:
        folder = Store().get_or_build("students", key, _bind_static(teacher, settings), own=True)
        values = load_file(folder / WEIGHTS)["values"]
        kept = torch.eye(teacher.width, teacher.width + 1)
        return make_static_encoder(teacher, values), make_map(kept, None)
    assert isinstance(settings.layers, int)
    names = teacher.opened.encoding.following.pooling
    student = Student(cut_encoder(teacher.encoder, settings.layers, names), teacher.width)
    write = _bind_training(teacher, settings, student, origin.state)
    folder = Store().get_or_build("students", key, write, own=True)
    student.load_state_dict(load_file(folder / WEIGHTS))
    return student.encoder.eval(), student.map


def _list_key(settings: CompressionSettings) -> dict[str, Any]:
    """What of the settings a student depends on."""
    if settings.layers == STATIC:
        return {"layers": STATIC, "seed": settings.seed}
    names = ("layers", "steps", "batch", "lr", "seed")
    return {name: getattr(settings, name) for name in names}


def _bind_static(teacher: Teacher, settings: CompressionSettings) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        made = fit_tokens(teacher, settings.seed)
        print(f"static vectors: pull {made.pull:g}, chosen on a tenth of the texts")
        _save(folder, {"values": made.values})

    return write


def _bind_training(
    teacher: Teacher, settings: CompressionSettings, student: Student, state: Path
) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        targets = teacher.targets @ teacher.basis.T
        student.fit_map(encode(student.encoder, teacher, teacher.rows), targets)
        Distillation(teacher, student, settings, state).train()
        if settings.steps:  # the map goes a long way in closed form, from wherever the layers are
            student.fit_map(encode(student.encoder, teacher, teacher.rows), targets)
        _save(folder, dict(student.state_dict()))
        state.unlink(missing_ok=True)

    return write


def _save(folder: Path, tensors: dict[str, Tensor]) -> None:
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(whole, folder / WEIGHTS)


@torch.no_grad()
def encode(encoder: Encoder, teacher: Teacher, rows: Tensor, block: int = 1024) -> Tensor:
    """(N, V) float32 what an encoder gives of the texts of catalog rows (N,)."""
    encoder.eval()
    return torch.cat(
        [encoder(teacher.gather_tokens(part)).float() for part in torch.split(rows, block)]
    )

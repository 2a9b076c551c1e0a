"""The encoder's folder of a run that was made smaller, as sentence-transformers has one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recsys.encoders.encoder import Encoder
from recsys.encoders.pooling import Mean
from recsys.encoders.pretrained.dense import Dense
from recsys.encoders.text_tower import UnitLength
from recsys.pretrain.encoder_folder import (
    POOLING,
    write_encoder_folder,
    write_modules,
    write_pooling,
)
from recsys.trained.compression.teacher import Teacher
from recsys.trained.exports.sentence_folder import write_dense, write_settings, write_step
from recsys.trained.exports.texts import TextFormat


def write_folder(
    folder: Path,
    teacher: Teacher,
    student: tuple[Encoder, nn.Linear] | None,
    turn: Tensor | None,
) -> None:
    """Writes the encoder.

    Args:
        folder: To be made.
        teacher: The run.
        student: What gives vectors in the teacher's basis; None: the run's own encoder.
        turn: (W, D) what `Teacher.make_turn` gave; None: vectors stay as the run has them.
    """
    if student is None and turn is None:
        write_encoder_folder(
            folder, teacher.opened.encoding, teacher.opened.run.config.encoder.pooling
        )
        return
    folder.mkdir(parents=True)
    encoder = teacher.encoder if student is None else student[0]
    form = TextFormat.of_run(teacher.opened)
    model: Any = encoder.model
    model.save_pretrained(folder)
    form.tokenizer.save_pretrained(folder)
    following = teacher.opened.encoding.following
    if isinstance(encoder.pooling, Mean):  # static vectors have their mean, whatever the run has
        following = replace(following, pooling=("mean",))
    write_pooling(folder / POOLING, encoder.width, following)
    modules = [("Transformer", ""), ("Pooling", POOLING)]
    for dense in encoder.dense:
        assert isinstance(dense, Dense)
        if dense.about.unit:
            modules.append(write_step(folder, len(modules), UnitLength()))
        modules.append(write_dense(folder, len(modules), dense))
    for step in _list_steps(teacher, None if student is None else student[1], turn):
        modules.append(write_step(folder, len(modules), step))
    write_modules(folder, modules)
    write_settings(folder, form, teacher.opened.score.unit, False)


def _list_steps(
    teacher: Teacher, made: nn.Linear | None, turn: Tensor | None
) -> list[nn.Linear | UnitLength]:
    """What pooled states pass on their way to the vectors of the run that is made."""
    turn = torch.eye(teacher.width) if turn is None else turn
    if made is not None:
        kept = turn @ teacher.basis.T
        bias = None if made.bias is None else kept @ made.bias
        return [make_map(kept @ made.weight, bias)]
    steps: list[nn.Linear | UnitLength] = []
    for step in teacher.tower.steps:
        assert isinstance(step, nn.Linear | UnitLength)
        steps.append(step)
    if steps and isinstance(steps[-1], UnitLength) and len(steps) > 1:
        steps.pop()  # the run does it
    if steps and isinstance(steps[-1], nn.Linear):
        turn = turn @ steps.pop().weight  # type: ignore[operator]
    return [*steps, make_map(turn, None)]


def make_map(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear map of given weights (O, I) and bias (O,)."""
    out = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        out.weight.copy_(weight)
        if bias is not None:
            out.bias.copy_(bias)
    return out

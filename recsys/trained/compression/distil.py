"""A student learns to give a run's vectors and scores, at several widths at once.

Vectors: Hinton et al., Distilling the Knowledge in a Neural Network (2015), of states in place of
logits as in Jiao et al., TinyBERT (EMNLP Findings 2020), section 3.1. Scores: the distribution of
each training query over the items of a batch. The first numbers of a vector are a vector of their
own: Kusupati et al., Matryoshka Representation Learning (NeurIPS 2022), section 3.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.runtime.files import write_atomic
from recsys.runtime.progress import track
from recsys.trained.compression.cut import Student
from recsys.trained.compression.settings import WIDTHS, CompressionSettings
from recsys.trained.compression.teacher import Teacher

SCORED = 256
"""Training queries whose scores a step compares."""

WARMUP = 0.1
"""Share of steps in which the learning rate rises."""

EVERY = 50
"""Steps between two states that a stopped distillation goes on from."""

_HEAD_FACTOR = 10


def compute_loss(
    vectors: Tensor, targets: Tensor, queries: Tensor, widths: Sequence[int], scale: float
) -> Tensor:
    """How far vectors, and scores with training queries, are from those of a run.

    Args:
        vectors: (B, D) of the student.
        targets: (B, D) those of the run.
        queries: (Q, D) those of training queries, in the same basis.
        widths: At how many of the first numbers of a vector.
        scale: What a product is multiplied by.

    Returns:
        Mean over the widths of the squared distance of a vector, as a share of the run's, and of
        the divergence of each query's distribution over the items.
    """
    wanted = F.log_softmax(scale * queries @ targets.T, dim=-1)
    terms = []
    for width in widths:
        own, theirs, asked = (x[:, :width] for x in (vectors, targets, queries))
        # Each as long as the whole vector: a cosine is the same, and a product nearly so.
        own, theirs, asked = (
            F.normalize(part, dim=-1) * whole.norm(dim=-1, keepdim=True)
            for part, whole in ((own, vectors), (theirs, targets), (asked, queries))
        )
        apart = (own - theirs).square().sum() / theirs.square().sum()
        given = F.log_softmax(scale * asked @ own.T, dim=-1)
        terms.append(apart + F.kl_div(given, wanted, reduction="batchmean", log_target=True))
    return torch.stack(terms).mean()


def list_widths(width: int) -> list[int]:
    """Those at which a vector of `width` numbers is to be good, the whole one included."""
    return [*(each for each in WIDTHS if each < width), width]


def draw_rows(count: int, size: int, step: int, seed: int) -> Tensor:
    """(size,) places of a step among `count`: each once before one comes again."""
    size = min(size, count)
    steps = max(1, count // size)
    order = torch.Generator().manual_seed(seed * 1_000_003 + step // steps)
    at = size * (step % steps)
    return torch.randperm(count, generator=order)[at : at + size]


@dataclass
class Distillation:
    """A training that goes on from where it was stopped.

    Args:
        teacher: The run.
        student: Learns; its map was fitted.
        settings: Steps, batch, learning rate and seed.
        state: Where the state lies between two attempts.
    """

    teacher: Teacher
    student: Student
    settings: CompressionSettings
    state: Path

    def train(self, after: Callable[[int], None] = lambda step: None) -> None:
        """Trains all but the embeddings.

        Args:
            after: Called behind each step with the number of steps that are done.
        """
        steps, student = self.settings.steps, self.student.eval()  # without dropout
        if not steps:  # the map was fitted, and that is all
            return
        layers = _list_layer_parameters(student)
        optimizer = torch.optim.AdamW(
            [
                {"params": layers, "lr": self.settings.lr},
                {"params": [*student.map.parameters()], "lr": _HEAD_FACTOR * self.settings.lr},
            ],
            weight_decay=0.0,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._compute_rate)
        begin = self._restore(optimizer, schedule)
        for parameter in [*layers, *student.map.parameters()]:
            parameter.requires_grad_(True)
        with track("distillation", steps, "steps") as task:
            task.advance(begin)
            for step in range(begin, steps):
                optimizer.zero_grad()
                self._compute_step(step).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(student.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                if (step + 1) % EVERY == 0:
                    self._save(optimizer, schedule, step + 1)
                task.advance(1)
                after(step + 1)
        student.requires_grad_(False)

    def _compute_rate(self, step: int) -> float:
        """Share of the learning rate at a step: a line up, and a line down."""
        rise = max(1, round(WARMUP * self.settings.steps))
        return min((step + 1) / rise, (self.settings.steps - step) / self.settings.steps)

    def _compute_step(self, step: int) -> Tensor:
        teacher, seed = self.teacher, self.settings.seed
        at = draw_rows(len(teacher.rows), self.settings.batch, step, seed)
        asked = draw_rows(len(teacher.queries), SCORED, step, seed + 1)
        vectors = self.student(teacher.gather_tokens(teacher.rows[at]))
        return compute_loss(
            vectors,
            teacher.targets[at] @ teacher.basis.T,
            teacher.queries[asked] @ teacher.basis.T,
            list_widths(teacher.width),
            teacher.scale,
        )

    def _save(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
        step: int,
    ) -> None:
        state = {
            "student": self.student.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "step": step,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.state, buffer.getvalue())

    def _restore(
        self, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR
    ) -> int:
        """Steps that are done; a state that cannot be read is begun anew."""
        if not self.state.is_file():
            return 0
        try:
            state = torch.load(self.state, weights_only=True)
            self.student.load_state_dict(state["student"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
        except (OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError):
            return 0
        return int(state["step"])


def _list_layer_parameters(student: Student) -> list[nn.Parameter]:
    """Those of the encoder but for its embeddings."""
    tables = [module for module in student.encoder.modules() if isinstance(module, nn.Embedding)]
    still = {id(parameter) for table in tables for parameter in table.parameters()}
    return [each for each in student.encoder.parameters() if id(each) not in still]

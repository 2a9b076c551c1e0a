"""What a run has to teach: vectors of the items that training shows, and of training queries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from recsys.encoders.encoder import Encoder
from recsys.encoders.text_tower import TextTower
from recsys.errors import ConfigError
from recsys.evaluation.quantization import Precision
from recsys.recommender.trainable import TrainableRecommender, require_trainable
from recsys.trained.exports.opened import OpenedRun
from recsys.types import Ragged

QUERIES = 2048
"""Training queries whose scores a student is to have too."""


@dataclass(frozen=True)
class Teacher:
    """A run as those see it that are to give the same scores.

    Nothing of it comes from an event that is held out: items are those that training shows, and
    queries those that trained the run.

    Attributes:
        opened: The run, its encoder with all that was learned folded in.
        tower: What makes an item's vector.
        rows: (T,) catalog rows of the items that training shows.
        targets: (T, D) their vectors.
        queries: (Q, D) vectors of training queries.
        scale: What a product of the two is multiplied by.
        basis: (D, D) orthonormal rows, by which a vector is turned so that its first numbers say
            the most.
    """

    opened: OpenedRun
    tower: TextTower
    rows: Tensor
    targets: Tensor
    queries: Tensor
    scale: float
    basis: Tensor

    @property
    def encoder(self) -> Encoder:
        """The run's."""
        return self.tower.encoder

    @property
    def width(self) -> int:
        """D."""
        return self.targets.shape[1]

    def make_turn(self, width: int | None, precision: Precision) -> Tensor | None:
        """(W, D) orthonormal rows, by which vectors are cut to `width` numbers.

        Where their signs are stored, they are turned once more within what is left: in a basis by
        size, the first signs are the same for all, and the last ones say as much as any.

        Args:
            width: W; None: nothing is cut, and vectors stay as they are.
            precision: How they are stored.
        """
        if width is None:
            return None
        turn = self.basis[:width]
        if precision in ("binary", "binary+int8"):
            turn = find_rotation(self.targets @ turn.T) @ turn
        return turn

    def gather_tokens(self, rows: Tensor) -> Ragged:
        """Raw token ids of the texts of catalog rows (N,), with their prompt."""
        return self.opened.encoding.catalog.gather_tokens(rows)


def read_teacher(opened: OpenedRun) -> Teacher:
    """Reads off a run what it has to teach.

    Args:
        opened: The run, before its tuning was folded in.

    Raises:
        ConfigError: Too few items are shown in training.
    """
    model = require_trainable(opened.made.recommender)
    vectors = torch.from_numpy(opened.vectors)
    rows = torch.from_numpy(opened.made.examples.get_pool("uniform")).long()
    if len(rows) < 2:
        raise ConfigError(f"{opened.run.folder}: training shows fewer than two items.")
    targets = vectors[rows]
    return Teacher(
        opened,
        model.make_item_tower().eval(),
        rows,
        targets,
        _make_queries(opened, model),
        opened.score.scale,
        find_basis(targets),
    )


def find_basis(vectors: Tensor) -> Tensor:
    """(D, D) directions by how much of vectors (N, D) lies in each, the largest first.

    Not of the distances from their mean: what is to stay is a product with a query. Signs are
    those by which the largest number of a direction is positive, so that it is one on any machine.
    """
    values, columns = torch.linalg.eigh(vectors.double().T @ vectors.double())
    rows = columns.T[values.argsort(descending=True)]
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    turned: Tensor = rows * largest.sign()
    return turned.float()


def find_rotation(vectors: Tensor, rounds: int = 30) -> Tensor:
    """(W, W) a rotation by which vectors (N, W) come close to the signs of their numbers.

    Gong and Lazebnik, Iterative Quantization (CVPR 2011), section 2.2, from a random one, whose
    seed is always the same.
    """
    width = vectors.shape[1]
    start = torch.randn(width, width, generator=torch.Generator().manual_seed(0))
    turn: Tensor = torch.linalg.qr(start)[0]
    for _ in range(rounds):
        left, _, right = torch.linalg.svd(torch.sign(vectors @ turn.T).T @ vectors)
        turn = left @ right
    return turn


@torch.no_grad()
def _make_queries(opened: OpenedRun, model: TrainableRecommender) -> Tensor:
    """(Q, D) vectors of the first training queries, by the run's own seed."""
    vectors = torch.from_numpy(opened.vectors)
    made, out, count = opened.made.datamodule.train_dataloader(), [], 0
    for batch in islice(made, QUERIES):
        whole = replace(batch, plan=replace(batch.plan, epoch=None))
        known = whole.query[:, 1] > 0  # a query without history has no vector
        out.append(model.queries(whole, vectors[whole.plan.items])[known])
        count += len(out[-1])
        if count >= QUERIES:
            break
    return torch.cat(out)[:QUERIES]

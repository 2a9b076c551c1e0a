"""Softmax over all items that training has seen, or over the whole catalog.

The items pass in chunks. Between forward and backward nothing of a chunk is kept but four numbers
a query; vectors and logits are made again in backward, so that the memory is that of one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from recsys import lazy
from recsys.config.schema import ObjectiveConfig, Output, option
from recsys.errors import ConfigError
from recsys.losses import (
    ObjectiveContext,
    get_candidate_items,
    require_output,
    weigh_loss,
)
from recsys.types import Batch, Loss, Scored, upload

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy.import_lazily("torch")


@dataclass
class Config(ObjectiveConfig):
    """Settings of the full softmax."""

    needs: ClassVar[Output] = "table"
    example: ClassVar[tuple[str, ...]] = ("encode_catalog=true",)

    over: Literal["seen", "catalog"] = option(
        "seen", "the items of the softmax: those seen in training, or all"
    )
    mask_known: bool = option(False, "leave the user's other known positives out of the softmax")
    label_smoothing: float = option(
        0.0, "share of the target's mass spread over all items, below 1", least=0, below=1
    )
    chunk: int = option(4096, "items whose logits are held at a time", least=1)
    encode_catalog: bool = option(
        False, "allow it with an encoder that trains: every step then encodes all items twice"
    )

    @property
    def encodes_catalog(self) -> bool:
        """Whether it was allowed."""
        return self.encode_catalog


class Objective:
    """Cross-entropy of the target among all items.

    Args:
        over: Which items.
        mask_known: Leave the user's other known positives out.
        label_smoothing: In [0, 1).
        chunk: Items whose logits are held at a time.
        encode_catalog: Whether an encoder that trains may make the table: the assembler refuses
            one otherwise.
    """

    def __init__(
        self,
        over: Literal["seen", "catalog"],
        mask_known: bool,
        label_smoothing: float,
        chunk: int,
        encode_catalog: bool,
    ) -> None:
        self.over, self.mask_known, self.chunk = over, mask_known, chunk
        self.encodes = encode_catalog
        self.smoothing = label_smoothing
        self._of: Tensor | None = None
        self._rows = torch.empty(0, dtype=torch.long)

    def __call__(self, scored: Scored, batch: Batch, around: ObjectiveContext) -> Loss:
        """Sum over the queries that have a case and a target among the items; others don't count.

        Args:
            scored: Query vectors (Q, D).
            batch: The batch; column 0 of its candidates is the target.
            around: Items seen, known positives, item vectors and scoring.

        Raises:
            ConfigError: The architecture gives no query vectors or no table.
        """
        other = "objective sampled_softmax or bce"
        queries = require_output(scored.queries, "full_softmax", "query vectors", other)
        target = get_candidate_items(batch)[:, 0]
        rows = torch.split(self._list_items(around), self.chunk)
        # One chunk of kept vectors is held anyway; encoded texts would be held with their states.
        if len(rows) == 1 and not self.encodes:
            found = [self._compute_chunk(queries, rows[0], target, batch, around)]
        else:
            from torch.utils.checkpoint import checkpoint

            found = [
                checkpoint(
                    self._compute_chunk, queries, part, target, batch, around, use_reentrant=False
                )
                for part in rows
            ]
        parts, own, sums, counts, has = (torch.stack(list(x)) for x in zip(*found, strict=True))
        # an online softmax: the logarithm of each chunk's sum, and at last of their sum
        whole, rivals = parts.logsumexp(0), counts.sum(0)
        loss = whole - own.sum(0)
        if self.smoothing:
            spread = whole - sums.sum(0) / rivals.clamp(min=1)
            loss = (1 - self.smoothing) * loss + self.smoothing * spread
        counted = has.any(0) & (rivals > 1)
        return weigh_loss(loss, counted, batch.importance)

    def _list_items(self, around: ObjectiveContext) -> Tensor:
        """(N,) catalog rows of the softmax, on the host; looked up once a training."""
        if self._of is not around.seen:
            every = torch.ones_like(around.seen) if self.over == "catalog" else around.seen
            self._rows, self._of = every.cpu().nonzero()[:, 0], around.seen
        return self._rows

    def _compute_chunk(
        self,
        queries: Tensor,
        rows: Tensor,
        target: Tensor,
        batch: Batch,
        around: ObjectiveContext,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What the softmax needs of some items.

        Args:
            queries: (Q, D).
            rows: (N,) catalog rows, sorted, on the host.
            target: (Q,) catalog rows, -1 in queries that do not count.
            batch: The batch.
            around: Known positives, item vectors and scoring.

        Returns:
            (Q,) each: log of the sum of exponentials, the target's logit or 0, the sum of the
            logits, how many items take part, and whether the target is one of them.

        Raises:
            ConfigError: The architecture gives no table.
        """
        if around.table is None:
            raise ConfigError(
                "objective full_softmax needs a table of item vectors, which this architecture "
                "does not give; choose objective sampled_softmax or bce"
            )
        logits = around.score(queries, around.table(rows))
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        items = upload(rows, target.device)
        own = target[:, None] == items
        keep = (target >= 0)[:, None].expand_as(own)
        if self.mask_known:
            known = around.is_known(batch.users, items)[batch.query[:, 0].clamp(min=0)]
            keep = keep & (own | ~known)
        # the value is replaced before any arithmetic: 0 * NaN in backward would be NaN
        clean = torch.where(keep, logits, 0.0)
        # finite where nothing takes part: the gradient of a logsumexp of infinities is NaN
        least = torch.finfo(clean.dtype).min
        return (
            torch.where(keep, clean, least).logsumexp(1),
            torch.where(own, clean, 0.0).sum(1),
            clean.sum(1),
            keep.sum(1),
            own.any(1),
        )

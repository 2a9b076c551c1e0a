"""What objectives share: their narrow window on the world, and losses over masked scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from recsys import lazy
from recsys.config.schema import NegativeSpec, ObjectiveConfig, Output, Sampling, option
from recsys.errors import ConfigError, DataError
from recsys.types import Batch, Loss

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch = lazy.import_lazily("torch")
    F = lazy.import_lazily("torch.nn.functional")
    dist = lazy.import_lazily("torch.distributed")

Score: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
Table: TypeAlias = "Callable[[Tensor], Tensor]"
"""Item vectors (N, D), with their gradient, of catalog rows (N,) that lie on the host."""


@dataclass
class SampledObjectiveConfig(ObjectiveConfig):
    """What the `Config` of every objective over sampled negatives begins with."""

    needs: ClassVar[Output] = "scores"

    negatives: int = option(16, "negatives drawn for each query", least=1)
    sampling: Sampling = option(
        "uniform",
        "how they are drawn among the items seen in training: all alike, in proportion to their "
        "training positives, or all alike among those with about as many as the target (similar)",
    )

    @property
    def draws(self) -> NegativeSpec:
        """The negatives that it asks for; none is corrected for."""
        return NegativeSpec(self.negatives, self.sampling)


@dataclass(frozen=True)
class ObjectiveContext:
    """All that an objective may see besides the batch; made by `from_positives`.

    Attributes:
        log_miss: (I,) log of the probability that one target, as epochs draw them, is another item.
        log_share: (I,) log of the item's share of the training positives: the chance of one
            negative that is drawn by frequency.
        seen: (I,) bool, whether training has seen the item.
        pairs: (P,) sorted int64 keys user * I + item of the training positives.
        score: Scores (Q, N) of query vectors (Q, D) against item vectors (N, D).
        table: Gives the vectors of any items, or None where nothing gives them.
    """

    log_miss: Tensor
    log_share: Tensor
    seen: Tensor
    pairs: Tensor
    score: Score
    table: Table | None = None

    @classmethod
    def from_positives(
        cls,
        users: Tensor,
        items: Tensor,
        n_items: int,
        score: Score,
        targets: Tensor | None = None,
    ) -> ObjectiveContext:
        """From the training positives.

        Args:
            users: (P,) int64 user rows of the positives; a repeated pair counts each time.
            items: (P,) int64 catalog rows of the positives.
            n_items: Number of items in the catalog, I.
            score: How the architecture scores queries against items.
            targets: (I,) how often an epoch has each item for a target, on average; None: each
                positive is one, once.

        Raises:
            DataError: No positive, a row outside its range, or keys too large for int64.
        """
        if users.shape != items.shape or not len(items):
            raise DataError(
                f"training has {len(users)} users and {len(items)} items in its positives; "
                "both must be equally long and not empty"
            )
        if int(users.min()) < 0 or int(items.min()) < 0 or int(items.max()) >= n_items:
            raise DataError(
                f"training positives hold a row outside the {n_items} items or a negative user; "
                "build the data set again"
            )
        if int(users.max()) >= 2**63 // n_items - 1:
            raise DataError("users times items exceed 2^63; number the users from 0")
        count = torch.bincount(items, minlength=n_items)
        chance = _compute_shares(count if targets is None else targets)
        pairs = torch.unique(users.long() * n_items + items.long(), sorted=True)
        share = _compute_shares(count)
        return cls(torch.log1p(-chance).float(), share.log().float(), count > 0, pairs, score)

    def to(self, device: torch.device) -> ObjectiveContext:
        """The same with its tensors on `device`."""
        return replace(
            self,
            log_miss=self.log_miss.to(device),
            log_share=self.log_share.to(device),
            seen=self.seen.to(device),
            pairs=self.pairs.to(device),
        )

    def compute_log_inclusion(self, items: Tensor, draws: int | Tensor) -> Tensor:
        """Log of the probability that an item stands among a batch's unique positives.

        That is log(1 - (1 - p)^draws), p the item's share of the targets as epochs draw them; for
        one draw it is log p. An item that is never a target counts as the rarest one that is.

        Args:
            items: (N,) catalog rows; -1 gives an arbitrary finite value.
            draws: Number of targets drawn, at least 1 is assumed; a () tensor spares a sync.

        Returns:
            (N,) float32, at most 0.
        """
        times = draws.clamp(min=1) if isinstance(draws, torch.Tensor) else max(draws, 1)
        # expm1 and log1p keep the digits that 1 - (1 - p)^n loses for rare items
        return torch.log(-torch.expm1(times * self.log_miss[items.clamp(min=0)]))

    def is_known(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether items (N,) are training positives of users (Q,): (Q, N) bool, -1 never is."""
        return self.is_known_each(users, items.expand(len(users), -1))

    def is_known_each(self, users: Tensor, items: Tensor) -> Tensor:
        """As `is_known`, each user (Q,) with items of its own (Q, C): (Q, C) bool."""
        keys = users[:, None] * len(self.seen) + items
        place = torch.searchsorted(self.pairs, keys).clamp(max=len(self.pairs) - 1)
        # -1 would otherwise read as the last item of the user before
        return (self.pairs[place] == keys) & (items >= 0) & (users >= 0)[:, None]

    @staticmethod
    def gather(values: Tensor) -> Tensor:
        """The tensors (n, ...) of all ranks, joined in rank order; n may differ between ranks.

        The gradient of a rank's part is the sum over all ranks' losses. Every rank must call it,
        and run backward through it, equally often. In one process it is the identity.
        """
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return values
        size = torch.tensor([len(values)], device=values.device)
        every = [torch.empty_like(size) for _ in range(dist.get_world_size())]
        dist.all_gather(every, size)
        sizes: list[int] = torch.cat(every).tolist()
        longest = max(sizes)
        padding = values.new_zeros((longest - len(values), *values.shape[1:]))
        padded = torch.cat([values, padding])
        if padded.requires_grad:
            from torch.distributed.nn.functional import all_gather

            parts = list(all_gather(padded))  # type: ignore[no-untyped-call]
        else:
            parts = [torch.empty_like(padded) for _ in sizes]
            dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])


def _compute_shares(counts: Tensor) -> Tensor:
    """(I,) double, shares of counts (I,); none is the least there is, to keep logarithms finite."""
    counts = counts.double()
    least = counts[counts > 0].min() if bool((counts > 0).any()) else counts.new_ones(())
    return torch.where(counts > 0, counts, least) / counts.sum().clamp(min=least)


def make_objective_context(
    users: Tensor, items: Tensor, n_items: int, targets: Tensor
) -> Callable[[Score], ObjectiveContext]:
    """An `ObjectiveContext` of the training positives, still without the architecture's score."""

    def raise_unset(queries: Tensor, items: Tensor) -> Tensor:
        raise RuntimeError("an objective scored before the architecture gave its score")

    base = ObjectiveContext.from_positives(users, items, n_items, raise_unset, targets)
    return lambda score: replace(base, score=score)


def require_output(value: Tensor | None, objective: str, what: str, instead: str) -> Tensor:
    """What the objective needs of an architecture.

    Raises:
        ConfigError: The architecture did not give it.
    """
    if value is None:
        raise ConfigError(
            f"objective {objective} needs {what}, which this architecture does not give; "
            f"choose {instead}"
        )
    return value


def get_candidate_items(batch: Batch) -> Tensor:
    """Catalog rows (Q, C) of the candidates; -1 for none and in queries that are fillers."""
    chosen = batch.candidates
    if not batch.plan.items.numel():
        return torch.full_like(chosen, -1)
    rows = batch.plan.items[chosen.clamp(min=0)]
    return torch.where((chosen >= 0) & (batch.case >= 0)[:, None], rows, -1)


def get_query_users(batch: Batch) -> Tensor:
    """User rows (Q,) of the queries; a filler's is arbitrary."""
    return batch.users[batch.query[:, 0].clamp(min=0)]


def select_target_and_negatives(batch: Batch, around: ObjectiveContext) -> tuple[Tensor, Tensor]:
    """Which candidates a sampled loss may set against each other.

    Known positives of the user, and repeats of the target, are no negatives; nothing in a query
    without a case or a target is one.

    Returns:
        Whether column 0 is a target (Q,), and whether each other column is a negative (Q, C - 1).
    """
    items = get_candidate_items(batch)
    target, other = items[:, :1], items[:, 1:]
    keep = (other >= 0) & (other != target) & ~around.is_known_each(get_query_users(batch), other)
    return target[:, 0] >= 0, keep & (target >= 0)


def compute_softmax_loss(
    logits: Tensor,
    target: Tensor,
    keep: Tensor,
    smoothing: float,
    importance: Tensor | None = None,
) -> Loss:
    """Cross-entropy of the target among the columns kept.

    A query counts where its target is kept and has a rival: without one there is nothing to
    learn. Smoothing gives that share of the target's mass to all kept columns alike.

    Args:
        logits: (Q, N); values that are not kept may be anything, also NaN.
        target: (Q,) column of the target, anything in a query without one.
        keep: (Q, N) bool; false also at the target of a query that must not count.
        smoothing: In [0, 1).
        importance: (Q,) what each query weighs; None: all alike.

    Returns:
        Sum and count; exactly 0 with zero gradients where no query counts.
    """
    target = target.clamp(min=0)[:, None]
    rivals = keep.sum(1)
    counted = keep.gather(1, target)[:, 0] & (rivals > 1)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    # the value is replaced before any arithmetic: 0 * NaN in backward would be NaN
    clean = torch.where(keep, logits, 0.0)
    # only in rows that count: a row of nothing but -inf would be NaN, forward and backward
    log_p = F.log_softmax(clean.masked_fill(~keep & counted[:, None], float("-inf")), dim=1)
    loss = -log_p.gather(1, target)[:, 0]
    if smoothing:
        spread = -torch.where(keep, log_p, 0.0).sum(1) / rivals.clamp(min=1)
        loss = (1 - smoothing) * loss + smoothing * spread
    return weigh_loss(loss, counted, importance)


def weigh_loss(loss: Tensor, counted: Tensor, importance: Tensor | None) -> Loss:
    """Sum of the losses that count, each times what its query weighs, and the sum of the weights.

    Args:
        loss: (Q, ...), anything where it does not count.
        counted: (Q, ...) bool.
        importance: (Q,), or None where all queries weigh alike: the count is a whole number then.
    """
    kept = torch.where(counted, loss, 0.0)
    if importance is None:
        return Loss(kept.sum(), counted.sum())
    weight = importance.view(-1, *[1] * (loss.ndim - 1))
    return Loss((kept * weight).sum(), (counted * weight).sum())


def compute_pair_loss(
    each: Callable[[Tensor], Tensor],
    scores: Tensor,
    valid: Tensor,
    importance: Tensor | None = None,
) -> Loss:
    """Sum of a loss over the valid pairs.

    Args:
        each: Loss (Q, C) of scores (Q, C), finite for finite scores.
        scores: (Q, C); values that are not valid may be anything, also NaN.
        valid: (Q, C) bool.
        importance: (Q,) what each query's pairs weigh; None: all alike.
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    return weigh_loss(each(torch.where(valid, scores, 0.0)), valid, importance)

"""Pairs of titles that a user had within a window: what is drawn, and the softmax over a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.encoders.encoder import Encoder
from recsys.errors import DataError
from recsys.losses import ObjectiveContext
from recsys.pretrain.tasks import base
from recsys.pretrain.tasks.base import Bools, Ints, TaskComponents
from recsys.pretraining.co_occurrence import Config
from recsys.recommender.flops import FlopCounter
from recsys.types import Loss, TextBatch


class Task(base.Task):
    """An example is an event of training; its partner is drawn anew in each epoch.

    Args:
        parts: What it is made of.
        config: Its settings.

    Raises:
        DataError: Fewer than three users have two different titles within the window.
    """

    def __init__(self, parts: TaskComponents, config: Config) -> None:
        super().__init__(parts)
        self.config = config
        events = parts.events
        if events is None:
            raise DataError("pretraining=co_occurrence was made without the events of training.")
        chosen = events.chosen.numpy()
        self.users: Ints = events.users.numpy()[chosen]
        self.items: Ints = events.items.numpy()[chosen]
        sizes = np.asarray(self.catalog.count_tokens(torch.from_numpy(self.items)), dtype=np.int64)
        texts = np.where(sizes > self.prompt, self.keys[self.items], -1)
        self.near = find_partners(self.users, texts, config.window)
        self.anchors: Ints = np.flatnonzero(self.near.any(1))
        self.with_pairs: Ints = np.unique(self.users[self.anchors])
        if len(self.with_pairs) < 3:
            raise DataError(
                "pretraining=co_occurrence needs three users or more with two different titles "
                f"within {config.window} events of training, and has {len(self.with_pairs)}; raise "
                "pretraining.window, or choose simcse, tsdae or mlm, which read item texts alone."
            )
        users, items = torch.from_numpy(self.users), torch.from_numpy(self.items)
        self.around = ObjectiveContext.from_positives(users, items, len(self.keys), _refuse_scores)

    def split_examples(self, share: float, seed: int) -> tuple[Ints, Ints]:
        """Events that train, and those of the users that are held out."""
        _, held = base.split_share(self.with_pairs, share, seed)
        out = np.isin(self.users[self.anchors], held)
        return self.anchors[~out], self.anchors[out]

    def make_batch(self, at: Ints, seed: int, epoch: int) -> TextBatch:
        """The different texts of some events and their partners, and which of them are pairs."""
        near = self.near[at]
        # The number of the partner among those that there are, then its place in the window.
        chosen = (base.draw(seed, epoch, at, [1] * len(at)) * near.sum(1)).astype(np.int64)
        place = ((near.cumsum(1) > chosen[:, None]) & near).argmax(1)
        partners = at + list_offsets(self.config.window)[place]
        pairs = np.stack([self.items[at], self.items[partners]])
        texts, index = np.unique(self.keys[pairs], return_inverse=True)
        return TextBatch(
            self.catalog.gather_tokens(torch.from_numpy(texts)),
            torch.from_numpy(at),
            {
                "pairs": torch.from_numpy(index.reshape(pairs.shape)),
                "items": torch.from_numpy(pairs),
                "users": torch.from_numpy(self.users[at]),
            },
        )

    def compute_loss(self, encoder: Encoder, batch: TextBatch, work: FlopCounter) -> Loss:
        """The mean of both directions.

        Another pair's title is no negative where its text is that of either title of the pair, or
        where the pair's user had it in training as well.
        """
        vectors = self.encode(encoder, batch.tokens, work)
        pairs, items, users = (batch.parts[name] for name in ("pairs", "items", "users"))
        around = self.around = self.around.to(vectors.device)
        sides = [vectors[pairs[0]], vectors[pairs[1]]]
        total: Tensor = vectors.new_zeros((), dtype=torch.float32)
        count = torch.zeros((), dtype=torch.long, device=vectors.device)
        for one, other in ((0, 1), (1, 0)):
            work.count_product(sides[one], sides[other])
            odd = (pairs[one][:, None] == pairs[other]) | (pairs[other][:, None] == pairs[other])
            keep = ~(odd | around.is_known(users, items[other]))
            keep.fill_diagonal_(True)
            bias = None
            if self.config.logq:
                shown = around.compute_log_inclusion(items[other], len(users))
                bias = self.config.logq * shown
            loss = base.compute_contrast(
                sides[one], sides[other], keep, self.config.temperature, bias
            )
            total, count = total + loss.total, count + loss.count
        return Loss(total, count)

    def describe(self) -> str:
        """How many pairs an epoch draws."""
        return (
            f"{len(self.anchors):,} pairs an epoch of {len(self.with_pairs):,} users and "
            f"{len(np.unique(self.items[self.anchors])):,} of {len(self.keys):,} items"
        )


def _refuse_scores(queries: Tensor, items: Tensor) -> Tensor:
    raise RuntimeError("a pretraining asked for the scores of an architecture")


def list_offsets(window: int) -> Ints:
    """(2 W,) places from an event to those that may be its partners."""
    return np.array([*range(-window, 0), *range(1, window + 1)], dtype=np.int64)


def find_partners(users: Ints, texts: Ints, window: int) -> Bools:
    """Which neighbours of each event may be its partner: the same user's, with another text.

    Args:
        users: (N,) sorted.
        texts: (N,) number of each event's text, in the order of time within a user; -1 for none.
        window: W.

    Returns:
        (N, 2 W) by `list_offsets`.
    """
    out = np.zeros((len(users), 2 * window), dtype=np.bool_)
    for step in range(1, min(window, len(users) - 1) + 1):
        fits = (users[step:] == users[:-step]) & (texts[step:] != texts[:-step])
        fits &= (texts[step:] >= 0) & (texts[:-step] >= 0)
        out[step:, window - step] = fits
        out[:-step, window + step - 1] = fits
    return out

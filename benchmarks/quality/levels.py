"""Why cold items fall: how high items are scored by how often training shows them.

Usage: python benchmarks/quality/levels.py RUN [RUN ...]

RUN is the folder of a finished run of two towers over the whole catalog. On its validation cases,
before training and with the weights that it kept: nDCG@10 of warm and of cold targets; the same
with warm ones ranked among warm items only and cold ones among cold items only; the mean score of
groups of items in standard deviations of a query's scores; and their shares of the best ten. Where
cold targets rank well among cold items and badly among all, the model has not forgotten their
texts: others are scored above them. The table is printed in Markdown, nDCG and shares in percent.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from recsys.assembly import build
from recsys.assembly.assembled import Assembly
from recsys.config.compose import read_config
from recsys.errors import ConfigError
from recsys.recommender.trainable import TrainableRecommender, require_trainable
from recsys.runtime.files import BEST, CONFIG

GROUPS = {"cold": (0, 0), "1-2": (1, 2), "3-9": (3, 9), "10 and more": (10, 1 << 62)}
"""Groups of items by their training events, first and last."""
TOP = 10


class Levels(NamedTuple):
    """What a model gives warm and cold items.

    Attributes:
        ranked: (2,) nDCG@10 of warm and cold targets among all items.
        apart: (2,) of warm targets among warm items, of cold ones among cold items.
        scores: (G,) mean score of each group, in standard deviations.
        shares: (G,) share of each group in the best ten.
    """

    ranked: Tensor
    apart: Tensor
    scores: Tensor
    shares: Tensor


def compute_gain(scores: Tensor, own: Tensor, rivals: Tensor) -> Tensor:
    """(Q,) nDCG@10 of one target: what it gains at its rank among rivals (Q, I)."""
    rank = ((scores > own) & rivals).sum(1)
    gain = 1 / torch.log2(rank + 2.0)
    return torch.where((rank < TOP) & own[:, 0].isfinite(), gain, 0.0)


@torch.no_grad()
def measure(model: TrainableRecommender, made: Assembly) -> Levels:
    """The levels over the validation cases that have a history."""
    catalog, counts = model.eval().index_catalog(), model.parts.counts
    groups = torch.stack([(counts >= low) & (counts <= high) for low, high in GROUPS.values()])
    gains, apart, colds, levels, shares = [], [], [], [], []
    for batch in made.datamodule.val_dataloader():
        scores = model.score(model.queries(batch, catalog[batch.plan.items]), catalog)
        scores[batch.seen[:, 0], batch.seen[:, 1]] = -torch.inf
        scores = scores[(batch.query[:, 1] > 0) & (batch.case >= 0)]
        target = batch.plan.items[batch.candidates[:, 0]][
            (batch.query[:, 1] > 0) & (batch.case >= 0)
        ]
        cold, own = counts[target] == 0, scores.gather(1, target[:, None])
        gains.append(compute_gain(scores, own, torch.ones_like(scores, dtype=torch.bool)))
        apart.append(compute_gain(scores, own, (counts == 0) == cold[:, None]))
        colds.append(cold)
        able = scores.isfinite()
        mean = torch.where(able, scores, 0.0).sum(1, keepdim=True) / able.sum(1, keepdim=True)
        away = torch.where(able, scores - mean, 0.0)
        away = away / (away.square().sum(1, keepdim=True) / able.sum(1, keepdim=True)).sqrt()
        levels.append(away @ groups.T.float() / groups.sum(1))
        shares.append(groups[:, scores.topk(TOP).indices].float().mean(2).T)
    gain, among, is_cold = torch.cat(gains), torch.cat(apart), torch.cat(colds)
    return Levels(
        torch.stack([gain[~is_cold].mean(), gain[is_cold].mean()]),
        torch.stack([among[~is_cold].mean(), among[is_cold].mean()]),
        torch.cat(levels).mean(0),
        torch.cat(shares).mean(0),
    )


def write_row(name: str, found: Levels) -> str:
    """A row of the table."""
    cells = [f"{100 * all_:.2f} ({100 * own:.2f})" for all_, own in zip(*found[:2], strict=True)]
    cells += [f"{score:+.2f}" for score in found.scores] + [f"{100 * x:.0f}" for x in found.shares]
    return f"| {name} | {' | '.join(cells)} |"


def main(argv: list[str]) -> int:
    """Prints a table of the runs."""
    if not argv or not all((Path(word) / BEST).is_file() for word in argv):
        print(__doc__)
        return 2
    heads = [f"{kind} {group}" for kind in ("score", "share") for group in GROUPS]
    print(f"| | warm (among warm) | cold (among cold) | {' | '.join(heads)} |")
    print("|---" * (len(heads) + 3) + "|")
    started: set[str] = set()
    for word in argv:
        made = build.assemble(read_config(Path(word) / CONFIG))
        model = require_trainable(made.recommender)
        if not model.parts.encoding:
            raise ConfigError(f"{word} reads no texts, and so knows nothing of a cold item.")
        if made.fingerprint not in started:
            started.add(made.fingerprint)
            print(write_row("before training", measure(model, made)))
        model.load_trained(Path(word) / BEST)
        print(write_row(Path(word).name, measure(model, made)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

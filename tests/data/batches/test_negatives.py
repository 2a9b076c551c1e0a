"""Negatives of about the target's popularity."""

import numpy as np
import pytest

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.negatives import SimilarSampler
from recsys.data.batches.rows import BatchRows
from recsys.errors import ConfigError

COUNTS = np.array([0, *range(1, 41), *[100] * 9, 0, 0])
"""Of 52 items: three never a positive, forty with counts of their own, nine with the same."""


def make_rows(targets):
    """Queries of as many users with these targets."""
    every, targets = np.arange(len(targets)), np.array(targets)
    none = np.zeros((len(targets), 1), dtype=np.float32)
    return BatchRows(
        user=every,
        start=every,
        stop=every,
        row=every,
        prefix=every,
        candidates=targets[:, None],
        labels=none,
        weight=none,
        case=every,
        event=every,
    )


def sample(targets, n=400):
    positives = np.random.default_rng(0).permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))
    return SimilarSampler(positives, len(COUNTS)).sample(make_rows(targets), n, 3, 0)


def test_they_are_shown_about_as_often_as_the_target():
    drawn = sample([20, 1, 45])
    # A tenth of 49 items is five, three to each side.
    assert set(drawn[0].tolist()) == {17, 18, 19, -1, 21, 22, 23}
    assert set(drawn[1].tolist()) == {-1, 2, 3, 4}
    # Those of one count belong together.
    assert set(drawn[2].tolist()) == {41, 42, 43, 44, -1, 46, 47, 48, 49}
    kept = drawn[0][drawn[0] >= 0]
    assert np.bincount(kept)[17:].max() < 2 * np.bincount(kept)[[17, 18, 19, 21, 22, 23]].min()


def test_a_target_that_was_never_a_positive_has_the_rarest_ones():
    """As a disliked event may be, with data.targets=labelled."""
    assert set(sample([0])[0].tolist()) == {1, 2, 3, 4}


def test_they_depend_on_the_query_alone():
    assert (sample([20, 1, 45])[:1] == sample([20])).all()
    assert (sample([20, 1, 45], 7)[1] == sample([20, 1, 45], 7)[1]).all()


def test_an_objective_asks_for_them_and_refuses_what_does_not_go_with_them(shop_words, tmp_path):
    words = [*shop_words, "tuning=frozen", "objective=sampled_softmax", "objective.negatives=5"]
    made = build.assemble(compose([*words, "objective.sampling=similar"]))
    counts = made.recommender.parts.train_counts.numpy()
    batch = next(iter(made.datamodule.train_dataloader()))
    items = batch.plan.items.numpy()[batch.candidates.numpy()]
    drawn = np.where(batch.candidates.numpy() >= 0, counts[items], -1)
    assert drawn.shape[1] == 6
    near = [d[1:][d[1:] >= 0] for d in drawn]
    assert max(abs(n - d[0]).max(initial=0) for n, d in zip(near, drawn, strict=True)) <= 2
    assert np.ptp(counts) > 2
    with pytest.raises(ConfigError, match="similar sampling, which needs no"):
        build.assemble(compose([*words, "objective.sampling=similar", "objective.logq=1"]))
    with pytest.raises(ConfigError, match="sampling=similar does not"):
        compose([*shop_words, "objective=gbce", "objective.sampling=similar"])

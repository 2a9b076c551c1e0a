"""Scores that are averaged over a history and masked copies of it, wherever cases are ranked."""

import numpy as np
import pytest
import torch

from recsys.assembly import build
from recsys.assembly.checks import check_pairs
from recsys.config.compose import compose
from recsys.data.augmentation.masks import HistoryMasks
from recsys.errors import ConfigError
from recsys.evaluation.ranking import MaskedAverage
from recsys.fit.__main__ import main
from recsys.trained.run import TrainedRun

KINDS = {
    "two_tower": [],
    "causal": ["architecture.history=causal", "data.queries=all"],
    "user_text": ["architecture.user=text"],
    "late_interaction": ["architecture=late_interaction", "objective=bce"],
    "cross_encoder": [
        "architecture=cross_encoder",
        "objective=bce",
        "evaluation.protocol=candidates",
        "evaluation.candidates=8",
    ],
}
ASKED = ["data.augment={mask: .4, test_masks: 3}"]


@pytest.fixture
def words(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return [*shop_words, "tracking.wandb=off"]


def read(batch):
    plan = batch.plan.items.tolist()
    return [
        [plan[i] for i in batch.history[row][:prefix].tolist()]
        for row, prefix in batch.query.tolist()
    ]


def test_a_copy_lacks_some_items_and_depends_on_the_history_alone(words):
    made = build.assemble(compose(words))
    masks = HistoryMasks(3, copies=4, share=0.4)
    at = made.datamodule.list_case_events(2)

    def copies(events):
        rows = made.examples.make_case_rows(events)
        batch = made.examples.make_batch(rows, made.datamodule.sizes, with_seen=True)
        return list(zip(*map(read, masks.iter_copies(batch)), strict=True))

    whole = copies(at)
    for had, *masked in whole:
        for each in masked:
            rest = iter(had)
            assert each
            assert all(item in rest for item in each)
    left = sum(len(m) for _, *masked in whole for m in masked) / sum(4 * len(h) for h, *_ in whole)
    assert left == pytest.approx(0.6, abs=0.06)
    assert whole == copies(at[:7]) + copies(at[7:])
    assert len({tuple(map(tuple, masked)) for _, *masked in whole}) > len(whole) / 2
    for row in (0, 5):  # the same in recommendation
        batch = made.examples.make_serving_batch(np.array(whole[row][0]))
        assert tuple(history for (history,) in map(read, masks.iter_copies(batch))) == whole[row]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_mean_of_the_scores_of_all_copies(words, kind):
    made = build.assemble(compose([*words, *KINDS[kind], *ASKED]))
    model = made.recommender.eval()
    ranker, masks = model.ranker, model.parts.masks
    assert isinstance(ranker, MaskedAverage)
    batch = next(iter(made.datamodule.val_dataloader()))
    with torch.no_grad():
        items = model.index(batch.plan)
        every = [model.score(model.queries(c, items), items) for c in masks.iter_copies(batch)]
        lists = [model.score_candidates(c, items) for c in masks.iter_copies(batch)]
        assert len(every) == 4
        assert any(not every[0].equal(each) for each in every[1:])
        found = ranker.score(ranker.queries(batch, items), items)
        assert torch.allclose(found, torch.stack(every).mean(0), atol=1e-5)
        candidates = ranker.score_candidates(batch, items)
        assert torch.allclose(candidates, torch.stack(lists).mean(0), atol=1e-5)


def test_without_masks_the_recommender_ranks_by_itself(words):
    made = build.assemble(compose([*words, "data.augment.mask=0.4"]))
    assert made.recommender.ranker is made.recommender
    floor = build.make_baseline("popularity", made.parts)
    assert floor.ranker is floor


def test_result_and_recommendation_are_those_of_the_average(words, tmp_path):
    asked = [*words, "tuning=frozen", "trainer.max_steps=2", *ASKED]
    assert main([*asked, f"output={tmp_path / 'runs'}"]) == 0
    assert main([*asked, "data.augment.test_masks=0", f"output={tmp_path / 'plain'}"]) == 0
    (folder,), (plain,) = ((tmp_path / name).iterdir() for name in ("runs", "plain"))
    run, other = TrainedRun(folder), TrainedRun(plain)
    # Training is the same: only what ranks differs, the floors aside.
    assert run.result["floors"]["popularity"] == other.result["floors"]["popularity"]
    assert run.metrics != other.metrics
    made = build.assemble(run.config)
    made.recommender.load_trained(folder / "checkpoints/best.safetensors")
    found = made.recommender.evaluate(made.datamodule.test_dataloader())
    assert found["ndcg@10"] == pytest.approx(run.metrics["ndcg@10"])
    (user,) = made.tables.users["user"].head(1)
    had = made.examples.list_history(0)
    batch = made.examples.make_serving_batch(had, 0)
    with torch.no_grad():
        items = made.recommender.index_catalog()
        copies = list(made.recommender.parts.masks.iter_copies(batch))
        scores = [
            made.recommender.score(made.recommender.queries(c, items[c.plan.items]), items)
            for c in copies
        ]
    want = torch.stack(scores).mean(0)[0]
    want[torch.from_numpy(made.examples.list_seen(0))] = -torch.inf
    answer = run.recommend(users=[user], k=3)
    assert answer["score"].to_numpy() == pytest.approx(want.topk(3).values.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.augment.test_masks=3"], "data.augment.mask is 0"),
        (["experiment=popularity", "data.augment={test_masks: 3, mask: 0.1}"], "does not train"),
    ],
)
def test_masks_without_a_share_or_a_training_are_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        check_pairs(compose(words))

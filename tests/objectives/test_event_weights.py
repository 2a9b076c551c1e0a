"""What an event weighs: its query's loss as many times, whatever the objective."""

import dataclasses
import importlib

import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.types import Scored
from tests.objectives.test_more_objectives import ITEMS, WIDTH, Q, some_batch, world

LOSSES = {
    "bce": {"negatives": 5},
    "bpr": {"negatives": 5, "sampling": "uniform"},
    "gbce": {"negatives": 5, "sampling": "uniform", "calibration": 0.5},
    "sampled_softmax": {
        "negatives": 5,
        "sampling": "uniform",
        "logq": 0.0,
        "label_smoothing": 0.1,
    },
    "in_batch": {"logq": 0.0, "label_smoothing": 0.1},
    "in_batch in blocks": {"logq": 0.0, "label_smoothing": 0.0, "chunk": 2},
    "in_batch beside": {"logq": 0.0, "label_smoothing": 0.0, "negatives": 5},
    "full_softmax": {
        "over": "seen",
        "mask_known": True,
        "label_smoothing": 0.1,
        "chunk": 4,
        "encode_catalog": False,
    },
}


def repeated(batch, times):
    """The batch with each query as often as it weighs."""
    queries = ("query", "candidates", "labels", "weight", "case")
    return dataclasses.replace(
        batch, **{n: getattr(batch, n).repeat_interleave(times, 0) for n in queries}
    )


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", LOSSES)
def test_an_event_that_weighs_three_is_the_event_three_times(name, seed):
    """Sum, count and gradient against the loss without weights, a query at a time repeated."""
    make = torch.Generator().manual_seed(seed)
    table = torch.randn(ITEMS, WIDTH, generator=make, dtype=torch.float64)
    around, _ = world(lambda rows: table[rows])
    batch = some_batch(seed)
    times = torch.randint(1, 5, (Q,), generator=make)
    queries = torch.randn(Q, WIDTH, generator=make, dtype=torch.float64)
    objective = importlib.import_module(f"recsys.objectives.{name.split()[0]}").Objective(
        **LOSSES[name]
    )

    def found(of, each):
        leaf = queries.clone().requires_grad_()
        asked, items = leaf[each], table[of.plan.items]
        scores = (asked @ items.T).gather(1, of.candidates.clamp(min=0))
        scores = scores.masked_fill(of.candidates < 0, torch.nan)
        loss = objective(Scored(scores, asked, items), of, around)
        loss.total.backward()
        return loss.total.detach(), loss.count, leaf.grad

    every = torch.arange(Q)
    _, plain, _ = found(batch, every)
    weighed = dataclasses.replace(batch, importance=times.float())
    total, count, gradient = found(weighed, every)
    want_total, want_count, want_gradient = found(
        repeated(batch, times), every.repeat_interleave(times)
    )
    assert float(count) == float(want_count) > float(plain) > 0
    torch.testing.assert_close(total, want_total)
    torch.testing.assert_close(gradient, want_gradient)
    nothing = dataclasses.replace(batch, importance=torch.where(every == 0, 0, times).float())
    assert not found(nothing, every)[2][0].any()  # what weighs 0 trains nothing


@pytest.fixture
def typed(shop, shop_words, tmp_path, monkeypatch):
    """The shop, where two events of a user are views and three are purchases."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    header, *rows = (shop / "events.csv").read_text().splitlines()
    kinds = ["view", "buy", "view", "buy", "buy"]
    events = [f"{row},{kinds[i % 5]}" for i, row in enumerate(rows)]
    (tmp_path / "typed.csv").write_text("\n".join([f"{header},kind", *events]) + "\n")
    own = [w for w in shop_words if not w.startswith("data.source.interactions")]
    return [
        *own,
        f"data.source.interactions={tmp_path / 'typed.csv'}",
        "data.event_column=kind",
        "tuning=frozen",
        "trainer.epochs=1",
        "evaluation.test=false",
        "checkpoint.pick=last",
    ]


def weights_of(folder):
    (run,) = folder.iterdir()
    return (run / "checkpoints" / "best.safetensors").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ["objective=in_batch"],
        ["objective=bpr"],
        ["objective=full_softmax"],
        ["objective=bce", "data.targets=labelled", "data.positive_from=3", "+stars"],
    ],
)
def test_weights_of_event_types_train(typed, words, tmp_path):
    """Purchases that weigh more give other weights; all weighing 7 gives what no weight does."""
    stars = ["data.source.rating=stars"] if "+stars" in words else []
    words = [*typed, *(w for w in words if w != "+stars"), *stars, "data.queries=all"]
    found = {}
    for name, view, buy in (("same", 1, 1), ("more", 1, 50), ("all", 7, 7)):
        types = f"data.event_types={{view: {view}, buy: {buy}}}"
        assert main([*words, types, f"output={tmp_path / name}"]) == 0
        found[name] = weights_of(tmp_path / name)
    assert main([*words, f"output={tmp_path / 'none'}"]) == 0
    assert found["same"] == found["all"] == weights_of(tmp_path / "none")
    assert found["more"] != found["same"]


def test_an_observed_negative_counts_as_its_event_weighs(typed):
    """Its label is 0, and so is its value under mse; how much it counts is another thing."""
    words = ["objective=bce", "data.targets=labelled", "data.positive_from=3"]
    types = "data.event_types={view: 1, buy: 3}"
    made = build.assemble(compose([*typed, *words, "data.source.rating=stars", types]))
    batch = made.datamodule.make_train_batch(made.examples._train, 0)
    weight = made.split.weight[made.examples._train]
    assert set(weight) == {1, 3}
    assert {0.0, 1.0} == set(batch.labels[:, 0].tolist())
    want = torch.from_numpy(weight / weight.mean())
    torch.testing.assert_close(batch.importance, want.float())
    assert ((batch.weight[:, 0] == 0) == (batch.labels[:, 0] == 0)).all()
    held = next(iter(made.datamodule.val_dataloader()))
    assert held.importance is None


def test_targets_that_all_weigh_nothing_are_refused(shop, shop_words, tmp_path):
    """Only what is held out weighs something: three of a user's five events train."""
    header, *rows = (shop / "events.csv").read_text().splitlines()
    events = [f"{header},w", *(f"{row},{int(n % 5 > 2)}" for n, row in enumerate(rows))]
    (tmp_path / "weighed.csv").write_text("\n".join(events) + "\n")
    own = [w for w in shop_words if not w.startswith("data.source.interactions")]
    source = [f"data.source.interactions={tmp_path / 'weighed.csv'}", "data.source.weight=w"]
    with pytest.raises(ConfigError, match="training predicts all weigh 0"):
        build.assemble(compose([*own, *source]))

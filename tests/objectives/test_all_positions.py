"""A loss over all positions of the histories is the sum of the losses of the queries alone."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recsys.assembly import build, checks
from recsys.config.compose import compose
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.layers.item_embeddings import compute_own_products
from recsys.types import Batch

LOSSES = {
    "bce": ["objective=bce", "objective.negatives=3"],
    "bpr": ["objective=bpr", "objective.negatives=3", "objective.sampling=frequency"],
    "gbce": ["objective=gbce", "objective.negatives=6"],
    "sampled_softmax": [
        "objective=sampled_softmax",
        "objective.negatives=6",
        "objective.sampling=frequency",
        "objective.logq=0.5",
        "objective.label_smoothing=0.1",
    ],
}
ALONE = ["tuning=frozen", "architecture.item=id", "architecture.width=8", "architecture.mix=false"]
LABELS = ["data.targets=labelled", "data.positive_from=3", "data.source.rating=stars"]
HARD = ["data.negatives=hard", "data.hard_top=6"]
RUNS = {
    **{f"sasrec-{name}": [*ALONE, "architecture.history=causal", *LOSSES[name]] for name in LOSSES},
    "hard-bce": [*ALONE, "architecture.history=gru", *HARD, *LOSSES["bce"]],
    "hard-bpr": ["tuning=frozen", *HARD, *LOSSES["bpr"]],
    "labelled-bce": ["tuning=frozen", *LABELS, *LOSSES["bce"]],
    "labelled-mse": ["tuning=frozen", *LABELS, "objective=mse"],
    "text-gbce": ["architecture.user=text", "tuning=lora", *LOSSES["gbce"]],
    "mlp-bpr": ["architecture.score=mlp", "tuning=lora", *LOSSES["bpr"]],
    "late-bpr": ["architecture=late_interaction", "tuning=lora", *LOSSES["bpr"]],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def assembled(words, *more):
    made = build.assemble(compose([*words, *more]))
    torch.manual_seed(1)
    with torch.no_grad():  # away from heads of zero, behind which nothing learns
        for name, p in made.recommender.get_trained_parameters().items():
            if "encoder" not in name or "lora_B" in name:
                p.add_(0.1 * torch.randn_like(p))
    return made


def outcome(model, batch):
    """Sum, count and gradients by name."""
    model.eval().zero_grad()  # no dropout, which other passes would draw anew
    loss = model.parts.objective(model(batch), batch, model.get_objective_context())
    loss.total.backward()
    own = model.get_trained_parameters().items()
    return loss.total.item(), int(loss.count), {k: 0 if p.grad is None else p.grad for k, p in own}


@pytest.mark.parametrize("name", RUNS)
def test_all_positions_are_as_the_queries_one_by_one(shop_words, name):
    """With the same negatives, each query's own; the histories are shorter than the window."""
    together = assembled(shop_words, "data.queries=all", *RUNS[name])
    apart = assembled(shop_words, "data.queries=random", *RUNS[name])
    users = together.datamodule.make_epoch_order(3)[:7]
    rows = together.examples.make_train_rows("all", users)
    owner = together.split.compute_user_rows()
    asked = (
        together.examples.list_target_events("all") if "hard" in name else together.examples._train
    )
    assert sorted(rows.event) == [e for e in asked if owner[e] in set(users)]
    total, count, gradients = outcome(
        together.recommender, together.datamodule.make_train_batch(users, 3)
    )
    sums = {k: torch.zeros_like(p) for k, p in apart.recommender.get_trained_parameters().items()}
    alone = []
    for event in rows.event:
        one = outcome(apart.recommender, apart.datamodule.make_train_batch(np.array([event]), 3))
        alone.append(one[:2])
        for key in sums:
            sums[key] += one[2][key]
    assert count == sum(n for _, n in alone) > len(users)
    assert total == pytest.approx(sum(x for x, _ in alone), rel=1e-4)
    assert any(value.abs().sum() > 0 for value in sums.values())
    for key, want in sums.items():
        assert torch.allclose(torch.as_tensor(gradients[key]), want, atol=1e-3, rtol=1e-3), key


def test_a_filler_of_all_positions_counts_for_nothing(shop_words):
    made = assembled(shop_words, "data.queries=all", *RUNS["sasrec-gbce"])
    batch = made.datamodule.make_train_batch(made.datamodule.make_epoch_order(0)[:1], 0)
    assert len(batch.case) > 1
    filler = dataclasses.replace(batch, case=torch.full_like(batch.case, -1))
    total, count, gradients = outcome(made.recommender, filler)
    assert (total, count) == (0.0, 0)
    assert not any(g.any() for g in gradients.values())


def test_a_labelled_window_leaves_out_what_began_before_it(shop_words):
    """A history of one event: of a user's targets, those whose own histories it holds."""
    made = assembled(shop_words, "data.queries=all", "data.max_history=2", *RUNS["labelled-bce"])
    examples = made.examples
    rows = examples.make_train_rows("all", np.sort(made.datamodule.make_epoch_order(0)))
    first = examples._first[rows.user][rows.row]
    before = examples._before[rows.event]
    assert (rows.prefix >= 0).all()
    assert ((rows.prefix > 0) | (before == first)).all()
    assert set(rows.row) == set(range(len(rows.user)))


@pytest.mark.parametrize("q", [0, 1, 5])
@pytest.mark.parametrize("width", [0, 1, 4])
def test_own_products_are_those_of_the_picked_vectors(q, width):
    """Values and gradients, also of a place that is asked for twice and of one never asked for."""
    torch.manual_seed(0)
    queries = torch.randn(q, 3, dtype=torch.float64, requires_grad=True)
    items = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    places = torch.randint(6, (q, width))
    places[:, 1:2] = places[:, :1]
    got = compute_own_products(queries, items, places)
    want = (items[places] * queries[:, None]).sum(-1)
    assert torch.allclose(got, want)
    with torch.no_grad():
        assert torch.allclose(compute_own_products(queries, items, places), want)
    out = torch.randn(q, width, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(got, (queries, items), out),
        torch.autograd.grad(want, (queries, items), out),
        strict=True,
    ):
        assert torch.allclose(ours, theirs)
    for fixed in (queries.detach(), items), (queries, items.detach()):
        leaf = next(x for x in fixed if x.requires_grad)
        (alone,) = torch.autograd.grad(compute_own_products(*fixed, places), leaf, out)
        (want_alone,) = torch.autograd.grad((items[places] * queries[:, None]).sum(-1), leaf, out)
        assert torch.allclose(alone, want_alone)


class Largest(TorchDispatchMode):
    """The most numbers that any operation gave."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.most = max(self.most, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("score", ["cosine", "mlp"])
def test_a_step_holds_no_vector_for_each_negative(shop_words, score):
    """Forward and backward, with 200 negatives at each position."""
    words = ["architecture.item=id", "tuning=frozen", "architecture.width=64"]
    more = ["objective=gbce", "objective.negatives=200", f"architecture.score={score}"]
    made = assembled(shop_words, *words, *more, "architecture.hidden=64", "data.queries=all")
    batch = repeated(made.datamodule.make_train_batch(made.datamodule.make_epoch_order(0), 0), 12)
    asked = batch.candidates.numel()
    with Largest() as largest:
        outcome(made.recommender, batch)
    # The hidden units of an MLP come a block at a time, and its inputs with them.
    most = {"cosine": 2 * asked, "mlp": 1 << 22}[score]
    assert asked <= largest.most <= most < 64 * asked


def repeated(batch: Batch, times: int) -> Batch:
    """Each query as often as said."""
    names = ("query", "candidates", "labels", "weight")
    many = {name: getattr(batch, name).repeat(times, 1) for name in names}
    return dataclasses.replace(batch, case=batch.case.repeat(times), **many)


def test_what_a_joint_encoder_would_cost_is_refused(shop_words):
    words = ["architecture=cross_encoder", "evaluation.protocol=candidates", "objective=bce"]
    with pytest.raises(ConfigError, match="a joint pass for each candidate of every position"):
        checks.check_pairs(compose([*shop_words, *words, "data.queries=all"]))
    checks.check_pairs(compose([*shop_words, *words]))


@pytest.mark.parametrize("name", ["sasrec-bce", "hard-bce"])
def test_the_command_trains_on_all_positions(shop_words, name):
    assert main([*shop_words, "data.queries=all", "trainer.epochs=1", *RUNS[name]]) == 0

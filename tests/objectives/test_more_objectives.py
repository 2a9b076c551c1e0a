"""bpr, gbce and full_softmax against direct computations."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recsys.assembly import build, checks
from recsys.config.compose import compose, make_node
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.losses import ObjectiveContext
from recsys.objectives import bce, bpr, full_softmax, gbce
from recsys.types import Batch, ItemBatch, Scored

ITEMS, USERS, WIDTH, Q = 13, 5, 4, 9


def dot(queries, items):
    return queries @ items.T


def world(table=None):
    """The last two items are never seen in training."""
    draw = np.random.default_rng(3)
    pairs = {(int(draw.integers(USERS)), int(draw.integers(ITEMS - 2))) for _ in range(25)}
    pairs |= {(0, i) for i in range(ITEMS - 2)}
    users, items = torch.tensor(sorted(pairs)).T
    around = ObjectiveContext.from_positives(users, items, ITEMS, dot)
    return replace(around, table=table), pairs


def some_batch(seed, candidates=6):
    """A batch with a filler, a query without a target, and negatives that are missing."""
    make = torch.Generator().manual_seed(seed)
    plan = torch.randperm(ITEMS - 2, generator=make)[:9]
    chosen = torch.stack([torch.randperm(9, generator=make)[:candidates] for _ in range(Q)])
    chosen[1, 3] = chosen[5, 1] = -1
    case = torch.arange(Q)
    case[2], chosen[4, 0] = -1, -1
    row = torch.randint(0, 3, (Q,), generator=make)
    labels = torch.zeros(chosen.shape)
    labels[:, 0] = 1
    return Batch(
        plan=ItemBatch(plan, (1,) * 9),
        users=torch.randperm(USERS, generator=make)[:3],
        history=torch.full((3, 1), -1),
        query=torch.stack([row, torch.zeros_like(row)], 1),
        candidates=chosen,
        labels=labels,
        weight=labels,
        case=case,
        seen=torch.empty(0, 2, dtype=torch.long),
    )


def counted(batch, pairs):
    """Target's item and negative columns of every query that counts."""
    for q in range(Q):
        if batch.case[q] < 0 or batch.candidates[q, 0] < 0:
            continue
        user = int(batch.users[batch.query[q, 0]])
        row = [int(batch.plan.items[c]) if c >= 0 else -1 for c in batch.candidates[q]]
        free = [c for c, i in enumerate(row) if c and i >= 0 and (user, i) not in pairs]
        yield q, row[0], [c for c in free if row[c] != row[0]]


@pytest.mark.parametrize("seed", range(3))
def test_bpr_equals_a_slow_loop(seed):
    around, pairs = world()
    batch = some_batch(seed)
    batch.candidates[6, 2] = batch.candidates[6, 0]  # the target is no negative of itself
    scores = torch.randn(batch.candidates.shape, dtype=torch.float64)
    want = [
        -np.log(1 / (1 + np.exp(-float(scores[q, 0] - scores[q, c]))))
        for q, _, negatives in counted(batch, pairs)
        for c in negatives
    ]
    loss = bpr.Objective(5, "uniform")(Scored(scores), batch, around)
    assert int(loss.count) == len(want) > 0
    assert float(loss.total) == pytest.approx(sum(want))


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_gbce_equals_the_formula_of_the_paper(t):
    around, pairs = world()
    for seed in range(3):
        batch = some_batch(seed)
        scores = torch.randn(batch.candidates.shape, dtype=torch.float64)
        alpha = 5 / (ITEMS - 2 - 1)
        beta = alpha * ((1 - 1 / alpha) * t + 1 / alpha)
        total, count = 0.0, 0
        for q, _, negatives in counted(batch, pairs):
            p = 1 / (1 + np.exp(-scores[q].numpy()))
            total -= np.log(p[0] ** beta) + sum(np.log(1 - p[c]) for c in negatives)
            count += 1 + len(negatives)
        loss = gbce.Objective(5, "uniform", t)(Scored(scores), batch, around)
        assert int(loss.count) == count > 0
        assert float(loss.total) == pytest.approx(total)
        batch.case[4] = -1  # bce also reads the negatives of a query without a target
        plain = bce.Objective(5)(Scored(scores), batch, around)
        assert (float(plain.total) == pytest.approx(float(loss.total))) == (t == 0)


def test_gbce_is_finite_where_probabilities_are_not():
    around, _ = world()
    batch = some_batch(0)
    scores = torch.where(torch.rand(batch.candidates.shape) < 0.5, 1e4, -1e4).requires_grad_()
    loss = gbce.Objective(5, "uniform", 1.0)(Scored(scores), batch, around)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert torch.isfinite(scores.grad).all()
    everything = gbce.Objective(999, "uniform", 1.0)
    assert (
        float(everything.compute_power(torch.tensor(11))) == 1
    )  # no more than all items are drawn


def vectors(seed=0):
    """Queries, fixed item vectors, and a head that trains behind them."""
    make = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=make, dtype=torch.float64)

    return draw(Q, WIDTH).requires_grad_(), draw(ITEMS, WIDTH), draw(WIDTH, WIDTH).requires_grad_()


def dense_loss(queries, items, batch, pairs, over, mask_known, smoothing):
    """torch's cross-entropy on the full matrix, query by query where some columns are left out."""
    logits = queries @ items.T
    total, count = torch.zeros((), dtype=torch.float64), 0
    for q, target, _ in counted(batch, pairs):
        user = int(batch.users[batch.query[q, 0]])
        keep = list(range(ITEMS if over == "catalog" else ITEMS - 2))
        if mask_known:
            keep = [i for i in keep if i == target or (user, i) not in pairs]
        if len(keep) > 1:
            label = torch.tensor(keep.index(target))
            total = total + F.cross_entropy(logits[q, keep], label, label_smoothing=smoothing)
            count += 1
    return total, count


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("mask_known", [False, True])
@pytest.mark.parametrize(("over", "smoothing"), [("seen", 0.0), ("catalog", 0.2)])
def test_full_softmax_equals_cross_entropy_on_the_full_matrix(chunk, mask_known, over, smoothing):
    """Loss and gradients, also of a head that makes the table; user 0 has had all but two."""
    for seed in range(3):
        batch = some_batch(seed)
        queries, base, head = vectors(seed)
        around, pairs = world(lambda rows, base=base, head=head: base[rows] + base[rows] @ head)
        objective = full_softmax.Objective(over, mask_known, smoothing, chunk, False)
        loss = objective(Scored(queries=queries), batch, around)
        got = torch.autograd.grad(loss.total, (queries, head))
        total, count = dense_loss(
            queries, base + base @ head, batch, pairs, over, mask_known, smoothing
        )
        want = torch.autograd.grad(total, (queries, head))
        assert int(loss.count) == count > 0
        assert torch.allclose(loss.total, total)
        for ours, theirs in zip(got, want, strict=True):
            assert torch.allclose(ours, theirs)


def test_full_softmax_keeps_no_logits_for_backward():
    """What autograd holds and what is made at a time does not grow with the items."""
    kept, made = [], []

    def score(queries, items):
        made.append(len(queries) * len(items))
        return queries @ items.T

    def held(items):
        base = torch.randn(items, 2)
        around = ObjectiveContext.from_positives(
            torch.zeros(items).long(), torch.arange(items), items, score
        )
        around = replace(around, table=lambda rows: base[rows])
        queries = torch.randn(Q, 2, requires_grad=True)
        kept.clear()

        def note(x):
            kept.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            objective = full_softmax.Objective("seen", False, 0.0, 64, False)
            loss = objective(Scored(queries=queries), some_batch(0), around)
        loss.total.backward()
        return sum(kept)

    few, many = held(640), held(6400)
    assert max(made) == 64 * Q
    assert len(made) == 2 * (10 + 100)
    assert many - few <= 90 * 16 * Q  # some numbers a query and chunk, never 64 a query


def test_gradients_agree_with_finite_differences():
    batch = some_batch(1)
    queries, base, head = vectors(1)

    def full(q, h):
        around, _ = world(lambda rows: base[rows] @ h)
        objective = full_softmax.Objective("catalog", True, 0.1, 5, False)
        return objective(Scored(queries=q), batch, around).total

    assert torch.autograd.gradcheck(full, (queries, head))
    around, _ = world()
    scores = torch.randn(batch.candidates.shape, dtype=torch.float64, requires_grad=True)
    for objective in (bpr.Objective(5, "uniform"), gbce.Objective(5, "uniform", 0.7)):
        assert torch.autograd.gradcheck(
            lambda s, o=objective: o(Scored(s), batch, around).total, (scores,)
        )


def test_nothing_to_count_gives_zero_and_finite_gradients():
    batch = some_batch(0)
    batch.case.fill_(-1)
    scores = torch.full(batch.candidates.shape, torch.nan, requires_grad=True)
    queries, base, head = vectors()
    around, _ = world(lambda rows: base[rows] @ head)
    losses = [
        bpr.Objective(5, "uniform")(Scored(scores), batch, around),
        gbce.Objective(5, "uniform", 0.7)(Scored(scores), batch, around),
        full_softmax.Objective("seen", True, 0.1, 3, False)(Scored(None, queries), batch, around),
    ]
    for loss in losses:
        assert (float(loss.total.detach()), int(loss.count)) == (0.0, 0)
        loss.total.backward()
    for leaf in (scores, queries, head):
        assert leaf.grad is not None
        assert not leaf.grad.any()


@pytest.mark.parametrize("name", ["bpr", "gbce", "sampled_softmax"])
def test_what_is_drawn_is_set_alike(name):
    """In the configuration of each, in front of what it has of its own."""
    words = [f"objective={name}", "objective.negatives=7", "objective.sampling=frequency"]
    words += ["objective.calibration=0"] if name == "gbce" else []
    run = compose(words)
    assert list(make_node(run)["objective"].items())[:3] == [
        ("name", name), ("negatives", 7), ("sampling", "frequency"),
    ]  # fmt: skip
    for word in ("negatives=many", "negatives=0", "sampling=often", "negative=3"):
        with pytest.raises(ConfigError, match=rf"objective\.{word.split('=')[0]}"):
            compose([f"objective={name}", f"objective.{word}"])


def test_gbce_calibrates_for_uniform_draws_only():
    """Its sampling rate is that of every item alike; refused before anything is built."""
    words = ["objective=gbce", "objective.sampling=frequency"]
    for wrong in (words, [*words, "objective.calibration=0.1"], words[::-1]):
        with pytest.raises(
            ConfigError, match=r"objective\.calibration=0 or objective\.sampling=un"
        ):
            compose(wrong)
    checks.check_pairs(compose([*words, "objective.calibration=0"]))
    checks.check_pairs(compose([words[0], "objective.calibration=0.1"]))


def test_a_missing_table_is_one_sentence():
    around, _ = world()
    objective = full_softmax.Objective("seen", False, 0.0, 9, False)
    with pytest.raises(ConfigError, match="table of item vectors"):
        objective(Scored(queries=vectors()[0]), some_batch(0), around)


# With an architecture


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "words",
    [
        ["tuning=frozen"],
        ["objective.encode_catalog=true"],
        ["objective.encode_catalog=true", "architecture.towers=separate"],
    ],
    ids=["kept", "encoded", "separate"],
)
def test_the_table_is_the_index_with_its_gradient(shop_words, words):
    """Loss and gradients are those of the whole catalog indexed at once."""
    asked = ["objective=full_softmax", "objective.over=catalog", "objective.chunk=7"]
    made = build.assemble(compose([*shop_words, *asked, *words]))
    model = made.recommender.eval()  # no dropout, which two passes would draw anew
    batch = next(iter(made.datamodule.train_dataloader()))
    with torch.no_grad():  # a first step away from heads of zero, behind which nothing learns
        for name, p in model.get_trained_parameters().items():
            if "head" in name or "lora_B" in name:
                p.normal_(std=0.05)
    objective, names = model.parts.objective, sorted(model.get_trained_parameters())
    own = [model.get_trained_parameters()[name] for name in names]
    loss = objective(model(batch), batch, model.get_objective_context())
    got = torch.autograd.grad(loss.total, own)
    every = torch.arange(30)
    logits = model.score(model(batch).queries, model.index(ItemBatch(every, ())))
    assert logits.shape == (len(batch.case), 30)
    target = batch.plan.items[batch.candidates[:, 0]]
    want = torch.autograd.grad(F.cross_entropy(logits, target, reduction="sum"), own)
    for name, ours, theirs in zip(names, got, want, strict=True):
        assert ours.abs().sum() > 0, name
        assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-3), name


def test_an_encoder_that_trains_is_refused_unless_asked_for(shop_words):
    words = [*shop_words, "objective=full_softmax"]
    with pytest.raises(ConfigError, match=r"encode_catalog=true to encode the whole catalog"):
        checks.check_pairs(compose(words))
    for allowed in (
        "tuning=frozen",
        "trainer.encoder_updates=half_epoch",
        "objective.encode_catalog=true",
    ):
        checks.check_pairs(compose([*words, allowed]))
    with pytest.raises(ConfigError, match="full_softmax needs table"):
        checks.check_pairs(
            compose([*words, "architecture=cross_encoder", "evaluation.protocol=candidates"])
        )


def test_every_text_of_a_step_counts_once(shop_words, tmp_path):
    """Backward encodes the catalog again, which is no second text."""
    words = ["objective=full_softmax", "objective.encode_catalog=true", "trainer.max_steps=1"]
    assert main([*shop_words, *words]) == 0
    made = build.assemble(compose([*shop_words, *words]))
    plan = len(next(iter(made.datamodule.train_dataloader())).plan.items)
    seen = int((made.recommender.parts.counts > 0).sum())
    (path,) = (tmp_path / "runs").glob("*/result.json")
    assert json.loads(path.read_text())["cost"]["texts"] == plan + seen


@pytest.mark.parametrize(
    "words",
    [
        ["objective=full_softmax", "trainer.encoder_updates=half_epoch"],
        ["objective=full_softmax", "tuning=frozen", "data.queries=all", "trainer.epochs=1"],
    ],
)
def test_the_command_trains_with_it(shop_words, words):
    assert main([*shop_words, *words]) == 0

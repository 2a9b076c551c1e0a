"""What a step holds in memory: less of it by option, and never another loss or gradient."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.catalog import Catalog, _gather_slices
from recsys.errors import ConfigError, DataError
from recsys.objectives import in_batch
from recsys.runtime.store import Store
from recsys.types import ItemBatch, Scored


@pytest.fixture
def words(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return [*shop_words, "encoder.chunk_tokens=16", "trainer.batch_size=40"]


def step(made, seed=3):
    """Loss, gradients by name, and the bytes that forward keeps for backward."""
    model, held = made.recommender.train(), {}
    parameters = {id(p.untyped_storage()) for p in model.parameters()}

    def pack(x):
        # A storage counts once however many views of it are kept; a parameter is there anyway.
        storage = x.untyped_storage()
        if id(storage) not in parameters:
            held[storage.data_ptr()] = storage.nbytes()
        return x

    batch = next(iter(made.datamodule.train_dataloader()))
    model.zero_grad()
    torch.manual_seed(seed)
    with saved_tensors_hooks(pack, lambda x: x):
        loss = model.parts.objective(model(batch), batch, model.parts.around(model.score))
    (loss.total / loss.count).backward()
    grads = {
        k: p.grad.clone() for k, p in model.get_trained_parameters().items() if p.grad is not None
    }
    return loss, grads, sum(held.values())


def assert_same(found, want, rtol=1e-5):
    assert found[0].count == want[0].count > 1
    torch.testing.assert_close(found[0].total, want[0].total, rtol=1e-5, atol=1e-6)
    assert found[1].keys() == want[1].keys()
    whole = torch.cat([g.flatten() for g in want[1].values()])
    error = torch.cat([(found[1][k] - g).flatten() for k, g in want[1].items()])
    assert whole.norm() > 0
    assert error.norm() < rtol * whole.norm()


def nudge(made):
    """Heads and added maps are zero at the start; their gradients would hide what lies below."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.recommender.get_trained_parameters().values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


WAYS = {
    "full": ["tuning=full"],
    "prefix": ["tuning=lora", "tuning.layers=1", "encoder.cache=true", "tuning.dropout=0.2"],
    "text": ["tuning=full", "architecture=two_tower", "architecture.user=text"],
    "cross": [
        "tuning=full",
        "architecture=cross_encoder",
        "evaluation.protocol=candidates",
        "evaluation.candidates=9",
        "objective=sampled_softmax",
        "objective.negatives=3",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_recomputed_micro_batches_change_nothing_but_memory(words, way):
    words = [*words, *WAYS[way], "regularization.dropout=0.3"]
    kept = step(nudge(build.assemble(compose(words))))
    made = nudge(build.assemble(compose([*words, "encoder.checkpoint_chunks=true"])))
    if way == "prefix":
        assert made.recommender.encoding.prefix is not None
    again = step(made)
    assert_same(again, kept)
    assert again[2] < 0.35 * kept[2]
    # Dropout did draw: another seed is another loss.
    assert step(made, seed=4)[0].total != again[0].total


def test_evaluation_recomputes_nothing(words):
    made = build.assemble(compose([*words, "encoder.checkpoint_chunks=true"]))
    encoder = made.recommender.encoder
    calls = []

    def part(x):
        calls.append(x)
        return x * x

    x = torch.ones(3, requires_grad=True)
    encoder.eval().run_checkpointed(part, x).sum().backward()
    with torch.no_grad():
        encoder.train().run_checkpointed(part, x)
    assert len(calls) == 2
    encoder.run_checkpointed(part, x).sum().backward()
    assert len(calls) == 4


SCORES = ["cosine", "dot", "mlp"]


@pytest.mark.parametrize("score", SCORES)
def test_blocks_of_the_softmax_change_nothing(words, score):
    words = [*words, "tuning=full", "architecture=two_tower", f"architecture.score={score}"]
    words += ["data.queries=all", "objective.logq=0.5", "objective.label_smoothing=0.1"]
    whole = step(nudge(build.assemble(compose([*words, "objective.chunk=0"]))))
    for chunk in (1, 7, 1000):
        block = step(nudge(build.assemble(compose([*words, f"objective.chunk={chunk}"]))))
        assert_same(block, whole)


def softmax(made, chunk, queries):
    """Total, gradients and kept bytes of random vectors against each other."""
    torch.manual_seed(0)
    data = made.datamodule
    batch = next(iter(data.train_dataloader()))
    times = queries // len(batch.case)
    batch = dataclasses.replace(
        batch,
        # As many columns as queries: the unique targets told apart would be few.
        plan=dataclasses.replace(batch.plan, first=None),
        query=batch.query.repeat(times, 1),
        candidates=batch.candidates.repeat(times, 1),
        case=batch.case.repeat(times),
    )
    q = torch.randn(len(batch.case), 32, requires_grad=True)
    v = torch.randn(len(batch.plan.items), 32, requires_grad=True)
    held = {}

    def pack(x):
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    model = made.recommender
    model.zero_grad()
    with saved_tensors_hooks(pack, lambda x: x):
        objective = in_batch.Objective(0.3, 0.0, chunk)
        loss = objective(Scored(queries=q, items=v), batch, model.parts.around(model.score))
    loss.total.backward()
    return loss, {"q": q.grad, "v": v.grad, "scale": model.log_scale.grad}, sum(held.values())


def test_a_block_of_logits_is_held_at_a_time(words, monkeypatch):
    made = build.assemble(compose(words))
    whole, block = softmax(made, 0, 800), softmax(made, 50, 800)
    assert_same(block, whole)
    assert block[2] < 0.2 * whole[2]
    # Small batches stay in one piece, bit by bit; large ones are cut without being asked.
    own = softmax(made, None, 800)
    assert own[2] == whole[2]
    assert torch.equal(own[0].total, whole[0].total)
    monkeypatch.setattr(in_batch, "WHOLE", 800 * 800 - 1)
    monkeypatch.setattr(in_batch, "BLOCK", 50 * 800)
    assert softmax(made, None, 800)[2] == block[2]


def test_the_mlp_holds_one_block_of_hidden_units(words):
    words = [*words, "architecture=two_tower", "architecture.score=mlp"]
    model = nudge(build.assemble(compose(words))).recommender
    torch.manual_seed(0)
    queries, items = torch.randn(90, 32, requires_grad=True), torch.randn(400, 32)
    every = model.pairs(queries[:, None], items[None])
    held = []

    def pack(x):
        held.append(x.numel())
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        scores = model.score(queries, items)
    assert max(held) < 90 * 400 * 4  # the hidden layer would be 90 x 400 x 256
    # Of equal order, as the scores are large: the factor goes to the queries first.
    products = model._scale(queries) @ items.T
    torch.testing.assert_close(scores, products + every)
    weight = torch.randn(90, 400)
    (got,) = torch.autograd.grad((scores * weight).sum(), queries)
    (want,) = torch.autograd.grad(((products + every) * weight).sum(), queries)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_a_block_below_zero_is_refused():
    with pytest.raises(ConfigError, match=r"objective\.chunk"):
        compose(["experiment=lora_two_tower", "objective.chunk=-1"])


@pytest.fixture
def catalog(tmp_path):
    texts = ["a bb ccc", "", "dd", "a a a a", "ccc"]
    return Catalog.from_texts(
        texts, lambda t: [[*map(len, x.split())] for x in t], "k", Store(tmp_path), 9
    )


@pytest.mark.parametrize("rows", [[3, 0, 0, 2], [1], [], [4, 1, 3]])
def test_tokens_gathered_on_a_device_are_those_of_the_files(catalog, rows):
    rows = torch.tensor(rows, dtype=torch.long)
    want = catalog.gather_tokens(rows)
    got = _gather_slices(catalog.get_device_ids(torch.device("cpu")), *catalog.locate_rows(rows))
    assert got.sizes == want.sizes
    assert got.values.dtype == want.values.dtype
    assert torch.equal(got.values, want.values)
    assert catalog.get_device_ids(torch.device("cpu")) is catalog.get_device_ids(
        torch.device("cpu")
    )


def test_a_device_is_not_asked_for_what_the_host_knew(catalog):
    """The meta device has no values: whoever asked it for them would fail here."""
    meta = torch.device("meta")
    plan = ItemBatch(torch.tensor([3, 0]), (4, 3)).to(meta)
    assert plan.items.device == meta
    got = catalog.gather_tokens(plan.rows, meta)
    assert (got.values.device, got.values.shape, got.sizes) == (meta, (7,), (4, 3))
    with pytest.raises(DataError, match="not in the catalog"):
        catalog.gather_tokens(torch.tensor([5]), meta)
    assert torch.equal(plan.to(meta).rows, torch.tensor([3, 0]))


def test_a_moved_batch_keeps_what_texts_are_gathered_by(words):
    made = build.assemble(compose([*words, "architecture=two_tower", "architecture.user=text"]))
    batch = next(iter(made.datamodule.train_dataloader()))
    texts = made.recommender.encoding.user_texts
    want = texts.compose_tokens(batch)
    moved = batch.to(torch.device("meta"))
    assert moved.history.device.type == "meta"
    assert moved.at_host is batch
    assert moved.plan.rows is batch.plan.items
    assert torch.equal(texts.compose_tokens(moved).values, want.values)
    assert moved.to(torch.device("meta")).at_host is batch
    # On the CPU nothing is copied or kept twice.
    same = batch.to(torch.device("cpu"))
    assert same.host is None
    assert same.plan.host is None
    assert same.at_host is same
    assert np.shares_memory(same.history.numpy(), batch.history.numpy())

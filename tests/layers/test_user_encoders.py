"""All positions in one pass are what each position is alone."""

import json

import pytest
import torch
from torch.nn import functional as F

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.examples import NOTHING
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.layers.user_encoders import CausalTransformer, GRUEncoder, HistoryPooling
from recsys.recommend.__main__ import main as recommend

KINDS = ["mean", "recency", "attention"]


def oracle(mix, items, history, query):
    """A weighted sum for each query over its own history, as written on paper."""
    row, prefix = query.unbind(1)
    history = history[row]
    place = torch.arange(history.shape[1])
    inside = (place < prefix[:, None]) & (history >= 0)
    logits = torch.zeros(history.shape, dtype=items.dtype)
    if mix.rate is not None:
        logits = -mix.rate * (prefix[:, None] - 1 - place).to(items.dtype)
    if mix.attend is not None:
        logits = logits + (items @ mix.attend)[history.clamp(min=0)]
    logits = logits.masked_fill(~inside, torch.finfo(logits.dtype).min)
    weights = logits.softmax(-1).masked_fill(~inside, 0.0)
    return F.embedding_bag(history.clamp(min=0), items, per_sample_weights=weights, mode="sum")


def some(lengths, width=16, items=30, seed=0):
    """Unit item vectors, padded histories, and a query at every position and before the first."""
    generator = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(items, width, generator=generator), dim=-1)
    longest = max(lengths)
    history = torch.randint(items, (len(lengths), longest), generator=generator)
    history[torch.arange(longest) >= torch.tensor(lengths)[:, None]] = -1
    query = [[b, p] for b, n in enumerate(lengths) for p in range(n + 1)]
    return vectors, history, torch.tensor(query)


def mix_of(kind, rate=0.3, width=16):
    mix = HistoryPooling(kind, width, rate)
    if mix.attend is not None:
        torch.nn.init.normal_(mix.attend, generator=torch.Generator().manual_seed(1))
    return mix


def outcome(mix, run, items, history, query):
    """Values and gradients by vectors and parameters."""
    items = items.clone().requires_grad_()
    mix.zero_grad()
    out = run(items, history, query)
    generator = torch.Generator().manual_seed(2)
    # A mean over queries, as a loss takes it: a gradient must not grow with their number.
    loss = (out * torch.randn(out.shape, generator=generator)).sum() / len(query)
    loss.backward()
    return [out.detach(), items.grad, *(p.grad.clone() for p in mix.parameters())]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.0, 0.3, -0.8, 5.0])
def test_all_positions_are_as_one_by_one(kind, rate):
    """Over several blocks of positions, also with a rate that weighs the oldest most."""
    mix = mix_of(kind, rate)
    data = some([70, 3, 0, 33, 32, 150])
    want = outcome(mix, lambda *x: oracle(mix, *x), *data)
    got = outcome(mix, mix, *data)
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_query_a_row_is_as_many(kind):
    mix, (items, history, query) = mix_of(kind), some([9, 3, 0, 12])
    want = mix(items, history, query)
    for chosen in ([9, 12, 14, 20], [0, 11, 14, 26], [3], []):
        few = torch.tensor(chosen, dtype=torch.long)
        got = mix(items, history, query[few])
        assert torch.allclose(got, want[few], atol=1e-6)


def causal(**options):
    torch.manual_seed(0)
    given = {"layers": 2, "heads": 4, "dropout": 0.2, "rate": 0.3} | options
    out = CausalTransformer(16, 20, **given)
    return out.eval()


def trained_causal(**options):
    """As `causal`, with an output map that is not zero."""
    out = causal(**options)
    torch.nn.init.normal_(out.close.out.weight)
    return out


def recurrent(**options):
    torch.manual_seed(0)
    return GRUEncoder(16, **({"layers": 2, "dropout": 0.2, "rate": 0.3} | options)).eval()


def trained_recurrent(**options):
    """As `recurrent`, with an output map that is not zero."""
    out = recurrent(**options)
    torch.nn.init.normal_(out.close.out.weight)
    return out


LEARNED = {
    "causal": trained_causal,
    "gru": trained_recurrent,
    "causal-alone": lambda: causal(rate=None),
    "gru-alone": lambda: recurrent(rate=None),
}
ALL = [*KINDS, *LEARNED]


def encoders():
    return [*map(mix_of, KINDS), *(make() for make in LEARNED.values())]


@pytest.mark.parametrize(
    ("start", "trained"), [(causal, trained_causal), (recurrent, trained_recurrent)]
)
def test_learned_encoders_begin_as_the_recency_mix(start, trained):
    items, history, query = some([9, 3, 0, 12])
    want = HistoryPooling("recency", 16, 0.3)(items, history, query)
    assert torch.equal(start()(items, history, query), want)
    assert not torch.allclose(trained()(items, history, query), want, atol=0.1)


@pytest.mark.parametrize("name", LEARNED)
def test_all_positions_in_one_pass_are_as_one_query_each(name):
    encoder, (items, history, query) = LEARNED[name](), some([9, 3, 0, 12])
    want = encoder(items, history, query)
    for at, (row, prefix) in enumerate(query.tolist()):
        alone = encoder(items, history[row : row + 1, :prefix], torch.tensor([[0, prefix]]))
        assert torch.allclose(alone[0], want[at], atol=1e-5)


def test_recurrent_units_are_those_of_the_paper():
    """One layer, step by step, by PyTorch's cell."""
    encoder, (items, history, query) = recurrent(layers=1, rate=None), some([5])
    cell = torch.nn.GRUCell(16, 16)
    cell.load_state_dict(
        {k.removesuffix("_l0"): v for k, v in encoder.layers[0].state_dict().items()}
    )
    state = torch.zeros(1, 16)
    for at in range(5):
        state = cell(encoder.enter(items[history[:, at]]), state)
        want = F.layer_norm(state, (16,))
        assert torch.allclose(encoder(items, history, query)[at + 1], want[0], atol=1e-5)


@pytest.mark.parametrize("lengths", [[5], [9, 3, 12]])
def test_the_causal_layers_are_those_of_pytorch(lengths):
    """Norms, positions, a causal mask, attention and a feed-forward map, all away from a start."""
    encoder, (items, history, query) = causal(rate=None), some(lengths)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in encoder.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=draw))
    x = F.layer_norm(items[history.clamp(min=0)], (16,), encoder.enter.weight, encoder.enter.bias)
    x = x + encoder.positions[: history.shape[1]]
    for ours in encoder.layers:
        layer = torch.nn.TransformerEncoderLayer(
            16, 4, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        ).eval()
        names = {
            "self_attn.in_proj_": ours.inputs,
            "self_attn.out_proj.": ours.attended,
            "linear1.": ours.inner,
            "linear2.": ours.outer,
            "norm1.": ours.attention_norm,
            "norm2.": ours.forward_norm,
        }
        layer.load_state_dict(
            {f"{name}{k}": v for name, own in names.items() for k, v in own.state_dict().items()}
        )
        mask = torch.nn.Transformer.generate_square_subsequent_mask(history.shape[1])
        x = layer(x, src_mask=mask, is_causal=True)
    x = F.layer_norm(x, (16,), encoder.close.norm.weight, encoder.close.norm.bias)
    got = encoder(items, history, query)
    for at, (row, prefix) in enumerate(query.tolist()):
        want = x[row, prefix - 1] if prefix else torch.zeros(16)
        assert torch.allclose(got[at], want, atol=1e-4), (row, prefix)


@pytest.mark.parametrize("encoder", encoders(), ids=ALL)
def test_neither_padding_nor_the_future_is_seen(encoder):
    items, history, query = some([9, 3, 0, 12])
    want = encoder(items, history, query)
    wider = F.pad(history, (0, 7), value=-1)
    assert torch.allclose(encoder(items, wider, query), want, atol=1e-5)
    early = query[:, 1] <= 5
    changed = torch.where(
        (torch.arange(12) >= 5) & (history >= 0), (history + 1) % len(items), history
    )
    got = encoder(items, changed, query)
    assert torch.allclose(got[early], want[early], atol=1e-6)
    assert not torch.allclose(got[~early], want[~early], atol=1e-3)
    alone = encoder(items, history[3:, :4], torch.tensor([[0, 4]]))
    at = int(((query[:, 0] == 3) & (query[:, 1] == 4)).nonzero())
    assert torch.allclose(alone[0], want[at], atol=1e-5)


@pytest.mark.parametrize("encoder", encoders(), ids=ALL)
@pytest.mark.parametrize("width", [0, 1, 5])
@pytest.mark.parametrize("items", [0, 4])
@pytest.mark.parametrize("queries", [0, 1, 3])
def test_an_empty_history_is_zero_and_leaves_no_parameter_out(encoder, width, items, queries):
    """Under DDP a rank with nothing but these must give a gradient, of zero, to everything."""
    encoder.zero_grad()
    vectors = torch.randn(items, 16)
    history = torch.full((2, width), -1)
    query = torch.zeros(queries, 2, dtype=torch.long)
    out = encoder(vectors, history, query)
    assert out.shape == (queries, 16)
    assert not out.any()
    if list(encoder.parameters()):
        out.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in encoder.parameters())


@pytest.mark.parametrize("encoder", encoders(), ids=ALL)
def test_autocast_keeps_the_sums_exact(encoder):
    items, history, query = some([9, 3, 0, 12])
    want = encoder(items, history, query)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = encoder(items, history, query)
    assert got.dtype == torch.float32
    assert torch.isfinite(got).all()
    exact = isinstance(encoder, HistoryPooling)
    assert torch.allclose(got, want, atol=1e-6 if exact else 0.2)


def test_dropout_acts_in_training_only():
    encoder, data = trained_causal(), some([9, 12])
    assert torch.equal(encoder(*data), encoder(*data))
    encoder.train()
    assert not torch.allclose(encoder(*data), encoder(*data), atol=1e-3)
    still = trained_causal(dropout=0.0).train()
    assert torch.equal(still(*data), still(*data))


def test_it_learns_what_no_weighted_mean_can():
    """The next item is where the walk goes on: it takes order, not only nearness."""
    torch.manual_seed(0)
    items = F.normalize(torch.randn(12, 16), dim=-1)
    start, step = torch.arange(12).repeat(2), torch.tensor([1, -1]).repeat_interleave(12)
    history = (start[:, None] + step[:, None] * torch.arange(5)) % 12
    query = torch.tensor([[row, prefix] for row in range(24) for prefix in range(2, 5)])
    target = history[query[:, 0], query[:, 1]]

    def share(encoder):
        optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
        for _ in range(60):
            loss = F.cross_entropy(10 * encoder(items, history, query) @ items.T, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(
            ((encoder(items, history, query) @ items.T).argmax(1) == target).float().mean()
        )

    assert share(causal(dropout=0.0)) > 0.95
    assert share(recurrent(dropout=0.0)) > 0.95
    assert share(mix_of("attention")) < 0.5


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def test_a_causal_run_recommends_for_anyone(shop_words, tmp_path, capsys):
    words = ["experiment=causal_two_tower", "trainer.max_steps=2", "data.queries=all"]
    assert main([*shop_words, *words]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "result.json").read_text())["test"]["cases"] == 40
    for ask in ("user=u3", "history=000,007", "text=red lamp"):
        capsys.readouterr()
        assert recommend([f"run={folder}", ask, "k=3"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("kind", ["recency", "attention", "causal", "gru"])
def test_a_text_asks_as_a_history_of_one_item(shop_words, kind):
    made = build.assemble(compose([*shop_words, f"architecture.history={kind}", "tuning=frozen"]))
    model = made.recommender.eval()
    if kind in ("causal", "gru"):
        torch.nn.init.normal_(model.mix.close.out.weight)
    import numpy as np

    batch = made.examples.make_serving_batch(np.array([4]))
    text = made.recommender.parts.texts[4]
    tokens = model.encoding.catalog.gather_tokens(torch.tensor([4]))
    with torch.no_grad():
        want = model.queries(batch, model.index(batch.plan))
        nothing = made.examples.make_serving_batch(np.empty(0, dtype=np.int64))
        assert torch.allclose(model.make_text_query(nothing, text, tokens), want, atol=1e-5)
        assert not model.queries(nothing, model.index(nothing.plan)).any()
    assert len(nothing.seen) == len(NOTHING)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["architecture.attention_heads=5"],
            "does not divide the item vectors' width of 32; set it to 4",
        ),
        (["architecture.user=text"], "set architecture.user=history"),
        (["architecture.dropout=1"], "from 0 to below 1"),
        (["architecture.layers=0"], "architecture.layers"),
        (["architecture.history=mean", "architecture.mix=false"], "goes with causal and gru"),
    ],
)
def test_what_cannot_be_is_refused(shop_words, words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build.assemble(compose([*shop_words, "architecture.history=causal", *words]))

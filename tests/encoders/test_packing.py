"""Packed texts give what padded ones give, in every family that can; the rest say why not."""

import inspect
import json

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    Gemma3TextConfig,
    Gemma3TextModel,
    GPT2Config,
    GPT2Model,
    MistralConfig,
    MistralModel,
    Qwen3Config,
    Qwen3Model,
)

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.encoders.attention import set_attention
from recsys.encoders.cut import SplitModel
from recsys.encoders.encoder import Encoder
from recsys.encoders.packing import attention, enabling, kernels
from recsys.encoders.packing.enabling import enable_packing
from recsys.encoders.packing.kernels import Kernel, bind_flash_kernel, bind_torch_kernel
from recsys.encoders.packing.layout import PackedLayout
from recsys.errors import ConfigError
from recsys.fit.__main__ import main as fit
from recsys.testing.shop import make_decoder_words
from tests.encoders.families import FAMILIES, OTHERS, SPECIALS, WHOLE, texts

GROUPS = {**WHOLE, "num_key_value_heads": 2, "head_dim": 8}
MIXED = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
PACKED = {
    **FAMILIES,
    "albert": OTHERS["albert"],
    "electra": OTHERS["electra"],
    "gpt2": lambda: GPT2Model(
        GPT2Config(vocab_size=50, n_embd=32, n_layer=3, n_head=4, n_positions=40)
    ),
    "mistral": lambda: MistralModel(MistralConfig(**GROUPS, sliding_window=4)),
    "qwen3, windows": lambda: Qwen3Model(
        Qwen3Config(**{**GROUPS, "num_hidden_layers": 4}, use_sliding_window=True, **MIXED)
    ),
    "gemma3": lambda: Gemma3TextModel(
        Gemma3TextConfig(**{**GROUPS, "num_hidden_layers": 4}, **MIXED)
    ),
}
LENGTHS = (5, 0, 30, 1, 12, 5)


def make_encoder(family: str, pooling: str = "mean", budget: int = 48) -> Encoder:
    torch.manual_seed(0)
    return Encoder({**PACKED, **OTHERS}[family](), SPECIALS, pooling, 34, budget).eval()


def make_pair_of(family: str, **how) -> tuple[Encoder, Encoder]:
    """The same model padded and packed."""
    padded, packed = make_encoder(family, **how), make_encoder(family, **how)
    assert "packed" in enable_packing(packed, "on")
    return padded, packed


def record_tokens(encoder: Encoder) -> list[torch.Size]:
    """Shapes of the token ids that the model reads from now on."""
    seen: list[torch.Size] = []
    table = encoder.model.get_input_embeddings()
    table.register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
    return seen


@pytest.mark.parametrize("family", PACKED)
def test_packed_texts_have_the_states_vectors_and_gradients_of_padded_ones(family: str) -> None:
    padded, packed = make_pair_of(family)
    tokens = texts(*LENGTHS)
    seen = record_tokens(packed)
    got, want = packed.compute_states(tokens), padded.compute_states(tokens)
    # Every place that the model saw is a token of a text.
    assert sum(shape.numel() for shape in seen) == sum(want.sizes)
    assert {shape[0] for shape in seen} == {1}
    assert max(shape[1] for shape in seen) > max(want.sizes)  # several texts in one row
    assert got.sizes == want.sizes
    torch.testing.assert_close(got.values, want.values, atol=1e-5, rtol=1e-5)
    weight = torch.randn(len(LENGTHS), 32, generator=torch.Generator().manual_seed(3))
    for encoder in (padded, packed):
        (encoder(tokens) * weight).sum().backward()
    torch.testing.assert_close(packed(tokens), padded(tokens), atol=1e-5, rtol=1e-5)
    one, other = (
        torch.cat([p.grad.flatten() for p in e.parameters() if p.grad is not None])
        for e in (packed, padded)
    )
    assert float(other.norm()) > 0
    assert float((one - other).norm() / other.norm()) < 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_decoder_that_sees_whole_texts_sees_them_packed(family: str) -> None:
    padded, packed = make_encoder(family), make_encoder(family)
    before = padded(texts(*LENGTHS))
    for encoder in (padded, packed):
        set_attention(encoder.model, "bidirectional", family)
    enable_packing(packed, "on")
    want = padded(texts(*LENGTHS))
    assert not torch.allclose(want, before, atol=1e-3)
    torch.testing.assert_close(packed(texts(*LENGTHS)), want, atol=1e-5, rtol=1e-5)


def test_a_decoder_with_windows_that_sees_both_sides_is_found_to_differ() -> None:
    # transformers' masks let such a window reach one token further than its attentions say.
    encoder = make_encoder("gemma3")
    set_attention(encoder.model, "bidirectional", "gemma3")
    with pytest.raises(ConfigError, match="Gemma3TextModel gives other states"):
        enable_packing(encoder, "on")


@pytest.mark.parametrize("pooling", ["cls", "last", "max", "weightedmean", "attention"])
def test_every_pooling_sees_the_texts_where_they_were(pooling: str) -> None:
    padded, packed = make_pair_of("qwen3", pooling=pooling)
    tokens = texts(*LENGTHS)
    torch.testing.assert_close(packed(tokens), padded(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama"])
def test_pairs_of_texts_are_packed_too(family: str) -> None:
    padded, packed = make_pair_of(family)
    first, second = texts(5, 0, 30), texts(4, 9)
    left, right = torch.tensor([0, 1, 2, 2, 0]), torch.tensor([0, 1, 0, 1, 1])
    seen = record_tokens(packed)
    got = packed.encode_pairs(first, second, left, right)
    want = padded.encode_pairs(first, second, left, right)
    assert {shape[0] for shape in seen} == {1}
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama", "qwen3, windows"])
def test_layers_above_kept_states_read_them_packed(family: str) -> None:
    encoder = make_encoder(family, budget=400)
    encoder.lowest_trained = 2
    tokens = texts(*LENGTHS)
    (chunk,) = encoder.make_micro_batches(tokens)
    split = SplitModel(encoder)
    kept = split.run_below(chunk.ids, chunk.mask)
    want = split.run_above(kept, chunk.mask)
    enable_packing(encoder, "on")
    shapes = []
    stack = (
        encoder.model.layers if hasattr(encoder.model, "layers") else encoder.model.encoder.layer
    )
    stack[-1].register_forward_hook(
        lambda module, args, out: shapes.append((out if torch.is_tensor(out) else out[0]).shape)
    )
    got = SplitModel(encoder).run_above(kept, chunk.mask, chunk.lengths)
    assert torch.Size([1, sum(chunk.lengths), 32]) in shapes
    torch.testing.assert_close(got[chunk.mask], want[chunk.mask], atol=1e-5, rtol=1e-5)


def test_checkpointed_micro_batches_are_packed_in_both_passes() -> None:
    plain, again = make_pair_of("bert")[1], make_pair_of("bert")[1]
    again.checkpoint_chunks = True
    for encoder in (plain, again):
        encoder.train()
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        encoder(texts(*LENGTHS)).square().sum().backward()
    for a, b in zip(plain.parameters(), again.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5)


def test_the_budget_is_of_real_tokens_and_bounds_the_padded_form() -> None:
    padded, packed = make_pair_of("bert", budget=40)
    lengths = [3] * 9 + [13]
    assert list(padded.plan_micro_batches(lengths)) == [tuple(range(9)), (9,)]
    assert list(packed.plan_micro_batches(lengths)) == [tuple(range(10))]
    # 38 real tokens, and 10 x 30 places of the padded form are more than 4 x 40
    lengths = [1] * 8 + [30]
    assert list(packed.plan_micro_batches(lengths)) == [tuple(range(8)), (8,)]
    assert list(packed.plan_micro_batches([60, 60])) == [(0,), (1,)]


# The kernels


def attend_in_a_loop(q, k, v, starts, longest, scale, causal, before):
    """Attention of one text after the other, by its definition."""
    assert max(starts.diff().tolist()) == longest
    out = []
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        one = [x[begin:end].transpose(0, 1) for x in (q, k, v)]
        ahead = torch.arange(end - begin)[:, None] - torch.arange(end - begin)
        seen = ahead >= 0 if causal else ahead == ahead
        if before >= 0:
            seen = seen & (ahead.abs() <= before)
        weight = (
            (one[0] @ one[1].transpose(1, 2) * scale).masked_fill(~seen, -torch.inf).softmax(-1)
        )
        out.append((weight @ one[2]).transpose(0, 1))
    return torch.cat(out)


def varlen_of_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)
):
    """torch's function of 2.11 on any device: heads are as many, and (-1, 0) is causal."""
    assert query.shape == key.shape == value.shape
    assert cu_seq_q is cu_seq_k
    assert max_q == max_k
    causal = window_size[1] == 0
    return attend_in_a_loop(query, key, value, cu_seq_q, max_q, scale, causal, window_size[0])


def varlen_of_2_13(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
):
    """The same of 2.13, which takes fewer heads of keys when told so."""
    repeats = query.shape[1] // key.shape[1]
    assert enable_gqa == (repeats > 1)
    key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
    return varlen_of_2_11(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size
    )


def flash_of_2(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_q, max_k, dropout_p, softmax_scale, causal, window_size
):
    """flash-attn's, which takes fewer heads of keys as they are."""
    assert dropout_p == 0
    assert causal == (window_size[1] == 0) or window_size == (0, 0)
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    return attend_in_a_loop(q, k, v, cu_seqlens_q, max_q, softmax_scale, causal, window_size[0])


BINDINGS = {
    "torch 2.11": bind_torch_kernel(varlen_of_2_11),
    "torch 2.13": bind_torch_kernel(varlen_of_2_13),
    "flash-attn": bind_flash_kernel(flash_of_2),
}


@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("binding", BINDINGS)
def test_kernels_are_asked_for_what_padding_gives(binding, heads, causal, window) -> None:
    lengths, generator = (3, 1, 7), torch.Generator().manual_seed(0)
    layout = PackedLayout.build(lengths, 7, 0, torch.device("cpu"))
    q = torch.randn(11, 4, 8, generator=generator)
    k, v = (torch.randn(11, heads, 8, generator=generator) for _ in range(2))
    got = BINDINGS[binding](q, k, v, layout.starts, 7, 0.4, 0.0, causal, window)
    want = attention.attend_padded(q, k, v, layout, 0.4, 0.0, causal, window)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


def test_the_installed_torch_takes_what_is_asked_of_it() -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen").varlen_attn
    ours = set(inspect.signature(varlen_of_2_11).parameters)
    assert ours <= set(inspect.signature(varlen).parameters)
    kernel = kernels.find_kernel()
    assert kernel is not None
    assert kernel.name == "torch.nn.attention.varlen"


def test_the_kernel_runs_where_it_can_and_gives_the_same_through_a_model(monkeypatch) -> None:
    calls = []

    def varlen(*args, **how):
        calls.append(how["window_size"])
        return varlen_of_2_13(*args, **how)

    kernel = Kernel("stand-in", False, bind_torch_kernel(varlen))
    for family, windows in (("llama", {(-1, 0)}), ("modernbert", {(4, 4), (-1, -1)})):
        padded, packed = make_pair_of(family)
        tokens = texts(*LENGTHS)
        monkeypatch.setattr(attention, "choose_kernel", lambda *_: kernel)
        got = packed(tokens)
        assert set(calls) == windows
        torch.testing.assert_close(got, padded(tokens), atol=1e-5, rtol=1e-5)
        calls.clear()
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("width", "dropout", "drops", "taken"),
    [
        (64, 0.0, False, True),
        (64, 0.1, False, False),
        (64, 0.1, True, True),
        (12, 0.0, True, False),
    ],
)
def test_a_kernel_says_what_it_takes(width, dropout, drops, taken) -> None:
    assert Kernel("any", drops, bind_torch_kernel(varlen_of_2_13)).takes(width, dropout) is taken


def test_dropped_attention_weights_are_dropped_when_packed() -> None:
    layout = PackedLayout.build((3, 5), 5, 0, torch.device("cpu"))
    q, k, v = (torch.randn(8, 2, 8) for _ in range(3))
    torch.manual_seed(0)
    one = attention.attend_padded(q, k, v, layout, None, 0.5, False, None)
    two = attention.attend_padded(q, k, v, layout, None, 0.5, False, None)
    assert not torch.allclose(one, two)


# What cannot be packed


@pytest.mark.parametrize("family", ["mpnet", "xlnet", "deberta"])
def test_a_model_that_cannot_is_named_and_stays_padded(family: str, monkeypatch) -> None:
    encoder, tokens = make_encoder(family), texts(*LENGTHS)
    want = encoder(tokens)
    name = type(encoder.model).__name__
    with pytest.raises(ConfigError, match=f"encoder.packing=on: {name} .*set it to off"):
        enable_packing(encoder, "on")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert f"padded, not packed, as {name}" in enable_packing(encoder, "auto")
    assert encoder.packing is None
    torch.testing.assert_close(encoder(tokens), want)


def test_a_model_whose_attention_looks_elsewhere_stays_padded(monkeypatch) -> None:
    def look_everywhere(q, k, v, layout, *how):
        parts = (x.transpose(0, 1)[None] for x in (q, k, v))
        return F.scaled_dot_product_attention(*parts)[0].transpose(0, 1)

    monkeypatch.setattr(attention, "attend_padded", look_everywhere)
    with pytest.raises(ConfigError, match="BertModel gives other states for packed texts"):
        enable_packing(make_encoder("bert"), "on")


def test_a_window_that_is_wrong_is_found(monkeypatch) -> None:
    real = attention.attend_padded
    monkeypatch.setattr(
        attention, "attend_padded", lambda *a: real(*a[:-1], None if a[-1] is None else a[-1] + 1)
    )
    with pytest.raises(ConfigError, match="other states"):
        enable_packing(make_encoder("mistral"), "on")
    enable_packing(make_encoder("llama"), "on")


def test_auto_leaves_a_cpu_as_it_is(monkeypatch) -> None:
    encoder = make_encoder("bert")
    assert enable_packing(encoder, "auto") == enable_packing(encoder, "off") == ""
    assert encoder.packing is None
    assert encoder.model.config._attn_implementation == "sdpa"
    # With a GPU in the machine, what is computed on the CPU or in fp32 is padded as ever.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(enabling, "find_kernel", lambda: Kernel("any", False, varlen_of_2_13))
    assert "packed" in enable_packing(encoder, "auto")
    assert encoder.packing is not None
    assert not encoder.packs
    seen = record_tokens(encoder)
    torch.testing.assert_close(encoder(texts(*LENGTHS)), make_encoder("bert")(texts(*LENGTHS)))
    assert {shape[0] for shape in seen} != {1}


# The command


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_run_with_packed_texts_has_the_losses_and_metrics_of_one_with_padded_ones(
    shop_words, tmp_path, monkeypatch, capsys, tuning
) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    results = {}
    for packing in ("off", "on"):
        words = [*shop_words, f"tuning={tuning}", "regularization.dropout=0", "trainer.epochs=1"]
        words += [f"encoder.packing={packing}", f"output={tmp_path / packing}"]
        assert fit(words) == 0
        (folder,) = (tmp_path / packing).iterdir()
        results[packing] = json.loads((folder / "result.json").read_text())
    assert "texts are packed" in capsys.readouterr().err
    for name, value in results["off"]["test"].items():
        assert results["on"]["test"][name] == pytest.approx(value, abs=1e-6), name


def test_prefix_tuning_says_that_it_cannot_be_packed(shop_words) -> None:
    run = compose([*shop_words, "tuning=prefix", "encoder.packing=on"])
    with pytest.raises(ConfigError, match=r"encoder.packing=on: .*learned keys before its tokens"):
        build.assemble(run)


def test_prompts_are_padded_also_where_single_texts_are_packed(
    shop_words, tiny_decoder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = [*shop_words, *make_decoder_words(tiny_decoder), "architecture=prompt"]
    words += ["objective=bce", "evaluation.protocol=candidates", "evaluation.candidates=9"]
    scores = []
    for packing in ("off", "on"):
        made = build.assemble(compose([*words, f"encoder.packing={packing}"]))
        assert made.recommender.encoder.packs == (packing == "on")
        batch = next(iter(made.datamodule.train_dataloader()))
        scores.append(made.recommender.eval()(batch).scores)
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-5)

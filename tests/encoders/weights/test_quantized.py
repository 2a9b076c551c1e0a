"""Weights as codes: what they stand for, exactly the same in every pass, and QLoRA on top."""

import copy
import importlib.util

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from recsys.encoders.pretrained.load import load_pretrained
from recsys.encoders.weights import quantized
from recsys.encoders.weights.precision import compute_weights_mb
from recsys.encoders.weights.quantized import QuantizedLinear
from recsys.errors import ConfigError
from recsys.export.__main__ import main as export
from recsys.fit.__main__ import main as fit
from recsys.recommender.flops import probe
from recsys.testing.shop import make_decoder_words
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.run import load
from recsys.tuning import adapter, frozen, full, ia3, lora, peft, prefix
from tests.encoders.decoders import write_decoder
from tests.encoders.families import texts

pytest.importorskip("bitsandbytes")
KINDS = ("nf4", "int8")
each_kind = pytest.mark.parametrize("kind", KINDS)
LARGEST = {"nf4": 0.153, "int8": 0.005}
"""Of an error, as a share of the largest weight beside it: half the widest step between codes."""


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return str(write_decoder(tmp_path_factory.mktemp("decoder"), "qwen3"))


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def read(folder, kind, **how):
    return load_pretrained(
        str(folder), **{"pooling": "mean", "max_length": 16, "quantize": kind, **how}
    )


def tokens():
    out = texts(3, 1, 7, 5)
    out.values.remainder_(14)
    return out


@each_kind
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_codes_stand_for_the_weights_within_a_step(family, kind, tmp_path):
    folder = write_decoder(tmp_path, family)
    plain, coded = read(folder, "none"), read(folder, kind)
    own = dict(plain.encoder.model.named_modules())
    maps = {n: m for n, m in coded.encoder.model.named_modules() if isinstance(m, QuantizedLinear)}
    assert len(maps) == (12 if family == "gpt2" else 21)
    for name, module in maps.items():
        want = own[name].weight.T if family == "gpt2" else own[name].weight
        off = (module.make_weight(torch.float32) - want).abs().max() / want.abs().max()
        assert 0 < off <= LARGEST[kind]
    whole, size = (compute_weights_mb(each.encoder.model) for each in (plain, coded))
    numbers = sum(m.in_features * m.out_features for m in maps.values())
    rows = sum(m.out_features for m in maps.values())
    held = numbers / 2 + 4 * numbers / 64 if kind == "nf4" else numbers + 4 * rows
    assert size == pytest.approx(whole - (4 * numbers - held) / 1e6)
    assert f"weights in {kind} (the rest in fp32): {size:.0f} MB" in coded.line
    assert quantized.count_parameters(coded.encoder) == quantized.count_parameters(plain.encoder)


@torch.no_grad()
@each_kind
def test_a_text_has_the_vector_of_the_weights_that_codes_stand_for_in_any_batch(kind, decoder):
    encoder = read(decoder, kind).encoder
    got = encoder.eval()(tokens())
    assert encoder.train()(tokens()).equal(got)
    alone = torch.cat([encoder(type(tokens()).from_sequences([t])) for t in tokens().split()])
    torch.testing.assert_close(alone, got, atol=1e-6, rtol=1e-5)
    assert copy.deepcopy(encoder)(tokens()).equal(got)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    other = read(decoder, kind).encoder
    other.load_state_dict(state)
    assert other(tokens()).equal(got)
    encoder.restore_precision()
    assert not quantized.is_quantized(encoder.model)
    torch.testing.assert_close(encoder(tokens()), got, atol=1e-6, rtol=1e-5)


@each_kind
def test_gradients_are_those_of_plain_weights_and_scales_stay_in_fp32(kind, decoder):
    encoder = read(decoder, kind).encoder
    module = next(m for m in encoder.model.modules() if isinstance(m, QuantizedLinear))
    plain = nn.Linear(module.in_features, module.out_features, bias=False)
    plain.weight.data = module.make_weight(torch.float32)
    grads = []
    for linear in (module, plain):
        x = torch.linspace(-1, 1, 3 * module.in_features).view(3, -1).requires_grad_()
        linear(x).pow(2).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)
    scale = module.scale.clone()
    module.to(torch.bfloat16)
    assert module.scale.equal(scale)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(torch.ones(1, module.in_features)).dtype == torch.bfloat16


METHODS = {
    "lora": lambda e: lora.apply(e, lora.Config(rank=2)),
    "ia3": lambda e: ia3.apply(e, ia3.Config()),
    "adapter": lambda e: adapter.apply(e, adapter.Config(width=4)),
    "prefix": lambda e: prefix.apply(e, prefix.Config(length=3)),
    "frozen": lambda e: frozen.apply(e, frozen.Config()),
}


@each_kind
@pytest.mark.parametrize("method", METHODS)
def test_methods_that_add_train_what_they_add_and_count_as_with_plain_weights(
    method, kind, decoder
):
    encoder, plain = read(decoder, kind).encoder, read(decoder, "none").encoder
    before = encoder.eval()(tokens()).detach()
    tuned = METHODS[method](encoder)
    METHODS[method](plain)
    assert probe(encoder, None).token == probe(plain, None).token
    if tuned.identical:
        torch.testing.assert_close(encoder.eval()(tokens()), before, atol=1e-6, rtol=1e-5)
    if not tuned.trained:
        return
    own = dict(encoder.named_parameters())
    start = {name: p.detach().clone() for name, p in own.items()}
    optimizer = torch.optim.SGD([own[name] for name in tuned.trained], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        (encoder.train()(tokens()) - 1).square().mean().backward()
        optimizer.step()
    moved = {name for name, p in own.items() if not p.equal(start[name])}
    assert moved
    assert moved <= tuned.trained
    after = encoder.eval()(tokens()).detach()
    if tuned.merge is not None:
        tuned.merge()
        assert not quantized.is_quantized(encoder.model)
        torch.testing.assert_close(encoder(tokens()), after, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (lambda e: full.apply(e, full.Config()), r"as codes, which cannot train; choose"),
        (lambda e: lora.apply(e, lora.Config(dora=True)), r"tuning=lora: DoRA reads the weights"),
        (lambda e: peft.apply(e, peft.Config(method="vera")), r"reads the weights that it chang"),
    ],
)
def test_methods_that_need_the_weights_are_refused(apply, words, decoder):
    with pytest.raises(ConfigError, match=words):
        apply(read(decoder, "nf4").encoder)


def test_a_library_that_is_missing_or_does_not_work_is_one_error(
    decoder, shop_words, tmp_path, monkeypatch, capsys
):
    import bitsandbytes

    words = [*shop_words, f"encoder.model={decoder}", "encoder.quantize=nf4"]
    with monkeypatch.context() as patch:
        patch.setattr(bitsandbytes.functional, "quantize_4bit", lambda *_, **__: 1 / 0)
        with pytest.raises(ConfigError, match=r"bitsandbytes does not work on cpu here \(division"):
            read(decoder, "nf4")
    assert fit([*words, "tuning=full"]) == 2
    assert "encoder.quantize holds" in capsys.readouterr().err
    found = importlib.util.find_spec
    missing = {"bitsandbytes": None}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda n, *m: missing.get(n, n) and found(n, *m)
    )
    assert fit([*words, "data.source.items=missing.csv"]) == 2  # before data is read
    assert "needs bitsandbytes: pip install 'recsys[quantize]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nf4", ["tuning=lora", "tuning.layers=1"]),
        slow("int8", ["tuning=lora", "architecture.towers=separate"]),
        slow("nf4", ["tuning=adapter", "encoder.dtype=bf16"]),
        slow("int8", ["tuning=frozen", "architecture.heads=true"]),
    ],
)
def test_a_run_is_restored_and_what_leaves_it_has_plain_weights(
    kind, words, decoder, shop_words, tmp_path, monkeypatch
):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    lists = []
    for cache in ("true", "false"):
        output = tmp_path / cache
        own = [f"encoder.model={decoder}", f"encoder.quantize={kind}", f"output={output}"]
        more = ["trainer.epochs=1", "encoder.pooling=last", f"encoder.cache={cache}"]
        assert fit([*shop_words, *own, *words, *more]) == 0
        (folder,) = output.iterdir()
        asked = {"texts": ["red lamp", "blue chair"], "k": 30}
        lists.append(load(folder).recommend(**asked).sort("query", "item"))
        if words[0] != "tuning=frozen":
            state = load_file(folder / "checkpoints" / "best.safetensors")
            assert {value.dtype for value in state.values()} == {torch.float32}
    rounded = "encoder.dtype=bf16" in words
    spread = np.ptp(lists[0]["score"].to_numpy())
    close = {"atol": (0.05 if rounded else 1e-5) * spread}
    np.testing.assert_allclose(lists[0]["score"], lists[1]["score"], **close)
    assert export([f"run={folder}", f"to={tmp_path / 'b'}", "format=bundle"]) == 0
    bundle = open_bundle(tmp_path / "b").recommend(**asked).sort("query", "item")
    np.testing.assert_allclose(bundle["score"], lists[1]["score"], **close)
    out = tmp_path / "st"
    told = [f"run={folder}", f"to={out}", "format=sentence_transformers"]
    assert export(told) == (2 if words[0] == "tuning=adapter" else 0)
    if words[0] != "tuning=adapter":
        kinds = {value.dtype for value in load_file(out / "model.safetensors").values()}
        assert kinds == {torch.float32}


@pytest.mark.parametrize(
    "words",
    [
        ["encoder.quantize=nf4"],
        slow(["encoder.quantize=int8", "encoder.dtype=bf16", "encoder.cache=false"]),
        slow(["encoder.dtype=bf16", "tuning.layers=1"]),
    ],
)
def test_a_decoder_with_codes_answers_prompts(words, tiny_decoder, shop_words, tmp_path):
    own = [*make_decoder_words(tiny_decoder), "architecture=prompt", "objective=bce"]
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=9", "evaluation.max_cases=12"]
    assert fit([*shop_words, *own, *lists, "tuning=lora", "trainer.max_steps=2", *words]) == 0

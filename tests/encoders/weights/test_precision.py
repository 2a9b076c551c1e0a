"""Weights in bf16: half the memory, near the same vectors, and what trains is in fp32."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from recsys.encoders.cut import SplitModel
from recsys.encoders.pretrained.load import load_pretrained
from recsys.encoders.weights import precision
from recsys.export.__main__ import main as export
from recsys.fit.__main__ import main as fit
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.run import load
from recsys.tuning import adapter, full, ia3, lora, prefix
from tests.encoders.decoders import write_decoder
from tests.encoders.families import texts

SHAPES = {"pooling": "mean", "max_length": 16}
METHODS = {
    "lora": lambda e: lora.apply(e, lora.Config(rank=2, layers=1)),
    "adapter": lambda e: adapter.apply(e, adapter.Config(width=4, layers=1)),
    "ia3": lambda e: ia3.apply(e, ia3.Config(layers=1)),
    "prefix": lambda e: prefix.apply(e, prefix.Config(length=3, layers=1)),
    "full": lambda e: full.apply(e, full.Config(layers=1)),
}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return str(write_decoder(tmp_path_factory.mktemp("decoder"), "qwen3"))


def cosines(one, other):
    return torch.nn.functional.cosine_similarity(one, other).min()


@torch.no_grad()
def test_weights_are_held_in_half_the_memory_and_give_near_the_same_vectors(decoder):
    whole = load_pretrained(decoder, **SHAPES)
    half = load_pretrained(decoder, **SHAPES, dtype="bf16")
    assert {p.dtype for p in whole.encoder.model.parameters()} == {torch.float32}
    assert {p.dtype for p in half.encoder.model.parameters()} == {torch.bfloat16}
    sizes = [precision.compute_weights_mb(each.encoder.model) for each in (whole, half)]
    assert sizes[0] == 2 * sizes[1]
    assert f"weights in bf16: {sizes[1]:.0f} MB, in fp32 {sizes[0]:.0f} MB" in half.line
    tokens = texts(3, 1, 7)
    tokens.values.remainder_(14)
    first, second = (each.encoder.eval()(tokens) for each in (whole, half))
    assert first.dtype == second.dtype == torch.float32
    assert 0.999 < cosines(first, second) < 1
    half.encoder.restore_precision()
    rounded = half.encoder(tokens)
    assert cosines(first, rounded) > cosines(first, second)


def test_auto_is_what_most_of_the_file_is(decoder, tmp_path):
    assert not load_pretrained(decoder, **SHAPES, dtype="auto").encoder.in_bf16
    assert write_decoder(tmp_path, "qwen3") == tmp_path
    AutoModel.from_pretrained(decoder, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert load_pretrained(str(tmp_path), **SHAPES, dtype="auto").encoder.in_bf16
    assert not load_pretrained(str(tmp_path), **SHAPES).encoder.in_bf16


@pytest.mark.parametrize("method", METHODS)
def test_what_trains_is_in_fp32_and_the_kept_layers_give_the_same(decoder, method):
    encoder = load_pretrained(decoder, **SHAPES, dtype="bf16").encoder
    tuned = METHODS[method](encoder)
    own = dict(encoder.named_parameters())
    assert {own[name].dtype for name in tuned.trained} == {torch.float32}
    frozen = {p.dtype for name, p in own.items() if name not in tuned.trained}
    assert torch.bfloat16 in frozen
    split = SplitModel(encoder.eval())
    tokens = texts(3, 7, 5)
    tokens.values.remainder_(14)
    (chunk,) = encoder.make_micro_batches(tokens)
    kept = split.run_below(chunk.ids, chunk.mask).float().to(split.dtype)
    got = split.run_above(kept, chunk.mask)[chunk.mask]
    want = encoder.run_micro_batch(chunk)[chunk.mask]
    assert got.equal(want)
    encoder.train()
    encoder(tokens).square().sum().backward()
    assert all(own[name].grad.dtype == torch.float32 for name in tuned.trained)
    assert any(own[name].grad.any() for name in tuned.trained)


@pytest.mark.parametrize(
    "words",
    [["tuning=lora", "tuning.layers=1"], pytest.param(["tuning=adapter"], marks=pytest.mark.slow)],
)
def test_a_run_is_near_that_of_fp32_and_so_is_what_leaves_it(
    words, decoder, shop_words, tmp_path, monkeypatch
):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    made = {}
    for dtype in ("fp32", "bf16"):
        output = tmp_path / dtype
        own = [f"encoder.model={decoder}", f"encoder.dtype={dtype}", f"output={output}"]
        assert fit([*shop_words, *own, *words, "trainer.epochs=1", "encoder.pooling=last"]) == 0
        (folder,) = output.iterdir()
        made[dtype] = load(folder)
    run = made["bf16"]
    state = load_file(run.folder / "checkpoints" / "best.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float32}
    asked = {"texts": ["red lamp", "blue chair"], "k": 30}
    lists = {name: each.recommend(**asked).sort("query", "item") for name, each in made.items()}
    spread = np.ptp(lists["fp32"]["score"].to_numpy())
    close = {"atol": 0.05 * spread}
    np.testing.assert_allclose(lists["bf16"]["score"], lists["fp32"]["score"], **close)
    assert export([f"run={run.folder}", f"to={tmp_path / 'b'}", "format=bundle"]) == 0
    bundle = open_bundle(tmp_path / "b").recommend(**asked).sort("query", "item")
    np.testing.assert_allclose(bundle["score"], lists["bf16"]["score"], **close)
    if words[0] == "tuning=lora":
        out = tmp_path / "st"
        assert export([f"run={run.folder}", f"to={out}", "format=sentence_transformers"]) == 0
        kinds = {value.dtype for value in load_file(out / "model.safetensors").values()}
        assert kinds == {torch.float32}

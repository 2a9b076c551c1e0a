from collections.abc import Callable

import pytest
import torch

from recsys.encoders.encoder import Encoder
from recsys.encoders.layers import find_layer_stack
from recsys.encoders.peft import injection
from recsys.encoders.peft.lora_linear import FusedLoraLinear
from recsys.errors import ConfigError
from recsys.tuning import adapter, frozen, full, lora
from recsys.types import Ragged, Tuned
from tests.encoders.families import FAMILIES, texts, tiny

Apply = Callable[[Encoder], Tuned]
# name: (method, lowest layer of three, anchor)
TUNINGS: dict[str, tuple[Apply, int, str]] = {
    "full": (lambda e: full.apply(e, full.Config()), 0, "pretrained"),
    "full1": (lambda e: full.apply(e, full.Config(layers=1)), 2, "pretrained"),
    "embeddings": (lambda e: full.apply(e, full.Config(embeddings=True)), -1, "pretrained"),
    "frozen": (lambda e: frozen.apply(e, frozen.Config()), 3, "pretrained"),
    "lora": (lambda e: lora.apply(e, lora.Config(rank=2)), 0, "zero"),
    "lora2": (
        lambda e: lora.apply(
            e, lora.Config(rank=2, layers=2, targets="attention", rslora=True, dropout=0.1)
        ),
        1,
        "zero",
    ),
    "dora": (lambda e: lora.apply(e, lora.Config(rank=2, dora=True, layers=1)), 2, "zero"),
    "pfeiffer": (lambda e: adapter.apply(e, adapter.Config(width=4)), 0, "zero"),
    "houlsby1": (
        lambda e: adapter.apply(
            e, adapter.Config(width=4, layers=1, placement="houlsby", activation="relu")
        ),
        2,
        "zero",
    ),
}
each = pytest.mark.parametrize("name", TUNINGS)
each_family = pytest.mark.parametrize("family", FAMILIES)


def step(encoder: Encoder, tokens: Ragged) -> None:
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.5)
    target = torch.randn(len(tokens), 32, generator=torch.Generator().manual_seed(2))
    # Two steps: the factor in front of a zero one gets its first gradient in the second.
    for _ in range(2):
        optimizer.zero_grad()
        loss = (encoder(tokens) - target).square().mean()
        if loss.requires_grad:
            loss.backward()
            optimizer.step()


@each
@each_family
def test_start_is_identical_and_only_trained_changes(family: str, name: str) -> None:
    tokens = texts(5, 0, 30, 1, 12)
    apply, lowest, anchor = TUNINGS[name]
    before = tiny(family).eval()(tokens)
    encoder = tiny(family)
    pretrained = {n for n, _ in encoder.named_parameters()}
    tuned = apply(encoder)
    encoder.eval()
    assert tuned.identical
    assert torch.equal(encoder(tokens), before)
    assert (tuned.lowest_layer, tuned.anchor) == (lowest, anchor)
    assert encoder.lowest_trained == lowest
    start = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    assert tuned.trained == {n for n, p in encoder.named_parameters() if p.requires_grad}
    # PEFT renames the map that it wraps; what is new is what no old name explains.
    assert tuned.added == {n for n in start if n.replace(".base_layer.", ".") not in pretrained}
    step(encoder.train(), tokens)
    changed = {n for n, p in encoder.named_parameters() if not torch.equal(p, start[n])}
    # Key biases shift all logits of a row alike, so that their gradient may round to zero; a
    # row of an embedding that no text uses does not change, the table does.
    idle = {n for n in tuned.trained - changed if not n.endswith(".bias")}
    unused = {n for n in idle if "token_type" in n}
    assert changed <= tuned.trained
    assert idle == unused
    assert tuned.no_decay == {n for n in tuned.trained if start[n].ndim == 1}


@each
@each_family
def test_trained_tensors_alone_restore_the_output(family: str, name: str) -> None:
    tokens = texts(5, 0, 12)
    apply = TUNINGS[name][0]
    encoder = tiny(family)
    tuned = apply(encoder)
    step(encoder, tokens)
    kept = {n: p.detach().clone() for n, p in encoder.named_parameters() if n in tuned.trained}
    fresh = tiny(family)
    apply(fresh)
    missing, unexpected = fresh.load_state_dict(kept, strict=False)
    assert not unexpected
    assert not set(missing) & tuned.trained
    assert torch.equal(fresh.eval()(tokens), encoder.eval()(tokens))


@pytest.mark.parametrize("name", ["lora", "lora2", "dora"])
@each_family
def test_merging_keeps_the_output_and_restores_the_names(family: str, name: str) -> None:
    tokens = texts(5, 0, 12)
    encoder = tiny(family)
    untouched = encoder(tokens)
    tuned = TUNINGS[name][0](encoder)
    step(encoder, tokens)
    before = encoder.eval()(tokens)
    assert (before - untouched).abs().max() > 1e-3
    assert tuned.merge is not None
    tuned.merge()
    torch.testing.assert_close(encoder(tokens), before, atol=1e-5, rtol=1e-5)
    assert set(encoder.state_dict()) == set(tiny(family).state_dict())


@each
def test_frozen_layers_stay_in_eval_mode(name: str) -> None:
    encoder = tiny("bert")
    tuned = TUNINGS[name][0](encoder)
    encoder.train()
    for i, layer in enumerate(find_layer_stack(encoder.model)[1]):
        assert {m.training for m in layer.modules()} == {i >= tuned.lowest_layer}
    assert encoder.model.embeddings.dropout.training == (tuned.lowest_layer < 0)


def test_every_linear_map_of_lora_is_the_fast_one() -> None:
    encoder = tiny("bert")
    lora.apply(encoder, lora.Config(layers=2))
    maps = [module for _, module in injection.list_wrapped_layers(encoder)]
    assert len(maps) == 2 * 6
    assert all(type(module) is FusedLoraLinear for module in maps)


def test_a_learned_pooling_trains_along_and_is_refused_when_frozen() -> None:
    tuned = lora.apply(tiny("bert", "attention"), lora.Config())
    assert "pooling.query" in tuned.trained & tuned.added
    with pytest.raises(ConfigError, match="trains nothing"):
        frozen.apply(tiny("bert", "attention"), frozen.Config())


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (lambda e: full.apply(e, full.Config(layers=4)), "has 3 layers"),
        (lambda e: full.apply(e, full.Config(layers=0)), "has 3 layers"),
        (lambda e: full.apply(e, full.Config(layers="top")), "tuning.layers is 'top'"),
        (lambda e: full.apply(e, full.Config(layers=1, embeddings=True)), "in the middle"),
        (lambda e: lora.apply(e, lora.Config(layers="two")), "tuning.layers"),
        (lambda e: lora.apply(e, lora.Config(rank=33)), "tuning.rank is 33; set it from 1 to 32"),
        (lambda e: adapter.apply(e, adapter.Config(layers=9)), "has 3 layers"),
        (lambda e: adapter.apply(e, adapter.Config(activation="x")), "tuning.activation"),
    ],
)
def test_wrong_settings_are_refused(apply: Apply, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        apply(tiny("bert"))

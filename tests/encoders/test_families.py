"""Families whose layer stack is known by its shape alone; see test_encoder for the others."""

import pytest
import torch
from transformers import AlbertConfig, AlbertModel, AutoTokenizer

from recsys.encoders import layers
from recsys.encoders.encoder import Encoder
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommender.flops import probe
from recsys.tuning import adapter, frozen, full, lora, top_layers
from tests.encoders.families import OTHERS, SIZES, SPECIALS, albert, texts, xlnet
from tests.encoders.test_encoder import wrapped

each_family = pytest.mark.parametrize("family", OTHERS)
METHODS = {
    "frozen": lambda e: frozen.apply(e, frozen.Config()),
    "full": lambda e: full.apply(e, full.Config()),
    "lora": lambda e: lora.apply(e, lora.Config(rank=2)),
    "adapter": lambda e: adapter.apply(e, adapter.Config(width=4)),
}


def tiny(family: str) -> Encoder:
    torch.manual_seed(0)
    return Encoder(OTHERS[family](), SPECIALS, "mean", 20, 60).eval()


@each_family
def test_states_equal_the_model_called_text_by_text(family):
    encoder, tokens = tiny(family), texts(5, 0, 30, 1, 12, 5)
    for raw, got in zip(tokens.split(), encoder.compute_states(tokens).split(), strict=True):
        want = encoder.model(input_ids=wrapped(raw)).last_hidden_state[0]
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@each_family
def test_every_method_starts_where_the_encoder_is_and_moves_what_it_trains(family, method):
    encoder, tokens = tiny(family), texts(5, 0, 30, 1, 12)
    before = encoder(tokens)
    tuned = METHODS[method](encoder)
    assert torch.equal(encoder.eval()(tokens), before)
    start = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.5)
    encoder.train()
    for _ in range(2 if tuned.trained else 0):  # a factor behind a zero one moves in the second
        optimizer.zero_grad()
        (encoder(tokens) - 1).square().mean().backward()
        optimizer.step()
    moved = {n for n, p in encoder.named_parameters() if not torch.equal(p, start[n])}
    assert moved <= tuned.trained
    # Of XLNet nothing reads segments here; a product of tiny numbers may round to zero.
    assert len(moved) >= 0.8 * len(tuned.trained)
    assert not encoder.eval()(tokens).equal(before) or not tuned.trained


def test_a_layer_that_is_used_again_is_tuned_as_a_whole_or_not_at_all():
    model = albert()
    assert layers.find_layer_stack(model)[0] == "encoder.albert_layer_groups"
    assert (len(layers.find_layer_stack(model)[1]), layers.count_passes(model)) == (1, 3)
    assert layers.select_layers(model, "all") == layers.select_layers(model, 3) == range(1)
    with pytest.raises(ConfigError, match=r"tuned apart; set tuning\.layers=3, which"):
        layers.select_layers(model, 2)
    with pytest.raises(ConfigError, match="passes 1 layer 3 times"):
        lora.apply(tiny("albert"), lora.Config(layers=1))
    with pytest.raises(ConfigError, match=r"tuning\.layers is 2"):
        top_layers.apply(tiny("albert"), top_layers.Config())
    with pytest.raises(ConfigError, match="has 3 layers"):
        layers.select_layers(model, 4)
    two = AlbertModel(AlbertConfig(**SIZES | {"num_hidden_layers": 4}, num_hidden_groups=2))
    with pytest.raises(ConfigError, match="passes 2 layers 4 times"):
        layers.select_layers(two, 2)


def test_operations_of_a_layer_count_as_often_as_it_runs():
    encoder = tiny("albert")
    frozen.apply(encoder, frozen.Config())
    rate = probe(encoder, None)
    a_layer = 2 * (4 * 32 * 32 + 2 * 32 * 48)
    assert rate.token == 3 * a_layer + 2 * 16 * 32  # and the map of the embeddings
    assert rate.square == 3 * 4 * 32


def test_maps_that_an_attention_holds_as_parameters_count_too():
    encoder = tiny("xlnet")
    frozen.apply(encoder, frozen.Config())
    # q, k, v, o, r and the small table of segments beside the two maps of the feed-forward.
    assert probe(encoder, None).token == 3 * 2 * (5 * 32 * 32 + 2 * 32 + 2 * 32 * 48)


def test_lora_of_the_attention_says_why_it_cannot():
    encoder = Encoder(xlnet(), SPECIALS, "mean", 20, 60)
    with pytest.raises(ConfigError, match="has no linear map; choose another model, tuning=lora"):
        lora.apply(encoder, lora.Config(targets="attention"))


@pytest.mark.parametrize("family", ["mpnet", "albert"])
def test_a_run_trains_such_an_encoder(family, shop_words, tiny_bert, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    OTHERS[family]().save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    words = [*shop_words, f"encoder.model={folder}", "trainer.epochs=1"]
    assert main([*words, "tuning=lora"]) == 0
    assert (next((tmp_path / "runs").glob("*/checkpoints/best.safetensors"))).is_file()
    assert main([*words, "tuning=full", "tuning.layers=2"]) == (2 if family == "albert" else 0)
    if family == "albert":
        assert "tuned apart; set tuning.layers=3" in capsys.readouterr().err

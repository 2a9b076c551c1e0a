"""Decoders as encoders: padding at either side, what a token sees, and which one is pooled."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from recsys.encoders import attention
from recsys.encoders.cut import SplitModel
from recsys.encoders.pretrained.load import load_pretrained
from recsys.errors import ConfigError
from recsys.export.__main__ import main as export
from recsys.fit.__main__ import main as fit
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.run import load
from recsys.tuning import adapter, full, lora, prefix
from recsys.types import Ragged
from tests.encoders.decoders import DECODERS, WINDOW, make_decoder, write_decoder
from tests.encoders.families import texts, tiny

each_family = pytest.mark.parametrize("family", DECODERS)
SIZES = (5, 9, 1, 12)


def pad(rows, left):
    """(N, L) ids and mask, padded with a token that means something."""
    size = max(map(len, rows))
    ids, mask = torch.full((len(rows), size), 7), torch.zeros(len(rows), size, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(size - len(row), size) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = row, 1
    return ids, mask


def with_start(tokens):
    return [torch.cat([torch.tensor([1]), row]) for row in tokens.split()]


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["last", "mean", "weightedmean", "max", "cls"])
@each_family
def test_padding_at_either_side_gives_the_vectors_of_single_texts(family, pooling):
    encoder, tokens = make_decoder(family, pooling), texts(*SIZES)
    rows = with_start(tokens)
    want = torch.cat([encoder.encode_padded(*pad([row], False)) for row in rows])
    torch.testing.assert_close(encoder(tokens), want, atol=1e-6, rtol=1e-5)
    for left in (False, True):
        got = encoder.encode_padded(*pad(rows, left))
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)
    # As other libraries pad at the left: what is at a place counts from the first real token.
    ids, mask = pad(rows, True)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    states = encoder.model(input_ids=ids, attention_mask=mask, position_ids=places)
    if pooling == "last":
        theirs = states.last_hidden_state[:, -1]
        torch.testing.assert_close(theirs, want, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
@each_family
def test_a_token_that_sees_all_gets_what_a_mask_of_all_tokens_gives(family, padded):
    model = make_decoder(family).model
    ids, mask = pad(with_start(texts(8, 4))[: 1 + padded], False)
    size = ids.shape[1]
    seen = mask[:, None, None, :].bool().expand(-1, 1, size, -1)
    whole = seen
    if family == "gemma3":
        place = torch.arange(size)
        near = (place[:, None] - place[None, :]).abs() <= WINDOW
        whole = {"full_attention": seen, "sliding_attention": seen & near}
    want = model(input_ids=ids, attention_mask=whole).last_hidden_state
    causal = model(input_ids=ids, attention_mask=mask).last_hidden_state
    attention.set_attention(model, "bidirectional", family)
    got = model(input_ids=ids, attention_mask=mask).last_hidden_state
    real = mask.bool()
    torch.testing.assert_close(got[real], want[real], atol=1e-5, rtol=1e-4)
    assert (got - causal)[0, 0].abs().max() > 1e-3
    attention.set_attention(model, "causal", family)
    assert model(input_ids=ids, attention_mask=mask).last_hidden_state.equal(causal)


@torch.no_grad()
@each_family
def test_what_a_folder_says_of_its_attention_is_followed(family, tmp_path):
    model = make_decoder(family).model
    assert attention.probe_attention(model) == "causal"
    attention.set_attention(model, "bidirectional", family)
    ids = torch.tensor([[1, 5, 9, 11]])
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    assert again(ids).last_hidden_state.equal(model(ids).last_hidden_state)
    attention.set_attention(again, "auto", family)
    assert attention.probe_attention(again) == "bidirectional"
    flags = {vars(m)["is_causal"] for m in again.modules() if "is_causal" in vars(m)}
    assert flags == {False}


def test_a_model_that_does_not_follow_is_an_error():
    model = tiny("bert").model
    attention.set_attention(model, "bidirectional", "bert")  # it is already
    with pytest.raises(
        ConfigError, match=r"attention=causal: the attention of BertModel \(b\) cannot be"
    ):
        attention.set_attention(model, "causal", "b")


@torch.no_grad()
@pytest.mark.parametrize("sees", ["causal", "bidirectional"])
@each_family
def test_kept_lower_layers_give_the_states_of_the_whole(family, sees):
    encoder = make_decoder(family)
    attention.set_attention(encoder.model, sees, family)
    full.apply(encoder, full.Config(layers=1))
    split = SplitModel(encoder.eval())
    (chunk,) = encoder.make_micro_batches(texts(3, 4, 4))
    got = split.run_above(split.run_below(chunk.ids, chunk.mask), chunk.mask)
    assert got[chunk.mask].equal(encoder.run_micro_batch(chunk)[chunk.mask])


METHODS = {
    "lora": lambda e: lora.apply(e, lora.Config(rank=2)),
    "adapter": lambda e: adapter.apply(e, adapter.Config(width=4)),
    "prefix": lambda e: prefix.apply(e, prefix.Config(length=3)),
}


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sees", ["causal", "bidirectional"])
@each_family
def test_tuned_decoders_read_micro_batches_as_they_read_single_texts(family, sees, method):
    if (family, method) == ("gpt2", "prefix"):
        pytest.skip("its attention takes no keys from outside")
    encoder, tokens = make_decoder(family, "mean"), texts(*SIZES)
    attention.set_attention(encoder.model, sees, family)
    before = encoder(tokens)
    tuned = METHODS[method](encoder)
    encoder.eval()
    if tuned.identical:
        torch.testing.assert_close(encoder(tokens), before, atol=1e-6, rtol=1e-5)
    for name, parameter in encoder.named_parameters():
        if name in tuned.trained:
            parameter += 0.1 * torch.randn_like(parameter)
    together = encoder(tokens)
    assert not torch.allclose(together, before, atol=1e-3)
    single = torch.cat([encoder(Ragged(row, (len(row),))) for row in tokens.split()])
    torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-4)


def test_the_end_token_is_put_behind_texts_and_pooled(tmp_path):
    folder = str(write_decoder(tmp_path / "m"))
    last = load_pretrained(folder, pooling="last", max_length=6)
    end = load_pretrained(folder, pooling="eos", max_length=6)
    assert (last.encoder.specials.suffix, end.encoder.specials.suffix) == ((), (2,))
    assert end.tokenizer("red lamp")["input_ids"][-1] == 2
    assert end.tokenizer("red", "lamp")["input_ids"] == [1, 8, 3, 2]
    raw = torch.tensor(end.tokenize(["red lamp blue chair green table"])[0])
    with torch.no_grad():
        got = end.encoder.eval()(Ragged(raw, (len(raw),)))
        ids = torch.cat([torch.tensor([1]), raw[:4], torch.tensor([2])])[None]  # cut, and ended
        want = end.encoder.model(ids).last_hidden_state[:, -1]
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)
    assert "the end token behind each text" in end.following.describe()


def test_what_cannot_be_pooled_is_an_error_that_names_what_can(tmp_path):
    folder = str(write_decoder(tmp_path / "m", end=False))
    with pytest.raises(ConfigError, match=r"pooling=eos: .* no end-of-sequence token; set enc"):
        load_pretrained(folder, pooling="eos", max_length=16)
    with pytest.raises(ConfigError, match=r"pooling=cls reads the first token, which sees no oth"):
        load_pretrained(folder, pooling="cls", max_length=16)
    load_pretrained(folder, pooling="cls", max_length=16, attention="bidirectional")


WORDS = ("tuning=lora", "tuning.layers=1", "encoder.pooling=eos", "trainer.epochs=1")
SEES_ALL = "encoder.attention=bidirectional"


def train(shop_words, folder, output, *words):
    assert fit([*shop_words, f"encoder.model={folder}", f"output={output}", *WORDS, *words]) == 0
    (run,) = output.iterdir()
    return load(run)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_run_that_sees_all_is_reproduced_by_what_leaves_it(
    family, shop_words, tmp_path, monkeypatch
):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    folder = write_decoder(tmp_path / "m", family)
    run = train(shop_words, folder, tmp_path / "a", SEES_ALL)
    bare = train(shop_words, folder, tmp_path / "b", SEES_ALL, "encoder.cache=false")
    causal = train(shop_words, folder, tmp_path / "c")
    asked = {"texts": ["red lamp", "blue chair"], "k": 30}
    own = run.recommend(**asked)
    np.testing.assert_allclose(own["score"], bare.recommend(**asked)["score"], atol=1e-5)
    assert abs(own["score"] - causal.recommend(**asked)["score"]).max() > 1e-3
    out = tmp_path / "out"
    for kind in ("bundle", "sentence_transformers"):
        assert export([f"run={run.folder}", f"to={out / kind}", f"format={kind}"]) == 0
    assert json.loads((out / "sentence_transformers/config.json").read_text())["is_causal"] is False
    tokenizer = AutoTokenizer.from_pretrained(out / "sentence_transformers")
    assert tokenizer("red lamp")["input_ids"][-1] == 2
    folder.rename(tmp_path / "gone")
    again = open_bundle(out / "bundle").recommend(**asked)
    np.testing.assert_allclose(again["score"], own["score"], atol=1e-5)
    assert again["item"].to_list() == own["item"].to_list()

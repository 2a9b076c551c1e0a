import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.encoders.cache.text_vectors import TextVectorCache
from recsys.encoders.encoder import Encoder
from recsys.types import Ragged
from tests.encoders.families import texts, tiny

WORDS = ["tuning=frozen", "architecture.user=text"]


def test_a_text_is_encoded_once_and_alone():
    encoder = tiny("bert").eval()
    kept, tokens = TextVectorCache(encoder, 1.0), texts(5, 0, 30, 1, 12)
    with torch.inference_mode():
        first, made = kept.encode(tokens)
    assert made == tokens.sizes
    torch.testing.assert_close(first, encoder(tokens), atol=1e-6, rtol=1e-5)
    again, made = kept.encode(tokens)
    assert made == ()
    assert torch.equal(again, first)
    # Whatever comes with it: the bits of a run that goes on after a stop are the same.
    other = TextVectorCache(encoder, 1.0)
    for i in (3, 0, 4, 2, 1):
        part = tokens.split()[i]
        vector, made = other.encode(Ragged(part, (len(part),)))
        assert torch.equal(vector[0], first[i])
        assert made == (len(part),)
    again.mul(torch.ones(32, requires_grad=True)).sum().backward()  # no tensor of inference


def test_what_finds_no_room_is_made_every_time():
    encoder, tokens = tiny("bert").eval(), texts(5, 7, 9)
    kept = TextVectorCache(encoder, 2 * 32 * 4 / 1e9)
    first, _ = kept.encode(tokens)
    again, made = kept.encode(tokens)
    assert (len(kept), made) == (2, (9,))
    assert torch.equal(first, again)


def test_room_grows(monkeypatch):
    monkeypatch.setattr("recsys.encoders.cache.text_vectors._FIRST", 2)
    encoder, tokens = tiny("bert").eval(), texts(*range(1, 8))
    kept = TextVectorCache(encoder, 1.0)
    first, _ = kept.encode(tokens)
    assert torch.equal(kept.encode(tokens)[0], first)
    torch.testing.assert_close(first, encoder(tokens), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("towers", ["shared", "separate"])
def test_users_of_a_frozen_encoder_are_encoded_once(shop_words, towers, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = [*shop_words, *WORDS, f"architecture.towers={towers}"]
    made = build.assemble(compose(words))
    kept, plain = made.recommender, build.assemble(compose([*words, "encoder.cache=false"]))
    assert plain.recommender.encoding.user_vectors is None
    batch = next(iter(made.datamodule.train_dataloader()))
    want = plain.recommender.train()(batch)
    torch.testing.assert_close(kept.train()(batch).scores, want.scores, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(Encoder, "forward", lambda *_, **__: pytest.fail("encoded again"))
    torch.testing.assert_close(kept.eval()(batch).scores, want.scores, rtol=1e-5, atol=1e-5)


def test_users_of_an_encoder_that_trains_are_not_kept(shop_words):
    words = [*shop_words, "tuning=lora", "architecture.user=text"]
    assert build.assemble(compose(words)).recommender.encoding.user_vectors is None

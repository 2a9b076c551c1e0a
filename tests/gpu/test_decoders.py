"""Decoders on a GPU: weights as codes, and prompts that share what comes before the item."""

import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.fit.__main__ import main as fit
from recsys.testing.shop import make_decoder_words

LISTS = ["evaluation.protocol=candidates", "evaluation.candidates=9", "evaluation.max_cases=12"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def decoder_words(shop_words, tiny_decoder):
    kept = [w for w in shop_words if not w.startswith("trainer.accelerator")]
    return [*kept, *make_decoder_words(tiny_decoder), "regularization.dropout=0"]


@pytest.mark.parametrize("share", ["true", "false"])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_scores_of_prompts_are_those_of_the_cpu(decoder_words, gpu, share, precision) -> None:
    words = [*decoder_words, "architecture=prompt", "objective=bce", *LISTS]
    made = build.assemble(compose([*words, f"architecture.share_prefix={share}"]))
    model = made.recommender.eval()
    batch = next(iter(made.datamodule.train_dataloader()))
    with torch.no_grad():
        want = model(batch).scores
        model.to(gpu)
        with torch.autocast("cuda", precision or torch.bfloat16, enabled=precision is not None):
            got = model(batch.to(gpu)).scores.float().cpu()
    valid = batch.candidates >= 0
    error = (got - want)[valid].norm() / want[valid].norm()
    assert float(error) < (1e-4 if precision is None else 5e-2)


@pytest.mark.parametrize("words", [["tuning=lora"], ["tuning=lora", "encoder.quantize=nf4"]])
def test_a_prompt_trains_to_its_end(decoder_words, tmp_path, words) -> None:
    pytest.importorskip("bitsandbytes")
    own = [*decoder_words, "architecture=prompt", "objective=bce", *LISTS, *words]
    assert fit([*own, "trainer.epochs=1", f"output={tmp_path / 'runs'}"]) == 0


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_weights_as_codes_give_the_vectors_of_the_cpu(decoder_words, gpu, kind) -> None:
    pytest.importorskip("bitsandbytes")
    words = [*decoder_words, "tuning=lora", f"encoder.quantize={kind}", "encoder.cache=false"]
    made = build.assemble(compose(words))
    encoder, encoding = made.recommender.encoder.eval(), made.recommender.encoding
    rows = torch.arange(8)
    with torch.no_grad():
        want = encoder(encoding.gather_tokens(rows, None, torch.device("cpu")))
        got = encoder.to(gpu)(encoding.gather_tokens(rows, None, gpu)).float().cpu()
    assert float((got - want).norm() / want.norm()) < 1e-3

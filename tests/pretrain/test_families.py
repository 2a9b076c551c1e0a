"""Every family: its own head tells what it tells in transformers, and its folder has all of it."""

import pytest
import torch
from transformers import AutoModelForMaskedLM
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from recsys.config.compose import compose_pretraining
from recsys.encoders.pretrained.load import load_encoder
from recsys.pretrain.assemble import assemble
from recsys.pretrain.command import pretrain
from recsys.recommender.flops import FlopCounter
from recsys.testing.shop import write_encoder
from recsys.types import Ragged
from tests.encoders.families import FAMILIES, OTHERS

MODELS = {**FAMILIES, **OTHERS}


@pytest.fixture
def made(shop_words, tmp_path, monkeypatch):
    """Words of a pretraining of a family, whose files have a head of their own where they can."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))

    def write(family):
        (tmp_path / "encoder").mkdir()
        folder = write_encoder(tmp_path / "encoder", ("[MASK]",))
        torch.manual_seed(0)
        bare = MODELS[family]()
        headed = type(bare.config) in MODEL_FOR_MASKED_LM_MAPPING
        model = AutoModelForMaskedLM.from_config(bare.config) if headed else bare
        model.save_pretrained(folder)
        own = [word for word in shop_words if not word.startswith("encoder.model=")]
        small = ["trainer.max_steps=1", "trainer.precision=fp32", "tracking.wandb=off"]
        return folder, headed, [*own, *small, f"encoder.model={folder}"]

    return write


@pytest.mark.parametrize("family", MODELS)
def test_the_own_head_of_each_family_is_that_of_transformers(made, family):
    folder, headed, words = made(family)
    whole = assemble(compose_pretraining([*words, "pretraining=mlm", "tuning=lora"]))
    task, encoder = whole.data.task.eval(), whole.model.encoder.eval()
    assert task.own is headed
    table = encoder.model.get_input_embeddings().weight
    tokens = Ragged(torch.arange(4, 9), (5,))
    with torch.no_grad():
        states = encoder.compute_states(tokens).values
        scores = task.head(states, table, FlopCounter())
        assert scores.shape[0] == 7
        if headed:
            reference = AutoModelForMaskedLM.from_pretrained(folder).eval()
            ids = torch.tensor([[2, *range(4, 9), 3]])
            want = reference(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            torch.testing.assert_close(scores, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", MODELS)
def test_each_family_writes_texts_and_leaves_its_encoder(made, monkeypatch, family):
    _, _, words = made(family)
    seen = []

    def remember(path, loaded, pooling):
        with torch.no_grad():
            seen.append(loaded.encoder.eval()(Ragged(torch.arange(4, 12), (3, 5))))
        write(path, loaded, pooling)

    from recsys.pretrain import run
    from recsys.pretrain.run import write_encoder_folder as write

    monkeypatch.setattr(run, "write_encoder_folder", remember)
    more = ["pretraining=tsdae", "tuning=full", "checkpoint.pick=last"]
    folder = pretrain(compose_pretraining([*words, *more]))
    with torch.no_grad():
        encoder = load_encoder(str(folder), pooling="auto", max_length=32).eval()
        again = encoder(Ragged(torch.arange(4, 12), (3, 5)))
    torch.testing.assert_close(again, seen[0])

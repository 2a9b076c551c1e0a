"""trainer.precision=bf16-true: what trains of the encoder is held in bf16, and is read back so."""

import json

import pytest
import torch
from safetensors.torch import load_file

from recsys.fit.__main__ import main
from recsys.pretrain.__main__ import main as pretrain
from recsys.trained.run import load


def fit(words, folder, *more):
    assert main([*words, f"output={folder}", "trainer.epochs=1", "tracking.wandb=off", *more]) == 0
    (run,) = folder.iterdir()
    return run


@pytest.mark.parametrize(
    "tuning", [["tuning=lora"], ["tuning=full", "optimizer.encoder_lr=0.001"]], ids=["lora", "full"]
)
def test_trained_weights_are_bf16_and_train_near_those_of_bf16_mixed(shop_base, tmp_path, tuning):
    true = fit(shop_base, tmp_path / "true", *tuning, "trainer.precision=bf16-true")
    mixed = fit(shop_base, tmp_path / "mixed", *tuning, "trainer.precision=bf16-mixed")
    own, other = (load_file(run / "checkpoints" / "best.safetensors") for run in (true, mixed))
    inside = {name for name in own if name.startswith("_encoder.model.")}
    assert inside
    assert {own[name].dtype for name in inside} == {torch.bfloat16}
    assert {own[name].dtype for name in own.keys() - inside} <= {torch.float32}
    assert {value.dtype for value in other.values()} == {torch.float32}
    first, second = (json.loads((run / "result.json").read_text()) for run in (true, mixed))
    assert first["train"]["loss"] == pytest.approx(second["train"]["loss"], rel=0.05)
    trained = load(true)
    encoder = trained.assemble().encoding.encoder
    assert {p.dtype for p in encoder.model.parameters()} == {torch.bfloat16}
    assert trained.recommend(users=["u0", "u7"], k=3).height == 6


def test_a_run_in_bf16_starts_one_in_fp32(shop_base, tmp_path):
    before = fit(shop_base, tmp_path / "before", "tuning=lora", "trainer.precision=bf16-true")
    after = fit(shop_base, tmp_path / "after", "tuning=lora", f"start_from={before}")
    state = load_file(after / "checkpoints" / "best.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_a_pretraining_in_bf16_is_refused(shop_base, capsys):
    words = [word for word in shop_base if not word.startswith("tuning")]
    assert pretrain([*words, "pretraining=simcse", "trainer.precision=bf16-true"]) == 2
    assert "set it to bf16-mixed" in capsys.readouterr().err

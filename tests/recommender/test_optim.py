"""AdamW with a state of eight bits: near the whole one, restored exactly, or one clear error."""

import importlib.util

import pytest
import torch
from torch import nn

from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommender.optim import make_adamw
from tests.fit.test_resume import break_at, only, outcome, straight, terminate

pytest.importorskip("bitsandbytes")


def make(kind):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(96, 96))
    groups = [{"params": [weight], "lr": 0.01, "weight_decay": 0.1, "name": "encoder"}]
    return weight, make_adamw(groups, (0.9, 0.99), 40, 0.1, "linear", kind)[0]


def step(weight, optimizer, seed):
    wanted = torch.randn(96, 96, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    (weight - wanted).square().sum().backward()
    optimizer.step()


def test_a_state_of_eight_bits_is_small_and_steps_nearly_the_same(tmp_path):
    (whole, first), (small, second) = make("adamw"), make("adamw_8bit")
    start = whole.detach().clone()
    for seed in range(20):
        step(whole, first, seed)
        step(small, second, seed)
    moved = (whole - start).norm()
    assert (small - whole).norm() < 0.05 * moved
    state = second.state[small]
    assert {state["state1"].dtype, state["state2"].dtype} == {torch.uint8}
    size = sum(v.numel() * v.element_size() for v in state.values() if isinstance(v, torch.Tensor))
    assert size < 0.4 * 8 * small.numel()
    torch.save(second.state_dict(), tmp_path / "state")
    again, third = make("adamw_8bit")
    again.data.copy_(small.data)
    third.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for seed in range(20, 25):
        step(small, second, seed)
        step(again, third, seed)
    assert again.equal(small)


def test_a_run_with_it_is_resumed_exactly(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    own = [word for word in shop_words if not word.startswith("output=")]
    words = [*own, "tracking.wandb=off", "tuning=full", "optimizer.kind=adamw_8bit"]
    expected = straight(words, tmp_path)
    with monkeypatch.context() as patch:
        break_at(patch, "training_step", 4, terminate)
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    assert main([f"resume={only(tmp_path)}"]) == 0
    assert outcome(only(tmp_path)) == expected


def test_what_it_needs_is_said_before_data_is_read(shop_words, monkeypatch, capsys):
    words = [*shop_words, "data.source.items=missing.csv", "tuning=lora"]
    assert main([*words, "optimizer.kind=paged_adamw"]) == 2
    assert "this run trains on a CPU; set optimizer.kind=adamw" in capsys.readouterr().err
    found = importlib.util.find_spec
    hide = lambda name, *more: None if name == "bitsandbytes" else found(name, *more)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", hide)
        assert main([*words, "optimizer.kind=adamw_8bit"]) == 2
    assert "needs bitsandbytes: pip install 'recsys[quantize]'" in capsys.readouterr().err
    monkeypatch.setattr("bitsandbytes.optim.AdamW8bit", lambda *_, **__: exec("raise OSError('x')"))
    with pytest.raises(ConfigError, match=r"bitsandbytes does not work here \(x\)"):
        make("adamw_8bit")

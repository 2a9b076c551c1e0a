"""LoRA's own map: PEFT's numbers, gradients and names, on every way a call can take."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners import lora
from torch import Tensor, nn

from recsys.encoders.peft.lora_linear import FusedLoraLinear

Pair = tuple[nn.Module, nn.Module]


def pair(**options: object) -> Pair:
    """The same two maps with the same updates, PEFT's own and ours."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 8, bias=False))
    made = []
    for ours in (False, True):
        settings = LoraConfig(
            r=3, lora_alpha=7.0, target_modules=["0", "2"], init_lora_weights=False, **options
        )
        if ours:
            settings._register_custom_module({nn.Linear: FusedLoraLinear})
        torch.manual_seed(1)
        made.append(inject_adapter_in_model(settings, copy.deepcopy(plain)))
    theirs, own = made
    assert all(type(own[i]) is FusedLoraLinear and type(theirs[i]) is lora.Linear for i in (0, 2))
    return theirs, own


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    given = x.clone().requires_grad_()
    model(given).square().sum().backward()
    assert given.grad is not None
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"input": given.grad, **found}


@pytest.mark.parametrize("shape", [(5, 12), (2, 5, 12), (12,), (0, 12)])
@pytest.mark.parametrize("training", [True, False])
def test_the_values_and_gradients_are_pefts(shape: tuple[int, ...], training: bool) -> None:
    theirs, own = (model.train(training) for model in pair())
    x = torch.randn(shape)
    torch.testing.assert_close(own(x), theirs(x))
    expected, found = gradients(theirs, x), gradients(own, x)
    assert expected.keys() == found.keys()
    assert len(found) == 5
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_the_update_counts() -> None:
    _, own = pair()
    x = torch.randn(5, 12)
    with_update = own(x)
    for module in own.modules():
        if isinstance(module, FusedLoraLinear):
            module.enable_adapters(False)
    assert (own(x) - with_update).abs().max() > 0.1


def test_names_and_weights_are_pefts() -> None:
    theirs, own = (model.state_dict() for model in pair())
    assert list(own) == list(theirs)
    assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_a_merged_map_gives_the_same() -> None:
    _, own = pair()
    x = torch.randn(5, 12)
    before = own(x)
    for module in own.modules():
        if isinstance(module, FusedLoraLinear):
            module.merge(safe_merge=True)
    torch.testing.assert_close(own(x), before)


def test_dora_goes_pefts_way() -> None:
    theirs, own = pair(use_dora=True)
    x = torch.randn(5, 12)
    plain = own(x)
    with torch.no_grad():  # at its start the magnitude changes nothing
        for model in (theirs, own):
            for name, parameter in model.named_parameters():
                if "magnitude" in name:
                    parameter.mul_(2.0)
    torch.testing.assert_close(own(x), theirs(x))
    assert (own(x) - plain).abs().max() > 0.1


def test_dropout_is_drawn_in_training_only() -> None:
    theirs, own = pair(lora_dropout=0.5)
    x = torch.randn(50, 12)
    torch.manual_seed(3)
    expected = theirs.train()(x)
    torch.manual_seed(3)
    torch.testing.assert_close(own.train()(x), expected)
    torch.testing.assert_close(own.eval()(x), theirs.eval()(x))
    assert not torch.allclose(own.eval()(x), expected)


def test_autocast_gives_what_peft_gives() -> None:
    theirs, own = pair()
    x = torch.randn(5, 12)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = theirs(x), own(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)


def test_halves_stay_halves() -> None:
    theirs, own = (model.bfloat16() for model in pair())
    x = torch.randn(5, 12, dtype=torch.bfloat16)
    assert own(x).dtype == torch.bfloat16
    torch.testing.assert_close(own(x), theirs(x), rtol=0.02, atol=0.02)


def test_a_hook_sees_every_map() -> None:
    theirs, own = pair()
    x = torch.randn(5, 12)
    seen: list[list[tuple[str, tuple[int, ...]]]] = []
    for model in (theirs, own):
        calls: list[tuple[str, tuple[int, ...]]] = []
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):

                def note(
                    module: nn.Module,
                    args: tuple[Tensor, ...],
                    output: Tensor,
                    name: str = name,
                    calls: list[tuple[str, tuple[int, ...]]] = calls,
                ) -> None:
                    calls.append((name, tuple(output.shape)))

                module.register_forward_hook(note)
        model(x)
        seen.append(calls)
    assert len(seen[0]) == 6
    assert seen[1] == seen[0]


def test_the_output_is_written_once_and_added_to_in_place() -> None:
    _, own = pair()
    layer = own.get_submodule("0")
    with torch.no_grad(), torch.profiler.profile(record_shapes=True) as seen:
        layer(torch.randn(100, 12))
    names = {event.name for event in seen.events()}
    assert "aten::addmm_" in names
    assert not names & {"aten::add", "aten::mul", "aten::add_", "aten::mul_"}

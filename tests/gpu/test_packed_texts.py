"""Texts packed on a GPU, by the kernel, against the same model padded in fp32 on the CPU."""

import pytest
import torch

from recsys.encoders.packing import attention
from recsys.encoders.packing.enabling import enable_packing
from recsys.encoders.packing.kernels import find_kernel
from recsys.encoders.packing.layout import PackedLayout
from tests.encoders.families import texts
from tests.encoders.test_packing import LENGTHS, PACKED, make_encoder


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "width"), [(8, 64), (2, 64), (8, 128), (8, 32)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_gives_what_padding_gives(gpu, dtype, heads, width, causal, window) -> None:
    lengths, generator = (3, 1, 130, 64), torch.Generator().manual_seed(0)
    q = torch.randn(198, 8, width, generator=generator)
    k, v = (torch.randn(198, heads, width, generator=generator) for _ in range(2))
    on_host = PackedLayout.build(lengths, 130, 0, torch.device("cpu"))
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    want = attention.attend_padded(*leaves, on_host, 0.1, 0.0, causal, window)
    want.square().sum().backward()
    kernel = find_kernel()
    assert kernel is not None
    assert kernel.takes(width, 0.0)
    there = [x.to(gpu, dtype).requires_grad_() for x in (q, k, v)]
    starts = on_host.starts.to(gpu)
    got = kernel.attend(*there, starts, 130, 0.1, 0.0, causal, window)
    got.float().square().sum().backward()
    assert measure_error(got, want) < 1e-2
    for ours, exact in zip(there, leaves, strict=True):
        assert measure_error(ours.grad, exact.grad) < 4e-2


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", PACKED)
def test_vectors_and_gradients_are_those_of_the_cpu(gpu, family, precision, monkeypatch) -> None:
    exact, packed = make_encoder(family), make_encoder(family).to(gpu)
    assert "packed" in enable_packing(packed, "auto")
    widths = []
    choose = attention.choose_kernel

    def note(q, dropout):
        widths.append((q.shape[-1], choose(q, dropout)))
        return widths[-1][1]

    monkeypatch.setattr(attention, "choose_kernel", note)
    tokens = texts(*LENGTHS)
    want = exact(tokens)
    want.square().sum().backward()
    with torch.autocast("cuda", precision):
        assert packed.packs
        got = packed(tokens.to(gpu))
    got.float().square().sum().backward()
    assert widths
    assert all((kernel is not None) == (width % 8 == 0) for width, kernel in widths)
    assert measure_error(got, want) < 3e-2
    ours, theirs = (
        torch.cat([p.grad.float().cpu().flatten() for p in e.parameters() if p.grad is not None])
        for e in (packed, exact)
    )
    assert measure_error(ours, theirs) < 1e-1


def test_full_precision_is_padded_as_ever(gpu) -> None:
    exact, packed = make_encoder("bert"), make_encoder("bert").to(gpu)
    enable_packing(packed, "auto")
    assert not packed.packs
    assert measure_error(packed(texts(*LENGTHS).to(gpu)), exact(texts(*LENGTHS))) < 1e-5


def test_packing_everywhere_runs_in_full_precision_too(gpu) -> None:
    exact, packed = make_encoder("modernbert"), make_encoder("modernbert").to(gpu)
    enable_packing(packed, "on")
    assert packed.packs
    assert measure_error(packed(texts(*LENGTHS).to(gpu)), exact(texts(*LENGTHS))) < 1e-5


def measure_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is right."""
    got, want = got.detach().float().cpu(), want.detach().float().cpu()
    return float((got - want).norm() / want.norm())

"""Flat storage: slices of it, micro-batches without their padding, words without specials."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from recsys.encoders.cache.token_states import drop_special_tokens
from recsys.encoders.padding import compute_places, unpad_states
from recsys.types import Ragged


def test_places_are_those_of_the_slices_one_by_one() -> None:
    starts, sizes = torch.tensor([7, 0, 3, 3]), torch.tensor([2, 3, 0, 1])
    assert compute_places(starts, sizes).tolist() == [7, 8, 0, 1, 2, 3]
    assert not len(compute_places(starts[:0], sizes[:0]))


def test_micro_batches_lie_in_the_order_of_the_input() -> None:
    texts = [torch.randn(n, 3) for n in (4, 1, 2, 3)]
    parts = []
    for rows, width in (((1, 2), 2), ((3, 0), 4)):
        padded = torch.full((2, width, 3), torch.nan)
        for i, row in enumerate(rows):
            padded[i, : len(texts[row])] = texts[row]
        parts.append((rows, padded))
    out = unpad_states(parts, [4, 1, 2, 3])
    assert out.sizes == (4, 1, 2, 3)
    assert torch.equal(out.values, torch.cat(texts))


def test_a_text_without_a_token_of_its_own_keeps_its_special_ones() -> None:
    encoder = SimpleNamespace(specials=SimpleNamespace(prefix=(1,), suffix=(2, 3)))
    states = Ragged(torch.arange(14.0)[:, None], (5, 3, 6))
    out = drop_special_tokens(states, (2, 0, 3), encoder)  # type: ignore[arg-type]
    assert out.sizes == (2, 3, 3)
    assert out.values[:, 0].tolist() == [1, 2, 5, 6, 7, 9, 10, 11]
    assert drop_special_tokens(Ragged(torch.zeros(0, 1), ()), (), encoder).sizes == ()  # type: ignore[arg-type]

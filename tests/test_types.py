"""The types that pass between rooms: sequences come apart as they were put together."""

from __future__ import annotations

import pytest
import torch

from recsys.types import ItemBatch, Ragged


def test_sequences_come_apart_as_they_were_joined() -> None:
    parts = [torch.arange(3), torch.arange(0), torch.arange(5, 7)]
    joined = Ragged.from_sequences(parts)
    assert (len(joined), joined.sizes, joined.offsets) == (3, (3, 0, 2), (0, 3, 3, 5))
    assert all(map(torch.equal, joined.split(), parts))


def test_sizes_that_do_not_fit_are_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="sizes sum to 4, values hold 3"):
        Ragged(torch.arange(3), (2, 2))
    with pytest.raises(ValueError, match="at least one sequence"):
        Ragged.from_sequences([])


def test_the_candidates_of_a_plan_keep_their_places() -> None:
    plan = ItemBatch(torch.tensor([7, 3, 9]), (4, 5, 6), host=torch.tensor([7, 3, 9]), first=2)
    part = plan.select_candidates()
    assert part.items.tolist() == part.rows.tolist() == [7, 3]
    assert part.sizes == (4, 5)

"""Means of per-case values over ranks and steps, as exact sums and counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError, DataError
from recsys.metrics.names import BALANCED, FEWEST, REPEATED

SLICES = ("all", "cold", "warm")


class RankingMetrics(nn.Module):
    """Mean of each metric over all counted cases, over the cold ones and over the warm ones.

    The states are sums and counts, each one tensor for all slices and names: two ranks with
    different numbers of cases add up to what one rank would have got, and a synchronisation
    takes three collectives whatever the number of metrics. They are there from the start on every
    rank, one that gets no case included.

    A `torchmetrics.Metric` would do the same; importing that package takes longer than a baseline
    takes to run.

    Args:
        names: Names of the metrics, as `recsys.metrics.functional.list_metric_names` gives them.
        apart: Whether some cases are in a slice of their own, `repeated`.

    Attributes:
        slices: Their names.
        sums: (slices, M) float64 sums by slice and metric, of this rank.
        counts: (slices, M) int64 how many values they are of.
        cases: (slices,) int64 counted cases by slice.

    Raises:
        ConfigError: There is no name, a name twice, or one that is used for something else.
    """

    def __init__(self, names: Sequence[str], apart: bool = False) -> None:
        super().__init__()
        self.names = _check_names(names)
        self.slices = (*SLICES, *((REPEATED,) if apart else ()))
        shape = (len(self.slices), len(self.names))
        # float64 and int64: float32 stops counting at 16.8 million cases and loses digits before.
        # No buffers, which DDP would broadcast in every step.
        self.sums = torch.zeros(shape, dtype=torch.float64)
        self.counts = torch.zeros(shape, dtype=torch.int64)
        self.cases = torch.zeros(len(self.slices), dtype=torch.int64)
        self._computed: dict[str, Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """Where the states lie."""
        return self.sums.device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Takes the states along to another device, in the precision that they have."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = fn(torch.empty(0, device=self.device)).device
        self.sums, self.counts, self.cases = (
            state.to(device) for state in (self.sums, self.counts, self.cases)
        )
        return self

    def reset(self) -> None:
        """Forgets all cases."""
        self.sums, self.counts, self.cases = (
            torch.zeros_like(state) for state in (self.sums, self.counts, self.cases)
        )
        self._computed = None

    def update(
        self,
        values: dict[str, Tensor],
        counted: Tensor,
        cold: Tensor,
        apart: Tensor | None = None,
    ) -> None:
        """Adds the cases of a step.

        Args:
            values: (Q,) value of each case by name, NaN where the metric is undefined for it.
            counted: (Q,) bool, False for a filler; whatever a filler's values are, none enters.
            cold: (Q,) bool, True where the case belongs to the cold slice.
            apart: (Q,) bool, True where it belongs to the slice of its own and to no other; None:
                none does.

        Raises:
            DataError: Names differ from the constructor's, or shapes or types do not fit.
        """
        self._check(values, counted, cold)
        self._computed = None
        device = self.device
        table = torch.stack([values[name].to(device, torch.float64) for name in self.names])
        counted, cold = counted.to(device), cold.to(device)
        own = torch.zeros_like(counted) if apart is None else counted & apart.to(device)
        rest = counted & ~own
        parts = [rest, rest & cold, rest & ~cold, own]
        slices = torch.stack(parts[: len(self.slices)])
        # Undefined values are left out one metric at a time: a case of one class has no AUC but
        # may well have an nDCG. torch.where, as NaN times 0 would still be NaN.
        entered = slices[:, None] & ~table.isnan()[None]
        self.sums += torch.where(entered, table[None], 0.0).sum(2)
        self.counts += entered.sum(2)
        self.cases += slices.sum(1)

    def compute(self) -> dict[str, Tensor]:
        """The means so far, over all ranks; every rank must call it.

        What is asked again of the same cases takes no collective.

        Returns:
            () each. `name`, `cold/name` and `warm/name`: float64 means over the cases where the
            metric is defined, NaN (never 0) where there is none. `balanced/name`: the mean of the
            cold and the warm mean, without one of fewer than `FEWEST` cases; of all where both are.
            `repeated/name`, where cases are apart: their mean. `cases`, `cold/cases`, `warm/cases`
            and `repeated/cases`: int64 numbers of counted cases. `undefined/name`: int64 number of
            counted cases that the mean `name` leaves out.
        """
        if self._computed is None:
            self._computed = self._compute_means(
                *(_sum_over_ranks(state) for state in (self.sums, self.counts, self.cases))
            )
        return self._computed

    def _compute_means(self, sums: Tensor, counts: Tensor, cases: Tensor) -> dict[str, Tensor]:
        """As `compute`, of the states of all ranks."""
        out: dict[str, Tensor] = {}
        means = sums / counts  # 0/0 is NaN
        for row, part in enumerate(self.slices):
            prefix = "" if part == "all" else f"{part}/"
            for column, name in enumerate(self.names):
                out[f"{prefix}{name}"] = means[row, column]
            out[f"{prefix}cases"] = cases[row].clone()
        # What too few cases say is noise, and would weigh as much as all others together.
        parts = torch.where(counts[1:3] >= FEWEST, means[1:3], torch.nan)
        balanced = torch.where(parts.isnan().all(0), means[0], parts.nanmean(0))
        for column, name in enumerate(self.names):
            out[f"{BALANCED}/{name}"] = balanced[column]
            out[f"undefined/{name}"] = cases[0] - counts[0, column]
        return out

    def _check(self, values: dict[str, Tensor], counted: Tensor, cold: Tensor) -> None:
        """Refuses a step whose names, shapes or types do not fit."""
        missing = [name for name in self.names if name not in values]
        unknown = [name for name in values if name not in self.names]
        if missing or unknown:
            raise DataError(
                f"The values lack {missing} and hold unknown {unknown}; "
                f"give exactly the names of the constructor: {list(self.names)}."
            )
        for label, flags in (("counted", counted), ("cold", cold)):
            if flags.dtype != torch.bool or flags.dim() != 1:
                raise DataError(
                    f"{label} is {flags.dtype} of shape {tuple(flags.shape)}; "
                    "give one torch.bool a case."
                )
        for label, tensor in (("cold", cold), *values.items()):
            if tensor.shape != counted.shape:
                raise DataError(
                    f"{label} has shape {tuple(tensor.shape)}, but counted has "
                    f"{tuple(counted.shape)}; give one value a case."
                )


def _sum_over_ranks(state: Tensor) -> Tensor:
    """The sum of a state over all ranks, added up in their order on each of them."""
    if not torch.distributed.is_initialized():
        return state
    states = [torch.empty_like(state) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(states, state)
    return torch.stack(states).sum(0)


def _check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each there once and none of them one that `compute` uses itself."""
    if not names:
        raise ConfigError("RankingMetrics has no names; give at least one metric.")
    if len(set(names)) != len(names):
        raise ConfigError(f"RankingMetrics names {list(names)} hold a name twice; keep each once.")
    taken = [name for name in names if name == "cases" or "/" in name]
    if taken:
        raise ConfigError(
            f"RankingMetrics cannot use the names {taken}; avoid 'cases' and slashes, "
            "which stand for the slices."
        )
    return tuple(names)

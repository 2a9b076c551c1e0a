"""Sequences that begin alike, read together: the beginning once, each of their ends behind it.

A prefix and all of its ends stand in one sequence. A token sees the prefix and, of the ends, its
own alone; every end goes on counting positions where the prefix stops. What a token reads, and
where it stands, is then what it would be in a sequence of its own, so that states and gradients
are the same, in training too, and no cache of keys and values is handed from one pass to another:
activation checkpointing and learned prefixes work as ever. The attention runs over the whole
sequence and masks what is not seen, which is why a sequence takes no more ends than its budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from recsys.encoders.encoder import Encoder
from recsys.encoders.padding import compute_places
from recsys.errors import ConfigError
from recsys.types import Ragged, upload

FULL, SLIDING = "full_attention", "sliding_attention"
"""What transformers calls the layers that see all earlier tokens, and those that see some."""

_IMPLEMENTATIONS = ("sdpa", "eager")


@dataclass(frozen=True)
class TreeBatch:
    """Sequences of a micro-batch, right-padded.

    Attributes:
        pairs: Which pairs it holds, by their place in the input.
        ids: (N, L) token ids.
        positions: (N, L) where each token stands in the sequence of its own.
        branches: (N, L) 0 of the prefix, from 1 on of an end, -1 of padding.
        ends: (2, P) row and column of the last token of each pair.
    """

    pairs: tuple[int, ...]
    ids: Tensor
    positions: Tensor
    branches: Tensor
    ends: Tensor


class PrefixTrees:
    """Lays out pairs of a prefix and an end by arithmetic on the host; no loop runs over tokens.

    Args:
        prefixes: Token ids of the prefixes.
        ends: Token ids of the ends, one at least in each.
        left: (P,) prefix of each pair, on the host; equal ones stand together.
        right: (P,) end of each pair, on the host.
        pad: Id of the padding.
        budget: Tokens of a sequence with several ends; one as long as twice its prefix may always
            be.
        share: Whether pairs share a sequence at all.

    Attributes:
        lengths: Tokens of each sequence.
    """

    def __init__(
        self,
        prefixes: Ragged,
        ends: Ragged,
        left: Tensor,
        right: Tensor,
        pad: int,
        budget: int,
        share: bool = True,
    ) -> None:
        before = torch.tensor(prefixes.sizes)[left]
        after = torch.tensor(ends.sizes)[right]
        owner = _number_trees(left.tolist(), before.tolist(), after.tolist(), budget, share)
        self._owner = torch.tensor(owner)
        first = torch.diff(self._owner, prepend=torch.tensor([-1])) > 0
        heads = torch.nonzero(first).flatten()
        # Segments in order: of each sequence the prefix, then its ends.
        place = torch.arange(len(left)) + self._owner + 1
        head_place = heads + torch.arange(len(heads))
        total = len(left) + len(heads)
        starts, sizes, shift = (torch.zeros(total, dtype=torch.long) for _ in range(3))
        branch = torch.zeros(total, dtype=torch.long)
        offsets = torch.tensor(prefixes.offsets)[left]
        starts[head_place], sizes[head_place] = offsets[heads], before[heads]
        starts[place] = torch.tensor(ends.offsets)[right] + len(prefixes.values)
        sizes[place], shift[place] = after, before
        branch[place] = 1 + torch.arange(len(left)) - heads[self._owner]
        stop = sizes.cumsum(0)
        self._table = torch.cat(
            [prefixes.values.long(), ends.values.long(), prefixes.values.new_tensor([pad]).long()]
        )
        self._index = compute_places(starts, sizes)
        self._positions = compute_places(shift, sizes)
        self._branches = torch.repeat_interleave(branch, sizes)
        begin = (stop - sizes)[head_place]
        self._begin = begin
        lengths = torch.diff(torch.cat([begin, stop[-1:]]))
        self.lengths: tuple[int, ...] = tuple(lengths.tolist())
        self._last = stop[place] - 1 - begin[self._owner]
        self._pairs = torch.split(torch.arange(len(left)), torch.bincount(self._owner).tolist())

    def make_batch(self, rows: tuple[int, ...]) -> TreeBatch:
        """Sequences by their number, all on the device of the texts but the pairs."""
        device, at = self._table.device, torch.tensor(rows)
        length = torch.tensor(self.lengths)[at][:, None]
        place = torch.arange(int(length.max()))[None, :]
        real = place < length
        flat = torch.where(real, self._begin[at][:, None] + place, 0)
        index = torch.where(real, self._index[flat], len(self._table) - 1)
        # Padding stands nowhere; 0 is a position that every model has.
        positions = torch.where(real, self._positions[flat], 0)
        branches = torch.where(real, self._branches[flat], -1)
        pairs = torch.cat([self._pairs[row] for row in rows])
        sizes = torch.tensor([len(self._pairs[row]) for row in rows])
        ends = torch.stack(
            [torch.repeat_interleave(torch.arange(len(rows)), sizes), self._last[pairs]]
        )
        on = [upload(x, device) for x in (index, positions, branches, ends)]
        return TreeBatch(tuple(pairs.tolist()), self._table[on[0]], *on[1:])


def _number_trees(
    left: list[int], before: list[int], after: list[int], budget: int, share: bool
) -> list[int]:
    """The sequence of each pair: a new one with another prefix, or where the budget is used up."""
    out: list[int] = []
    number, used = -1, 0
    for i, (prefix, size) in enumerate(zip(before, after, strict=True)):
        full = used + size > max(budget, 2 * prefix)
        if not share or not i or left[i] != left[i - 1] or full:
            number, used = number + 1, prefix
        used += size
        out.append(number)
    return out


def make_tree_mask(batch: TreeBatch, window: int | None = None) -> Tensor:
    """(N, 1, L, L) bool, whether a token (row) sees another (column).

    Args:
        batch: The sequences.
        window: How many tokens a token sees, itself included; None: all earlier ones.
    """
    own, other = batch.branches[:, :, None], batch.branches[:, None, :]
    size = batch.ids.shape[1]
    seen = torch.ones(size, size, dtype=torch.bool, device=batch.ids.device).tril()
    mask = ((other == 0) | (other == own)) & (other >= 0) & seen
    if window is not None:
        mask &= batch.positions[:, :, None] - batch.positions[:, None, :] < window
    # A row without anything to see would be NaN: padding sees itself.
    return (mask | torch.eye(size, dtype=torch.bool, device=mask.device))[:, None]


class SharedPrefixReader:
    """Final states of the last token of pairs of a prefix and an end.

    Args:
        encoder: A causal model.
        share: Whether the pairs of a prefix share a sequence.

    Raises:
        ConfigError: The model cannot share a prefix.
    """

    def __init__(self, encoder: Encoder, share: bool = True) -> None:
        self.encoder, self.share = encoder, share
        self._choose: Callable[[TreeBatch], Any] | None = None
        if share:
            self._choose = self._find_mask_form()

    def plan(self, prefixes: Ragged, ends: Ragged, left: Tensor, right: Tensor) -> PrefixTrees:
        """The sequences that `read` runs; the arguments are those of `PrefixTrees`."""
        specials, budget = self.encoder.specials, self.encoder.chunk_tokens
        return PrefixTrees(prefixes, ends, left, right, specials.pad, budget, self.share)

    def read(self, trees: PrefixTrees) -> Tensor:
        """(P, D) final states of the last token of each pair, in the order of the input."""
        parts: list[Tensor] = []
        order: list[int] = []
        for batch in self._iter_batches(trees):
            parts.append(self.encoder.run_checkpointed(partial(self._run, batch), batch.ids))
            order.extend(batch.pairs)
        back = upload(torch.tensor(order).argsort(), parts[0].device)
        return torch.cat(parts)[back]

    def _iter_batches(self, trees: PrefixTrees) -> Iterator[TreeBatch]:
        for rows in self.encoder.plan_micro_batches(trees.lengths):
            yield trees.make_batch(rows)

    def _run(self, batch: TreeBatch, ids: Tensor) -> Tensor:
        """(P, D) final states of a micro-batch's pairs."""
        if self._choose is None:
            mask: Any = (batch.branches >= 0).long()
        else:
            mask = self._choose(batch)
        return self._run_masked(batch, ids, mask)

    def _run_masked(self, batch: TreeBatch, ids: Tensor, mask: Any) -> Tensor:  # noqa: ANN401
        flag = {"use_cache": False} if self.encoder.cache_flag else {}
        positions = {} if self._choose is None else {"position_ids": batch.positions}
        out: Any = self.encoder.model(input_ids=ids, attention_mask=mask, **positions, **flag)
        states: Tensor = out.last_hidden_state
        return states[batch.ends[0], batch.ends[1]]

    def _find_mask_form(self) -> Callable[[TreeBatch], Any]:
        """How the model takes masks that are made already, by trying it.

        Raises:
            ConfigError: It takes none, or gives other states with them.
        """
        model: Any = self.encoder.model
        kinds = set(getattr(model.config, "layer_types", None) or ())
        window = getattr(model.config, "sliding_window", None)
        name, why = type(model).__name__, "it gives other states"
        implementation = model.config._attn_implementation
        if implementation not in _IMPLEMENTATIONS:
            raise _refuse(name, f"its attention is {implementation}, which takes no such mask")
        if kinds - {FULL, SLIDING}:
            raise _refuse(name, f"it has layers of {', '.join(sorted(kinds - {FULL, SLIDING}))}")
        plain = implementation == "sdpa"
        for form in _list_mask_forms(kinds, window):
            chosen = _as_seen if plain else _as_added

            def choose(
                batch: TreeBatch,
                form: Callable[[TreeBatch, Any], Any] = form,
                chosen: Any = chosen,  # noqa: ANN401
            ) -> Any:  # noqa: ANN401
                return form(batch, lambda mask: chosen(mask, model.dtype))

            try:
                if self._agrees(choose, window if kinds != {FULL} else None):
                    return choose
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever a family's code says to masks of another kind
                why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise _refuse(name, why)

    @torch.no_grad()
    def _agrees(self, choose: Callable[[TreeBatch], Any], window: int | None) -> bool:
        """Whether sequences that share a prefix give the states of sequences of their own."""
        model: Any = self.encoder.model
        table = model.get_input_embeddings().weight
        longest = self.encoder.max_length
        # Longer than the window, where texts can be.
        long = window is not None and window < longest
        sizes = (max(1, min(window if long and window else 5, longest - 3)), 2)
        generator = torch.Generator().manual_seed(0)
        values = torch.randint(len(table), (sum(sizes) + 5,), generator=generator).to(table.device)
        prefixes = Ragged(values[: sum(sizes)], sizes)
        ends = Ragged(values[sum(sizes) :], (3, 2))
        left, right = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
        was = model.training
        model.eval()
        found: list[Tensor] = []
        try:
            for share in (False, True):
                self._choose = choose if share else None
                trees = PrefixTrees(prefixes, ends, left, right, 0, 10**9, share)
                batch = trees.make_batch(tuple(range(len(trees.lengths))))
                found.append(self._run(batch, batch.ids)[torch.tensor(batch.pairs).argsort()])
        finally:
            self._choose = None
            model.train(was)
        return torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-3)


def _list_mask_forms(
    kinds: set[str], window: int | None
) -> Iterator[Callable[[TreeBatch, Any], Any]]:
    """Ways in which families take masks: one for all layers, or one by kind of layer."""
    if SLIDING in kinds or not kinds:
        yield lambda batch, cast: {
            FULL: cast(make_tree_mask(batch)),
            SLIDING: cast(make_tree_mask(batch, window)),
        }
    if SLIDING not in kinds or kinds == {SLIDING}:
        alone = window if kinds != {FULL} else None
        yield lambda batch, cast: cast(make_tree_mask(batch, alone))


def _as_seen(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return mask


def _as_added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the logits of an attention."""
    free = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(mask, free, torch.finfo(dtype).min)


def _refuse(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"architecture.share_prefix: {name} cannot read a prefix once for several items ({why}); "
        "set architecture.share_prefix=false, which reads it with each item."
    )


def check_causal(model: nn.Module, spec: str) -> None:
    """Raises an error where tokens see those that follow them.

    Args:
        model: A bare model.
        spec: As in `encoder.model`.

    Raises:
        ConfigError: They do: a prefix would depend on the item behind it.
    """
    raw: Any = model
    device = next(model.parameters()).device
    ids = torch.tensor([[1, 2], [1, 3]], device=device)
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            out = raw(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        model.train(was)
    states = out.last_hidden_state[:, 0]
    if not torch.allclose(states[0], states[1], rtol=1e-3, atol=1e-3):
        raise ConfigError(
            f"encoder.model: tokens of {spec} see those that follow them, and architecture=prompt "
            "reads the answer behind the last one; leave its attention causal."
        )

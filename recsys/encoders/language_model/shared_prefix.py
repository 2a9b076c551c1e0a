"""Sequences that begin alike, read together: the beginning once, each of their ends behind it.

A prefix and all of its ends stand in one sequence. A token sees the prefix and, of the ends, its
own alone; every end goes on counting positions where the prefix stops. What a token reads, and
where it stands, is then what it would be in a sequence of its own, so that states and gradients
are the same, in training too, and no cache of keys and values is handed from one pass to another:
activation checkpointing and learned prefixes work as ever. The attention runs over the whole
sequence and masks what is not seen, which is why a sequence takes no more ends than its budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from recsys.encoders.cut import ModelSplitError
from recsys.encoders.encoder import Encoder
from recsys.encoders.language_model.kept_states import KeepOptions, KeptTreeStates, TreeInputs
from recsys.encoders.language_model.prefix_trees import PrefixTrees, TreeBatch, make_tree_mask
from recsys.encoders.packing import enabling as packing
from recsys.encoders.padding import plan_micro_batches
from recsys.errors import ConfigError
from recsys.types import Ragged, upload

FULL, SLIDING = "full_attention", "sliding_attention"
"""What transformers calls the layers that see all earlier tokens, and those that see some."""

_BOOLEAN = ("sdpa", packing.NAME)
"""Attentions that take a mask of what is seen; packed ones do so where nothing is packed."""
_ADDED = "eager"


class SharedPrefixReader:
    """Final states of the last token of pairs of a prefix and an end.

    Args:
        encoder: A causal model.
        share: Whether the pairs of a prefix share a sequence.
        keeps: What may be kept of its frozen layers; None: nothing.

    Attributes:
        kept: What is kept of them, or None.
        line: Why nothing is, where it was asked for; else empty.

    Raises:
        ConfigError: The model cannot share a prefix.
    """

    def __init__(
        self, encoder: Encoder, share: bool = True, keeps: KeepOptions | None = None
    ) -> None:
        self.encoder, self.share, self.line = encoder, share, ""
        self._choose: Callable[[TreeBatch], Any] | None = None
        self.kept: KeptTreeStates | None = None
        if share:
            self._choose = self._find_mask_form()
        if keeps is not None and keeps.gb and encoder.lowest_trained > 0:
            try:
                self.kept = self._cut(keeps)
            except ModelSplitError as error:
                self.line = f"{error}: the layers below the lowest trained one always run"

    def plan(self, prefixes: Ragged, ends: Ragged, left: Tensor, right: Tensor) -> PrefixTrees:
        """The sequences that `read` runs; the arguments are those of `PrefixTrees`."""
        specials, budget = self.encoder.specials, self.encoder.chunk_tokens
        return PrefixTrees(prefixes, ends, left, right, specials.pad, budget, self.share)

    def read(
        self,
        trees: PrefixTrees,
        keep: bool = False,
        count: Callable[[KeptTreeStates | None, Sequence[int]], None] | None = None,
    ) -> Tensor:
        """(P, D) final states of the last token of each pair, in the order of the input.

        Args:
            trees: The sequences.
            keep: Whether what frozen layers make of them may be kept for the next time.
            count: Told the lengths of what is read, and what is kept of it or None.
        """
        parts: list[Tensor] = []
        order: list[int] = []
        for known, group in self._split_known(trees):
            lengths = [trees.lengths[row] for row in group]
            if count is not None:
                count(self.kept if known else None, lengths)
            # They are padded, also where the encoder packs single texts.
            for part in plan_micro_batches(lengths, self.encoder.chunk_tokens):
                batch = trees.make_batch(tuple(group[row] for row in part))
                run = partial(self._run, batch, trees, keep)
                parts.append(self.encoder.run_checkpointed(run, batch.ids))
                order.extend(batch.pairs)
        back = upload(torch.tensor(order).argsort(), parts[0].device)
        return torch.cat(parts)[back]

    def _split_known(self, trees: PrefixTrees) -> Iterator[tuple[bool, list[int]]]:
        """The sequences of which states are kept, and the others."""
        rows = list(range(len(trees.lengths)))
        if self.kept is None:
            yield False, rows
            return
        has = [self.kept.has(key) for key in trees.keys]
        for known in (False, True):
            group = [row for row in rows if has[row] is known]
            if group:
                yield known, group

    def _run(self, batch: TreeBatch, trees: PrefixTrees, keep: bool, ids: Tensor) -> Tensor:
        """(P, D) final states of a micro-batch's pairs."""
        if self.kept is None:
            return self._run_whole(batch, ids)
        return self.kept.run(self._name_inputs(batch, trees), keep)

    def _name_inputs(self, batch: TreeBatch, trees: PrefixTrees) -> TreeInputs:
        return TreeInputs(
            keys=[trees.keys[row] for row in batch.rows],
            lengths=[trees.lengths[row] for row in batch.rows],
            ids=batch.ids,
            positions=None if self._choose is None else batch.positions,
            mask=self._make_mask(batch),
            ends=batch.ends,
        )

    def _make_mask(self, batch: TreeBatch) -> Any:  # noqa: ANN401 - one, or one by kind of layer
        return (batch.branches >= 0).long() if self._choose is None else self._choose(batch)

    def _run_whole(self, batch: TreeBatch, ids: Tensor) -> Tensor:
        """As `_run`, of the whole model."""
        positions = {} if self._choose is None else {"position_ids": batch.positions}
        inputs = {"input_ids": ids, **positions}
        states = self.encoder.run_model(None, self._make_mask(batch), inputs)
        return states[batch.ends[0], batch.ends[1]]

    def _cut(self, keeps: KeepOptions) -> KeptTreeStates:
        """The model cut below its lowest trained layer.

        Raises:
            ModelSplitError: It cannot be cut, or gives other states then.
        """
        name, kept = type(self.encoder.model).__name__, KeptTreeStates(self.encoder, keeps)
        trees = self._make_probe((5, 2), self.share)
        batch = trees.make_batch(tuple(range(len(trees.lengths))))
        was = self.encoder.training
        self.encoder.eval()
        try:
            same = kept.agrees(
                self._name_inputs(batch, trees), partial(self._run_whole, batch, batch.ids)
            )
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a family's code does with layers that are not its own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelSplitError(f"{name} cannot be cut between two layers ({reason})") from error
        finally:
            self.encoder.train(was)
        if not same:
            raise ModelSplitError(f"{name}, cut between two layers, gives other states")
        return kept

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
        if implementation not in (*_BOOLEAN, _ADDED):
            raise _refuse(name, f"its attention is {implementation}, which takes no such mask")
        if kinds - {FULL, SLIDING}:
            raise _refuse(name, f"it has layers of {', '.join(sorted(kinds - {FULL, SLIDING}))}")
        plain = implementation in _BOOLEAN
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
        longest = self.encoder.max_length
        # Longer than the window, where texts can be.
        long = window is not None and window < longest
        sizes = (max(1, min(window if long and window else 5, longest - 3)), 2)
        was = model.training
        model.eval()
        found: list[Tensor] = []
        try:
            for share in (False, True):
                self._choose = choose if share else None
                trees = self._make_probe(sizes, share)
                batch = trees.make_batch(tuple(range(len(trees.lengths))))
                found.append(self._run_whole(batch, batch.ids)[torch.tensor(batch.pairs).argsort()])
        finally:
            self._choose = None
            model.train(was)
        return torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-3)

    def _make_probe(self, sizes: tuple[int, int], share: bool) -> PrefixTrees:
        """Random prefixes of two sizes, the first one with two ends."""
        table: Any = self.encoder.embedding.get_parameter("weight")
        generator = torch.Generator().manual_seed(0)
        values = torch.randint(len(table), (sum(sizes) + 5,), generator=generator).to(table.device)
        prefixes = Ragged(values[: sum(sizes)], sizes)
        ends = Ragged(values[sum(sizes) :], (3, 2))
        left, right = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
        return PrefixTrees(prefixes, ends, left, right, 0, 10**9, share)


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

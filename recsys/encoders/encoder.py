"""The encoder: raw token ids in, token states or one vector a text out.

Special tokens, truncation, padding and micro-batches are its own affair; nothing outside ever sees
a padded text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recsys.encoders import layers, pooling
from recsys.encoders import padding as flat
from recsys.encoders.micro_batches import MicroBatch, fill_micro_batches
from recsys.encoders.packing.layout import SPREAD, PackedLayout, Packing, run_packed
from recsys.encoders.pairs import PairLayout, compute_span_means
from recsys.encoders.special_tokens import SpecialTokens
from recsys.encoders.weights.precision import (
    check_trainable,
    compute_in,
    hold_in_fp32,
    restore_precision,
)
from recsys.errors import ConfigError
from recsys.types import Ragged, Tuned, upload

if TYPE_CHECKING:
    from recsys.encoders.sharded.passes import SharedPasses

_Out = TypeVar("_Out")


class Encoder(nn.Module):
    """A pretrained language model with its special tokens and a pooling.

    Args:
        model: A bare transformers text model.
        specials: Its special tokens.
        pooling_name: As in `encoder.pooling`, or several names.
        max_length: Longest text in tokens, special tokens included; the rest is cut off.
        chunk_tokens: Budget of padded tokens of a micro-batch; a longer text goes alone.
        checkpoint_chunks: Whether backward computes each micro-batch again instead of keeping what
            its layers made (Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016):
            a step then holds the activations of one micro-batch.
        dense: What the pooled vectors pass, one after the other; pretrained.
        unit: Whether the length of a vector is 1 to those who made the model. It is left to what
            compares vectors, which for the most part brings them to it anyway.
        skips: How many tokens at the left the pooling leaves out, of an item's text and of a
            user's: those of a prompt that does not count.
        cut: How many numbers at the front of a vector are kept, as models that are trained so have
            most of a text in them (Kusupati et al., Matryoshka Representation Learning, NeurIPS
            2022, section 3); None: all.
        in_bf16: Whether weights that do not train are held in bf16, and the model computes in it.

    Attributes:
        width: D, width of a token state.
        whole_width: Width of a vector before it is cut.
        vector_width: V, width of a vector.
        depth: Number of layers.
        cache_flag: Whether the model takes `use_cache`.
        packing: How its texts are packed, or None where they are padded.
        passes: What the passes of all processes are agreed by where its weights are spread over
            them, else None.

    Raises:
        ConfigError: An unknown pooling or model structure, or a length that cannot be.
    """

    def __init__(
        self,
        model: nn.Module,
        specials: SpecialTokens,
        pooling_name: str | Sequence[str],
        max_length: int,
        chunk_tokens: int = 1024,
        checkpoint_chunks: bool = False,
        *,
        dense: Sequence[nn.Module] = (),
        unit: bool = False,
        skips: tuple[int, int] = (0, 0),
        cut: int | None = None,
        in_bf16: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.specials = specials
        self.width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.pooling = pooling.make_pooling(pooling_name, self.width)
        self.dense = nn.Sequential(*dense)
        self.unit, self.skips, self.in_bf16 = unit, skips, in_bf16
        self.cut: int | None = None
        self.max_length = max_length
        self.chunk_tokens = chunk_tokens
        self.checkpoint_chunks = checkpoint_chunks
        self.packing: Packing | None = None
        self.depth = len(layers.find_layer_stack(model)[1])
        with torch.no_grad():
            one = torch.zeros(1, 1, self.width)
            whole = self.whole_width = self.pool_states(one, one[..., 0] == 0).shape[-1]
        if cut is not None and cut > whole:
            raise ConfigError(
                f"encoder.width is {cut}, and the encoder's vectors have {whole} numbers; set it "
                f"to {whole} or less."
            )
        self.cut, self.vector_width = cut, whole if cut is None else cut
        self._lowest = -1
        self.passes: SharedPasses | None = None
        # Encoders have no use for a cache of keys and values, and some refuse the argument.
        self.cache_flag = "use_cache" in inspect.signature(model.forward).parameters
        takes = inspect.signature(model.forward).parameters
        # RoBERTa takes the argument but knows one segment only, and GPT-2 has no number of them.
        kinds = int(getattr(model.config, "type_vocab_size", 1))
        self._segments = "token_type_ids" in takes and kinds > 1
        room = max_length - len(specials.prefix) - len(specials.suffix)
        if room < 1:
            raise ConfigError(
                f"encoder.max_length is {max_length}, which leaves no token for the text beside "
                "the special tokens; raise it."
            )
        limit = layers.count_positions(model)
        if limit is not None and max_length > limit:
            raise ConfigError(
                f"encoder.max_length is {max_length} but {type(model).__name__} has {limit} "
                f"positions; set it to {limit} or less."
            )
        if chunk_tokens < 1:
            raise ConfigError(f"encoder.chunk_tokens is {chunk_tokens}; set it to 1 or more.")

    @property
    def lowest_trained(self) -> int:
        """Lowest part that trains: -1 embeddings, 0 first layer, `depth` none."""
        return self._lowest

    @lowest_trained.setter
    def lowest_trained(self, value: int) -> None:
        self._lowest = value
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; whatever lies below the lowest trained layer stays in eval mode.

        Dropout in frozen layers would make their states differ from those that a cache keeps.
        """
        super().train(mode)
        if self._lowest >= 0:
            self.model.eval()
            for layer in layers.find_layer_stack(self.model)[1][self._lowest :]:
                layer.train(mode)
        return self

    def compile_layers(self) -> None:
        """Compiles the layers in place, at their first call; names and parameters stay.

        Each layer for itself and for any size: layers of one make share the code, and micro-batches
        have many shapes.
        """
        for layer in layers.find_layer_stack(self.model)[1]:
            layer.compile(dynamic=True)

    def compute_lengths(self, sizes: Iterable[int]) -> tuple[int, ...]:
        """Lengths of the states of texts with so many raw tokens."""
        extra = len(self.specials.prefix) + len(self.specials.suffix)
        return tuple(max(1, min(size + extra, self.max_length)) for size in sizes)

    def make_micro_batches(self, tokens: Ragged) -> Iterator[MicroBatch]:
        """Plans the micro-batches of raw token ids (sum of L,), shortest texts first."""
        lengths = self.compute_lengths(tokens.sizes)
        return fill_micro_batches(tokens, lengths, self.plan_micro_batches(lengths), self.specials)

    def plan_micro_batches(self, lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Rows of each micro-batch, shortest first, within the budget of padded tokens.

        Where texts are packed the budget is of real tokens, as long as the padded form of their
        states stays within a few times of it.
        """
        return flat.plan_micro_batches(lengths, self.chunk_tokens, SPREAD if self.packs else 1)

    def run_checkpointed(self, part: Callable[..., _Out], *tensors: Tensor) -> _Out:
        """What `part` makes of a micro-batch's tensors; with `checkpoint_chunks` made twice.

        Loss and gradients are those of one pass: the second one draws the same dropout. Evaluation
        keeps nothing for a backward pass and has nothing to make again.

        Args:
            part: Must give the same result again, and must not talk to other ranks.
            tensors: Its arguments.
        """
        if not (self.checkpoint_chunks and self.training and torch.is_grad_enabled()):
            return part(*tensors)
        out: _Out = checkpoint(part, *tensors, use_reentrant=False, preserve_rng_state=True)
        return out

    @property
    def packs(self) -> bool:
        """Whether texts are packed where the model is, and in what it computes now."""
        return self.packing is not None and self.packing.is_used(next(self.model.parameters()))

    def lay_out(self, lengths: Sequence[int] | None, padded: Tensor) -> PackedLayout | None:
        """Where the texts of a padded micro-batch stand when they are packed, None if they are not.

        Args:
            lengths: Tokens of each text; None where the host does not know them.
            padded: (N, L, ...) the micro-batch.
        """
        if lengths is None or self.packing is None or not self.packs:
            return None
        return self.packing.build_layout(lengths, padded.shape[1], padded.device)

    def run_micro_batch(self, chunk: MicroBatch) -> Tensor:
        """Token states (N, L, D) of a micro-batch; those of the padding are undefined."""
        layout = self.lay_out(chunk.lengths, chunk.ids)
        return self.run_model(layout, chunk.mask.long(), {"input_ids": chunk.ids})

    def run_model(
        self,
        layout: PackedLayout | None,
        mask: Tensor,
        padded: dict[str, Tensor],
        model: nn.Module | None = None,
    ) -> Tensor:
        """Token states (N, L, D) of right-padded inputs; those of the padding are undefined.

        Args:
            layout: How they are packed on the way, or None.
            mask: (N, L) 1 for real tokens.
            padded: What the model reads, (N, L, ...) each, by its own names.
            model: A twin that shares the model's layers; None: the model itself.
        """
        model = self.model if model is None else model
        flags = {"use_cache": False} if self.cache_flag else {}
        device = next(iter(padded.values())).device
        with compute_in(self.in_bf16, device):
            if layout is not None:
                states = run_packed(model, layout, padded, flags)
            else:
                states = model(**padded, attention_mask=mask, **flags).last_hidden_state
        return states.float() if self.in_bf16 else states

    def restore_precision(self) -> None:
        """Holds all weights as fp32 from here on, as what is written for others has them."""
        restore_precision(self.model)
        self.in_bf16 = False

    @property
    def dtype(self) -> torch.dtype:
        """Of token states and vectors."""
        return torch.float32 if self.in_bf16 else next(self.model.parameters()).dtype

    def compute_states(self, tokens: Ragged) -> Ragged:
        """Token states of each text, special tokens included.

        Args:
            tokens: Raw token ids (sum of L,).

        Returns:
            States (sum of L', D); L' is `lengths` of the sizes.
        """
        lengths = self.compute_lengths(tokens.sizes)
        more = self._join_passes(lengths)
        if not lengths:
            return Ragged(_add(self._make_empty_states(tokens.values.device), more), ())
        chunks = self.make_micro_batches(tokens)
        parts = [
            (chunk.rows, self.run_checkpointed(partial(self.run_micro_batch, chunk)))
            for chunk in chunks
        ]
        states = flat.unpad_states(parts, lengths)
        return states if more is None else Ragged(_add(states.values, more), states.sizes)

    def forward(self, tokens: Ragged, query: bool = False) -> Tensor:
        """Vectors (U, V) of texts given as raw token ids (sum of L,).

        Args:
            tokens: Their tokens, those of a prompt included.
            query: Whether they are texts of users and not of items.
        """
        more = self._join_passes(self.compute_lengths(tokens.sizes))
        if not tokens.sizes:
            return _add(self.make_empty_vectors(tokens.values.device), more)
        parts: list[Tensor] = []
        order: list[int] = []
        for chunk in self.make_micro_batches(tokens):
            parts.append(self.run_checkpointed(partial(self._encode_micro_batch, chunk, query)))
            order.extend(chunk.rows)
        vectors = torch.cat(parts)
        back = upload(torch.tensor(order).argsort(), vectors.device)
        return _add(vectors[back], more)

    def _join_passes(self, lengths: Sequence[int]) -> Tensor | None:
        """What other processes need beside the micro-batches of these lengths; see `passes`."""
        if self.passes is None:
            return None
        return self.passes.join(self, sum(1 for _ in self.plan_micro_batches(lengths)))

    def run_filler(self) -> Tensor:
        """States (1, 1, D) of a text of one token, which stands in for a micro-batch."""
        device = next(self.model.parameters()).device
        ids = torch.full((1, 1), self.specials.pad, device=device)
        chunk = MicroBatch((0,), (1,), ids, torch.ones_like(ids, dtype=torch.bool))
        return self.run_checkpointed(partial(self.run_micro_batch, chunk))

    def encode_padded(self, ids: Tensor, mask: Tensor, query: bool = False) -> Tensor:
        """Vectors (N, V) of ids (N, L) padded at either side, and mask (N, L)."""
        ids, mask = flat.move_left(ids, mask.bool())
        return self.pool_states(self.run_model(None, mask.long(), {"input_ids": ids}), mask, query)

    @property
    def embedding(self) -> nn.Module:
        """What makes vectors of token ids, before the model adds where they stand."""
        out: nn.Module = self.model.get_input_embeddings()  # type: ignore[operator]
        return out

    def _encode_micro_batch(self, chunk: MicroBatch, query: bool) -> Tensor:
        """Vectors (N, V) of a micro-batch."""
        return self.pool_states(self.run_micro_batch(chunk), chunk.mask, query)

    def pool_states(self, states: Tensor, mask: Tensor, query: bool = False) -> Tensor:
        """Vectors (N, V) of token states (N, L, D).

        Args:
            states: Final states.
            mask: (N, L) true for real tokens.
            query: Whether the texts are those of users and not of items.
        """
        skip = self.skips[query]
        if skip:
            mask = mask & (torch.arange(mask.shape[1], device=mask.device) >= skip)
        vectors: Tensor = self.dense(self.pooling(states, mask))
        return vectors if self.cut is None else vectors[..., : self.cut]

    def make_empty_vectors(self, device: torch.device) -> Tensor:
        """(0, V) of no text."""
        return torch.zeros(0, self.vector_width, device=device, dtype=self.dtype)

    def encode_pairs(
        self, first: Ragged, second: Ragged, left: Tensor, right: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Joint passes over pairs of texts; the first is cut so that the second always fits.

        All pairs of a call are planned together by length, and a text that stands in many pairs
        is given once.

        Args:
            first: Raw token ids of texts, cut at the end where a pair is too long.
            second: Raw token ids of texts, cut only where one alone is too long.
            left: (P,) text of `first` in each pair, on the host.
            right: (P,) text of `second` in each pair, on the host.

        Returns:
            Mean states of the first text's tokens, of the second's and of the whole sequence,
            each (P, D); zero where a text is empty.
        """
        device = first.values.device
        if not len(left):
            empty = _add(self._make_empty_states(device), self._join_passes(()))
            return empty, empty, empty
        pairing = PairLayout(first, second, left, right, self.specials, self.max_length)
        more = self._join_passes(pairing.lengths)
        parts: list[tuple[Tensor, ...]] = []
        order: list[int] = []
        for rows in self.plan_micro_batches(pairing.lengths):
            index, kind = (upload(x, device) for x in pairing.compute_places(rows))
            sizes = [pairing.lengths[row] for row in rows]
            means = partial(self.compute_pair_means, lengths=sizes)
            parts.append(self.run_checkpointed(means, pairing.table[index], kind))
            order.extend(rows)
        back = upload(torch.tensor(order).argsort(), device)
        a, b, whole = (
            _add(torch.cat(list(column))[back], more) for column in zip(*parts, strict=True)
        )
        return a, b, whole

    def compute_pair_means(
        self, ids: Tensor, kind: Tensor, lengths: Sequence[int] | None = None
    ) -> tuple[Tensor, ...]:
        """Means (N, D) of both texts and the whole of laid out pairs, each (N, L).

        Models with segments see the second text and what follows as one.

        Args:
            ids: Token ids.
            kind: Kind of each token; see `PairLayout`.
            lengths: Tokens of each pair, where the host knows them.
        """
        inputs = {"input_ids": ids}
        if self._segments:
            inputs["token_type_ids"] = ((kind == 1).cumsum(1) > 0).long() * (kind >= 0)
        layout = self.lay_out(lengths, ids)
        return compute_span_means(self.run_model(layout, (kind >= 0).long(), inputs), kind)

    def _make_empty_states(self, device: torch.device) -> Tensor:
        return torch.zeros(0, self.width, device=device, dtype=self.dtype)

    def train_only(
        self,
        trained: Iterable[str],
        added: Iterable[str],
        anchor: str,
        merge: Callable[[], None] | None = None,
        *,
        identical: bool = True,
        no_decay: Iterable[str] = (),
    ) -> Tuned:
        """Freezes all but the named parameters and describes the outcome.

        Parameters of the pooling always join them: they start at the mean and would do nothing
        if they stayed there. Vectors (biases, norms, magnitudes, the
        pooling query) are not decayed.

        Args:
            trained: Names as in `named_parameters` of this encoder.
            added: Those among them that the pretrained model lacks.
            anchor: "pretrained" or "zero".
            merge: Folds the added ones into the pretrained ones.
            identical: Whether the output is still that of the pretrained model.
            no_decay: Those among the trained ones that are no vectors and are not decayed either.
        """
        extra = {f"pooling.{name}" for name, _ in self.pooling.named_parameters()}
        names = frozenset(trained) | extra
        check_trainable(self, names)
        depths = layers.compute_parameter_depths(self.model)
        for name, parameter in self.named_parameters():
            if name in names:  # in fp32: steps smaller than the last digit of bf16 would be lost
                hold_in_fp32(parameter)
            parameter.requires_grad_(name in names)
        lowest = min((d for n, d in depths.items() if f"model.{n}" in names), default=self.depth)
        self.lowest_trained = lowest
        flat = (n for n, p in self.named_parameters() if n in names and p.ndim <= 1)
        return Tuned(
            trained=names,
            added=frozenset(added) | extra,
            no_decay=frozenset(flat) | frozenset(no_decay),
            lowest_layer=lowest,
            identical=identical,
            anchor=anchor,
            merge=merge,
        )


def _add(values: Tensor, more: Tensor | None) -> Tensor:
    """Values with a () zero that hangs on passes which only other processes needed."""
    return values if more is None else values + more.to(values.dtype)

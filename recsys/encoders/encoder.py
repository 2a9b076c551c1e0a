"""The encoder: raw token ids in, token states or one vector a text out.

Special tokens, truncation, padding and micro-batches are its own affair; nothing outside ever sees
a padded text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recsys.encoders import layers, pooling
from recsys.errors import ConfigError
from recsys.types import Ragged, Tuned


@dataclass(frozen=True)
class Specials:
    """The token ids that a model expects around its texts.

    Attributes:
        prefix: Before a text or pair.
        separators: Between the two texts of a pair.
        suffix: After a text or pair.
        pad: Fills a batch; also the only token of an empty text where there is no prefix or suffix.
    """

    prefix: tuple[int, ...]
    separators: tuple[int, ...]
    suffix: tuple[int, ...]
    pad: int

    @staticmethod
    def of(tokenizer: Any) -> Specials:  # noqa: ANN401 - transformers' tokenizers share no typed base
        """Reads them off what the tokenizer puts around "a" and around the pair ("a", "b").

        Raises:
            ConfigError: The tokenizer alters the texts themselves when it adds special tokens.
        """
        name = type(tokenizer).__name__
        a = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        b = list(tokenizer("b", add_special_tokens=False)["input_ids"])
        one = list(tokenizer("a")["input_ids"])
        two = list(tokenizer("a", "b")["input_ids"])
        start = _find(one, a)
        if not a or not b or start < 0:
            raise ConfigError(
                f"encoder: the special tokens of {name} cannot be told from its text tokens; "
                "choose a model with another tokenizer."
            )
        prefix, suffix = one[:start], one[start + len(a) :]
        head, tail = prefix + a, b + suffix
        if (
            len(two) < len(head) + len(tail)
            or two[: len(head)] != head
            or two[len(two) - len(tail) :] != tail
        ):
            raise ConfigError(
                f"encoder: {name} does not put the special tokens of a single text around a pair; "
                "choose a model with another tokenizer."
            )
        pad = tokenizer.pad_token_id
        if pad is None:
            # Decoders often name no padding; it is masked, so that any known id will do.
            pad = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
        between = two[len(head) : len(two) - len(tail)]
        return Specials(tuple(prefix), tuple(between), tuple(suffix), int(pad))


def _find(haystack: list[int], needle: list[int]) -> int:
    """Start of the first occurrence of `needle`, or -1."""
    for start in range(len(haystack) - len(needle) + 1):
        if haystack[start : start + len(needle)] == needle:
            return start
    return -1


@dataclass(frozen=True)
class Chunk:
    """A micro-batch, right-padded.

    Attributes:
        rows: Which texts it holds, by their place in the input.
        lengths: Length of each, special tokens included.
        ids: (N, L) token ids.
        mask: (N, L) true for real tokens.
    """

    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    ids: Tensor
    mask: Tensor


class Encoder(nn.Module):
    """A pretrained language model with its special tokens and a pooling.

    Args:
        model: A bare transformers text model.
        specials: Its special tokens.
        pooling_name: mean, cls, last or attention.
        max_length: Longest text in tokens, special tokens included; the rest is cut off.
        chunk_tokens: Budget of padded tokens of a micro-batch; a longer text goes alone.

    Attributes:
        width: D, width of a token state.
        depth: Number of layers.
        cache_flag: Whether the model takes `use_cache`.

    Raises:
        ConfigError: An unknown pooling or model structure, or a length that cannot be.
    """

    def __init__(
        self,
        model: nn.Module,
        specials: Specials,
        pooling_name: str,
        max_length: int,
        chunk_tokens: int = 1024,
    ) -> None:
        super().__init__()
        self.model = model
        self.specials = specials
        self.width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.pooling = pooling.make(pooling_name, self.width)
        self.max_length = max_length
        self.chunk_tokens = chunk_tokens
        self.depth = len(layers.layer_stack(model)[1])
        self._lowest = -1
        # Encoders have no use for a cache of keys and values, and some refuse the argument.
        self.cache_flag = "use_cache" in inspect.signature(model.forward).parameters
        takes = inspect.signature(model.forward).parameters
        # RoBERTa takes the argument but knows one segment only.
        self._segments = "token_type_ids" in takes and model.config.type_vocab_size > 1  # type: ignore[union-attr, operator]
        room = max_length - len(specials.prefix) - len(specials.suffix)
        if room < 1:
            raise ConfigError(
                f"encoder.max_length is {max_length}, which leaves no token for the text beside "
                "the special tokens; raise it."
            )
        limit = _positions(model)
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
            for layer in layers.layer_stack(self.model)[1][self._lowest :]:
                layer.train(mode)
        return self

    def lengths(self, sizes: Iterable[int]) -> tuple[int, ...]:
        """Lengths of the states of texts with so many raw tokens."""
        extra = len(self.specials.prefix) + len(self.specials.suffix)
        return tuple(max(1, min(size + extra, self.max_length)) for size in sizes)

    def chunks(self, tokens: Ragged) -> Iterator[Chunk]:
        """Plans the micro-batches of raw token ids (sum of L,), shortest texts first.

        The plan is made from sizes on the host alone: no step waits for the device.
        """
        lengths = self.lengths(tokens.sizes)
        prefix, suffix = self.specials.prefix, self.specials.suffix
        constants = torch.tensor([*prefix, *suffix, self.specials.pad], dtype=torch.long)
        device = tokens.values.device
        # Every id of every chunk is looked up in the tokens followed by the special tokens.
        table = torch.cat([tokens.values.long(), constants.to(device)])
        for rows in self.plan(lengths):
            index, mask = self._places(tokens, rows, lengths)
            ids = table[index.to(device)]
            yield Chunk(rows, tuple(lengths[r] for r in rows), ids, mask.to(device))

    def plan(self, lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Rows of each micro-batch, shortest first, within the budget of padded tokens."""
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        begin = 0
        while begin < len(order):
            end = begin + 1
            while end < len(order) and (end + 1 - begin) * lengths[order[end]] <= self.chunk_tokens:
                end += 1
            yield tuple(order[begin:end])
            begin = end

    def _places(
        self, tokens: Ragged, rows: tuple[int, ...], lengths: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Where each id of a chunk stands in the table of tokens and specials; (N, L) twice."""
        total, before = tokens.values.shape[0], len(self.specials.prefix)
        after = len(self.specials.suffix)
        offsets = tokens.offsets
        start = torch.tensor([offsets[r] for r in rows]).unsqueeze(1)
        kept = torch.tensor(
            [min(tokens.sizes[r], lengths[r] - before - after) for r in rows]
        ).unsqueeze(1)
        length = torch.tensor([lengths[r] for r in rows]).unsqueeze(1)
        place = torch.arange(max(lengths[r] for r in rows)).unsqueeze(0)
        index = torch.full((len(rows), place.shape[1]), total + before + after)
        index = torch.where(place < before + kept + after, total + place - kept, index)
        index = torch.where(place < before + kept, start + place - before, index)
        index = torch.where(place < before, total + place, index)
        return index, place < length

    def run(self, chunk: Chunk) -> Tensor:
        """Token states (N, L, D) of a micro-batch; those of the padding are undefined."""
        mask = chunk.mask.long()
        if self.cache_flag:
            out = self.model(input_ids=chunk.ids, attention_mask=mask, use_cache=False)
        else:
            out = self.model(input_ids=chunk.ids, attention_mask=mask)
        states: Tensor = out.last_hidden_state
        return states

    def states(self, tokens: Ragged) -> Ragged:
        """Token states of each text, special tokens included.

        Args:
            tokens: Raw token ids (sum of L,).

        Returns:
            States (sum of L', D); L' is `lengths` of the sizes.
        """
        lengths = self.lengths(tokens.sizes)
        if not lengths:
            return Ragged(self._none(tokens.values.device), ())
        parts: list[Tensor] = []
        places: list[Tensor] = [torch.empty(0)] * len(lengths)
        base = 0
        for chunk in self.chunks(tokens):
            hidden = self.run(chunk)
            for i, row in enumerate(chunk.rows):
                first = base + i * hidden.shape[1]
                places[row] = torch.arange(first, first + lengths[row])
            base += hidden.shape[0] * hidden.shape[1]
            parts.append(hidden.flatten(0, 1))
        flat = torch.cat(parts)
        # One gather drops the padding and restores the order of the input.
        return Ragged(flat[torch.cat(places).to(flat.device)], lengths)

    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors (U, D) of texts given as raw token ids (sum of L,)."""
        if not tokens.sizes:
            return self._none(tokens.values.device)
        parts: list[Tensor] = []
        order: list[int] = []
        for chunk in self.chunks(tokens):
            parts.append(self.pooling(self.run(chunk), chunk.mask))
            order.extend(chunk.rows)
        vectors = torch.cat(parts)
        back = torch.tensor(order).argsort().to(vectors.device)
        return vectors[back]

    def pairs(self, first: Ragged, second: Ragged) -> tuple[Tensor, Tensor, Tensor]:
        """Joint passes over pairs of texts; the first is cut so that the second always fits.

        Args:
            first: Raw token ids of P texts, cut at the end where a pair is too long.
            second: Raw token ids of P texts, cut only where it alone is too long.

        Returns:
            Mean states of the first text's tokens, of the second's and of the whole sequence,
            each (P, D); zero where a text is empty.
        """
        built = [self._pair(a, b) for a, b in zip(first.split(), second.split(), strict=True)]
        device = first.values.device
        if not built:
            return self._none(device), self._none(device), self._none(device)
        parts: list[tuple[Tensor, ...]] = []
        order: list[int] = []
        for rows in self.plan([len(ids) for ids, _ in built]):
            ids = pad_sequence([built[r][0] for r in rows], True, self.specials.pad)
            kind = pad_sequence([built[r][1] for r in rows], True, -1)
            states = self._run_pairs(ids.to(device), kind.to(device))
            parts.append(tuple(_span(states, kind.to(device), part) for part in _SPANS))
            order.extend(rows)
        back = torch.tensor(order).argsort().to(device)
        a, b, whole = (torch.cat(list(column))[back] for column in zip(*parts, strict=True))
        return a, b, whole

    def _pair(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (L,) of a pair, and which of them are the first text (0), second (1), special (2)."""
        s = self.specials
        room = self.max_length - len(s.prefix) - len(s.separators) - len(s.suffix)
        second = second[:room]
        first = first[: room - len(second)]
        pieces = [(s.prefix, 2), (first, 0), (s.separators, 2), (second, 1), (s.suffix, 2)]
        ids = [torch.as_tensor(piece, dtype=torch.long).cpu() for piece, _ in pieces]
        kinds = [torch.full((len(x),), k) for x, (_, k) in zip(ids, pieces, strict=True)]
        return torch.cat(ids), torch.cat(kinds)

    def _run_pairs(self, ids: Tensor, kind: Tensor) -> Tensor:
        """States (N, L, D); models with segments see the second text and what follows as one."""
        inputs = {"input_ids": ids, "attention_mask": (kind >= 0).long()}
        if self._segments:
            inputs["token_type_ids"] = ((kind == 1).cumsum(1) > 0).long() * (kind >= 0)
        flag = {"use_cache": False} if self.cache_flag else {}
        states: Tensor = self.model(**inputs, **flag).last_hidden_state
        return states

    def _none(self, device: torch.device) -> Tensor:
        return torch.zeros(0, self.width, device=device, dtype=next(self.model.parameters()).dtype)

    def train_only(
        self,
        trained: Iterable[str],
        added: Iterable[str],
        anchor: str,
        merge: Callable[[], None] | None = None,
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
        """
        extra = {f"pooling.{name}" for name, _ in self.pooling.named_parameters()}
        names = frozenset(trained) | extra
        depths = layers.layer_of(self.model)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in names)
        lowest = min((d for n, d in depths.items() if f"model.{n}" in names), default=self.depth)
        self.lowest_trained = lowest
        flat = (n for n, p in self.named_parameters() if n in names and p.ndim <= 1)
        return Tuned(
            trained=names,
            added=frozenset(added) | extra,
            no_decay=frozenset(flat),
            lowest_layer=lowest,
            identical=True,
            anchor=anchor,
            merge=merge,
        )


_SPANS = ((0,), (1,), (0, 1, 2))


def _span(states: Tensor, kind: Tensor, wanted: tuple[int, ...]) -> Tensor:
    """Mean (N, D) of the states (N, L, D) of some kinds (N, L) of tokens; zero without any."""
    mask = torch.isin(kind, torch.tensor(wanted, device=kind.device)).unsqueeze(-1)
    weight = mask.to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


def _positions(model: nn.Module) -> int | None:
    """How many tokens the model has positions for, or None where nothing bounds it."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            # RoBERTa counts from the place after its padding.
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None else int(limit)

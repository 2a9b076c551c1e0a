"""The types that pass from room to room, and the legend of their shapes.

Shape letters: B rows (users or impressions), Q queries, H history, C candidates, U unique items of
a step, L tokens, D width, I items in the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

from recsys import lazy

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy.import_lazily("torch")


def upload(x: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; a copy to a GPU goes through pinned memory.

    A copy from ordinary memory would first wait until the GPU has done all that was asked of it.
    """
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


@dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths, one after the other, never padded.

    Attributes:
        values: (sum of lengths, ...) the elements of all sequences.
        sizes: Length of each sequence, known on the host so that no step has to ask a device.
    """

    values: Tensor
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if sum(self.sizes) != self.values.shape[0]:
            raise ValueError(f"sizes sum to {sum(self.sizes)}, values hold {self.values.shape[0]}")

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Start of each sequence and, last, the total: len + 1 numbers."""
        out = [0]
        for size in self.sizes:
            out.append(out[-1] + size)
        return tuple(out)

    def split(self) -> list[Tensor]:
        """The sequences as views of `values`, each (L, ...)."""
        return list(torch.split(self.values, list(self.sizes)))

    def to(self, device: torch.device) -> Ragged:
        """The same on `device`, without waiting for what the device is doing."""
        return Ragged(upload(self.values, device), self.sizes)

    @staticmethod
    def from_sequences(sequences: list[Tensor]) -> Ragged:
        """Joins sequences of shape (L, ...) in the given order.

        Raises:
            ValueError: No sequence was given, so that neither dtype nor width is known.
        """
        if not sequences:
            raise ValueError("Ragged.from_sequences needs at least one sequence")
        return Ragged(torch.cat(sequences), tuple(s.shape[0] for s in sequences))


@dataclass(frozen=True)
class ItemBatch:
    """The unique items of a step, planned by the loader on the host.

    Attributes:
        items: (U,) catalog rows, each once.
        sizes: Raw token count of each item's text, on the host.
        host: `items` as they were before they went to a device, or None where they did not.
        first: How many items, from the first on, stand among candidates; None: not told.
        epoch: Epoch of training whose texts are read, of which some words are left out; None: the
            whole texts.
    """

    items: Tensor
    sizes: tuple[int, ...]
    host: Tensor | None = None
    first: int | None = None
    epoch: int | None = None

    def select_candidates(self) -> ItemBatch:
        """The part of the plan that candidates point into; their places in it stay the same."""
        host = None if self.host is None else self.host[: self.first]
        items, sizes = self.items[: self.first], self.sizes[: self.first]
        return ItemBatch(items, sizes, host, self.first, self.epoch)

    @property
    def rows(self) -> Tensor:
        """(U,) catalog rows on the host; only a plan that was made on a device waits for it."""
        return self.items.cpu() if self.host is None else self.host

    def to(self, device: torch.device, non_blocking: bool = False) -> ItemBatch:
        """The plan with its items on `device`, and on the host as before."""
        leaves = self.items.device.type == "cpu" and device.type != "cpu"
        host = self.items if leaves else self.host
        items = self.items.to(device, non_blocking=non_blocking)
        return ItemBatch(items, self.sizes, host, self.first, self.epoch)


@dataclass(frozen=True)
class Batch:
    """One step's work, as indices only.

    Attributes:
        plan: The unique items that the step needs.
        users: (B,) user rows.
        history: (B, H) indices into the plan in time order, -1 for none (at the end).
        query: (Q, 2) row in the batch and length of the history prefix that the query may see.
        candidates: (Q, C) indices into the plan, -1 for none; column 0 is the target in training.
        labels: (Q, C) 1 for a positive, else 0.
        weight: (Q, C) the observed weight of the pair (1 unless the data says otherwise).
        case: (Q,) number of the case, -1 for a filler that is never counted.
        seen: (S, 2) query and catalog row of all that a user had before a case, for masking; empty
            in training.
        basket_items: (S, 2) query and catalog row of the other items of the case's basket, which
            are not ranked with its target; None in training, and where data has no baskets.
        context: Contextual features of each query by name: codes (Q,), 0 for unknown.
        extras: Further columns by name, each (B,), for the table of cases alone.
        importance: (Q,) what each training query's event weighs in the loss, 1 on average over all
            targets; None where all weigh alike, and in evaluation.
        disliked: (Q, D) indices into the plan of what the user did not like before the query, in
            time order, -1 for none (at the end); None where nothing reads it.
        host: The batch as it was before it went to a device, or None where it did not; texts are
            gathered by what it says, so that no step waits for a device.
    """

    plan: ItemBatch
    users: Tensor
    history: Tensor
    query: Tensor
    candidates: Tensor
    labels: Tensor
    weight: Tensor
    case: Tensor
    seen: Tensor
    basket_items: Tensor | None = None
    context: dict[str, Tensor] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)
    importance: Tensor | None = None
    disliked: Tensor | None = None
    host: Batch | None = None

    @property
    def at_host(self) -> Batch:
        """The batch on the host; only one that was made on a device waits for it."""
        if self.host is not None:
            return self.host
        return self if self.users.device.type == "cpu" else self.to(torch.device("cpu"))

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """The batch with every tensor on `device`; this is how Lightning moves it."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=non_blocking)

        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: move(v) if isinstance(v, torch.Tensor) else v for k, v in moved.items()}
        moved["plan"] = self.plan.to(device, non_blocking)
        moved["context"] = {k: move(v) for k, v in self.context.items()}
        moved["extras"] = {k: move(v) for k, v in self.extras.items()}
        if self.users.device.type == "cpu" and device.type != "cpu":
            moved["host"] = self
        return Batch(**moved)


@dataclass(frozen=True)
class TextBatch:
    """Texts of a step of pretraining, and what is to be learned of them.

    Attributes:
        tokens: Raw token ids of N texts, as the encoder is to read them.
        case: (B,) numbers of the examples; -1 for fillers.
        parts: What the loss reads besides, by names of its own.
    """

    tokens: Ragged
    case: Tensor
    parts: dict[str, Tensor]

    def to(self, device: torch.device, non_blocking: bool = False) -> TextBatch:
        """The batch with every tensor on `device`; this is how Lightning moves it."""
        parts = {k: v.to(device, non_blocking=non_blocking) for k, v in self.parts.items()}
        return TextBatch(self.tokens.to(device), self.case.to(device), parts)


@dataclass(frozen=True)
class Scored:
    """What an architecture returns for a batch: scores of the candidates, or what makes them.

    Attributes:
        scores: (Q, C) scores of the candidates, -1 places undefined; None where vectors are given.
        queries: (Q, D) query vectors, or None.
        items: (U, D) item vectors of the plan, or None.
    """

    scores: Tensor | None = None
    queries: Tensor | None = None
    items: Tensor | None = None


@dataclass(frozen=True)
class ScoreSplit:
    """Scores of N items for one query as sums of what is known of it.

    Attributes:
        history: (N, U) what each item of the query's plan adds, however often it was had.
        rest: By name, (N,) what belongs to no item of the history, such as how popular an item is.
    """

    history: Tensor
    rest: dict[str, Tensor]


@dataclass(frozen=True)
class Witnesses:
    """Others whose choices speak for an item: how many, and nothing that a single one of them did.

    Attributes:
        count: How many queries of others led to the item.
        among: Of so many.
        items: Catalog rows that at least two of these others took as well, the most frequent first.
    """

    count: int
    among: int
    items: tuple[int, ...]


@dataclass(frozen=True)
class HistoryScore:
    """Scores of N items as a function of the vectors of one query's history.

    Attributes:
        vectors: (U, D) of the items of its plan.
        baseline: (U, D) what stands for an item that says nothing.
        score: (S, U, D) -> (S, N), differentiable.
    """

    vectors: Tensor
    baseline: Tensor
    score: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AskedText:
    """A free text that asks in place of a user.

    Attributes:
        text: As it was given.
        tokens: Its raw token ids, one text, those of its prompt included.
    """

    text: str
    tokens: Ragged


@dataclass(frozen=True)
class Passage:
    """A text that a score reads, and where the tokens that are read of it stand in it.

    Attributes:
        kind: What it is to the score: the title of the item that is scored, one of the history, a
            user's profile, what is said of the moment, or what is looked for.
        text: It, behind its prompt.
        begin: Length of the prompt.
        spans: First character of each token and the one behind its last.
        row: Catalog row of an item whose text it is, else None.
    """

    kind: Literal["item", "title", "profile", "context", "text"]
    text: str
    begin: int
    spans: tuple[tuple[int, int], ...]
    row: int | None = None


@dataclass(frozen=True)
class TokenScore:
    """A score as a function of the token ids of one sequence.

    Attributes:
        passages: The texts in it.
        ids: (L,) token ids, special ones included.
        kinds: (L,) of a token: first text 0, second 1, special 2, padding -1.
        owner: (L,) the passage of each token, which come in order; -1: it belongs to none.
        pad: Id of the token that says nothing.
        embedding: Makes vectors of token ids.
        score: (S, L) ids and (L,) kinds -> (S,), differentiable in what the embedding gives.
        without: By name of what else the score has, the same function without that and all that is
            named before.
    """

    passages: tuple[Passage, ...]
    ids: Tensor
    kinds: Tensor
    owner: Tensor
    pad: int
    embedding: torch.nn.Module
    score: Callable[[Tensor, Tensor], Tensor]
    without: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenSplit:
    """A score as a sum over the tokens of some texts.

    Attributes:
        passages: The texts.
        values: Of each, (tokens,) what they add.
        rest: By name, what belongs to no token.
        matches: Of each passage, the text that each token finds its like in; empty where tokens
            find none.
    """

    passages: tuple[Passage, ...]
    values: tuple[Tensor, ...]
    rest: Mapping[str, float] = field(default_factory=dict)
    matches: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Loss:
    """A loss as a sum and a count, so that ranks can be added up exactly.

    Attributes:
        total: () sum over the counted queries or pairs, each times what its event weighs.
        count: () how many were counted, or the sum of what they weigh.
    """

    total: Tensor
    count: Tensor


@dataclass(frozen=True)
class Tuned:
    """What a tuning method did to an encoder.

    Attributes:
        trained: Names of the encoder's parameters that train.
        added: The subset of `trained` that the method added to the pretrained model.
        no_decay: The subset of `trained` that weight decay leaves alone (biases and norms).
        lowest_layer: Lowest layer that trains: -1 the embeddings, 0 the first layer, and the
            number of layers where none trains.
        identical: Whether the output is bit-identical to the pretrained model's at the start.
        anchor: Where L2-SP pulls: "pretrained" to the start, "zero" to zero.
        merge: Folds the added parameters into the pretrained ones, or None where it cannot.
    """

    trained: frozenset[str]
    added: frozenset[str]
    no_decay: frozenset[str]
    lowest_layer: int
    identical: bool
    anchor: str
    merge: Callable[[], None] | None = None


@dataclass(frozen=True)
class VectorScore:
    """How a score is made of a query's vector and an item's: scale times their product, and more.

    Attributes:
        scale: What the product is multiplied by.
        added: (I,) what is added for an item, whatever the query, or None.
        complete: Whether that is the whole score.
        unit: Whether both vectors have length 1.
    """

    scale: float
    added: Tensor | None
    complete: bool
    unit: bool

"""The frozen prefix: token states below the lowest trained layer, computed once and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.batches.catalog import Catalog
from recsys.encoders.cache import common
from recsys.encoders.cache.common import Dtype, Report
from recsys.encoders.cache.states import DTYPES, Place, States, stored
from recsys.encoders.cut import Prefix, Unsupported
from recsys.encoders.encoder import Encoder
from recsys.encoders.padding import unpadded
from recsys.runtime.progress import track
from recsys.runtime.store import Store
from recsys.types import Ragged, upload

_FORMAT = 2  # raise it when the files change, so that old folders are not read
_GATHER = 1 << 24  # numbers a gather: one call for many micro-batches, in bounded memory


class PrefixCache:
    """Kept states of a whole catalog, and vectors made from them.

    Args:
        prefix: The cut model.
        states: What `build` made.
        report: What it cost and how true it is.
    """

    def __init__(self, prefix: Prefix, states: States, report: Report) -> None:
        self.prefix, self.states, self.report = prefix, states, report

    @staticmethod
    def size_gb(encoder: Encoder, catalog: Catalog, dtype: Dtype = "fp32") -> float:
        """Size of the states of a whole catalog, in GB (10^9 bytes)."""
        lengths = encoder.lengths(catalog.sizes(torch.arange(len(catalog))))
        return sum(lengths) * encoder.width * DTYPES[dtype][1].itemsize / 1e9

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        catalog: Catalog,
        store: Store,
        *,
        dtype: Dtype = "fp32",
        place: Place = "auto",
        device: torch.device | None = None,
        show: bool = False,
    ) -> PrefixCache:
        """Computes the states, or finds those of an earlier run with the same prefix and texts.

        Args:
            encoder: The tuned encoder.
            catalog: The item texts.
            store: Where the states are kept.
            dtype: In which precision.
            place: Where they lie while a run uses them; see `States`.
            device: Where to compute them; None where the encoder is.
            show: Whether to show how far it is.

        Raises:
            Unsupported: The model cannot be cut.
            DataError: Kept states differ from what the model computes now, or are too large for
                half precision.
        """
        began = time.perf_counter()
        prefix = Prefix(encoder)
        sizes = catalog.sizes(torch.arange(len(catalog)))
        lengths = np.asarray(encoder.lengths(sizes), dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])

        def parts() -> dict[str, object]:
            return {
                "format": _FORMAT,
                "weights": common.weights_hash(encoder, prefix.depth),
                "dtype": dtype,
                "depth": prefix.depth,
                **common.key_parts(encoder, catalog),
            }

        def write(folder: Path, other: common.Donor | None) -> None:
            np.save(folder / "offsets.npy", offsets)
            _write(prefix, catalog, folder, dtype, other, show)

        with common.still(encoder, device):
            _probe(prefix, catalog)
            made = common.found(store, "prefix", parts, write, catalog)
            states = States(made.folder, place)
            errors, vector_error = _errors(prefix, states, catalog)
            common.check(errors, dtype, "states", made.folder)
        report = common.report(
            "states", prefix.depth, dtype, states.mapped, made, began, errors, vector_error
        )
        return cls(prefix, states, report)

    def of(self, encoder: Encoder) -> PrefixCache:
        """The same states below another encoder that shares the frozen layers."""
        return PrefixCache(Prefix(encoder), self.states, self.report)

    def vectors(self, rows: Tensor) -> Tensor:
        """(U, D) pooled texts of catalog rows (U,), from the kept states on."""
        return _vectors(self.prefix, self.states, rows)

    def states_of(self, rows: Tensor) -> Ragged:
        """Final token states (sum of L, D) of catalog rows (U,), special tokens included."""
        return _tokens(self.prefix, self.states, rows)


def _write(
    prefix: Prefix,
    catalog: Catalog,
    folder: Path,
    dtype: Dtype,
    other: common.Donor | None,
    show: bool,
) -> None:
    """Fills `states.npy`, beside the offsets that are there, with what is computed or kept."""
    offsets = np.load(folder / "offsets.npy")
    out = np.lib.format.open_memmap(
        folder / "states.npy",
        mode="w+",
        dtype=DTYPES[dtype][0],
        shape=(int(offsets[-1]), prefix.encoder.width),
    )
    todo = common.missing(catalog, other)
    if other is not None:
        old = np.load(other.folder / "states.npy", mmap_mode="r")
        starts = np.load(other.folder / "offsets.npy")
        for row in other.has:
            from_ = other.rows[row]
            out[offsets[row] : offsets[row + 1]] = old[starts[from_] : starts[from_ + 1]]
    with track("states below the trained layers", len(todo), "texts", show) as task:
        for row, states in _compute(prefix, catalog, todo) if len(todo) else ():
            out[offsets[row] : offsets[row + 1]] = stored(states, dtype).numpy()
            task.advance()
    out.flush()


def _vectors(prefix: Prefix, states: States, rows: Tensor) -> Tensor:
    """(U, V) pooled texts of catalog rows (U,), from kept states on."""
    encoder = prefix.encoder
    if not len(rows):
        return encoder.no_vectors(next(encoder.parameters()).device)

    def pooled(inputs: Tensor, mask: Tensor) -> Tensor:
        return encoder.vectors(prefix.above(inputs, mask), mask)

    out: list[Tensor] = []
    order: list[int] = []
    for part, vectors in _above(prefix, states, _lengths(states, rows), rows, pooled):
        out.append(vectors)
        order.extend(part)
    back = upload(torch.tensor(order).argsort(), out[0].device)
    return torch.cat(out)[back]


def _tokens(prefix: Prefix, states: States, rows: Tensor) -> Ragged:
    """Final states (sum of L, D) of catalog rows (U,), from kept states on."""
    if not len(rows):
        return Ragged(_none(prefix.encoder), ())
    lengths = _lengths(states, rows)
    return unpadded(list(_above(prefix, states, lengths, rows, prefix.above)), lengths)


def _above(
    prefix: Prefix,
    states: States,
    lengths: Sequence[int],
    rows: Tensor,
    make: Callable[[Tensor, Tensor], Tensor],
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """What `make` gives of kept states (N, L, D) and their mask (N, L), by micro-batch.

    Yields:
        The places in `rows` that a micro-batch holds, and what it gave, (N, ...).
    """
    encoder, device = prefix.encoder, next(prefix.encoder.parameters()).device
    dtype = next(encoder.parameters()).dtype
    starts = torch.from_numpy(states.offsets[rows.cpu().numpy()])
    for group in _groups(list(encoder.plan(lengths)), lengths, _GATHER // encoder.width):
        places = [_padded(starts, lengths, part) for part in group]
        flat = states.gather(torch.cat([index.flatten() for index, _ in places]), device).to(dtype)
        blocks = torch.split(flat, [index.numel() for index, _ in places])
        for part, block, (index, mask) in zip(group, blocks, places, strict=True):
            inputs = block.view(*index.shape, -1)
            yield part, encoder.recomputed(make, inputs, upload(mask, device))


def _lengths(states: States, rows: Tensor) -> list[int]:
    """Tokens of catalog rows (U,)."""
    lengths: npt.NDArray[np.int64] = np.diff(states.offsets)[rows.cpu().numpy()]
    return list(lengths.tolist())


def _none(encoder: Encoder) -> Tensor:
    """(0, D) of no text."""
    like = next(encoder.parameters())
    return torch.zeros(0, encoder.width, device=like.device, dtype=like.dtype)


def _padded(starts: Tensor, lengths: Sequence[int], part: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Places of a micro-batch's states (N, L), and which of them are real tokens."""
    length = torch.tensor([lengths[i] for i in part])[:, None]
    steps = torch.arange(int(length.max()))[None, :]
    # Padding repeats the last token: defined numbers that the mask leaves out.
    return starts[list(part)][:, None] + torch.minimum(steps, length - 1), steps < length


def _groups(
    plan: list[tuple[int, ...]], lengths: Sequence[int], tokens: int
) -> Iterator[list[tuple[int, ...]]]:
    """Micro-batches in a row that together hold no more padded tokens, or one that holds more."""
    group: list[tuple[int, ...]] = []
    held = 0
    for part in plan:
        size = len(part) * max(lengths[i] for i in part)
        if group and held + size > tokens:
            yield group
            group, held = [], 0
        group.append(part)
        held += size
    if group:
        yield group


def _probe(prefix: Prefix, catalog: Catalog) -> None:
    """Compares the cut model with the whole one on two texts, one of them padded.

    Raises:
        Unsupported: The model's own code does not go through the cut, or gives something else.
    """
    encoder, name = prefix.encoder, type(prefix.encoder.model).__name__
    sizes = np.asarray(catalog.sizes(torch.arange(len(catalog))))
    rows = torch.tensor([int(sizes.argmin()), int(sizes.argmax())])
    tokens = catalog.tokens(rows, next(encoder.parameters()).device)
    for chunk in encoder.chunks(tokens):
        want = encoder.run(chunk)[chunk.mask]
        try:
            got = prefix.above(prefix.below(chunk.ids, chunk.mask), chunk.mask)[chunk.mask]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a family's code does with layers that are not its own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise Unsupported(f"{name} cannot be cut between two layers ({reason})") from error
        if got.shape != want.shape or not float(common.relative(got, want).max()) <= 1e-3:
            raise Unsupported(f"{name}, cut between two layers, gives other states than the whole")


def _errors(prefix: Prefix, states: States, catalog: Catalog) -> tuple[Tensor, float]:
    """Relative errors of a sample: (N,) of its tokens' states, and the largest of its vectors."""
    encoder = prefix.encoder
    rows = common.sample(catalog)
    found = [(states.of(row), now) for row, now in _compute(prefix, catalog, rows)]
    errors = torch.cat([common.relative(old, now) for old, now in found])
    whole = encoder(catalog.tokens(rows, next(encoder.parameters()).device))
    return errors, float(common.relative(_vectors(prefix, states, rows), whole).max())


def _compute(prefix: Prefix, catalog: Catalog, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    """States (L, D) of each row's text, in no particular order, a block of texts at a time."""
    device = next(prefix.encoder.parameters()).device
    for block in torch.split(rows, common.BLOCK):
        for chunk in prefix.encoder.chunks(catalog.tokens(block, device)):
            states = prefix.below(chunk.ids, chunk.mask)
            for i, (row, length) in enumerate(zip(chunk.rows, chunk.lengths, strict=True)):
                yield int(block[row]), states[i, :length]

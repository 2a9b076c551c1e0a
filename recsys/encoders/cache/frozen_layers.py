"""The frozen layers: token states below the lowest trained layer, computed once and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.batches.catalog import Catalog
from recsys.encoders.cache import common
from recsys.encoders.cache.common import CacheReport, Dtype
from recsys.encoders.cache.states import DTYPES, CachedStates, Place, cast_states
from recsys.encoders.cut import ModelSplitError, SplitModel
from recsys.encoders.encoder import Encoder
from recsys.encoders.padding import unpad_states
from recsys.runtime.progress import track
from recsys.runtime.store import Store
from recsys.types import Ragged, upload

_FORMAT = 2  # raise it when the files change, so that old folders are not read
_GATHER = 1 << 24  # numbers a gather: one call for many micro-batches, in bounded memory


class FrozenLayerCache:
    """Kept states of a whole catalog, and vectors made from them.

    Args:
        prefix: The cut model.
        states: What `build` made.
        report: What it cost and how exact it is.
    """

    def __init__(self, prefix: SplitModel, states: CachedStates, report: CacheReport) -> None:
        self.prefix, self.states, self.report = prefix, states, report

    @staticmethod
    def compute_size_gb(encoder: Encoder, catalog: Catalog, dtype: Dtype = "fp32") -> float:
        """Size of the states of a whole catalog, in GB (10^9 bytes)."""
        lengths = encoder.compute_lengths(catalog.count_tokens(torch.arange(len(catalog))))
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
    ) -> FrozenLayerCache:
        """Computes the states, or finds those of an earlier run with the same prefix and texts.

        Args:
            encoder: The tuned encoder.
            catalog: The item texts.
            store: Where the states are kept.
            dtype: In which precision.
            place: Where they lie while a run uses them; see `CachedStates`.
            device: Where to compute them; None where the encoder is.
            show: Whether to show how far it is.

        Raises:
            ModelSplitError: The model cannot be cut.
            DataError: Kept states differ from what the model computes now, or are too large for
                half precision.
        """
        began = time.perf_counter()
        prefix = SplitModel(encoder)
        sizes = catalog.count_tokens(torch.arange(len(catalog)))
        lengths = np.asarray(encoder.compute_lengths(sizes), dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])

        def make_key() -> dict[str, object]:
            return {
                "format": _FORMAT,
                "weights": common.hash_weights(encoder, prefix.depth),
                "dtype": dtype,
                "depth": prefix.depth,
                **common.make_key_parts(encoder, catalog),
            }

        def write_folder(folder: Path, other: common.CacheDonor | None) -> None:
            np.save(folder / "offsets.npy", offsets)
            _write_states(prefix, catalog, folder, dtype, other, show)

        with common.switch_to_eval(encoder, device):
            _check_split(prefix, catalog)
            made = common.find_or_build(store, "prefix", make_key, write_folder, catalog)
            states = CachedStates(made.folder, place)
            errors, vector_error = _compute_errors(prefix, states, catalog)
            common.check_errors(errors, encoder, dtype, "states", made.folder)
        report = common.make_report(
            "states", prefix.depth, dtype, states.mapped, made, began, errors, vector_error
        )
        return cls(prefix, states, report)

    def share_with(self, encoder: Encoder) -> FrozenLayerCache:
        """The same states below another encoder that shares the frozen layers."""
        return FrozenLayerCache(SplitModel(encoder), self.states, self.report)

    def compute_vectors(self, rows: Tensor) -> Tensor:
        """(U, D) pooled texts of catalog rows (U,), from the kept states on."""
        return _compute_vectors(self.prefix, self.states, rows)

    def compute_states(self, rows: Tensor) -> Ragged:
        """Final token states (sum of L, D) of catalog rows (U,), special tokens included."""
        return _compute_token_states(self.prefix, self.states, rows)


def _write_states(
    prefix: SplitModel,
    catalog: Catalog,
    folder: Path,
    dtype: Dtype,
    other: common.CacheDonor | None,
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
    todo = common.list_missing(catalog, other)
    if other is not None:
        old = np.load(other.folder / "states.npy", mmap_mode="r")
        starts = np.load(other.folder / "offsets.npy")
        for row in other.has:
            from_ = other.rows[row]
            out[offsets[row] : offsets[row + 1]] = old[starts[from_] : starts[from_ + 1]]
    with track("states below the trained layers", len(todo), "texts", show) as task:
        for row, states in _compute_states(prefix, catalog, todo) if len(todo) else ():
            out[offsets[row] : offsets[row + 1]] = cast_states(states, dtype).numpy()
            task.advance()
    out.flush()


def _compute_vectors(prefix: SplitModel, states: CachedStates, rows: Tensor) -> Tensor:
    """(U, V) pooled texts of catalog rows (U,), from kept states on."""
    encoder = prefix.encoder
    if not len(rows):
        return encoder.make_empty_vectors(next(encoder.parameters()).device)

    def pool_above(inputs: Tensor, mask: Tensor, lengths: Sequence[int]) -> Tensor:
        return encoder.pool_states(prefix.run_above(inputs, mask, lengths), mask)

    out: list[Tensor] = []
    order: list[int] = []
    for part, vectors in _run_above(prefix, states, _count_tokens(states, rows), rows, pool_above):
        out.append(vectors)
        order.extend(part)
    back = upload(torch.tensor(order).argsort(), out[0].device)
    return torch.cat(out)[back]


def _compute_token_states(prefix: SplitModel, states: CachedStates, rows: Tensor) -> Ragged:
    """Final states (sum of L, D) of catalog rows (U,), from kept states on."""
    if not len(rows):
        return Ragged(_make_empty_states(prefix.encoder), ())
    lengths = _count_tokens(states, rows)
    return unpad_states(list(_run_above(prefix, states, lengths, rows, prefix.run_above)), lengths)


def _run_above(
    prefix: SplitModel,
    states: CachedStates,
    lengths: Sequence[int],
    rows: Tensor,
    make: Callable[..., Tensor],
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """What `make` gives of kept states (N, L, D), their mask (N, L) and `lengths`, by micro-batch.

    Yields:
        The places in `rows` that a micro-batch holds, and what it gave, (N, ...).
    """
    encoder, device = prefix.encoder, next(prefix.encoder.parameters()).device
    starts = torch.from_numpy(states.offsets[rows.cpu().numpy()])
    for group in _group_micro_batches(
        list(encoder.plan_micro_batches(lengths)), lengths, _GATHER // encoder.width
    ):
        places = [_pad_places(starts, lengths, part) for part in group]
        flat = states.gather(torch.cat([index.flatten() for index, _ in places]), device).to(
            prefix.dtype
        )
        blocks = torch.split(flat, [each.numel() for each, _ in places])
        for part, block, (index, mask) in zip(group, blocks, places, strict=True):
            inputs = block.view(*index.shape, -1)
            sized = partial(make, lengths=[lengths[i] for i in part])
            yield part, encoder.run_checkpointed(sized, inputs, upload(mask, device))


def _count_tokens(states: CachedStates, rows: Tensor) -> list[int]:
    """Tokens of catalog rows (U,)."""
    lengths: npt.NDArray[np.int64] = np.diff(states.offsets)[rows.cpu().numpy()]
    return list(lengths.tolist())


def _make_empty_states(encoder: Encoder) -> Tensor:
    """(0, D) of no text."""
    device = next(encoder.parameters()).device
    return torch.zeros(0, encoder.width, device=device, dtype=encoder.dtype)


def _pad_places(
    starts: Tensor, lengths: Sequence[int], part: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Places of a micro-batch's states (N, L), and which of them are real tokens."""
    length = torch.tensor([lengths[i] for i in part])[:, None]
    steps = torch.arange(int(length.max()))[None, :]
    # Padding repeats the last token: defined numbers that the mask leaves out.
    return starts[list(part)][:, None] + torch.minimum(steps, length - 1), steps < length


def _group_micro_batches(
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


def _check_split(prefix: SplitModel, catalog: Catalog) -> None:
    """Compares the cut model with the whole one on two texts, one of them padded.

    Raises:
        ModelSplitError: The model's own code does not go through the cut, or gives something else.
    """
    encoder, name = prefix.encoder, type(prefix.encoder.model).__name__
    sizes = np.asarray(catalog.count_tokens(torch.arange(len(catalog))))
    rows = torch.tensor([int(sizes.argmin()), int(sizes.argmax())])
    tokens = catalog.gather_tokens(rows, next(encoder.parameters()).device)
    for chunk in encoder.make_micro_batches(tokens):
        want = encoder.run_micro_batch(chunk)[chunk.mask]
        try:
            got = prefix.run_above(prefix.run_below(chunk.ids, chunk.mask), chunk.mask)[chunk.mask]
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a family's code does with layers that are not its own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelSplitError(f"{name} cannot be cut between two layers ({reason})") from error
        # Far above what other kernels for other shapes round, far below a layer that is left out.
        if (
            got.shape != want.shape
            or not float(common.compute_relative_errors(got, want).max()) <= 1e-3
        ):
            raise ModelSplitError(
                f"{name}, cut between two layers, gives other states than the whole"
            )


def _compute_errors(
    prefix: SplitModel, states: CachedStates, catalog: Catalog
) -> tuple[Tensor, float]:
    """Relative errors of a sample: (N,) of its tokens' states, and the largest of its vectors."""
    encoder = prefix.encoder
    rows = common.sample_rows(catalog)
    found = [(states.read_row(row), now) for row, now in _compute_states(prefix, catalog, rows)]
    errors = torch.cat([common.compute_relative_errors(old, now) for old, now in found])
    whole = encoder(catalog.gather_tokens(rows, next(encoder.parameters()).device))
    return errors, float(
        common.compute_relative_errors(_compute_vectors(prefix, states, rows), whole).max()
    )


def _compute_states(
    prefix: SplitModel, catalog: Catalog, rows: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """States (L, D) of each row's text, in no particular order, a block of texts at a time."""
    device = next(prefix.encoder.parameters()).device
    for block in torch.split(rows, common.BLOCK):
        for chunk in prefix.encoder.make_micro_batches(catalog.gather_tokens(block, device)):
            states = prefix.run_below(chunk.ids, chunk.mask)
            for i, (row, length) in enumerate(zip(chunk.rows, chunk.lengths, strict=True)):
                yield int(block[row]), states[i, :length]

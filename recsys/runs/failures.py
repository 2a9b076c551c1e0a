"""How a run ends before its result: sentences for what the memory lacked, and states for W&B."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from recsys.errors import DivergenceError, OutOfMemoryError
from recsys.runtime.files import ENDED
from recsys.runtime.signals import Interrupted

SHORT = (
    "can't allocate memory",  # torch's allocator on the host
    "not enough memory",  # the same on Windows
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What a plain RuntimeError of torch says where memory did not suffice."""


@dataclass(frozen=True)
class FailureState:
    """What Weights & Biases is told of a run that ends without a result.

    Attributes:
        state: pruned or failed.
        reason: Why, in a sentence.
    """

    state: str
    reason: str

    def make_summary(self) -> Mapping[str, str]:
        """As entries of a run's summary."""
        return {"trial/state": self.state, "trial/reason": self.reason}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on a device or on the host."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SHORT)


@contextmanager
def raise_out_of_memory() -> Iterator[None]:
    """Turns what Python and torch raise without memory into one sentence.

    Raises:
        OutOfMemoryError: Memory did not suffice; every other error passes unchanged.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        lines = str(error).splitlines()
        said = f" ({lines[0].rstrip('.')})" if lines else ""
        raise OutOfMemoryError(
            f"the memory does not suffice{said}; lower trainer.batch_size, trainer.batch_tokens or "
            "evaluation.batch_size, or set encoder.checkpoint_chunks=true."
        ) from None


def find_failure_state(error: BaseException, folder: Path) -> FailureState | None:
    """What is to be said of a run that an error or a signal ends; None for nothing.

    Args:
        error: What ends it.
        folder: Its folder, where who sends a signal may say before in `ended.json` what it means:
            `{"state": "pruned", "reason": "..."}`.
    """
    if isinstance(error, DivergenceError | OutOfMemoryError):
        return FailureState("failed", str(error))
    if not isinstance(error, Interrupted) or not (folder / ENDED).is_file():
        return None
    try:
        told = json.loads((folder / ENDED).read_text(encoding="utf-8"))
        return FailureState(str(told["state"]), str(told["reason"]))
    except (OSError, ValueError, TypeError, KeyError):
        print(f"{folder / ENDED} cannot be read: it is not told on", file=sys.stderr)
        return None

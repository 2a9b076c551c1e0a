"""Where a host waits for its GPU."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch


def record_syncs(call: Callable[[], object]) -> Counter[str]:
    """How often a call makes the host wait for the GPU, by place in the code.

    torch warns of each operation that waits (`torch.cuda.set_sync_debug_mode`); a copy to the GPU
    from memory that is not pinned is one of them. What the call waits for explicitly, with
    `torch.cuda.synchronize`, is not.

    Args:
        call: It is called twice; the first call, which may prepare something, does not count.
    """
    call()
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    waits = [w for w in seen if "synchroniz" in str(w.message)]
    return Counter(f"{Path(w.filename).name}:{w.lineno}" for w in waits)

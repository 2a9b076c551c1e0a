"""`result.json` on the disk: JSON that every reader takes, and figures without a value as NaN.

JSON has no NaN. A figure without a value, such as a metric of cold items where none is cold, is
`null` in the file and NaN in memory. Files of before, which held a bare `NaN`, read alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.errors import DataError
from recsys.runtime.files import RESULT

ZERO_SHOT = "zero-shot"
"""The floor of a run whose start is the pretrained encoder as it is."""

BEFORE = "before training"
"""The floor of a run whose start is its own: no baseline of others."""

FIGURES = ("test", "floors", "slices", "beyond", "validation", "train")
"""Parts of a result whose entries are figures; elsewhere `null` says that there is nothing."""


def encode_result(result: Mapping[str, object]) -> str:
    """The text of the file."""
    return json.dumps(replace_nan(result), indent=2, allow_nan=False) + "\n"


def read_result(folder: Path) -> dict[str, Any]:
    """What the result of a complete run holds.

    Args:
        folder: Of the run.

    Raises:
        FileNotFoundError: The run is not complete.
        DataError: The file is damaged.
    """
    path = folder / RESULT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged; run fit again.")
    return {k: restore_nan(v) if k in FIGURES else v for k, v in content.items()}


def replace_nan(value: object) -> object:
    """A value as strict JSON has it: `None` for each number that is not finite."""
    if isinstance(value, Mapping):
        return {str(name): replace_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def restore_nan(value: object) -> object:
    """A value with NaN for each `None`."""
    if isinstance(value, Mapping):
        return {name: restore_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [restore_nan(part) for part in value]
    return math.nan if value is None else value

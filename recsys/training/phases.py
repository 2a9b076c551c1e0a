"""How often the encoder follows an item table."""

from __future__ import annotations

import math

from recsys.errors import ConfigError

EVERY_STEP, HALF_EPOCH = "every_step", "half_epoch"


def count_phase_steps(updates: str, steps: int) -> int:
    """Optimiser steps between two updates of the encoder.

    Args:
        updates: every_step, half_epoch or a number of steps.
        steps: Optimiser steps of an epoch.

    Returns:
        How many; 0 where there is no table and every step updates the encoder.

    Raises:
        ConfigError: It is none of the three.
    """
    if updates == EVERY_STEP:
        return 0
    if updates == HALF_EPOCH:
        return math.ceil(steps / 2)
    if updates.isascii() and updates.isdigit() and int(updates):
        return int(updates)
    raise ConfigError(
        f"trainer.encoder_updates is '{updates}'; set it to every_step, half_epoch or a number of "
        "optimiser steps from 1 on."
    )

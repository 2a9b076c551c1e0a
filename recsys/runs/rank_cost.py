"""What a rank other than the first has cost: a file of its own, which the first one adds up.

A file needs no other rank to be alive: the ranks write theirs wherever the first notes its own
cost, which is at each save and at the end, and a stopped run goes on from it.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from recsys.runtime.excluded_time import Elapsed
from recsys.runtime.files import LOGS, write_atomic


@dataclass(frozen=True)
class RankCost:
    """Of one rank, over all stops.

    Attributes:
        seconds: Time of its processes.
        cpu_seconds: CPU time of them.
        beside_seconds: Of `seconds`, the time excluded from the method's cost.
        beside_cpu_seconds: The same of `cpu_seconds`.
        peak_mb: Largest sample of anonymous memory in MiB; 0 where the system does not tell.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    # Named as the keys of the files that are there: a run that began earlier goes on from them.
    beside_seconds: float = 0.0
    beside_cpu_seconds: float = 0.0
    peak_mb: float = 0.0

    @staticmethod
    def from_measurements(spent: Elapsed, excluded: Elapsed, peak_mb: float) -> RankCost:
        """From what was measured."""
        times = (spent.seconds, spent.cpu_seconds, excluded.seconds, excluded.cpu_seconds)
        return RankCost(*times, peak_mb=peak_mb)

    @property
    def spent(self) -> Elapsed:
        """Time of all its processes."""
        return Elapsed(self.seconds, self.cpu_seconds)

    @property
    def excluded(self) -> Elapsed:
        """The time of it that is excluded from the method's cost."""
        return Elapsed(self.beside_seconds, self.beside_cpu_seconds)


def _get_path(folder: Path, rank: int) -> Path:
    return folder / LOGS / f"rank-{rank}.json"


def write(folder: Path, rank: int, cost: RankCost) -> None:
    """Notes what a rank has cost so far.

    Raises:
        DataError: The disk is full.
    """
    write_atomic(_get_path(folder, rank), json.dumps(asdict(cost), indent=1) + "\n")


def read(folder: Path, rank: int) -> RankCost | None:
    """What a rank had noted last; None where it has not come so far, or the note is damaged."""
    try:
        return RankCost(**json.loads(_get_path(folder, rank).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def read_others(folder: Path) -> list[RankCost]:
    """The notes of all ranks but the first, as far as they are there.

    Those of a start with more processes than the last one had are among them.
    """
    ranks = sorted(
        int(match[1])
        for path in (folder / LOGS).glob("rank-*.json")
        if (match := re.fullmatch(r"rank-(\d+)\.json", path.name))
    )
    found = (read(folder, rank) for rank in ranks)
    return [cost for cost in found if cost is not None]

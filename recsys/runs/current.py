"""The run that is in use, named by a small file beside the runs: `current.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from recsys.errors import ConfigError
from recsys.runtime.files import CURRENT, write_atomic


@dataclass(frozen=True)
class CurrentRun:
    """Which run is in use.

    Attributes:
        run: Its folder.
        previous: Those that were in use before it, the latest one last.
        since: When it was put to use, as ISO 8601 has it.
    """

    run: Path
    previous: tuple[Path, ...] = ()
    since: str = ""

    @staticmethod
    def read(output: Path) -> CurrentRun | None:
        """What the file in a folder of runs says; None where there is no such file.

        Raises:
            ConfigError: It is damaged.
        """
        path = output / CURRENT
        try:
            node = json.loads(path.read_text(encoding="utf-8"))
            before = tuple(Path(each) for each in node["previous"])
            return CurrentRun(Path(node["run"]), before, str(node["since"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise ConfigError(
                f"{path} is damaged; remove it, and the next refresh writes it anew."
            ) from None

    def write(self, output: Path) -> None:
        """Writes the file whole: who reads it has the run of before, or this one.

        Raises:
            DataError: The disk is full.
        """
        node = {**asdict(self), "run": str(self.run), "previous": list(map(str, self.previous))}
        write_atomic(output / CURRENT, json.dumps(node, indent=2) + "\n")


def find_current_run(output: Path) -> Path:
    """The folder of the run in use.

    Args:
        output: Where runs lie.

    Raises:
        ConfigError: None has been put to use there, or the file is damaged.
    """
    current = CurrentRun.read(output)
    if current is None:
        raise ConfigError(
            f"current: {output / CURRENT} is missing, no run has been promoted there yet; name a "
            "run's folder."
        )
    return find_run_folder(current.run, output)


def find_run_folder(run: Path, output: Path) -> Path:
    """Where a run lies whose path was noted as it was typed: from here, or from beside runs.

    Args:
        run: Its path.
        output: Where runs lie.
    """
    beside = output.resolve().parent / run
    return beside if not run.exists() and beside.exists() else run

"""What an export asks of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from recsys.config.compose import RunConfig

if TYPE_CHECKING:
    from recsys.assembly.assembled import Assembly


class ExportSource(Protocol):
    """A finished run, as `recsys.trained.run.TrainedRun` is one."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        ...

    @property
    def config(self) -> RunConfig:
        """Its resolved configuration."""
        ...

    @property
    def result(self) -> Mapping[str, Any]:
        """What `result.json` holds."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics of the test, as shares."""
        ...

    @property
    def name(self) -> str:
        """Its experiment, else its architecture."""
        ...

    def assemble(self) -> Assembly:
        """Reads the data and builds the model, with all that it has learned."""
        ...


def compares_tokens(run: ExportSource) -> bool:
    """Whether a score is made of the token vectors of two texts, as late interaction makes it."""
    of = run.config.architecture
    return of.trains and of.reads_item_vectors and "table" not in of.gives

"""A bundle that is open: it recommends as its run does, without the training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.trained.bundle.manifest import BundleFiles
from recsys.trained.explanations.explaining import Explaining
from recsys.trained.queries import Query

if TYPE_CHECKING:
    import polars as pl

    from recsys.config.compose import RunConfig
    from recsys.trained.bundle.model import BundleSource
    from recsys.trained.recommendations import Suggester


class Bundle(Explaining):
    """A run's model in a folder of its own.

    Args:
        folder: Of the bundle.

    Attributes:
        folder: It.
        files: What it holds; each file is checked before it is read.

    Raises:
        DataError: It is no bundle, or a file is missing.
    """

    folder: Path
    files: BundleFiles

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, BundleFiles(folder)

    @property
    def name(self) -> str:
        """What its run is called."""
        return self.files.manifest.name

    @property
    def config(self) -> RunConfig:
        """The configuration by which its model is built."""
        return self._source.run

    def answer(
        self, queries: Sequence[Query], k: int, at: str, context: Mapping[str, str]
    ) -> pl.DataFrame:
        """As `recommend`, of queries that may be of several kinds."""
        return self.suggester.rank(queries, k, at, context)

    @cached_property
    def _source(self) -> BundleSource:
        from recsys.trained.bundle.model import BundleSource

        return BundleSource(self.files)

    @cached_property
    def suggester(self) -> Suggester:
        """What answers, built once."""
        from recsys.fit.command import silence_libraries
        from recsys.trained.recommendations import Suggester

        if self.config.architecture.loads_models:
            silence_libraries()
        return Suggester(self._source)

    def __repr__(self) -> str:
        """Name and folder."""
        return f"Bundle({str(self.folder)!r}, {self.name})"


def open_bundle(folder: str | Path) -> Bundle:
    """A bundle that `write_bundle` made.

    Args:
        folder: It.

    Returns:
        It; a file is read, and checked, when it is first needed.

    Raises:
        DataError: It is no bundle, of another version, or a file of it is missing.
    """
    return Bundle(Path(folder))

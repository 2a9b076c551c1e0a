"""A bundle that is open: it recommends as its run does, without the training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.trained.bulk.listing import Listing
from recsys.trained.bundle import manifest
from recsys.trained.bundle.manifest import BundleFiles
from recsys.trained.queries import ANY, Choice, Query
from recsys.trained.vectors.representing import Representing

if TYPE_CHECKING:
    import polars as pl

    from recsys.config.compose import RunConfig
    from recsys.data.tables import Tables
    from recsys.trained.bulk.models import BulkModel
    from recsys.trained.bundle.model import BundleSource, ComputedRows
    from recsys.trained.bundle.plain import PlainModel
    from recsys.trained.new_items import NewItems
    from recsys.trained.recommendations import Suggester


class Bundle(Listing, Representing):
    """A run's model in a folder of its own.

    Args:
        folder: Of the bundle.
        items: Tables of items that come to its own.

    Attributes:
        folder: It.
        files: What it holds; each file is checked before it is read.

    Raises:
        DataError: It is no bundle, or a file is missing.
    """

    folder: Path
    files: BundleFiles
    _grown: Bundle | None
    _computed: ComputedRows

    def __init__(self, folder: Path, items: tuple[NewItems, ...] = ()) -> None:
        self._items, self._grown, self._computed = items, None, {}
        self.folder, self.files = folder, BundleFiles(folder)

    def add_items(self, items: pl.DataFrame | str | Path) -> Bundle:
        """As `Answering.add_items` says."""
        from recsys.trained.new_items import NewItems

        fresh = NewItems.read(items)
        if self._grown is None or not self._grown._items[-1].equals(fresh):
            self._grown = Bundle(self.folder, (*self._items, fresh))
            self._grown.files = self.files  # what was checked once
            self._grown._computed = self._computed
        return self._grown

    @property
    def name(self) -> str:
        """What its run is called."""
        return self.files.manifest.name

    @property
    def config(self) -> RunConfig:
        """The configuration by which its model is built."""
        return self._source.run

    def answer(
        self,
        queries: Sequence[Query],
        k: int,
        at: str,
        context: Mapping[str, str],
        choice: Choice = ANY,
    ) -> pl.DataFrame:
        """As `recommend`, of queries that may be of several kinds."""
        plain = self._plain
        if plain is None or not plain.can_answer(queries, context, choice):
            return self.suggester.rank(queries, k, at, context, choice)
        texts = any(query.text is not None for query in queries)
        if texts and "suggester" in self.__dict__ and not plain.has_encoder:
            # An encoder that is there already is not loaded a second time.
            return self.suggester.rank(queries, k, at, context, choice)
        return plain.rank(queries, k, at, self.describe_sample, choice)

    def open_bulk(
        self, check: Callable[[Tables], None], context: Mapping[str, str], choice: Choice
    ) -> BulkModel:
        """What ranks for many queries: arrays, where they do, else the model."""
        from recsys.trained.bulk.models import (
            ArrayModel,
            can_multiply,
            compute_fingerprint,
            make_bulk_model,
        )

        plain = self._plain
        if plain is not None and can_multiply(plain, context, choice):
            check(plain.tables)
            return ArrayModel(plain)
        self.suggester.open(check)
        more = [each.compute_fingerprint() for each in self._items]
        fingerprint = compute_fingerprint([self.files.compute_fingerprint(), *more])
        return make_bulk_model(self.suggester, fingerprint, choice)

    @cached_property
    def _plain(self) -> PlainModel | None:
        """What answers without the run's own model, where the bundle has it."""
        if self._items or not (self.files.has(manifest.PLAIN) or self.files.has(manifest.TEXT)):
            return None
        from recsys.trained.bundle.plain import PlainModel

        return PlainModel(self.files)

    def describe_sample(self, query: Query) -> str:
        """A sentence on the part of the data that is kept, for an unknown id; empty for all."""
        from recsys.trained.lookup import describe_sample

        return describe_sample(self.config, query)

    @cached_property
    def _source(self) -> BundleSource:
        from recsys.trained.bundle.model import BundleSource
        from recsys.trained.new_items import ItemReviser, check_scores_new_items

        source = BundleSource(self.files)
        if not self._items:
            return source
        check_scores_new_items(source.scores_new_items, source.run, str(self.folder))
        revise = ItemReviser(self._items, source.run.data.source).revise
        return BundleSource(self.files, "", revise, self._computed)

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


def open_bundle(folder: str | Path, check: bool = True) -> Bundle:
    """A bundle that `write_bundle` made.

    Args:
        folder: It.
        check: Whether all files are checked now; otherwise each is before it is read.

    Returns:
        It; its model is built when it is first asked for something.

    Raises:
        DataError: It is no bundle, of another version, or a file is missing or has changed.
    """
    bundle = Bundle(Path(folder))
    if check:
        bundle.files.check()
    return bundle

"""The model of a run's folder, over the data as it is now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.assembly import build, stored_runs
from recsys.config.compose import RunConfig, read_config
from recsys.data.revision import RevisedCatalog
from recsys.data.tables import Tables
from recsys.errors import ConfigError
from recsys.runs.results import read_catalog
from recsys.runtime.files import CONFIG
from recsys.trained.lookup import print_note
from recsys.trained.new_items import ItemReviser, NewItems, can_score, check_scores_new_items

if TYPE_CHECKING:
    from torch import Tensor

    from recsys.assembly.assembled import Assembly
    from recsys.recommender.base import Recommender


@dataclass(frozen=True)
class RunSource:
    """The model of a run's folder, over the data that its configuration names.

    Attributes:
        folder: Of the run.
        run: Its configuration.
        digests: SHA-256 of the data that it was trained on, and of the roles of its events.
        items: Tables of items that come to those of the data.
    """

    folder: Path
    run: RunConfig
    digests: tuple[str, str]
    items: tuple[NewItems, ...] = ()

    @property
    def scores_new_items(self) -> bool:
        """Whether an item that the fit did not know has a score."""
        members = (read_config(Path(m) / CONFIG) for m in self.run.architecture.member_runs)
        return can_score(self.run, members)

    def open(self, check: Callable[[Tables], None]) -> Assembly:
        """Reads the data and builds the model.

        Raises:
            ConfigError: The data has changed since, or the model scores no new items.
            DataError: A table of items cannot be used.
        """
        if self.items:
            check_scores_new_items(self.scores_new_items, self.run, str(self.folder))
        revise = ItemReviser(self.items, self.run.data.source, self._compare).revise
        # Who ranked for training may be gone.
        run = stored_runs.drop_hard_negatives(stored_runs.drop_retriever(self.run))
        made = build.assemble(run, lambda tables, _: check(tables), None, revise)
        stored_runs.restore(made.recommender, self.run, self.folder)
        return made

    def load_catalog(self, recommender: Recommender) -> Tensor | None:
        """Nothing is kept."""
        return None

    def _compare(self, tables: Tables, fingerprint: str) -> RevisedCatalog | None:
        """The catalog next to that of the fit, where the data is another by now.

        Raises:
            ConfigError: Events have changed, and the model has learned of single items.
        """
        if fingerprint == self.digests[0]:
            return None
        fitted = read_catalog(self.folder)
        if fitted is None:  # a run of before there was such a file
            self._check_learned()
            return None
        revised = RevisedCatalog.compare(tables, fitted, self.digests)
        if revised.has_other_events():
            self._check_learned()
        else:
            print_note(f"the items have changed since the run: {self._describe(revised)}")
        return revised

    def _describe(self, revised: RevisedCatalog) -> str:
        """How many items are new, are gone, or have another text."""
        fresh, changed = int((revised.origin < 0).sum()), len(revised.changed)
        parts = [f"{fresh:,} new"] if fresh else []
        if fresh and not self.scores_new_items:
            parts[0] += " (left out: they have no score without a fit)"
        parts += [f"{revised.gone:,} gone"] if revised.gone else []
        parts += [f"{changed:,} with another text"] if changed else []
        if parts:
            return ", ".join(parts)
        if revised.differs_in_order_alone():
            return "their order alone"
        further = "further columns, or what is said of users"
        return f"their order, and {further}" if revised.moved else further

    def _check_learned(self) -> None:
        """Says that the data is another, or raises where what was learned belongs to its rows.

        Raises:
            ConfigError: The run knows items, tags or contexts by number.
        """
        if not self.run.architecture.trains or self.run.architecture.learns_rows:
            raise ConfigError(f"{self.folder}: the data has changed since the run; run fit again.")
        print_note(
            "the data has changed since the run: its items, users and events are ranked and read "
            "as they are now, by what the run learned then"
        )

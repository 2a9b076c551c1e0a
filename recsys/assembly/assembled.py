"""Everything that a command needs of a run, once its configuration has been assembled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.assembly.checks import can_rank_catalog
from recsys.config.compose import RunConfig, make_node
from recsys.data.batches.batch_loaders import BatchLoaders
from recsys.data.batches.catalog import Tokenize
from recsys.data.batches.examples import Examples
from recsys.data.context import ContextFeatures
from recsys.data.splits.split import Split
from recsys.data.tables import Tables
from recsys.recommender.base import Recommender
from recsys.recommender.components import Components, TextComponents


@dataclass(frozen=True)
class StoredRun:
    """A finished run on the same data.

    Attributes:
        folder: Where it lies.
        config: Its resolved configuration.
        result: What `result.json` holds.
        digest: SHA-256 of its configuration and of all that was trained or fitted.
        encoder: SHA-256 of its pretrained weights, or "None".
    """

    folder: Path
    config: RunConfig
    result: Mapping[str, Any]
    digest: str
    encoder: str

    @property
    def ranks_catalog(self) -> bool:
        """Whether it can score all items for many queries, and not lists alone."""
        return can_rank_catalog(self.config)

    @property
    def key(self) -> dict[str, object]:
        """What whatever is computed with it depends on."""
        return {"from": "run", "sha256": self.digest, "encoder": self.encoder}

    def summarize(self) -> dict[str, object]:
        """What the result of a run that builds on it says: which run, how made, at what cost.

        It is whole, so that the run may be compared where this one no longer lies.
        """
        cost = self.result.get("cost", {})
        kept = ("method_seconds", "method_cpu_seconds", "kept_seconds", "kept_cpu_seconds")
        return {
            "run": str(self.folder),
            "sha256": self.digest,
            "experiment": self.config.experiment,
            "seed": self.config.seed,
            "cost": {name: cost.get(name) for name in kept},
            "built_on": self.result.get("built_on", []),
            "config": make_node(self.config),
            "encoder": self.result.get("encoder", {}),
            "fitted": "fit" in self.result,
            "steps": self.result.get("validation", {}).get("steps"),
            "floors": list(self.result.get("floors", {})),
        }


@dataclass(frozen=True)
class Assembly:
    """Everything a command needs.

    Attributes:
        tables: The data set, after limits.
        split: Its events and their roles.
        examples: Queries and cases.
        datamodule: Loads batches.
        recommender: What trains and scores.
        parts: What floors are made of.
        encoding: How the recommender reads texts, or None where no encoder does.
        fingerprint: SHA-256 of the tables' contents.
        tokenize: Raw token ids of texts of users, such as a text that is asked for, or None where
            nothing reads tokens.
        context_features: What is known of queries, where the architecture asks for it.
        sources: Finished runs that the recommender builds on.
        retriever: The finished run whose best items are the candidate lists, or None.
    """

    tables: Tables
    split: Split
    examples: Examples
    datamodule: BatchLoaders
    recommender: Recommender
    parts: Components
    encoding: TextComponents | None
    fingerprint: str
    tokenize: Tokenize | None
    context_features: ContextFeatures
    sources: tuple[StoredRun, ...] = ()
    retriever: StoredRun | None = None

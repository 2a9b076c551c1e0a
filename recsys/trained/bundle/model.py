"""A bundle as the model that it was: built of its files alone."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Never, cast

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.assembly.augmentation import make_history_masks
from recsys.assembly.encoding import load_encoding
from recsys.assembly.vectors.items import make_zero_shot_run
from recsys.config.compose import RunConfig, read_config
from recsys.config.schema import ENCODER as OF_ENCODER
from recsys.data.batches import query_texts
from recsys.data.batches.catalog import Tokenize
from recsys.data.batches.examples import Examples
from recsys.data.context import ContextFeatures
from recsys.data.moments import MOMENT, MomentTexts
from recsys.data.revision import Revise, RevisedCatalog
from recsys.data.splits.split import TRAIN, Split
from recsys.data.tables import Tables
from recsys.data.tags import encode_tags
from recsys.errors import ConfigError
from recsys.metrics.names import list_cutoffs
from recsys.recommender.base import Recommender
from recsys.recommender.components import Components, Member, TextComponents, TrainingComponents
from recsys.recommender.fitted import FittedRecommender, restore_fit
from recsys.recommender.text_queries import compute_query_vectors
from recsys.recommender.trainable import require_trainable
from recsys.runtime.files import CONFIG, FIT
from recsys.trained.bundle import manifest
from recsys.trained.bundle.manifest import BundleFiles
from recsys.trained.new_items import can_score
from recsys.types import Batch, Ragged

ComputedRows = dict[tuple[str, str, str], Tensor]
"""Rows by the part of the bundle, the name of the array and the whole row of the item."""

BLANK = pl.DataFrame({"user": [""], "text": [""]})
"""Someone of whom nothing is known."""


@dataclass(frozen=True)
class BundleModel:
    """What a bundle is opened as; it answers queries as an `Assembly` does.

    Attributes:
        tables: Items; users where the bundle has them; no interactions.
        examples: What users had.
        recommender: The model, with all that it has learned.
        parts: What baselines over the same items are made of.
        encoding: How texts are read, or None; of a baseline only once one is asked for.
        tokenize: Makes tokens of a text that is asked for.
        context_features: What may be said of a query.
    """

    tables: Tables
    examples: Examples
    recommender: Recommender
    parts: Components
    encoding: TextComponents | None
    tokenize: Tokenize | None
    context_features: ContextFeatures


class BundleSource:
    """The model of a bundle.

    Args:
        files: The bundle.
        part: Folder of a member in it, with a slash at the end; empty for the bundle itself.
        revise: Makes other items of those of the bundle; None: they are as they are.
        computed: Rows of arrays that were computed of such items, by what they were computed of:
            shared by those that open the same bundle one after the other.

    Raises:
        ConfigError: The configuration cannot be read by this version.
        DataError: A file is missing or has changed.
    """

    def __init__(
        self,
        files: BundleFiles,
        part: str = "",
        revise: Revise | None = None,
        computed: ComputedRows | None = None,
    ) -> None:
        self.files, self.part, self._revise = files, part, revise
        self._computed: ComputedRows = {} if computed is None else computed
        self._revised: RevisedCatalog | None = None
        run = read_config(files.find(f"{part}{CONFIG}"))
        if run.encoder.model == manifest.ENCODER:
            model = str(files.folder / part / manifest.ENCODER)
            run = replace(run, encoder=replace(run.encoder, model=model))
        self.run = run

    def load_catalog(self, recommender: Recommender) -> Tensor | None:
        """(I, ...) representations of all items, where the bundle has them.

        Args:
            recommender: The model, which encodes what came to them.
        """
        return self._load_rows(manifest.CATALOG, lambda rows: recommender.index_catalog(rows=rows))

    def read_tables(self) -> Tables:
        """Items, and users where the bundle has them."""
        items = pl.read_parquet(self._find(manifest.ITEMS))
        users = BLANK.clear()
        if self._has(manifest.USERS):
            users = pl.read_parquet(self._find(manifest.USERS))
        return Tables(pl.DataFrame(schema={"user": pl.String, "item": pl.String}), items, users)

    def open(self, check: Callable[[Tables], None]) -> BundleModel:
        """Builds the model.

        Args:
            check: Sees the tables before anything is built, and may refuse them.

        Raises:
            ConfigError: It cannot be built by this version.
            DataError: A file has changed.
        """
        tables = self.read_tables()
        if self._revise is not None:
            self._revised = self._revise(tables, self.files.manifest.name)
        if self._revised is not None:
            tables = self._revised.tables
        check(tables)
        about = json.loads(self._find(manifest.QUERIES).read_text(encoding="utf-8"))
        split = self._read_split(len(tables.users))
        values = {name: tuple(of) for name, of in about["context"].items()}
        codes = {name: np.zeros(len(split.item), dtype=np.int64) for name in values}
        moments = None
        if MOMENT in tables.users.columns:
            moments = MomentTexts.from_users(tables.users[MOMENT], len(split.item))
        context = ContextFeatures(codes, values, frozenset(about["clock"]), moments)
        size, dislikes = len(tables.items), self.run.architecture.reads_dislikes
        examples = Examples(
            split,
            size,
            about["max_history"],
            context=context.event_codes,
            dislikes=dislikes,
            now=context.codes_now,
        )
        parts = self._make_components(tables, context)
        torch.manual_seed(self.run.seed)
        recommender, encoding, tokenize = self._make_recommender(parts, tables, context, examples)
        return BundleModel(tables, examples, recommender.eval(), parts, encoding, tokenize, context)

    def _make_components(self, tables: Tables, context: ContextFeatures) -> Components:
        run, revised = self.run, self._revised
        counts = self._load_rows(manifest.COUNTS)
        assert counts is not None, "every bundle has them"
        return Components(
            texts=tuple(tables.items["text"].to_list()),
            counts=counts,
            ranking=run.evaluation.protocol,
            ks=list_cutoffs(run.evaluation),
            mask_history=run.evaluation.mask_history,
            max_history=run.data.max_history,
            label=run.evaluation.label,
            written=query_texts.make_plain_user_texts(run, tables, context),
            origin=None if revised is None else torch.from_numpy(revised.origin),
            fitted=None if revised is None else revised.before,
        )

    def _make_recommender(
        self, parts: Components, tables: Tables, context: ContextFeatures, examples: Examples
    ) -> tuple[Recommender, TextComponents | None, Tokenize | None]:
        """The architecture's model, with all that it has learned."""
        run, encoding, tokenize = self.run, None, None
        # A user's text may be read where there are no users: of someone unknown.
        known = replace(tables, users=BLANK) if tables.users.is_empty() else tables
        if run.architecture.trains:
            if run.architecture.reads_tokens:
                self._find_folder(manifest.ENCODER)
                encoding, tokenize = load_encoding(
                    run, parts.texts, known, context, self._get_fitted_texts()
                )
            own: Components = self._add_training(parts, tables, encoding, context)
        else:
            reader = None
            if run.architecture.vectors_from == OF_ENCODER and self._lists(manifest.ENCODER):
                reader = TextReader(self, parts, known, context)
                tokenize = reader.tokenize
            own = replace(
                parts,
                item_vectors=self._load_vectors(reader),
                read_text=None if reader is None else reader.read_text,
                read_query=None if reader is None else reader.read_query,
                members=self._open_members(),
                served=self._load_state(),
            )
        module = importlib.import_module(type(run.architecture).__module__)
        recommender = cast(Recommender, module.Model(own, run.architecture))
        if isinstance(recommender, FittedRecommender):
            if recommender.needs_fit:
                restore_fit(recommender, self._find(FIT).parent)
        elif run.architecture.trains:
            weights = self._find(manifest.WEIGHTS)
            require_trainable(recommender).load_trained(weights, origin=own.origin)
        return recommender, encoding, tokenize

    def _add_training(
        self,
        parts: Components,
        tables: Tables,
        encoding: TextComponents | None,
        context: ContextFeatures,
    ) -> TrainingComponents:
        """What an architecture needs that has trained, but for what it trained with."""
        counts = self._load_rows(manifest.TRAIN_COUNTS)
        assert counts is not None, "every bundle of what trained has them"
        return TrainingComponents(
            **vars(replace(parts, served=self._load_state())),
            encoding=encoding,
            objective=_refuse_training,
            around=_refuse_training,
            optimise=_refuse_training,
            train_counts=counts,
            tags=self._load_tags(tables),
            context_sizes=context.sizes,
            masks=make_history_masks(self.run),
        )

    def load_zero_shot(
        self, parts: Components, tables: Tables, context: ContextFeatures
    ) -> tuple[Recommender, Tokenize]:
        """Two towers of the encoder alone, which read texts for what has vectors by it."""
        self._find_folder(manifest.ENCODER)
        run = make_zero_shot_run(self.run)
        fitted = self._get_fitted_texts()
        encoding, tokenize = load_encoding(run, parts.texts, tables, context, fitted)
        nothing = torch.zeros(len(parts.texts), dtype=torch.long)
        own = TrainingComponents(
            **vars(parts),
            encoding=encoding,
            objective=_refuse_training,
            around=_refuse_training,
            optimise=_refuse_training,
            train_counts=nothing,
        )
        module = importlib.import_module(type(run.architecture).__module__)
        return cast(Recommender, module.Model(own, run.architecture)).eval(), tokenize

    def _open_members(self) -> tuple[Member, ...]:
        """What an ensemble combines."""
        count = len(self.run.architecture.member_runs)
        members = []
        for number in range(count):
            part = f"{self.part}{manifest.MEMBERS}/{number}/"
            source = BundleSource(self.files, part, self._revise, self._computed)
            made = source.open(lambda tables: None)
            name = f"member {number + 1}"
            members.append(Member(name, name, made.recommender, made.examples))
        return tuple(members)

    def _read_split(self, users: int) -> Split:
        """What users had, all of it as known."""
        if self._has(manifest.USERS):
            offsets, items, labels = (
                np.load(self._find(f"{manifest.HISTORY}/{name}.npy"), allow_pickle=False)
                for name in ("offsets", "items", "labels")
            )
        else:
            offsets = np.zeros(users + 1, dtype=np.int64)
            items, labels = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        return Split(
            offsets=offsets,
            item=items,
            time=None,
            label=labels,
            weight=np.ones(len(items), dtype=np.float32),
            role=np.full(len(items), TRAIN, dtype=np.int8),
            name="bundle",
        )

    def _load_state(self) -> dict[str, Tensor]:
        """What the architecture has computed of the training events, by name."""
        inside = f"{self.part}{manifest.STATE}/"
        names = [each.removeprefix(self.part) for each in self.files.list_folder(inside[:-1])]
        state = {}
        for name in names:
            value = self._load(name)
            assert value is not None
            state[name.removeprefix(f"{manifest.STATE}/").removesuffix(".npy")] = value
        return state

    @property
    def scores_new_items(self) -> bool:
        """Whether an item that the fit did not know has a score."""
        return can_score(self.run, self._list_member_configs())

    def _list_member_configs(self) -> list[RunConfig]:
        """The configurations of what an ensemble combines."""
        parts = (f"{manifest.MEMBERS}/{n}/" for n in range(len(self.run.architecture.member_runs)))
        return [BundleSource(self.files, self.part + part).run for part in parts]

    def _load_tags(self, tables: Tables) -> Tensor | None:
        """(I, T) numbers of the items' tags, where the architecture reads any."""
        if self._revised is None or not self._has(manifest.TAGS):
            return self._load(manifest.TAGS)
        return encode_tags(tables.items, self.run.architecture.reads_tags, self._revised.before)

    def _get_fitted_texts(self) -> list[str] | None:
        """The texts of the bundle's own items, where others come to them."""
        return None if self._revised is None else self._revised.before["text"].to_list()

    def _load_vectors(self, reader: TextReader | None) -> Tensor | None:
        """(I, D) vectors that the architecture was given, where it was given any.

        Raises:
            ConfigError: There are new items, and no encoder for them.
        """

        def encode(rows: Tensor) -> Tensor:
            if reader is None:
                named = self.run.architecture.item_vectors_from
                raise ConfigError(
                    f"{self.files.folder}: its item vectors are those of the run {named}, whose "
                    "encoder is no part of the bundle; give items= to its run."
                )
            return reader.encode_items(rows)

        return self._load_rows(manifest.VECTORS, encode)

    def _load_rows(
        self, name: str, compute: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor | None:
        """An array with a row an item, with the items that came to those of the bundle.

        Args:
            name: Of the array.
            compute: Gives the rows of items that are new or have another text; None: new ones
                have zeros.
        """
        kept, revised = self._load(name), self._revised
        if kept is None or revised is None:
            return kept
        origin = torch.from_numpy(revised.origin)
        rows = kept[origin.clamp(min=0)]
        if compute is None:
            rows[origin < 0] = 0
            return rows
        stale = revised.list_stale(self.run.architecture.reads_tags)
        keys = {row: (self.part, name, repr(revised.tables.items.row(row))) for row in stale}
        missing = [row for row, key in keys.items() if key not in self._computed]
        if missing:
            vectors = compute(torch.tensor(missing)).to(rows)
            pairs = zip(missing, vectors, strict=True)
            self._computed |= {keys[row]: vector for row, vector in pairs}
        for row, key in keys.items():
            rows[row] = self._computed[key]
        return rows

    def _load(self, name: str) -> Tensor | None:
        """An array, mapped from disk; None where the bundle has none of that name."""
        if not self._has(name):
            return None
        return torch.from_numpy(np.load(self._find(name), mmap_mode="c", allow_pickle=False))

    def _has(self, name: str) -> bool:
        return self.files.has(self.part + name)

    def _lists(self, name: str) -> bool:
        return bool(self.files.list_folder(self.part + name))

    def _find(self, name: str) -> Any:  # noqa: ANN401
        return self.files.find(self.part + name)

    def _find_folder(self, name: str) -> None:
        self.files.find_folder(self.part + name)


class TextReader:
    """The encoder of a baseline with its item vectors, loaded when a text is asked for.

    Args:
        source: The bundle.
        parts: What the baseline is made of.
        tables: Its items.
        context: What may be said of a query.
    """

    def __init__(
        self, source: BundleSource, parts: Components, tables: Tables, context: ContextFeatures
    ) -> None:
        self._load = partial(source.load_zero_shot, parts, tables, context)
        self._loaded: tuple[Recommender, Tokenize] | None = None

    def _get(self) -> tuple[Recommender, Tokenize]:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Raw token ids of each text."""
        return self._get()[1](texts)

    def encode_items(self, rows: Tensor) -> Tensor:
        """(N, D) vectors of items by catalog row (N,)."""
        recommender = self._get()[0]
        return recommender.select_item_vectors(recommender.index_catalog(rows=rows)).float()

    def read_text(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """(1, D) the vector of a text."""
        return self._get()[0].make_text_query(batch, text, tokens)

    def read_query(self, batch: Batch) -> Tensor:
        """(Q, D) vectors of a batch's queries."""
        return compute_query_vectors(self._get()[0], batch)


def _refuse_training(*args: object) -> Never:
    raise ConfigError("a bundle does not train; fit a run, or go on with python -m recsys.refresh.")

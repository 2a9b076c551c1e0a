"""Answers by products of arrays: users and histories without torch, texts with an encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.tables import Tables
from recsys.errors import DataError
from recsys.layers.item_cosines import EaseWeights, compute_cosines, compute_similar_cosines
from recsys.trained.bundle import manifest
from recsys.trained.bundle.manifest import BundleFiles
from recsys.trained.bundle.plain_parts import PlainParts
from recsys.trained.bundle.plain_text import PlainText, multiply, normalize
from recsys.trained.diversity import count_pool, diversify
from recsys.trained.explanations.parts import make_history_parts, write_because
from recsys.trained.lookup import (
    ClosedItems,
    RowFinder,
    add_columns,
    check_columns,
    check_ids,
    make_frame,
    parse_moment,
)
from recsys.trained.queries import ANY, Choice, Query

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_MOST_SCORES = 1 << 23  # held at a time: 32 MB
_NOTHING = np.empty(0, dtype=np.int64)


class PlainModel:
    """Scores by the recipes that a bundle has beside its model.

    Args:
        files: The bundle.

    Attributes:
        files: It.
        max_history: How many of the latest items of a history are read.
    """

    def __init__(self, files: BundleFiles) -> None:
        self.files = files
        recipe: dict[str, Any] = {"kind": "", "numbers": {}}
        if files.has(manifest.PLAIN):
            recipe = json.loads(files.find(manifest.PLAIN).read_text(encoding="utf-8"))
        self._kind, self._numbers = str(recipe["kind"]), dict(recipe["numbers"])
        self._text = PlainText(files) if files.has(manifest.TEXT) else None
        about = json.loads(files.find(manifest.QUERIES).read_text(encoding="utf-8"))
        self.max_history = int(about["max_history"])
        self._arrays: dict[str, NDArray[np.generic]] = {}

    def can_answer(
        self, queries: Sequence[Query], context: Mapping[str, str], choice: Choice = ANY
    ) -> bool:
        """Whether the recipes are of all that is asked, and of how alike items are if need be."""
        if context or choice.retriever is not None or choice.candidates is not None:
            return False
        if choice.diversity and self._kind == "popularity":
            return False
        return all(self._kind if query.text is None else self._text for query in queries)

    @property
    def has_encoder(self) -> bool:
        """Whether it has loaded what reads texts."""
        return self._text is not None and self._text.has_encoder

    def rank(
        self,
        queries: Sequence[Query],
        k: int,
        at: str,
        describe: Callable[[Query], str],
        choice: Choice = ANY,
    ) -> pl.DataFrame:
        """As `Suggester.rank`, for what it can answer.

        Args:
            queries: What is asked.
            k: Items a query.
            at: A moment, or `now`.
            describe: A sentence on the part of the data that is kept, for an unknown id.
            choice: Which items may be recommended, and what is said of them.

        Raises:
            DataError: An id is unknown, the moment is no time, or nothing can be had then.
        """
        moment = parse_moment(at)
        check_ids(self._ids, queries, describe)
        check_columns(self.tables.items, choice.columns)
        closed = self._closed.find(at, moment, choice.where)
        chosen = [
            each
            for start in range(0, len(queries), self._block)
            for each in self._rank_some(queries[start : start + self._block], k, closed, choice)
        ]
        why = None if choice.because is False else self._list_reasons(queries, chosen)
        frame = make_frame(queries, chosen, self._ids.items, self._titles, why)
        return add_columns(frame, self.tables.items, choice.columns)

    def _rank_some(
        self, queries: Sequence[Query], k: int, closed: Ints, choice: Choice
    ) -> list[tuple[Ints, Floats]]:
        """Catalog rows and scores of the best items of each query."""
        texts = [query.text for query in queries if query.text is not None]
        asked = iter([] if self._text is None else self._text.score(texts))
        events = [self._list_history(query) for query in queries if query.text is None]
        every = self.score_all([had[-self.max_history :] for had, _ in events])
        others = iter(zip(every, (seen for _, seen in events), strict=True))
        out = []
        for query in queries:
            scores, seen = (next(asked), _NOTHING) if query.text is not None else next(others)
            if choice.exclude_seen:
                scores[seen] = -np.inf
            scores[closed] = -np.inf
            if np.isnan(scores).any():
                raise DataError(f"{self.files.folder}: a score is not a number; make it again.")
            size = count_pool(k) if choice.diversity else k
            rows = select_best(scores, min(size, int((scores > -np.inf).sum())))
            if choice.diversity and len(rows):
                cosines = self._compute_cosines(rows)
                rows = rows[diversify(scores[rows], cosines, k, choice.diversity)]
            out.append((rows, scores[rows]))
        return out

    def _list_reasons(
        self, queries: Sequence[Query], chosen: Sequence[tuple[Ints, Floats]]
    ) -> list[str]:
        """What of each query's history speaks for each of its items, as the model would say it."""
        parts = PlainParts(
            self._kind,
            self._numbers,
            self.files.has,
            self._load,
            self._weigh,
            self._list_similar,
        )
        out = []
        for query, (rows, _) in zip(queries, chosen, strict=True):
            had = self._list_history(query)[0][-self.max_history :]
            popular = self._kind == "popularity" or not len(had)
            rest = ("popularity",) if popular or self._numbers.get("prior") else ()
            if popular or query.text is not None or not len(rows):
                out += ["" if query.text is not None else write_because((), rest)] * len(rows)
                continue
            own, values = parts.split(had, rows)
            named = [self._ids.items[row] for row in own], [self._titles[row] for row in own]
            out += [write_because(make_history_parts(*named, of), rest) for of in values.tolist()]
        return out

    def _list_history(self, query: Query) -> tuple[Ints, Ints]:
        """What a query is about, oldest first, and all that is known to be had: catalog rows."""
        user, given = self._ids.find_rows(query)
        if user >= 0:
            return self.list_events(user)
        rows = np.asarray(given, dtype=np.int64)
        return rows, rows

    def score_all(self, histories: Sequence[Ints]) -> list[Floats]:
        """(I,) scores of all items for each history of catalog rows, oldest first."""
        if self._kind != "vectors" or len(histories) < 2:
            return [self.score(had) for had in histories]
        out = [self.score(had) if not len(had) else None for had in histories]
        # Vectors are read once for all: what takes time is to fetch them from memory.
        asked = [place for place, scores in enumerate(out) if scores is None]
        if asked:
            users = np.stack([self.make_user_vector(histories[place]) for place in asked])
            for place, scores in zip(asked, self._multiply(users), strict=True):
                out[place] = scores
        return [scores for scores in out if scores is not None]

    def score(self, had: Ints) -> Floats:
        """(I,) scores of all items for a history of catalog rows, oldest first."""
        if self._kind == "popularity":
            return np.array(self._get("weights"), dtype=np.float32)
        if not len(had):
            return np.array(self.get_popularity(), dtype=np.float32)
        if self._kind == "vectors":
            scores: Floats = self._multiply(self.make_user_vector(had)[None])[0]
            return scores
        return self._score_ease(had) if self._kind == "ease" else self._score_similar(had)

    def make_user_vector(self, had: Ints) -> Floats:
        """(D,) a decayed mean of a history's vectors, as scores are products with it."""
        numbers, items = self._numbers, self._load(manifest.CATALOG)
        width, prior = int(numbers["width"]), bool(numbers["prior"])
        directions = items[:, :-1] if prior else items
        logits = -numbers["rate"] * np.arange(len(had))[::-1]
        weights = np.exp(logits - logits.max()).astype(np.float32)
        user = (weights / weights.sum()) @ directions[had, -width:]
        user = self._normalize(user)
        if self.files.has(f"{manifest.PLAIN_ARRAYS}/user_head.npy"):
            user = self._normalize(user + self._get("user_head") @ user)
        out: Floats = user * np.float32(numbers["scale"])
        return out

    def _multiply(self, users: Floats) -> Floats:
        """(Q, D) -> (Q, I) scores of all items."""
        items, added = self.split_vectors()
        scores = multiply(items, users)
        return scores if added is None else scores + added

    def _normalize(self, vector: Floats) -> Floats:
        if not self._numbers["unit"]:
            return vector
        return normalize(vector)

    def _weigh(self, had: Ints, binary: bool) -> tuple[Ints, Floats]:
        """Items of a history, each once, and what each counts: `layers.baselines` has the rule."""
        decay = self._numbers["recency"]
        weights = np.exp(-decay * np.arange(len(had))[::-1]).astype(np.float32)
        items, back = np.unique(had, return_inverse=True)
        out = np.zeros(len(items), dtype=np.float32)
        if binary:
            np.maximum.at(out, back, weights)  # the latest counts most
            if decay < 0:
                out[back] = weights
        else:
            np.add.at(out, back, weights)
        return items, out

    def _score_ease(self, had: Ints) -> Floats:
        """X - (X P) penalty + rho (X P V) W: `layers.ease.ClosedForm`."""
        items, counts = self._weigh(had, binary=True)
        seen = self._load(f"{manifest.STATE}/seen.npy")
        inverse = self._load(f"{manifest.STATE}/inverse.npy")
        known, diagonal = self._get("known"), self._get("diagonal")
        weighed = np.zeros(len(diagonal), dtype=np.float32)
        weighed[items] = counts * diagonal[items]
        warm = known[items] > 0
        rows = np.searchsorted(seen, items[warm])
        weighed[seen] = counts[warm] @ inverse[rows]
        scores: Floats = -weighed * self._get("penalty")
        if self.files.has(f"{manifest.PLAIN_ARRAYS}/weights.npy"):
            projected = counts @ self._get("projected")[items]
            scores += np.float32(self._numbers["rho"]) * (projected @ self._get("weights"))
        scores[items] += counts * known[items]
        return scores

    def _score_similar(self, had: Ints) -> Floats:
        """A weighted sum of the rows of similar items."""
        items, counts = self._weigh(had, binary=bool(self._numbers["binary"]))
        scores = np.zeros(self.tables.items.height, dtype=np.float32)
        for (starts, columns, data), part in self._list_similar():
            for item, count in zip(items.tolist(), counts, strict=True):
                row = slice(int(starts[item]), int(starts[item + 1]))
                scores[columns[row]] += count * part * data[row]
        return scores

    def _list_similar(self) -> Iterator[tuple[tuple[Any, Any, Any], np.float32]]:
        """Matrices of similar items, as the three arrays of sparse rows, and what each counts."""
        share = np.float32(self._numbers["text_weight"])
        near = self.files.has(f"{manifest.STATE}/near_indptr.npy")
        for kind, part in (("similar", 1 - share if near else np.float32(1)), ("near", share)):
            if part:
                starts, columns, data = (
                    self._load(f"{manifest.STATE}/{kind}_{name}.npy")
                    for name in ("indptr", "indices", "data")
                )
                yield (starts, columns, data), part

    def _compute_cosines(self, rows: Ints) -> Floats:
        """(N, N) of catalog rows, as the model's `compute_cosines`."""
        if self._kind in ("vectors", ""):
            assert self._text is not None or self._kind
            width = self._text.width if self._text else int(self._numbers["width"])
            return compute_cosines(self._load(manifest.CATALOG)[rows, :width])
        if self._kind == "ease":
            texts = self.files.has(f"{manifest.PLAIN_ARRAYS}/weights.npy")
            return EaseWeights(
                self._load(f"{manifest.STATE}/inverse.npy"),
                np.asarray(self._load(f"{manifest.STATE}/seen.npy"), dtype=np.int64),
                self._get("penalty"),
                self._numbers["rho"],
                self._get("projected") if texts else None,
                self._get("weights") if texts else None,
            ).compute_cosines(rows)
        from scipy.sparse import csr_matrix

        shape = (self.tables.items.height,) * 2
        terms = [
            (csr_matrix((data, columns, starts), shape=shape), part)
            for (starts, columns, data), part in self._list_similar()
        ]
        return compute_similar_cosines(terms, rows)

    def get_popularity(self) -> Floats:
        """(I,) scores for a history without items."""
        return self._load(manifest.COUNTS)

    @property
    def multiplies_vectors(self) -> bool:
        """Whether a score is a product of two vectors: those of `make_user_vector` and an item."""
        return self._kind == "vectors"

    def split_vectors(self) -> tuple[Floats, Floats | None]:
        """(I, D) vectors of the items, and (I,) what is added to a product with them, or None."""
        items, width = self._load(manifest.CATALOG), int(self._numbers["width"])
        return items[:, :width], items[:, -1] if self._numbers["prior"] else None

    @cached_property
    def tables(self) -> Tables:
        """Items, and who can be asked for."""
        items = pl.read_parquet(self.files.find(manifest.ITEMS))
        users = pl.DataFrame(schema={"user": pl.String, "text": pl.String})
        if self.files.has(manifest.USERS):
            users = pl.read_parquet(self.files.find(manifest.USERS))
        return Tables(pl.DataFrame(), items, users)

    @cached_property
    def _closed(self) -> ClosedItems:
        return ClosedItems(self.tables.items)

    @cached_property
    def _titles(self) -> list[str]:
        titles: list[str] = self.tables.items["text"].to_list()
        return titles

    @property
    def _block(self) -> int:
        """Queries whose scores are held at a time."""
        return max(1, _MOST_SCORES // self.tables.items.height)

    @cached_property
    def _ids(self) -> RowFinder:
        return RowFinder(self.tables)

    def list_events(self, user: int) -> tuple[Ints, Ints]:
        """What a user liked, and all that the user had, as catalog rows in time order."""
        offsets, items, labels = (
            self._load(f"{manifest.HISTORY}/{name}.npy") for name in ("offsets", "items", "labels")
        )
        own = slice(int(offsets[user]), int(offsets[user + 1]))
        rows = items[own].astype(np.int64)
        return rows[labels[own] > 0], rows

    def _get(self, name: str) -> NDArray[np.float32]:
        return self._load(f"{manifest.PLAIN_ARRAYS}/{name}.npy")

    def _load(self, name: str) -> NDArray[np.float32]:
        """An array of the bundle, mapped from disk."""
        if name not in self._arrays:
            path: Path = self.files.find(name)
            self._arrays[name] = np.load(path, mmap_mode="c", allow_pickle=False)
        return self._arrays[name]  # type: ignore[return-value]


def select_best(scores: Floats, size: int) -> Ints:
    """(size,) rows of the highest scores, best first; equal ones in their order."""
    if not size:
        return np.empty(0, dtype=np.int64)
    least = -np.partition(-scores, size - 1)[size - 1]
    # All that may be among them, equals of the last included; sorting a whole catalog takes longer.
    rows = np.flatnonzero(scores >= least)
    return rows[np.argsort(-scores[rows], kind="stable")][:size]

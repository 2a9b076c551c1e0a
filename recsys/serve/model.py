"""The model that answers: opened whole, and replaced while requests are in work."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import polars as pl

from recsys.errors import ConfigError, DataError, RecsysError
from recsys.printable import escape_line
from recsys.runtime.files import RESULT
from recsys.serve.conversations import Beginning, Conversations, Lines
from recsys.serve.places import locate_model
from recsys.serve.records.items import ItemRow, make_tables
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.kept import open_kept
from recsys.trained.bundle.manifest import MANIFEST, is_bundle
from recsys.trained.bundle.plain import PlainModel
from recsys.trained.explanations.explaining import Explaining
from recsys.trained.lookup import describe_sample
from recsys.trained.new_items import NewItems
from recsys.trained.queries import ANY, Answering, Choice, Query
from recsys.trained.run import TrainedRun

Row = dict[str, object]


@dataclass(frozen=True)
class Asked:
    """A query with all that decides its answer.

    Attributes:
        query: Who or what is asked for.
        k: How many items.
        at: The moment, or `now`.
        context: Column and value of each that is given, sorted.
        item: Whose score is to be explained; None: the best items are asked for.
        choice: Which items may be recommended, and what is said of them.
        lines: Of a conversation that the query begins; None: no conversation.
    """

    query: Query
    k: int
    at: str = "now"
    context: tuple[tuple[str, str], ...] = ()
    item: str | None = None
    choice: Choice = ANY
    lines: Lines | None = None


@dataclass(frozen=True)
class Answered:
    """What a model says.

    Attributes:
        rows: The items, the best first; or one, the reasons of a score, or a conversation's turn.
        model: Name of the model.
        notes: Sentences on what of the question counts as unknown.
    """

    rows: list[Row]
    model: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A model in use.

    Attributes:
        answering: It.
        version: Counts how often one was loaded.
        folder: Where its files lie.
        signature: What its files were when it was loaded.
        bare: It without the items that were added while the service runs, opened and never built;
            None where none was.
        notes: Where it leaves sentences on a question; they may hold what users sent, and go to
            nobody else.
    """

    answering: Answering
    version: int
    folder: Path
    signature: object
    bare: Answering | None = None
    notes: list[str] = field(default_factory=list)

    @cached_property
    def conversations(self) -> Conversations:
        """Those that are had with it."""
        return Conversations(self.answering, self.notes)


class ModelHolder:
    """Holds one model, and replaces it by a newer one that has proved to answer.

    Args:
        folder: Of the model, as `places.locate_model` reads it.
        load: Opens it.
        items: What was added before, by item.
    """

    def __init__(
        self,
        folder: Path,
        load: Callable[[Path], Answering],
        items: Mapping[str, ItemRow] | None = None,
    ) -> None:
        self.folder, self._load, self._items = folder, load, items or {}
        self._lock = threading.Lock()
        self.current = self._open(1)

    def reload(self) -> Loaded:
        """Opens the folder anew; the old model answers until the new one has.

        Raises:
            RecsysError: The new one cannot be opened; the old one stays.
        """
        with self._lock:
            self.current = self._open(self.current.version + 1)
            return self.current

    def has_changed(self) -> bool:
        """Whether the folder holds another model than the one in use.

        Raises:
            ConfigError: The run in use is not there.
        """
        signature = read_signature(locate_model(self.folder))
        return signature is not None and signature != self.current.signature

    def _open(self, version: int) -> Loaded:
        folder = locate_model(self.folder)
        signature = read_signature(folder)
        answering = self._load(folder)
        if self._items:
            try:
                grown = grow(answering, self._items)
                return Loaded(grown, version, folder, signature, answering, _collect_notes(grown))
            except RecsysError as error:  # the model that took them was another one
                _print_note(f"the items that were added are left out: {error}")
        _warm_up(answering)
        notes = _collect_notes(answering)
        return Loaded(answering, version, folder, signature, notes=notes)

    def add_items(self, items: Mapping[str, ItemRow], given: Mapping[str, ItemRow]) -> Loaded:
        """The model in use with further items, once it has proved to answer; it is not used yet.

        Args:
            items: All that were added, by item.
            given: What is said of some of them now, which has to make a text by itself.

        Raises:
            ConfigError: It has no score for a new item.
            DataError: An item cannot be used.
        """
        now = self.current
        _check_given(now.answering, given)
        bare = self._load(now.folder) if now.bare is None else now.bare
        grown = grow(bare, items)
        return replace(now, answering=grown, bare=bare, notes=_collect_notes(grown))

    def use_items(self, loaded: Loaded, items: Mapping[str, ItemRow]) -> None:
        """Puts what `add_items` made in the old model's place, and keeps the items for newer ones.

        Args:
            loaded: What it made.
            items: Of what.
        """
        self.current, self._items = loaded, items

    def list_unknown(self, ids: Sequence[str]) -> list[str]:
        """Those of some ids that the model in use has no item of, each once."""
        answering = self.current.answering
        if not ids or not isinstance(answering, Explaining):
            return []
        items = answering.suggester.list_items()
        known = set(items.filter(items.is_in(list(ids))))
        return [each for each in dict.fromkeys(ids) if each not in known]

    def answer(self, asked: Sequence[Asked]) -> list[Answered | Exception]:
        """What is said to each query, or the error that is for it alone."""
        return _answer(self.current, asked)


def _collect_notes(answering: Answering) -> list[str]:
    """The list in which a model leaves sentences on a question from now on."""
    notes: list[str] = []
    if isinstance(answering, Explaining):
        answering.suggester.report = notes.append
    return notes


def _answer(loaded: Loaded, asked: Sequence[Asked]) -> list[Answered | Exception]:
    answers: list[Answered | Exception] = [Answered([]) for _ in asked]
    for places in _group(asked):
        try:
            found = _answer_alike(loaded, [asked[place] for place in places])
        except RecsysError as error:
            if len(places) == 1:
                answers[places[0]] = error
                continue
            for place in places:  # one is wrong: the others are not to suffer
                (answers[place],) = _answer(loaded, [asked[place]])
            continue
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
    return answers


def _answer_alike(loaded: Loaded, asked: Sequence[Asked]) -> list[Answered]:
    """Answers to queries that `_group` put together.

    Raises:
        RecsysError: One of them cannot be answered.
    """
    answering, first, queries = loaded.answering, asked[0], [each.query for each in asked]
    loaded.notes.clear()
    if first.lines is not None:
        turn = _converse(loaded, first, first.lines)
        return [Answered([turn], answering.name, tuple(loaded.notes))]
    if first.item is not None:
        reasons = _explain(answering, first, first.item)
        return [Answered([reasons], answering.name, tuple(loaded.notes))]
    frame = answering.answer(queries, first.k, first.at, dict(first.context), first.choice)
    rows: dict[str, list[Row]] = {query.label: [] for query in queries}
    for row in frame.iter_rows(named=True):
        more = {name: make_json_value(row.pop(name)) for name in first.choice.columns}
        rows[row.pop("query")].append({**row, "columns": more})
    notes = tuple(dict.fromkeys(loaded.notes))
    return [Answered(rows[query.label], answering.name, notes) for query in queries]


def _converse(loaded: Loaded, asked: Asked, lines: Lines) -> Row:
    """What the last line of a conversation leads to."""
    start = None if asked.query == Query() else asked.query
    beginning = Beginning(start, asked.at, asked.context, lines.left_out)
    return dict(loaded.conversations.answer(beginning, lines, asked.k))


def make_json_value(value: object) -> object:
    """A value of a table as JSON can say it: what is no number is null, times are texts."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [make_json_value(each) for each in value]
    if isinstance(value, dict):
        return {str(name): make_json_value(each) for name, each in value.items()}
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def grow(answering: Answering, items: Mapping[str, ItemRow]) -> Answering:
    """A model with further items, which has encoded them.

    Args:
        answering: It.
        items: Text and columns by item.

    Raises:
        ConfigError: It has no score for a new item.
        DataError: An item cannot be used.
    """
    for frame in make_tables(items):
        answering = answering.add_items(frame)
    _warm_up(answering)
    return answering


def _check_given(answering: Answering, items: Mapping[str, ItemRow]) -> None:
    """Refuses what makes no text, whatever was said of its item before, as a table's row is.

    Raises:
        DataError: It has neither a text nor all columns that texts are made of, or a time is none.
    """
    if isinstance(answering, Explaining) and answering.suggester.source.scores_new_items:
        source, catalog = answering.suggester.run.data.source, answering.suggester.model.tables
        for frame in make_tables(items):
            NewItems.read(frame).write_texts(source, catalog.items.schema)


def _print_note(sentence: str) -> None:
    print(escape_line(f"note: {sentence}"), file=sys.stderr, flush=True)


def _explain(answering: Answering, asked: Asked, item: str) -> Row:
    """Why an item has its score, and what of the query speaks for it.

    Raises:
        RecsysError: It cannot be said, or an id is unknown.
    """
    if not isinstance(answering, Explaining):
        raise ConfigError(f"{answering.name} explains nothing.")
    why = answering.explainer.explain(asked.query, item, asked.at, dict(asked.context))
    return {
        "item": item,
        "title": why.title,
        "score": why.score,
        "rank": why.rank,
        "method": why.method,
        "because": why.because,
        "history": [
            {
                "item": each.item,
                "title": each.title,
                "value": each.value,
                "share": each.share,
                "disliked": each.disliked,
            }
            for each in why.history
        ],
    }


def _group(asked: Sequence[Asked]) -> list[list[int]]:
    """Places of queries that one call answers: alike but for the query, each with its own label."""
    groups: list[tuple[object, set[str], list[int]]] = []
    for place, each in enumerate(asked):
        kind, label = (each.k, each.at, each.context, each.choice), each.query.label
        for alike, labels, places in groups:
            if alike == kind and label not in labels and _can_share(each):
                labels.add(label)
                places.append(place)
                break
        else:
            groups.append((kind if _can_share(each) else None, {label}, [place]))
    return [places for _, _, places in groups]


def _can_share(asked: Asked) -> bool:
    """Whether a query is answered together with others."""
    return asked.item is None and asked.lines is None


def _warm_up(answering: Answering) -> None:
    """Asks for what makes a model read all its files, so that no request waits for that.

    Raises:
        RecsysError: It cannot be read.
    """
    answering.answer([Query(history=())], 1, "now", {})
    with suppress(ConfigError):  # one that reads no texts says so to those who give one
        answering.answer([Query(text="a")], 1, "now", {})
    if isinstance(answering, Explaining) and answering.suggester.model.recommender.ranks_catalog:
        _ = answering.suggester.catalog  # what explains is built of the run's own model


def read_signature(folder: Path) -> object | None:
    """What changes when the files of a model do; None while there are none."""
    for name in (MANIFEST, RESULT):
        try:
            status = os.stat(folder / name)
        except OSError:
            continue
        return str(folder / name), status.st_ino, status.st_mtime_ns, status.st_size
    return None


def load_model(folder: Path) -> Answering:
    """The model of a bundle, whose files are all checked, or of a run.

    Raises:
        ConfigError: The folder is neither.
        DataError: It is damaged.
    """
    if is_bundle(folder):
        bundle = open_bundle(folder)
        bundle.files.check()
        return bundle
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; give a bundle or a finished run.")
    return ServedRun(folder)


class ServedRun(TrainedRun):
    """A run that is asked often: by what it keeps for quick answers, where a bundle would be.

    Args:
        folder: Of the run.
    """

    def answer(
        self,
        queries: Sequence[Query],
        k: int,
        at: str,
        context: Mapping[str, str],
        choice: Choice = ANY,
    ) -> pl.DataFrame:
        """As `TrainedRun.answer`, within the rounding of scores."""
        plain = self._plain
        if plain is None or not plain.can_answer(queries, context, choice):
            return super().answer(queries, k, at, context, choice)
        return plain.rank(queries, k, at, partial(describe_sample, self.config), choice)

    @cached_property
    def _plain(self) -> PlainModel | None:
        """What the run keeps, made now where it is missing; None where it can keep nothing."""
        kept = open_kept(self.folder, self.config)
        if kept is None:
            self.keep_answers(texts=False)
            kept = open_kept(self.folder, self.config)
        return kept

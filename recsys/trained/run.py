"""A finished run put to use: what it was asked, what it measured, what it recommends."""

from __future__ import annotations

import glob
import html
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys import printable
from recsys.config.compose import RunConfig, get_choice_name, read_config
from recsys.errors import ConfigError
from recsys.runs.current import find_current_run
from recsys.runs.folder import find_last_run, find_matching_run
from recsys.runs.result_file import read_result
from recsys.runtime.files import CONFIG, RESULT
from recsys.trained.bulk.listing import Listing
from recsys.trained.queries import ANY, Choice, Query
from recsys.trained.vectors.representing import Representing

if TYPE_CHECKING:
    import polars as pl

    from recsys.assembly.assembled import Assembly
    from recsys.data.tables import Tables
    from recsys.trained.bulk.models import BulkModel
    from recsys.trained.new_items import NewItems
    from recsys.trained.recommendations import Suggester
    from recsys.trained.run_source import RunSource


class TrainedRun(Listing, Representing):
    """A run with its result.

    Args:
        folder: Of the run.
        items: Tables of items that come to those of the data.

    Attributes:
        folder: Where it lies.
        config: Its resolved configuration.
        result: What `result.json` holds; figures without a value are NaN.

    Raises:
        ConfigError: The folder is no run's, or the run is not complete.
        DataError: The result is damaged.
    """

    folder: Path
    config: RunConfig
    result: Mapping[str, Any]
    _grown: TrainedRun | None

    def __init__(self, folder: Path, items: tuple[NewItems, ...] = ()) -> None:
        self._items, self._grown = items, None
        self.folder, self.config = folder, read_config(folder / CONFIG)
        if not (folder / RESULT).is_file():
            raise ConfigError(f"{folder}: the run is not complete, {RESULT} is missing.")
        self.result = read_result(folder)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics of the test, as shares; of the validation where the run was not tested."""
        part = self.result["test"] if self.config.evaluation.test else self.result["validation"]
        found: Mapping[str, float] = part if self.config.evaluation.test else part["metrics"]
        return found

    @property
    def name(self) -> str:
        """Its experiment, else its architecture."""
        return self.config.experiment or get_choice_name(self.config.architecture)

    def answer(
        self,
        queries: Sequence[Query],
        k: int,
        at: str,
        context: Mapping[str, str],
        choice: Choice = ANY,
    ) -> pl.DataFrame:
        """As `recommend`, of queries that may be of several kinds."""
        return self.suggester.rank(queries, k, at, context, choice)

    def add_items(self, items: pl.DataFrame | str | Path) -> TrainedRun:
        """As `Answering.add_items` says."""
        from recsys.trained.new_items import NewItems

        fresh = NewItems.read(items)
        if self._grown is None or not self._grown._items[-1].equals(fresh):
            self._grown = TrainedRun(self.folder, (*self._items, fresh))
        return self._grown

    def assemble(self) -> Assembly:
        """Reads the data and builds the model, with all that it has learned.

        Raises:
            ConfigError: The data has changed since, or has items without a score.
        """
        source = self._make_source()
        made = source.open(lambda tables: None)
        origin = made.parts.origin
        if origin is not None and bool((origin < 0).any()) and not source.scores_new_items:
            raise ConfigError(
                f"{self.folder}: items have come since, for which the run has no score; fit again."
            )
        return made

    def compress(
        self,
        layers: int | str | None = None,
        width: int | None = None,
        vectors: str | None = None,
        output: str | Path = "runs",
        *,
        pool: int | None = None,
        steps: int | None = None,
        batch: int | None = None,
        lr: float | None = None,
        seed: int | None = None,
    ) -> TrainedRun:
        """Makes a small run of it, which is tested as it was: `python -m recsys.compress`.

        Args:
            layers: Layers of the encoder that stay, or "static" for a vector a token; None: all.
            width: Numbers of a vector that stay; None: all.
            vectors: How vectors of items are stored: fp32, int8, binary or binary+int8.
            output: Where the new run's folder is made.
            pool: Items that are scored again, with binary+int8.
            steps: Of the distillation.
            batch: Texts of a step.
            lr: Learning rate of the layers.
            seed: Draws the texts of a step.

        Returns:
            The new run.

        Raises:
            ConfigError: A word is wrong, the run cannot be made so, or its data has changed.
        """
        from recsys.trained.compression.run import compress
        from recsys.trained.compression.settings import CompressionSettings

        words: dict[str, object] = {"layers": layers, "width": width, "vectors": vectors}
        words |= {"pool": pool, "steps": steps, "batch": batch, "lr": lr, "seed": seed}
        given = {key: str(value) for key, value in words.items() if value is not None}
        settings = CompressionSettings.parse(given)
        return TrainedRun(compress(self, settings, str(output)))

    def export(
        self, folder: str | Path, format: str = "sentence_transformers", users: bool = True
    ) -> Path:
        """Leaves files that other systems load without this package: `python -m recsys.export`.

        Args:
            folder: The folder to make; it is there whole or not at all.
            format: A name of `recsys.trained.exports.formats.FORMATS`.
            users: Whether a bundle holds what users had, so that they can be asked for by id.

        Returns:
            The folder.

        Raises:
            ConfigError: The format is unknown or cannot hold such a run, a package is missing, or
                the data has changed.
            DataError: The folder is there already, or cannot be written.
        """
        from recsys.trained.exports.formats import export_run

        for line in export_run(self, Path(folder), format, users=users):
            print(printable.escape_line(line), file=sys.stderr)
        return Path(folder)

    def answer_quickly(
        self,
        queries: Sequence[Query],
        k: int,
        at: str,
        context: Mapping[str, str],
        choice: Choice = ANY,
    ) -> pl.DataFrame:
        """As `answer`, by what the run has kept for it; the first time, it keeps that.

        A process that asks once starts without torch then, and for a text with the encoder alone.
        Whatever a few products of arrays do not score is answered by the model as ever.
        """
        from recsys.trained.bundle.kept import open_kept

        if self._items:
            return self.answer(queries, k, at, context, choice)
        kept = open_kept(self.folder, self.config)
        if kept is not None and kept.can_answer(queries, context, choice):
            return kept.rank(queries, k, at, self.describe_sample, choice)
        rows = self.answer(queries, k, at, context, choice)
        if kept is None or not kept.can_answer(queries, {}):
            self.keep_answers(any(query.text is not None for query in queries))
        return rows

    def describe_sample(self, query: Query) -> str:
        """A sentence on the part of the data that is kept, for an unknown id; empty for all."""
        from recsys.trained.lookup import describe_sample

        return describe_sample(self.config, query)

    def keep_answers(self, texts: bool) -> None:
        """Keeps what answers without the run's own model, where the run can do so.

        Args:
            texts: Whether texts are to be answered too, for which the encoder is kept; the model is
                built anew when it is asked for after that.

        Raises:
            ConfigError: The data has changed since, and the run knows its rows.
        """
        from recsys.assembly.assembled import Assembly
        from recsys.trained.bundle.kept import keep

        made = self.suggester.model
        assert isinstance(made, Assembly), "a run is built of its data"
        same = made.fingerprint == self._make_source().digests[0]  # else each answer says so
        if same and not self._items and made.recommender.ranks_catalog:
            keep(self.folder, self.config, made, self.suggester.catalog, texts)
            if texts:
                del self.suggester  # what was tuned is a part of its encoder now

    def open_bulk(
        self, check: Callable[[Tables], None], context: Mapping[str, str], choice: Choice
    ) -> BulkModel:
        """What ranks for many queries: what the run has kept, where that does, else its model."""
        from recsys.assembly.assembled import Assembly
        from recsys.trained.bulk.models import (
            ArrayModel,
            can_multiply,
            compute_fingerprint,
            make_bulk_model,
        )
        from recsys.trained.bundle.kept import open_kept

        kept = None if self._items else open_kept(self.folder, self.config)
        if kept is not None and can_multiply(kept, context, choice):
            check(kept.tables)
            return ArrayModel(kept)
        made = self.suggester.open(check)
        assert isinstance(made, Assembly), "a run is built of its data"
        if kept is None and not self._items:
            self.keep_answers(texts=False)
            # From the first time on by the same arithmetic: parts of a file may be of several runs.
            kept = open_kept(self.folder, self.config)
            if kept is not None and can_multiply(kept, context, choice):
                return ArrayModel(kept)
        result = (self.folder / RESULT).read_text(encoding="utf-8")
        more = [each.compute_fingerprint() for each in self._items]
        fingerprint = compute_fingerprint([result, made.fingerprint, *more])
        return make_bulk_model(self.suggester, fingerprint, choice)

    @cached_property
    def suggester(self) -> Suggester:
        """What answers, built once."""
        from recsys.trained.recommendations import Suggester

        return Suggester(self._make_source())

    def _make_source(self) -> RunSource:
        """Where its model comes from."""
        from recsys.fit.command import silence_libraries
        from recsys.trained.run_source import RunSource

        if self.config.architecture.loads_models:
            silence_libraries()
        try:
            data = self.result["data"]
            digests = (str(data["fingerprint"]), str(data["roles_sha256"]))
        except (TypeError, KeyError):
            raise ConfigError(f"{self.folder / RESULT} is damaged; run fit again.") from None
        return RunSource(self.folder, self.config, digests, self._items)

    def __repr__(self) -> str:
        """Folder and the metric that chose the checkpoint."""
        monitor = self.config.evaluation.monitor
        return (
            f"TrainedRun({str(self.folder)!r}, {monitor}={self.metrics.get(monitor, math.nan):.4f})"
        )

    def _repr_html_(self) -> str:
        """The metrics as a table, in percent, beside the baselines on the same cases."""
        floors: Mapping[str, Mapping[str, float]] = self.result.get("floors", {})
        table = {self.name: self.metrics, **floors}
        names = [name for name in self.metrics if name != "cases" and "/" not in name]
        return render_table(str(self.folder), names, table)


def render_table(title: str, names: Sequence[str], table: Mapping[str, Mapping[str, float]]) -> str:
    """An HTML table of shares in percent, a row a method.

    Args:
        title: Its caption.
        names: The columns.
        table: Figures by method.
    """

    def cell(value: float) -> str:
        return "-" if math.isnan(value) else f"{100 * value:.2f}"

    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = "".join(
        f"<tr><th>{html.escape(method)}</th>"
        + "".join(f"<td>{cell(figures.get(name, math.nan))}</td>" for name in names)
        + "</tr>"
        for method, figures in table.items()
    )
    caption = f"<caption>{html.escape(title)}, in percent</caption>"
    return f"<table>{caption}<tr><th></th>{head}</tr>{rows}</table>"


def load(run: str | Path, output: str | Path = "runs") -> TrainedRun:
    """A finished run.

    Args:
        run: Its folder, `last` for the newest one, `current` for the one that a refresh promoted,
            or a glob such as `runs/lora*` for the newest
            of those; which one that is is printed.
        output: Where `last` looks.

    Returns:
        The run; its model is built when it is first asked for something.

    Raises:
        ConfigError: There is no such run, or it is not complete.
        DataError: Its result is damaged.
    """
    if run == "last":
        return TrainedRun(find_last_run(str(output), complete=True))
    if run == "current":
        return TrainedRun(find_current_run(Path(output)))
    folder = Path(run)
    if not folder.exists() and glob.has_magic(str(run)):  # a folder's own name may have brackets
        folder, count = find_matching_run(str(run))
        print(
            printable.escape_line(f"run: {folder} (the newest of {count} that match)"),
            file=sys.stderr,
        )
    return TrainedRun(folder)

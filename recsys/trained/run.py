"""A finished run put to use: what it was asked, what it measured, what it recommends."""

from __future__ import annotations

import glob
import html
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys import printable
from recsys.config.compose import RunConfig, get_choice_name, read_config
from recsys.errors import ConfigError
from recsys.runs.folder import find_last_run, find_matching_run
from recsys.runs.result_file import read_result
from recsys.runtime.files import CONFIG, RESULT

if TYPE_CHECKING:
    import polars as pl

    from recsys.trained.recommendations import Query, Suggester


class TrainedRun:
    """A run with its result.

    Args:
        folder: Of the run.

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

    def __init__(self, folder: Path) -> None:
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

    def recommend(
        self,
        *,
        users: Iterable[object] | None = None,
        histories: Iterable[Iterable[object]] | None = None,
        texts: Iterable[str] | None = None,
        k: int = 10,
        at: str = "now",
        context: Mapping[str, object] | None = None,
    ) -> pl.DataFrame:
        """The best unseen items of each user, history or text; one of the three is given.

        The first call reads the data and builds the model, further ones only ask it.

        Args:
            users: Ids of users of the data.
            histories: For each of some unknown people, ids of the items they had, oldest first.
            texts: What is looked for.
            k: Items for each.
            at: The moment, such as 2024-05-01T12:00 (UTC): items with windows of availability are
                left out where they cannot be had then, and hour and weekday are those of then.
            context: Value by column of what a run with `architecture.context` is asked in.

        Returns:
            A frame with query (the user's id, the history's ids or the text), rank, item, score
            and title, a row an item, the best first.

        Raises:
            ConfigError: Not exactly one of the three is given, k is below 1, the data has changed
                since, or the run knows nothing of a context.
            DataError: An id is unknown, or the moment is no time.
        """
        queries = _make_queries(users, histories, texts)
        if k < 1:
            raise ConfigError(f"k is '{k}'; give a whole number from 1.")
        given = {key: str(value) for key, value in (context or {}).items()}
        return self.answer(queries, k, at, given)

    def answer(
        self, queries: Sequence[Query], k: int, at: str, context: Mapping[str, str]
    ) -> pl.DataFrame:
        """As `recommend`, of queries that may be of several kinds."""
        return self._suggester.rank(queries, k, at, context)

    @cached_property
    def _suggester(self) -> Suggester:
        from recsys.fit.command import silence_libraries
        from recsys.trained.recommendations import Suggester

        if self.config.architecture.loads_models:
            silence_libraries()
        try:
            fingerprint = str(self.result["data"]["fingerprint"])
        except (TypeError, KeyError):
            raise ConfigError(f"{self.folder / RESULT} is damaged; run fit again.") from None
        return Suggester(self.folder, self.config, fingerprint)

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
        run: Its folder, `last` for the newest one, or a glob such as `runs/lora*` for the newest
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
    folder = Path(run)
    if not folder.exists() and glob.has_magic(str(run)):  # a folder's own name may have brackets
        folder, count = find_matching_run(str(run))
        print(
            printable.escape_line(f"run: {folder} (the newest of {count} that match)"),
            file=sys.stderr,
        )
    return TrainedRun(folder)


def _make_queries(
    users: Iterable[object] | None,
    histories: Iterable[Iterable[object]] | None,
    texts: Iterable[str] | None,
) -> list[Query]:
    """The queries, once exactly one kind is given and each is a list.

    Raises:
        ConfigError: It is not so.
    """
    from recsys.trained.recommendations import Query

    given = {"users": users, "histories": histories, "texts": texts}
    (*names,) = (name for name, value in given.items() if value is not None)
    if len(names) != 1:
        raise ConfigError("give one of users=, histories= and texts=.")
    for name, value in given.items():
        if isinstance(value, str):  # whose letters would be taken for ids
            raise ConfigError(f"{name} is the text {value!r}; give a list, as in [{value!r}].")
    if users is not None:
        return [Query(user=str(user)) for user in users]
    if texts is not None:
        asked = list(texts)
        if not all(text.strip() for text in asked):
            raise ConfigError("one of the texts is empty; give what is looked for.")
        return [Query(text=text) for text in asked]
    made = []
    for history in histories or ():
        if isinstance(history, str):
            raise ConfigError(f"a history is the text {history!r}; give a list of item ids.")
        made.append(Query(history=tuple(map(str, history))))
    return made

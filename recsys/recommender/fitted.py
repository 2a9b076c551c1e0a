"""Recommenders that are fitted on validation cases at once: settings, weights, a ranker."""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from recsys.errors import ConfigError
from recsys.recommender.base import Recommender
from recsys.runs.result_file import replace_nan, restore_nan
from recsys.runtime.files import FIT, write_atomic
from recsys.types import Batch


@dataclass(frozen=True)
class Fit:
    """What validation cases decided: `fit.json` in a run's folder.

    Attributes:
        chosen: What was taken, by option.
        tried: A row for each alternative: its settings, and the metrics by which it was judged.
        validation: All metrics of the validation cases under what was taken; cross-fitted where
            more was fitted than a choice from a short grid. Where `most_cases` left some out, the
            executor measures it over all of them.
        notes: What a reader must know of it, as sentences.
        state: All that `FittedRecommender.restore` needs.
    """

    chosen: Mapping[str, Any]
    tried: Sequence[Mapping[str, Any]] = ()
    validation: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    state: Mapping[str, Any] = field(default_factory=dict)

    def summarize(self) -> dict[str, object]:
        """What `result.json` says of it."""
        return {"chosen": self.chosen, "tried": list(self.tried), "notes": list(self.notes)}


class FittedRecommender(Recommender):
    """Base of an architecture that takes no steps and still learns from validation cases.

    It is made of its components, then fitted, or given back what an earlier fit decided; until then
    it cannot score. Where its settings leave nothing open, it is whole at once.

    Attributes:
        most_cases: So many validation cases are enough to decide by: where there are more, it is
            fitted on a sample by `data.sample_seed`; None: all.
    """

    most_cases: int | None = None

    @property
    @abc.abstractmethod
    def needs_fit(self) -> bool:
        """Whether its settings leave something to validation cases."""

    def check_cases(self, cases: int) -> None:
        """Refuses to decide anything by so few validation cases; an architecture may.

        Raises:
            ConfigError: They are too few.
        """

    @abc.abstractmethod
    def fit(self, batches: Callable[[], Iterable[Batch]], monitor: str) -> Fit:
        """Decides what is open, by validation cases alone, and takes it.

        Args:
            batches: Gives the validation cases, as often as it is asked.
            monitor: The metric to decide by, such as `balanced/ndcg@10`.
        """

    @abc.abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what `fit` decided earlier.

        Args:
            state: `Fit.state`, as JSON gives it back.
        """


def write_fit(folder: Path, fit: Fit) -> None:
    """Writes the file whole.

    Raises:
        DataError: The disk is full.
    """
    write_atomic(folder / FIT, json.dumps(replace_nan(asdict(fit)), indent=1) + "\n")


def read_fit(folder: Path) -> Fit:
    """What a run has fitted.

    Raises:
        ConfigError: The file is missing or damaged.
    """
    path = folder / FIT
    try:
        fit = Fit(**json.loads(path.read_text(encoding="utf-8")))
        return replace(fit, validation=cast(Mapping[str, float], restore_nan(fit.validation)))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; run fit again.") from None
    except (OSError, ValueError, TypeError, RecursionError):
        raise ConfigError(f"{path} is damaged; run fit again.") from None


def restore_fit(recommender: FittedRecommender, folder: Path) -> Fit:
    """Gives a recommender what an earlier fit of its run has decided.

    Raises:
        ConfigError: The file is missing or damaged.
    """
    fit = read_fit(folder)
    try:
        recommender.restore(fit.state)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(f"{folder / FIT} is damaged; run fit again.") from None
    return fit

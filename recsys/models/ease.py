"""Item-item weights in closed form, as a model."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recsys.architectures.ease import Config
from recsys.config.schema import list_grid
from recsys.errors import ConfigError
from recsys.layers.baselines import gather_history_rows, require_interactions
from recsys.layers.ease import (
    ClosedForm,
    EventSide,
    Floats,
    Ints,
    RecentResults,
    TextSide,
    compute_inverse,
)
from recsys.recommender.choosing import Rescored, choose_best, measure_alternatives
from recsys.recommender.components import Components, PlainForm
from recsys.recommender.fitted import Fit, FittedRecommender
from recsys.recommender.text_queries import read_text_query
from recsys.runtime.memory import read_available_gb
from recsys.runtime.progress import print_status, track
from recsys.runtime.store import Store
from recsys.types import Batch, ItemBatch, Ragged, Scored, ScoreSplit

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_OPEN_ENDED = ("l2", "rho", "text_l2")
"""Settings whose best number may lie beyond a grid."""


@dataclass(frozen=True)
class Settings:
    """A number for each option that may be open; the last two are of item vectors."""

    l2: float
    recency: float
    rho: float = 0.0
    text_l2: float = 0.0


class Model(FittedRecommender):
    """A history times item-item weights, which item vectors pull towards those that they give.

    Steck, Embarrassingly Shallow Autoencoders for Sparse Data (WWW 2019); with item vectors after
    Moon et al. (L3AE, CIKM 2025), see `recsys.layers.ease`. An item's representation is its catalog
    row, a query's the rows of its history, or the vector of a text. Without vectors, items that
    training has not seen have no weights and score 0. The inverse is made once for the same events
    and penalty, and mapped from disk.

    Raises:
        ConfigError: The matrix would be too large.
    """

    needs_history = True
    most_cases = 2500

    def __init__(self, parts: Components, config: Config) -> None:
        super().__init__(parts)
        self.config = config
        self.vectors: Floats | None = None
        self.form: ClosedForm | None = None
        self._inverse: Floats | None = None
        if parts.served is None:
            self._count_events(parts, config)
        else:
            self.seen: Ints = parts.served["seen"].numpy()
            self._inverse = parts.served["inverse"].numpy()
        if parts.item_vectors is not None:
            # What all texts have in common says nothing of one of them; cold items gain by it most.
            kept = parts.served is not None and parts.origin is None
            served = parts.served if kept else {"center": _normalize(parts.item_vectors).mean(0)}
            assert served is not None
            self.center = served["center"]
            self.vectors = _center(parts.item_vectors, self.center)
        if not self.needs_fit:
            (settings,) = self._list_settings()
            self.form = self._make_form(settings)

    def _count_events(self, parts: Components, config: Config) -> None:
        """Who had what, on the items that training has seen.

        Raises:
            ConfigError: The matrix of weights would be too large.
        """
        matrix = require_interactions(parts.interactions, "ease").make_matrix(
            len(parts.texts), binary=True
        )
        self.seen = np.unique(matrix.indices).astype(np.int64)
        size = len(self.seen) ** 2 * 4 / 1e9
        if size > config.limit_gb:
            limit = f"architecture.limit_gb={config.limit_gb:g}; raise it,"
            raise _make_size_error(size, len(self.seen), limit, config)
        self.matrix = matrix[:, self.seen].tocsr()

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """The inverse (n, n), the rows of its items (n,), and the mean of the item vectors (D,)."""
        if self.form is None:
            raise ConfigError("ease has settings that validation is yet to choose; run fit first.")
        # A copy: what is mapped from the store is read only.
        state = {
            "inverse": torch.from_numpy(np.array(self.form.events.inverse)),
            "seen": torch.from_numpy(self.seen),
        }
        return state if self.vectors is None else {**state, "center": self.center}

    @property
    def needs_fit(self) -> bool:
        """Whether an option leaves more than one alternative."""
        return len(list(self._list_settings())) > 1

    def _list_settings(self) -> Iterator[Settings]:
        """The alternatives, in the order of their grids; those of one penalty together."""
        l2, recency, rho, text_l2 = (
            list_grid(self.config, name) for name in ("l2", "recency", "rho", "text_l2")
        )
        if self.config.item_vectors_from is None:
            rho, text_l2 = (0.0,), (0.0,)
        for penalty, decay, pull in itertools.product(l2, recency, rho):
            # without a pull, the penalty of the vectors changes nothing
            for own in text_l2 if pull else text_l2[:1]:
                yield Settings(penalty, decay, pull, own)

    def fit(self, batches: Callable[[], Iterable[Batch]], monitor: str) -> Fit:
        """Chooses among all combinations of what is open; each penalty is factorised once."""
        settings, cases = list(self._list_settings()), list(batches())
        pulls = sorted({each.text_l2 for each in settings if each.rho})
        texts = {l2: self._compute_text_side(l2) for l2 in pulls}
        trials = []
        for l2, group in itertools.groupby(settings, lambda each: each.l2):
            events, kept = self._load_events(l2), RecentResults(4)
            forms = [
                (each, ClosedForm(events, texts.get(each.text_l2), each.rho, each.recency, kept))
                for each in group
            ]
            with track(f"choosing with l2={l2:g}", len(cases), "batches") as task:
                trials += measure_alternatives(
                    [(self._name(each), Rescored(self, form.score)) for each, form in forms],
                    self.make_evaluator,
                    cases,
                    task.advance,
                )
        fit = choose_best(trials, monitor, [n for n in _OPEN_ENDED if n in trials[0].settings])
        self.restore(fit.state)
        return fit

    def _name(self, settings: Settings) -> dict[str, float]:
        """The options that have a part in the scores."""
        numbers = asdict(settings)
        names = ("l2", "recency") if self.vectors is None else numbers
        return {name: numbers[name] for name in names}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes the numbers that `fit` has chosen."""
        self.form = self._make_form(Settings(**{k: float(v) for k, v in state.items()}))

    def make_plain_form(self) -> PlainForm | None:
        """The arrays of `ClosedForm`, but for the inverse, which `make_serving_state` gives."""
        form = self.form
        if form is None:
            return None
        arrays = {
            "penalty": form.penalty,
            "diagonal": torch.from_numpy(form.events.diagonal),
            "known": torch.from_numpy(form.events.known),
        }
        if form.text is not None and form.events.projected is not None:
            arrays["projected"] = torch.from_numpy(form.events.projected)
            arrays["weights"] = torch.from_numpy(form.text.weights)
        return PlainForm("ease", {"rho": form.rho, "recency": form.recency}, arrays)

    def _load_events(self, l2: float) -> EventSide:
        """The inverse of a penalty, made where it is missing, over the catalog."""
        inverse = self._inverse
        if inverse is None:
            inverse = _load_or_compute_inverse(self.matrix, l2, self.config)
        return EventSide.compute(inverse, self.seen, len(self.parts.texts), l2, self.vectors)

    def _compute_text_side(self, l2: float) -> TextSide:
        """The weights of the item vectors alone."""
        assert self.vectors is not None
        return TextSide.compute(self.vectors, l2)

    def _make_form(self, settings: Settings) -> ClosedForm:
        """What scores by these numbers."""
        text = self._compute_text_side(settings.text_l2) if settings.rho else None
        return ClosedForm(self._load_events(settings.l2), text, settings.rho, settings.recency)

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Histories as catalog rows in time order, (Q, H), -1 for none."""
        return gather_history_rows(batch, items)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, H) rows or (Q, D) vectors of texts, (N,) rows -> (Q, N)."""
        if self.form is None:
            raise ConfigError("ease has settings that validation is yet to choose; run fit first.")
        return self.form.score(queries, items)

    def split_scores(
        self, batch: Batch, rows: Tensor, catalog: Tensor | None = None
    ) -> ScoreSplit | None:
        """Scores of one query, which are linear in its history."""
        if self.form is None:
            return None
        queries = self.queries(batch, batch.plan.items)
        return ScoreSplit(self.form.split(queries, batch.plan.items, rows), {})

    def compute_cosines(self, items: Tensor) -> Tensor | None:
        """Cosines between what the items of a catalog add to the scores of items (N,), (N, N)."""
        if self.form is None:
            return None
        return torch.from_numpy(self.form.make_weights().compute_cosines(items.cpu().numpy()))

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))

    def make_text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """The vector of the text, (1, D): it is taken for a new item in the history.

        Raises:
            ConfigError: The encoder is not at hand, or item vectors have no part in the scores.
        """
        if self.vectors is None:
            return super().make_text_query(batch, text, tokens)
        unused = "rho=0" if self.form is not None and not self.form.rho else ""
        own = self.config.vectors
        vector = read_text_query(self.parts, "ease", own, unused, batch, text, tokens)
        return torch.from_numpy(_center(vector, self.center))


def _normalize(vectors: Tensor) -> Tensor:
    """Vectors (N, D) at unit length, on the host; one of zeros stays."""
    return torch.nn.functional.normalize(vectors.float().cpu(), dim=1)


def _center(vectors: Tensor, center: Tensor) -> Floats:
    """Unit vectors (N, D) less a center (D,), at unit length again."""
    out: Floats = _normalize(_normalize(vectors) - center).numpy()
    return out


def _make_size_error(size: float, items: int, limit: str, config: Config) -> ConfigError:
    """That a matrix is too large, and what scores so many items."""
    vectors = "" if config.item_vectors_from is None else f" architecture.vectors={config.vectors}"
    return ConfigError(
        f"ease would hold a matrix of {size:.1f} GB for the {items:,} items seen in training, more "
        f"than {limit} keep fewer items with data.max_items, or choose "
        f"architecture=item_knn{vectors}."
    )


def _load_or_compute_inverse(matrix: csr_matrix, l2: float, config: Config) -> Floats:
    """The inverse (n, n) of a matrix (users, n), mapped from the store; made where it is missing.

    Raises:
        ConfigError: It is missing, and memory does not suffice for it.
    """
    digest = hashlib.sha256()
    for part in (matrix.indptr, matrix.indices, matrix.data):
        digest.update(np.ascontiguousarray(part).tobytes())
    items = matrix.shape[1]
    key = {"format": 2, "matrix": digest.hexdigest(), "items": items, "l2": l2}

    def write_inverse(folder: Path) -> None:
        size, free = items**2 * 4 / 1e9, read_available_gb()
        if free is not None and size > free:
            raise _make_size_error(size, items, f"the {free:.1f} GB of free memory;", config)
        print_status(f"ease: inverting the matrix of {items:,} items, l2={l2:g}")
        np.save(folder / "inverse.npy", compute_inverse(matrix, l2))

    folder = Store().get_or_build("ease", key, write_inverse, own=True)
    inverse: Floats = np.load(folder / "inverse.npy", mmap_mode="r")
    return inverse

"""What a recommender is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from recsys.metrics.names import Ranking
from recsys.types import Batch, Loss, Ragged, Scored, Tuned

if TYPE_CHECKING:
    import polars as pl
    import torch

    from recsys.data.augmentation.masks import HistoryMasks
    from recsys.data.augmentation.texts import TrainingTexts
    from recsys.data.batches.catalog import Catalog
    from recsys.data.batches.examples import Examples
    from recsys.data.batches.user_texts import PlainUserTexts, UserTexts
    from recsys.data.prompts.texts import PromptTexts
    from recsys.data.splits.availability import AvailabilityWindows
    from recsys.data.training_events import Interactions, TrainingQueries
    from recsys.encoders.cache.frozen_layers import FrozenLayerCache
    from recsys.encoders.cache.text_vectors import TextVectorCache
    from recsys.encoders.cache.vectors import FrozenVectorCache
    from recsys.encoders.encoder import Encoder
    from recsys.encoders.language_model.kept_states import KeepOptions
    from recsys.encoders.passages import TextSpans
    from recsys.encoders.pretrained.sentence_transformers import EmbeddingSpec
    from recsys.encoders.pretrained.source import ModelFiles
    from recsys.evaluation.equal_items import EqualItems
    from recsys.evaluation.ranking import Ranker
    from recsys.losses import ObjectiveContext
    from recsys.recommender.cold_distillation import ColdDistillation
    from recsys.recommender.optim import Optimise


@dataclass(frozen=True)
class Member:
    """A finished run that scores for another.

    Attributes:
        name: What it is called beside the other members.
        folder: Where it lies.
        recommender: With all that it has learned.
        examples: Makes its queries: a model reads histories of the length it was trained with.
        encoding: How it, or what gave its item vectors, reads texts; None where nothing does.
    """

    name: str
    folder: str
    recommender: Ranker
    examples: Examples
    encoding: TextComponents | None = None


@dataclass(frozen=True)
class PlainForm:
    """How histories are scored by products of a few arrays, for which no torch is needed.

    Attributes:
        kind: What is multiplied: item vectors, the weights of EASE, similar items, or nothing.
        numbers: Settings by name.
        arrays: What else is read, by name.
    """

    kind: Literal["vectors", "ease", "similar", "popularity"]
    numbers: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Components:
    """What the assembler hands to every architecture; none of it is a config object.

    Attributes:
        texts: Text of every item, by catalog row.
        counts: (I,) how often training shows each item as a positive.
        ranking: What is ranked for a case.
        ks: Cut-offs of the metrics.
        mask_history: Leave out of the ranking what the user has had.
        max_history: H, longest history.
        label: What stands before each metric's name.
        windows: When items can be had, for the catalog of a case; None: always.
        equal: Which items are hits for each other; None: each for itself alone.
        apart: Whether cases whose item the user had before are counted apart.
        written: The users' texts as they are written, where queries are texts; None: nowhere.
        interactions: The positive events of training, or None beside an architecture that trains:
            an objective sees them through its context.
        item_vectors: (I, D) fp32 vectors of all items, where the architecture asks for them.
        read_text: Makes of a batch of one query, a text and its tokens a vector (1, D) like those
            of items, where these are the encoder's; else None.
        training_queries: What training asks about, where the architecture reads it; else None.
        query_vectors: (N, D) fp32 vectors of these, where the architecture asks for them.
        read_query: Makes such vectors (Q, D) of a batch's queries, where their maker is at hand.
        members: Finished runs whose scores it combines, in the order in which they are named.
        origin: (I,) row that each item had in the catalog of the fit, -1 for one that came later;
            None: the catalog is that of the fit.
        fitted: The items of that catalog, in its order, where it is another.
        served: What `Recommender.make_serving_state` gave of a finished run, by name, from which
            it is made in place of the interactions; None: from these.
    """

    texts: tuple[str, ...]
    counts: Tensor
    ranking: Ranking
    ks: tuple[int, ...]
    mask_history: bool
    max_history: int
    label: str = ""
    windows: AvailabilityWindows | None = None
    equal: EqualItems | None = None
    apart: bool = False
    written: PlainUserTexts | None = None
    interactions: Interactions | None = None
    item_vectors: Tensor | None = None
    read_text: Callable[[Batch, str, Ragged], Tensor] | None = None
    training_queries: TrainingQueries | None = None
    query_vectors: Tensor | None = None
    read_query: Callable[[Batch], Tensor] | None = None
    members: tuple[Member, ...] = ()
    origin: Tensor | None = None
    fitted: pl.DataFrame | None = None
    served: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class TextComponents:
    """What an architecture needs that has an encoder read texts.

    Attributes:
        encoder: The tuned encoder.
        tuned: What the tuning method did.
        catalog: Item texts as tokens.
        following: How texts become vectors.
        files: What the pretrained model was read from.
        spans: Where tokens stand in texts.
        user_texts: Users as one text each, or None where nothing reads them.
        prompts: Queries and items as prompts, or None where nothing reads them.
        keeps: What may be kept of what frozen layers make of prompts, or None.
        prefix: Kept states below the lowest trained layer, or None.
        vectors: Kept item vectors of an encoder that does not train, or None.
        user_vectors: Kept vectors of users' texts by an encoder that does not train, or None.
        training_texts: Item texts of which each epoch leaves something out, or None.
    """

    encoder: Encoder
    tuned: Tuned
    catalog: Catalog
    following: EmbeddingSpec
    files: ModelFiles
    spans: TextSpans
    user_texts: UserTexts | None = None
    prompts: PromptTexts | None = None
    keeps: KeepOptions | None = None
    prefix: FrozenLayerCache | None = None
    vectors: FrozenVectorCache | None = None
    user_vectors: TextVectorCache | None = None
    training_texts: TrainingTexts | None = None

    def gather_tokens(
        self, rows: Tensor, epoch: int | None, device: torch.device | None = None
    ) -> Ragged:
        """Raw token ids of the texts of catalog rows (U,) that lie on the host.

        Args:
            rows: The items.
            epoch: Of training, whose texts may lack something; None: the whole texts.
            device: Where the ids are to lie; None: on the host.
        """
        if epoch is None or self.training_texts is None:
            return self.catalog.gather_tokens(rows, device)
        return self.training_texts.gather_tokens(rows, epoch, device)

    def count_tokens(self, rows: Tensor, epoch: int | None) -> tuple[int, ...]:
        """How many ids `gather_tokens` gives for each row (U,)."""
        if epoch is None or self.training_texts is None:
            return self.catalog.count_tokens(rows)
        return self.training_texts.count_tokens(rows, epoch)


@dataclass(frozen=True, kw_only=True)
class TrainingComponents(Components):
    """What an architecture needs that trains, beside what every one has.

    Attributes:
        encoding: How it reads texts, or None where items are learned by their rows alone.
        objective: The loss.
        around: The world as an objective may see it.
        train_counts: (I,) how often each item is a positive of the users that train; `counts` has
            those of all users, also where `data.train_users` leaves most of them out.
        optimise: Makes optimiser and schedule from parameters by role, names without decay, steps.
        l2_sp: Strength of the pull towards the anchor (Li et al., ICML 2018).
        schedule_steps: Steps that the schedule is laid out for; None for those that are trained.
        cold_distillation: What draws scores of cold items to their start, or None.
        tags: (I, T) numbers of each item's tags from 1, 0 for none; None where nothing reads them.
        context_sizes: How many codes a batch's `context` has, by name.
        masks: Makes masked copies of the history of a case, over which scores are averaged; None:
            a case is scored from its history alone.
    """

    encoding: TextComponents | None
    objective: Callable[[Scored, Batch, ObjectiveContext], Loss]
    around: Callable[[Callable[[Tensor, Tensor], Tensor]], ObjectiveContext]
    train_counts: Tensor
    optimise: Optimise
    l2_sp: float = 0.0
    schedule_steps: int | None = None
    cold_distillation: ColdDistillation | None = None
    tags: Tensor | None = None
    context_sizes: Mapping[str, int] = field(default_factory=dict)
    masks: HistoryMasks | None = None

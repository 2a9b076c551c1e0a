"""User and item in a prompt of a language model, whose answer is the score."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recsys.architectures.prompt import Config
from recsys.data.prompts.texts import PromptTexts
from recsys.encoders.language_model.head import WordHead
from recsys.encoders.language_model.shared_prefix import SharedPrefixReader, check_causal
from recsys.errors import ConfigError
from recsys.recommender.components import TrainingComponents
from recsys.recommender.trainable import TrainableRecommender
from recsys.types import Batch, ItemBatch, Ragged, Scored


class Model(TrainableRecommender):
    """The logit of yes less that of no behind the prompt, plus a map that is zero at first.

    It starts as the language model is (Bao et al., TALLRec, RecSys 2023, ask the same question).
    The representation of an item is its catalog row, and that of a query the token ids of its
    prompt up to the item, padded with -1.
    """

    ranks_catalog = False

    def __init__(self, parts: TrainingComponents, config: Config) -> None:
        super().__init__(parts)
        files, model = self.encoding.files, self.encoder.model
        check_causal(model, files.spec)
        # Of a bundle, whose encoder has no head of its own.
        self.head = WordHead(files, model, self.prompts.pieces.words, parts.served)
        self.residual = nn.Linear(self.encoder.width, 1) if config.residual else None
        if self.residual is not None:
            for parameter in self.residual.parameters():
                nn.init.zeros_(parameter)
        self.reader = SharedPrefixReader(self.encoder, config.share_prefix)

    @property
    def prompts(self) -> PromptTexts:
        """How queries and items make prompts.

        Raises:
            ConfigError: The architecture's `Config` has no prompt.
        """
        if self.encoding.prompts is None:
            raise ConfigError(
                f"{type(self).__module__} reads prompts, and its Config has prompt=None."
            )
        return self.encoding.prompts

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """The two rows of the language model's head."""
        return self.head.get_state(self._table)

    @property
    def _table(self) -> Tensor:
        """(V, D) the table of embeddings, which may be the head too."""
        return self.encoder.embedding.get_parameter("weight")

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Token ids of the prompts up to the item, (Q, L), -1 at the end of the shorter ones."""
        return self._pad(self.prompts.compose_prefixes(batch))

    def _pad(self, prefixes: Ragged) -> Tensor:
        if not len(prefixes):
            return torch.empty(0, 0, dtype=torch.long, device=self.device)
        return pad_sequence(prefixes.split(), batch_first=True, padding_value=-1).to(self.device)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, L), (N,) rows -> (Q, N)."""
        rows = items.expand(len(queries), -1)
        return self._score_pairs(queries, rows, torch.ones_like(rows, dtype=torch.bool))

    def score_candidates(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, C): of the candidates, and of no other item."""
        rows = items[batch.candidates.clamp(min=0)]
        with self.watch.time_stage("user"):
            queries = self.queries(batch, items)
        return self._score_pairs(queries, rows, batch.candidates >= 0)

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))

    def _score_pairs(self, queries: Tensor, rows: Tensor, valid: Tensor) -> Tensor:
        """(Q, L) token ids, (Q, C) catalog rows, (Q, C) which pairs are asked for -> (Q, C)."""
        query, place = torch.nonzero(valid, as_tuple=True)
        if not len(query):
            return torch.zeros(rows.shape, device=self.device)
        unique, right = torch.unique(rows[query, place].cpu(), return_inverse=True)
        ends = self.prompts.gather_suffixes(unique).to(self.device)
        inside = queries >= 0
        prefixes = Ragged(queries[inside], tuple(inside.sum(1).tolist()))
        trees = self.reader.plan(prefixes, ends, query.cpu(), right)
        if self.work.counting:
            self.work.count_texts(self.encoder, None, trees.lengths)
        with self.watch.time_stage("encode"):
            scores = self._compare(self.reader.read(trees))
        out = torch.zeros(rows.shape, dtype=scores.dtype, device=scores.device)
        return out.index_put((query, place), scores)

    def _compare(self, states: Tensor) -> Tensor:
        """Scores (P,) of final states (P, D)."""
        scores: Tensor = self.head(states, self._table)
        if self.residual is None:
            return scores
        with torch.autocast(states.device.type, enabled=False):
            extra: Tensor = self.residual(states.float()).squeeze(-1)
        return scores + extra

    def make_text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """The text in place of what is known of a user."""
        return self._pad(self.prompts.compose_with_text(batch, text))

"""User and candidate read together, a score for each pair."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.architectures.cross_encoder import Config
from recsys.encoders.passages import Piece, list_query_pieces, make_pair_score
from recsys.models.pairs import PairRecommender
from recsys.recommender.components import TrainingComponents
from recsys.recommender.flops import compute_pair_lengths
from recsys.types import AskedText, Batch, Ragged, TokenScore


class Model(PairRecommender):
    """Cosine of the mean states of both spans in the joint pass, plus a head that is zero at first.

    The history is cut so that the candidate always fits.
    """

    def __init__(self, parts: TrainingComponents, config: Config) -> None:
        super().__init__(parts)
        self.encoder.specials.check_pairs(self.encoding.files.spec)
        width = self.encoder.width
        self.head = nn.Sequential(
            nn.Linear(4 * width, config.hidden), nn.GELU(), nn.Linear(config.hidden, 1)
        )
        # Zero: the score is the spans' cosine at first, and the layers before it learn from the
        # second step on.
        last = self.head[-1]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Token ids of the users' texts, (Q, L), -1 at the end of the shorter ones."""
        return self.pad_queries(self.user_texts.compose_tokens(batch))

    def score_pairs(
        self, queries: Tensor, rows: Tensor, valid: Tensor, epoch: int | None = None
    ) -> Tensor:
        """(Q, L) token ids, (Q, C) catalog rows, (Q, C) which pairs are asked for -> (Q, C).

        Of an epoch of training, texts may lack something.
        """
        query, place = torch.nonzero(valid, as_tuple=True)
        if not len(query):
            return torch.zeros(rows.shape, device=self.device)
        # A text goes to the encoder once, in however many pairs it stands.
        unique, right = torch.unique(rows[query, place].cpu(), return_inverse=True)
        left, items = query.cpu(), self.encoding.gather_tokens(unique, epoch)
        first = self.unpad_queries(queries)
        if self.work.counting:
            sizes = (
                torch.tensor(x.sizes)[at].tolist() for x, at in ((first, left), (items, right))
            )
            self.work.count_texts(self.encoder, None, compute_pair_lengths(self.encoder, *sizes))
        with self.watch.time_stage("encode"):
            user, item, whole = self.encoder.encode_pairs(
                first.to(self.device), items.to(self.device), left, right
            )
        scores = self._compare(user, item, whole)
        out = torch.zeros(rows.shape, dtype=scores.dtype, device=scores.device)
        return out.index_put((query, place), scores)

    def _compare(self, user: Tensor, item: Tensor, whole: Tensor) -> Tensor:
        """Scores (P,) of pairs from the mean states of both spans and of all, (P, D) each."""
        scores = F.cosine_similarity(user, item, dim=-1) * self.log_scale.exp()
        joint = torch.cat([user, item, user * item, whole], dim=-1)
        # In fp32 also under autocast: rounded to bf16, candidates would tie.
        with torch.autocast(joint.device.type, enabled=False):
            extra: Tensor = self.head(joint.float()).squeeze(-1)
        return scores + extra

    def make_token_scores(
        self, batch: Batch, row: int, asked: AskedText | None
    ) -> list[TokenScore]:
        """User and candidate in one sequence."""
        self.check_single_history(asked)
        texts, written, spans = self.user_texts, self.parts.written, self.encoding.spans
        assert written is not None, "users are texts"
        given = None if asked is None else asked.tokens
        user = (
            texts.compose_tokens(batch) if given is None else texts.compose_with_text(batch, given)
        )
        item = self.encoding.gather_tokens(torch.tensor([row]), None)
        pair = make_pair_score(
            self.encoder,
            spans,
            (
                list_query_pieces(
                    written, batch, asked, spans.query_prompt, texts.latest is not None
                ),
                [Piece("item", self.parts.texts[row], row, spans.item_prompt)],
            ),
            (user.to(self.device), item.to(self.device)),
            (texts.number_pieces(batch, given), torch.zeros(len(item.values), dtype=torch.long)),
            self._compare,
        )
        return [pair]

    def make_text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """The text in place of the user's profile and titles."""
        return self.user_texts.compose_with_text(batch, tokens).values[None].to(self.device)

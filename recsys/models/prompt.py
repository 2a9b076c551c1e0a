"""User and item in a prompt of a language model, whose answer is the score."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from recsys.architectures.prompt import Config
from recsys.data.moments import MOMENT
from recsys.data.prompts.template import CONTEXT, DISLIKES, LIKES, USER
from recsys.data.prompts.texts import Origin, PromptTexts
from recsys.encoders.language_model.head import WordHead
from recsys.encoders.language_model.shared_prefix import SharedPrefixReader, check_causal
from recsys.encoders.passages import Piece
from recsys.errors import ConfigError
from recsys.models.pairs import PairRecommender
from recsys.recommender.components import TrainingComponents
from recsys.runtime.ranks import get_rank
from recsys.types import AskedText, Batch, Ragged, TokenScore


class Model(PairRecommender):
    """The logit of yes less that of no behind the prompt, plus a map that is zero at first.

    It starts as the language model is (Bao et al., TALLRec, RecSys 2023, ask the same question).
    """

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
        self.reader = SharedPrefixReader(self.encoder, config.share_prefix, self.encoding.keeps)
        if self.reader.line and get_rank() == 0:
            print(self.reader.line, file=sys.stderr)

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

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Token ids of the prompts up to the item, (Q, L), -1 at the end of the shorter ones."""
        return self.pad_queries(self.prompts.compose_prefixes(batch))

    def score_pairs(
        self, queries: Tensor, rows: Tensor, valid: Tensor, epoch: int | None = None
    ) -> Tensor:
        """(Q, L) token ids, (Q, C) catalog rows, (Q, C) which pairs are asked for -> (Q, C)."""
        query, place = torch.nonzero(valid, as_tuple=True)
        if not len(query):
            return torch.zeros(rows.shape, device=self.device)
        unique, right = torch.unique(rows[query, place].cpu(), return_inverse=True)
        ends = self.prompts.gather_suffixes(unique).to(self.device)
        prefixes = self.unpad_queries(queries)
        trees = self.reader.plan(prefixes, ends, query.cpu(), right)
        with self.watch.time_stage("encode"):
            keep = self._comes_again(rows.shape[1])
            count = partial(self.work.count_texts, self.encoder)
            scores = self._compare(self.reader.read(trees, keep, count))
        out = torch.zeros(rows.shape, dtype=scores.dtype, device=scores.device)
        return out.index_put((query, place), scores)

    def _comes_again(self, candidates: int) -> bool:
        """Whether the same sequences are read again in this fit, as far as that is known.

        Those of a validation are, and those of training where no negative is drawn.

        Args:
            candidates: C, items of each query.
        """
        if self.training:
            return candidates == 1
        return self._trainer is not None and bool(self.trainer.validating or self.trainer.training)

    def _compare(self, states: Tensor) -> Tensor:
        """Scores (P,) of final states (P, D)."""
        scores: Tensor = self.head(states, self._table)
        if self.residual is None:
            return scores
        with torch.autocast(states.device.type, enabled=False):
            extra: Tensor = self.residual(states.float()).squeeze(-1)
        return scores + extra

    def make_token_scores(
        self, batch: Batch, row: int, asked: AskedText | None
    ) -> list[TokenScore]:
        """Prompt and item in one sequence; what the template says counts as special tokens."""
        self.check_single_history(asked)
        said = self.prompts.list_pieces(batch, None if asked is None else asked.text)
        (end,) = self.prompts.gather_suffixes(torch.tensor([row])).split()
        tail = len(self.prompts.pieces.tail)
        ids = torch.cat([*(part for part, _ in said), end])
        kinds, owner = torch.full_like(ids, 2), torch.full_like(ids, -1)
        pieces: list[Piece] = []
        at = 0
        for part, origin in said:
            if origin is not None:
                kinds[at : at + len(part)], owner[at : at + len(part)] = 0, len(pieces)
                pieces.append(self._describe_piece(batch, origin, asked))
            at += len(part)
        kinds[at : len(ids) - tail], owner[at : len(ids) - tail] = 1, len(pieces)
        lead = self.prompts.get_lead(self.prompts.pieces.item_spaced)
        pieces.append(Piece("item", self.parts.texts[row], row, lead))
        passages, owner = self.encoding.spans.make_passages(pieces, owner)
        pad = self.encoder.specials.pad

        def score(ids: Tensor, kinds: Tensor) -> Tensor:
            mask = (kinds >= 0).long().expand(len(ids), -1)
            flag = {"use_cache": False} if self.encoder.cache_flag else {}
            out = self.encoder.model(input_ids=ids, attention_mask=mask, **flag)
            return self._compare(out.last_hidden_state[:, -1])

        ids = ids.to(self.device)
        return [TokenScore(passages, ids, kinds, owner, pad, self.encoder.embedding, score)]

    def _describe_piece(self, batch: Batch, origin: Origin, asked: AskedText | None) -> Piece:
        """A piece of a prompt with the text that it was tokenised of."""
        written, host, lead = (
            self.parts.written,
            batch.at_host,
            self.prompts.get_lead(origin.spaced),
        )
        assert written is not None, "users are texts"
        if asked is not None and origin.field in (USER, LIKES):
            return Piece("text", asked.text, None, lead, ends=self.prompts.latest)
        if origin.field in (LIKES, DISLIKES):
            row = int(host.plan.items[origin.place])
            return Piece("title", written.items[row], row, lead)
        moment = int(host.context[MOMENT][0]) if MOMENT in host.context else 0
        if origin.field == USER and moment:
            return Piece("context", written.context[MOMENT][moment], None, lead, ends=True)
        if origin.field == USER:
            return Piece("profile", written.users[int(host.users[0])], None, lead)
        said = written.context[origin.name][origin.place]
        value = said if origin.field == CONTEXT else said.partition(": ")[2]
        return Piece("context", value, None, lead)

    def make_text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """The text in place of what is known of a user."""
        return self.pad_queries(self.prompts.compose_with_text(batch, text))

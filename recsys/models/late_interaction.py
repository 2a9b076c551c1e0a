"""Token against token, each of the user's with its best of the item's."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.architectures.late_interaction import Config
from recsys.encoders.cache.token_states import TokenStateCache
from recsys.encoders.padding import pad_texts, unpad_texts
from recsys.encoders.passages import Piece, list_query_pieces
from recsys.encoders.text_tower import Step, TokenTowers, UnitLength, list_head_steps
from recsys.errors import ConfigError
from recsys.layers.item_cosines import compute_cosines
from recsys.layers.maxsim import score_all_pairs, score_lists
from recsys.layers.user_encoders import make_residual
from recsys.recommender.components import TrainingComponents
from recsys.recommender.trainable import TrainableRecommender
from recsys.types import (
    AskedText,
    Batch,
    ItemBatch,
    Passage,
    Ragged,
    Scored,
    ScoreSplit,
    TokenSplit,
    upload,
)

_SAMPLE = 512  # texts whose tokens say which directions a projection keeps
_STATES = "token_states"  # of the whole catalog, in a bundle
_ITEMS = 1024  # catalog items whose tokens are held at a time while all are scored


class Model(TrainableRecommender):
    """MaxSim between the tokens of each of the last titles and those of a candidate.

    ColBERT (Khattab and Zaharia, SIGIR 2020) with a history for a question: a title's score is the
    mean, over its tokens, of their largest cosine with a token of the candidate; the user's is the
    mean over titles, weighted by a decay with their distance from the end. It starts at the
    zero-shot cosines of the encoder's token states. A title is encoded once, wherever it stands.

    The representation of an item is its catalog row, and that of a query the rows of its last
    titles, the latest first, -1 for none; the row behind the catalog is the text asked for last.
    A user who is a text is the only title of its history, and is represented by its token ids.
    """

    def __init__(self, parts: TrainingComponents, config: Config) -> None:
        super().__init__(parts)
        self.titles, self.special_tokens = config.titles, config.special_tokens
        self.from_text = config.reads_user_texts
        self.needs_history = self.reads_plan = not self.from_text
        served = {} if parts.served is None or parts.origin is not None else parts.served
        self.states = TokenStateCache(
            self.encoder,
            self.encoding.catalog,
            self.encoding.prefix,
            config.special_tokens,
            config.keep_gb,
            served.get(_STATES),  # of the catalog of the fit alone
        )
        if parts.ranking == "catalog" and not self.states.fits:
            raise ConfigError(
                f"the token states of the catalog take {self.states.size_gb:.1f} GB, more than "
                f"architecture.keep_gb={config.keep_gb:g}, and ranking the catalog reads all of "
                "them for every batch; set evaluation.protocol=candidates, or raise "
                "architecture.keep_gb."
            )
        width = self.encoder.width
        if config.width is not None and config.width > width:
            raise ConfigError(
                f"architecture.width is {config.width}, more than the encoder's {width}; set it "
                "lower, or to null."
            )
        self.project = None
        if config.width is not None:
            width = config.width
            self.project = nn.Linear(self.encoder.width, width, bias=False)
            rows = torch.linspace(0, len(parts.texts) - 1, min(_SAMPLE, len(parts.texts))).long()
            with torch.no_grad():
                self.project.weight.copy_(
                    _compute_directions(self.states.encode_rows(rows).values, width)
                )
        self.item_head = make_residual(width) if config.heads else None
        self.user_head = make_residual(width) if config.heads else None
        decay = torch.tensor(float(config.recency))
        self.rate = nn.Parameter(decay, requires_grad=not self.from_text)
        # The logarithm of 1 / temperature, as in CLIP (Radford et al., ICML 2021).
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self._asked: Ragged | None = None

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """(sum of L, D) token states of the catalog, where they may be kept: most of a start."""
        if not self.states.fits:
            return {}
        with torch.no_grad():
            return {_STATES: self.states.encode_rows(torch.arange(len(self.parts.texts))).values}

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, titles) catalog rows of the last titles, or (Q, L) token ids; -1 for none."""
        if self.from_text:
            return pad_texts(self.user_texts.compose_tokens(batch)).to(self.device)
        places = self._locate_titles(batch)
        if not len(items):
            return torch.full_like(places, -1)
        return torch.where(places >= 0, items[places.clamp(min=0)], -1)

    def _locate_titles(self, batch: Batch) -> Tensor:
        """(Q, titles) places in the plan of the last titles, the latest first, -1 for none."""
        row, prefix = batch.query.unbind(1)
        history = F.pad(batch.history, (0, 1), value=-1)  # one place at least
        back = prefix[:, None] - 1 - torch.arange(self.titles, device=prefix.device)
        return torch.where(back >= 0, history[row].gather(1, back.clamp(min=0)), -1)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, titles) or (Q, L), (N,) rows -> (Q, N).

        Queries share titles: each pair of a title and an item is computed once.
        """
        if self.from_text:
            with torch.autocast(queries.device.type, enabled=False):
                own = self._encode_users(unpad_texts(queries))
                return self._match_all(own, items) * self.log_scale.exp()
        titles, where = torch.unique(queries.cpu(), return_inverse=True)
        present = titles[titles >= 0]
        if not len(present):
            return torch.zeros(len(queries), len(items), device=queries.device)
        with torch.autocast(queries.device.type, enabled=False):
            asking = self._project(self._encode_rows(present), self.user_head)
            # (Q, titles' numbers): what each title counts for in each query.
            at = upload((where - (len(titles) - len(present))).clamp(min=0), queries.device)
            weights = self._compute_weights(queries >= 0)
            share = weights.new_zeros(len(queries), len(present)).scatter_add(1, at, weights)
            return self._match_all(asking, items, share) * self.log_scale.exp()

    def _match_all(self, asking: Ragged, items: Tensor, share: Tensor | None = None) -> Tensor:
        """(T, N) what texts (T texts) find in items (N,), or (Q, N) sums by shares (Q, T)."""
        found = []
        for rows in torch.split(items.cpu(), _ITEMS):
            other = self._project(self._encode_rows(rows), self.item_head)
            self._count_products(sum(asking.sizes) * sum(other.sizes), asking)
            pairs = score_all_pairs(asking, other)
            found.append(pairs if share is None else share @ pairs)
        return torch.cat(found, dim=1)

    def _encode_users(self, tokens: Ragged) -> Ragged:
        """Token vectors of users' texts."""
        if self.work.counting:
            lengths = self.encoder.compute_lengths(tokens.sizes)
            self.work.count_texts(self.encoder, None, lengths)
        return self.encode_text_tokens(tokens)

    def score_candidates(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, C): each user's tokens with those of its own candidates."""
        host, plan = batch.at_host, batch.plan
        if self.from_text:
            plan = plan.select_candidates()
        tokens = None
        if plan.epoch is not None:
            tokens = self.encoding.gather_tokens(plan.rows, plan.epoch, self.device)
        if tokens is not None or not self.states.keeps:
            self._count(plan, self.encoder, self.encoding.prefix)
        with self.watch.time_stage("encode"):
            states = self.states.encode_rows(plan.rows, tokens)
        if self.from_text:
            return self._score_texts(batch, states)
        with torch.autocast(states.values.device.type, enabled=False):
            asking = self._project(states, self.user_head)
            other = asking if self.item_head is None else self._project(states, self.item_head)
            with self.watch.time_stage("user"):
                places = self._locate_titles(host)
                weights = self._compute_weights(upload(places >= 0, states.values.device))
                scores = score_lists(asking, other, places, weights, host.candidates)
        if self.work.counting and len(plan.rows):
            sizes = torch.tensor(states.sizes)
            mine = torch.where(places >= 0, sizes[places.clamp(min=0)], 0).sum(1)
            theirs = torch.where(host.candidates >= 0, sizes[host.candidates.clamp(min=0)], 0)
            self._count_products(int((mine * theirs.sum(1)).sum()), asking)
        return scores * self.log_scale.exp()

    def _score_texts(self, batch: Batch, states: Ragged) -> Tensor:
        """(Q, C): the tokens of each user's text with those of its own candidates, by states."""
        host = batch.at_host
        with torch.autocast(states.values.device.type, enabled=False):
            with self.watch.time_stage("user"):
                asking = self._encode_users(self.user_texts.compose_tokens(batch))
                own = torch.arange(len(host.query))[:, None]
            other = self._project(states, self.item_head)
            weights = other.values.new_ones(own.shape)
            scores = score_lists(asking, other, own, weights, host.candidates)
        return scores * self.log_scale.exp()

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))

    def split_scores(
        self, batch: Batch, rows: Tensor, catalog: Tensor | None = None
    ) -> ScoreSplit | None:
        """Scores of one query, which are sums over its last titles; of a text they are none."""
        if self.from_text:
            return None
        places = self._locate_titles(batch)[0]
        weights = self._compute_weights(places[None] >= 0)[0]
        history = weights.new_zeros(len(rows), len(batch.plan.items))
        for place, weight in zip(places.tolist(), weights, strict=True):
            if place >= 0:
                title = torch.full((1, self.titles), -1, device=rows.device)
                title[0, 0] = batch.plan.items[place]
                history[:, place] += weight * self.score(title, rows)[0]
        return ScoreSplit(history, {})

    def select_item_vectors(self, items: Tensor) -> Tensor:
        """Raises that there is one for each token."""
        raise ConfigError(
            "late_interaction has a vector for each token of an item, and none for the item; "
            "token_vectors() gives them."
        )

    def encode_item_tokens(self, rows: Tensor) -> Ragged:
        """Token vectors of items (N,) as candidates, of unit length."""
        return self._project(self._encode_rows(rows), self.item_head)

    def encode_text_tokens(self, tokens: Ragged) -> Ragged:
        """Token vectors of texts that ask, of unit length."""
        return self._project(self.states.encode_text(tokens.to(self.device)), self.user_head)

    def compute_cosines(self, items: Tensor) -> Tensor:
        """Cosines between the means of the token vectors of items (N,), (N, N)."""
        rows, order = items.cpu().sort()
        means = torch.stack([each.mean(0) for each in self.encode_item_tokens(rows).split()])
        own = means.cpu()[order.argsort()]
        return torch.from_numpy(compute_cosines(own.numpy()))

    @torch.no_grad()
    def make_token_scores(
        self, batch: Batch, row: int, asked: AskedText | None
    ) -> list[TokenSplit]:
        """What each token of the last titles finds in the candidate, and what each there is for."""
        counts: dict[int, Tensor] = {}  # of a title that stands twice, both count
        if asked is None and not self.from_text:
            places = self._locate_titles(batch)[0]
            weights = self._compute_weights(places[None] >= 0)[0]
            for place, weight in zip(places.tolist(), weights, strict=True):
                if place >= 0:
                    title = int(batch.plan.rows[place])
                    counts[title] = counts.get(title, weights.new_zeros(())) + weight
            if not counts:
                return []  # popularity answers
        spans, texts, scale = self.encoding.spans, self.parts.texts, self.log_scale.exp()
        prompt = spans.item_prompt
        mine = [[Piece("title", texts[title], title, prompt)] for title in counts]
        tokens = [self.encoding.gather_tokens(torch.tensor([title]), None) for title in counts]
        numbers = torch.zeros(0)
        if self.from_text:
            pieces, whole, numbers = self._compose_user(batch, asked)
            mine, tokens = [pieces], [whole]
        elif asked is not None:
            mine, tokens = [[Piece("text", asked.text, None, spans.query_prompt)]], [asked.tokens]
        shares = list(counts.values()) or [scale.new_ones(())]
        theirs = Piece("item", texts[row], row, prompt)
        other, owner = self._read_text(
            self.encoding.gather_tokens(torch.tensor([row]), None), self.item_head
        )
        (item,), owner = spans.make_passages([theirs], owner)
        at_item = torch.nonzero(owner == 0).flatten()
        given, rest, values, matches = torch.zeros(len(other)), 0.0, [], []
        passages: list[Passage] = []
        for pieces, ids, share in zip(mine, tokens, shares, strict=True):
            asking, owned = self._read_text(ids, self.user_head)
            if len(numbers):
                owned[owned == 0] = numbers[: int((owned == 0).sum())]
            read, owned = spans.make_passages(pieces, owned)
            best, place = (asking @ other.T).max(1)
            adds = (share * scale * best / len(asking)).cpu()
            given.index_add_(0, place.cpu(), adds)
            rest += float(adds[owned < 0].sum())
            passages += read
            for number in range(len(read)):
                values.append(adds[owned == number])
                there = place[owned == number].tolist()
                matches.append(tuple(_name_token(item, at_item, at) for at in there))
        name = "special tokens"
        left = {name: rest} if rest else {}
        other_left = {name: float(given[owner < 0].sum())} if bool((owner < 0).any()) else {}
        return [
            TokenSplit((item,), (given[owner == 0],), other_left),
            TokenSplit(tuple(passages), tuple(values), left, tuple(matches)),
        ]

    def _compose_user(
        self, batch: Batch, asked: AskedText | None
    ) -> tuple[list[Piece], Ragged, Tensor]:
        """Pieces and tokens of a user's text or of one in its place, and each token's piece."""
        texts, written = self.user_texts, self.parts.written
        assert written is not None, "users are texts"
        given = None if asked is None else asked.tokens
        whole = (
            texts.compose_tokens(batch) if given is None else texts.compose_with_text(batch, given)
        )
        prompt = self.encoding.spans.query_prompt
        pieces = list_query_pieces(written, batch, asked, prompt, texts.latest is not None)
        return pieces, whole, texts.number_pieces(batch, given)

    def _read_text(self, tokens: Ragged, head: nn.Module | None) -> tuple[Tensor, Tensor]:
        """Token vectors (L, D) of a text, and (L,) 0 for its own, -1 for special ones."""
        states = self._project(self.states.encode_text(tokens.to(self.device)), head)
        count, size = len(tokens.values), states.sizes[0]
        owner = torch.zeros(size, dtype=torch.long)
        if self.special_tokens or not count:
            before, after = len(self.encoder.specials.prefix), len(self.encoder.specials.suffix)
            owner[: before if count else size] = -1
            owner[size - after :] = -1
        return states.values, owner

    def make_text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """The text as the only title of a history, (1, titles), or as the user's, (1, L)."""
        if self.from_text:
            return pad_texts(self.user_texts.compose_with_text(batch, tokens)).to(self.device)
        self._asked = self.states.encode_text(tokens.to(self.device))
        out = torch.full((1, self.titles), -1, device=self.device)
        out[0, 0] = len(self.parts.texts)
        return out

    def make_token_towers(self) -> TokenTowers:
        """Projection, heads and unit lengths behind the encoder, and the inverse temperature."""
        first: list[Step] = [] if self.project is None else [self.project]
        sides = (
            [*first, UnitLength(), *list_head_steps([head], unit=True)]
            for head in (self.item_head, self.user_head)
        )
        items, queries = sides
        scale = float(self.log_scale.detach().exp())
        return TokenTowers(self.encoder, items, queries, scale, self.special_tokens)

    def _encode_rows(self, rows: Tensor) -> Ragged:
        """Token states of ascending catalog rows, of which the last may be the text asked for."""
        if self._asked is None or not len(rows) or int(rows[-1]) < len(self.parts.texts):
            return self.states.encode_rows(rows)
        known = self.states.encode_rows(rows[:-1])
        values = torch.cat([known.values, self._asked.values.to(known.values.device)])
        return Ragged(values, known.sizes + self._asked.sizes)

    def _compute_weights(self, present: Tensor) -> Tensor:
        """(Q, titles) weights that sum to 1, or are all 0 where no title is present."""
        distance = torch.arange(present.shape[1], device=present.device, dtype=torch.float32)
        logits = (-self.rate * distance).expand(present.shape)
        logits = logits.masked_fill(~present, torch.finfo(logits.dtype).min)
        return logits.softmax(-1).masked_fill(~present, 0.0)

    def _project(self, states: Ragged, head: nn.Module | None) -> Ragged:
        """Token vectors of unit length: projected where asked, plus a residual head."""
        x = states.values if self.project is None else self.project(states.values)
        x = F.normalize(x, dim=-1)
        if head is not None:
            x = F.normalize(x + head(x), dim=-1)
        return Ragged(x, states.sizes)

    def _count_products(self, products: int, asking: Ragged) -> None:
        """Counts products of token vectors, with their gradient for both sides."""
        if self.work.counting:
            passes = 1 + 2 * (torch.is_grad_enabled() and asking.values.requires_grad)
            self.work.flops += 2.0 * passes * products * asking.values.shape[1]


def _name_token(passage: Passage, places: Tensor, place: int) -> str:
    """What a token of a text stands for; empty where it is none of the text's own.

    Args:
        passage: The text.
        places: Where its own tokens stand among all, ascending.
        place: Of the token among all.
    """
    own = torch.nonzero(places == place).flatten().tolist()
    if not own:
        return ""
    start, end = passage.spans[own[0]]
    return passage.text[start:end].strip()


def _compute_directions(states: Tensor, width: int) -> Tensor:
    """(width, D) directions that keep most of the products of unit states (T, D).

    The first principal ones of the second moment, not centred: products are what is kept.
    """
    x = F.normalize(states.double(), dim=-1)
    vectors: Tensor = torch.linalg.eigh(x.T @ x).eigenvectors
    return vectors[:, -width:].T.flip(0).to(states.dtype)

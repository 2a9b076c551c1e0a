"""Prompts as token ids: what is common to all items of a query, and what each item adds.

Every piece (what a template says between two fields, a title, a separator) is tokenised on its
own, once, and the ids are joined: where the tokens of an item begin depends on nothing else, so
that what stands before them is one sequence, whatever the item. A blank before a field goes to the
field, as most tokenizers make one token of a blank and the word behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.data.batches.catalog import Catalog, Tokenize
from recsys.data.moments import MOMENT
from recsys.data.prompts.template import CANDIDATE, CONTEXT, DISLIKES, LIKES, USER, Part
from recsys.errors import ConfigError
from recsys.types import Batch, Ragged

Said = tuple[Tensor, "Origin | None"]
"""Token ids in a prompt, and what they were made of; None: of the template."""
Codes = Mapping[str, Sequence[Tensor]]
"""Token ids of what is said of each code, by name of the context."""


@dataclass(frozen=True)
class Origin:
    """What a piece of a prompt was made of.

    Attributes:
        field: The field that it stands for.
        place: Of a title, its place in the plan; of context, its code; else 0.
        name: Of context, the name.
        spaced: Whether it was tokenised with a blank before it.
    """

    field: str
    place: int
    name: str
    spaced: bool


@dataclass(frozen=True)
class FieldTexts:
    """What fields stand for, tokenised with a blank before it (True) or without one (False).

    Attributes:
        titles: Item texts by catalog row.
        users: Users' texts by user row.
        said: Of each code of a query's context, such as "device: phone".
        values: The same without the name, such as "phone".
        moments: What users said up to a query, by its code, in the place of the user's text; None:
            nothing.
    """

    titles: Mapping[bool, Catalog]
    users: Mapping[bool, Catalog]
    said: Mapping[bool, Codes]
    values: Mapping[bool, Codes]
    moments: Mapping[bool, Catalog] | None = None


@dataclass(frozen=True)
class PromptPieces:
    """The pieces of a template.

    Attributes:
        prefix: (L,) special tokens at the start, where no chat template writes them.
        header: What a chat template writes before the message, else empty.
        lines: What stands before the item.
        tail: (L,) what stands behind it, to the end of the chat template.
        separator: (L,) what stands between the pieces of a list.
        spaced: Whether a blank stands behind a separator.
        item_spaced: Whether one stands before the item.
        words: Token ids of yes and no.
    """

    prefix: Tensor
    header: str
    lines: tuple[tuple[Part, ...], ...]
    tail: Tensor
    separator: Tensor
    spaced: bool
    item_spaced: bool
    words: tuple[int, int]

    def list_variants(self) -> set[bool]:
        """With and without a blank, whichever occurs before a field."""
        opens = Part(text=self.header)
        fields = [
            before.text.endswith(" ")
            for line in self.lines
            for first in (Part(), opens)  # a line may be the first one that says something
            for before, part in zip((first, *line), line, strict=False)
            if part.field
        ]
        return {*fields, self.spaced, self.item_spaced}


class PromptTexts:
    """Token ids of prompts.

    Args:
        pieces: Of the template.
        texts: What its fields stand for.
        tokenize: Makes ids of a text that is asked for.
        lead: What a blank before such a text is to the tokenizer: itself, or nothing.
        max_length: Longest prompt.
        item_length: Tokens that are kept of an item at most. The history is cut so that an item of
            that length fits, whichever is scored.
        latest: Whether of a user's text that does not fit the end is kept, as of a dialogue.

    Raises:
        ConfigError: The template alone leaves no room for a history, or nothing stands behind the
            item.
    """

    def __init__(
        self,
        pieces: PromptPieces,
        texts: FieldTexts,
        tokenize: Tokenize,
        lead: str,
        max_length: int,
        item_length: int,
        latest: bool = False,
    ) -> None:
        self.pieces, self.texts, self.latest = pieces, texts, latest
        self.item_length = item_length
        self._tokenize, self._lead = tokenize, lead
        self._fields = {part.field for line in pieces.lines for part in line}
        self._encoded: dict[str, Tensor] = {}
        own = self._count_own()
        behind = len(pieces.tail) + item_length
        self._room = max_length - behind
        if not len(pieces.tail):
            raise ConfigError(
                f"architecture.template ends with {{{CANDIDATE}}}, and the answer is read behind "
                "what follows it; write '{candidate}? Answer:', for example."
            )
        if self._room <= own:
            raise ConfigError(
                f"architecture.template has {own + len(pieces.tail)} tokens of its own, and an "
                f"item up to {item_length}: encoder.max_length={max_length} leaves no room for a "
                "history; raise it, or shorten the template or data.max_tokens."
            )

    def _encode(self, text: str) -> Tensor:
        """(L,) token ids of what the template says between two fields."""
        if text not in self._encoded:
            ids = self._tokenize([text])[0] if text else []
            self._encoded[text] = torch.tensor(ids, dtype=torch.long)
        return self._encoded[text]

    def _count_own(self) -> int:
        """Tokens of the template before the item where every line is said."""
        writer = _Writer(self.pieces, self._encode)
        for part in (part for line in self.pieces.lines for part in line):
            if part.field:
                writer.open_field()
                writer.flush()
            else:
                writer.text += part.text
        return sum(len(ids) for ids, _ in writer.finish())

    def compose_prefixes(self, batch: Batch) -> Ragged:
        """What is common to all items of each query of a batch, on the host (Q texts)."""
        out = self._fill_all(batch)
        if not out:
            return Ragged(torch.empty(0, dtype=torch.long), ())
        return Ragged.from_sequences([_concatenate(said) for said in out])

    def _fill_all(self, batch: Batch) -> list[list[Said]]:
        """The pieces of the prompts of each query, up to the item."""
        host = batch.at_host
        titles = {
            spaced: of.gather_tokens(host.plan.items).split()
            for spaced, of in self.texts.titles.items()
        }
        history = host.history.tolist()
        disliked = [[]] * len(history) if host.disliked is None else host.disliked.tolist()
        out = []
        for query, (row, prefix) in enumerate(host.query.tolist()):
            lists = {
                LIKES: [i for i in history[row][:prefix] if i >= 0],
                DISLIKES: [i for i in (disliked[query] if disliked else []) if i >= 0],
            }
            codes = {name: int(of[query]) for name, of in host.context.items()}
            user = self._gather_moment(codes.pop(MOMENT, 0))
            if not any(map(len, user.values())):
                user = self._gather_users(int(host.users[row]))
            out.append(self._fill(lists, titles, user, codes))
        return out

    def compose_with_text(self, batch: Batch, text: str) -> Ragged:
        """A text in place of what is known of a user, for a batch of one query.

        Raises:
            ConfigError: The template has no place for it.
        """
        return Ragged.from_sequences([_concatenate(self._fill_with_text(batch, text))])

    def list_pieces(self, batch: Batch, text: str | None) -> list[Said]:
        """What the prompt of a batch's only query is made of, up to the item.

        Args:
            batch: The batch.
            text: Stands in place of what is known of the user; None: nothing does.

        Raises:
            ConfigError: The template has no place for it.
        """
        if text is not None:
            return self._fill_with_text(batch, text)
        (pieces,) = self._fill_all(batch)
        return pieces

    def _fill_with_text(self, batch: Batch, text: str) -> list[Said]:
        codes = {name: int(of[0]) for name, of in batch.at_host.context.items() if name != MOMENT}
        ids = {
            spaced: torch.tensor(self._tokenize([lead + text])[0], dtype=torch.long)
            for spaced, lead in ((False, ""), (True, self._lead))
        }
        if USER in self._fields:
            return self._fill({}, {}, ids, codes)
        if LIKES in self._fields:
            titles = {spaced: [of] for spaced, of in ids.items()}
            return self._fill({LIKES: [0]}, titles, {}, codes)
        raise ConfigError(
            f"text= stands in the place of {{{USER}}} or {{{LIKES}}}, and architecture.template "
            "has neither."
        )

    def get_lead(self, spaced: bool) -> str:
        """What stands before a field that was tokenised with a blank, or without."""
        return self._lead if spaced else ""

    def gather_suffixes(self, rows: Tensor) -> Ragged:
        """What each item adds, (U texts) on the host: its text, and all that stands behind it.

        Args:
            rows: (U,) catalog rows on the host.
        """
        texts = self.texts.titles[self.pieces.item_spaced].gather_tokens(rows)
        return Ragged.from_sequences(
            [torch.cat([text[: self.item_length], self.pieces.tail]) for text in texts.split()]
        )

    def _gather_moment(self, code: int) -> dict[bool, Tensor]:
        """What a user said up to a query, empty where nothing is known (0)."""
        if not code or self.texts.moments is None:
            return {}
        return {
            spaced: of.gather_tokens(torch.tensor([code])).values
            for spaced, of in self.texts.moments.items()
        }

    def _gather_users(self, row: int) -> dict[bool, Tensor]:
        """The text of a user, empty of someone unknown (-1)."""
        if row < 0:
            return {}
        return {
            spaced: of.gather_tokens(torch.tensor([row])).values
            for spaced, of in self.texts.users.items()
        }

    def _fill(
        self,
        lists: Mapping[str, list[int]],
        titles: Mapping[bool, Sequence[Tensor]],
        user: Mapping[bool, Tensor],
        codes: Mapping[str, int],
    ) -> list[Said]:
        """The pieces of a prompt up to the item, within the room that items leave.

        The oldest titles of the longest list go first, then the end of the user's text, or the
        beginning of what the user said up to now, as of a text that asks in its place.
        """
        kept = {name: list(of) for name, of in lists.items() if name in self._fields}
        while True:
            whole = self._join(kept, titles, user, codes)
            over = sum(len(ids) for ids, _ in whole) - self._room
            if over <= 0:
                return whole
            longest = max(kept, key=lambda name: len(kept[name]), default=None)
            if longest is not None and kept[longest]:
                kept[longest] = kept[longest][1:]
                continue
            cut = {
                spaced: ids[over:] if self.latest else ids[: max(0, len(ids) - over)]
                for spaced, ids in user.items()
            }
            if not any(map(len, user.values())):
                return _cut(whole, self._room)
            user = cut

    def _join(
        self,
        lists: Mapping[str, Sequence[int]],
        titles: Mapping[bool, Sequence[Tensor]],
        user: Mapping[bool, Tensor],
        codes: Mapping[str, int],
    ) -> list[Said]:
        """The pieces of all lines that say something."""
        writer = _Writer(self.pieces, self._encode)
        last = len(self.pieces.lines) - 1
        for number, line in enumerate(self.pieces.lines):
            before, said, fields = writer.text, False, False
            for part in line:
                if not part.field:
                    writer.text += part.text
                    continue
                spaced = writer.open_field()
                values = self._list_values(part.field, spaced, lists, titles, user, codes)
                fields, said = True, said or bool(values)
                if values:
                    writer.flush()
                    writer.out += values
            # The item stands in the last one.
            if fields and not said and number < last:
                writer.text = before
        return writer.finish()

    def _list_values(
        self,
        field: str,
        first: bool,
        lists: Mapping[str, Sequence[int]],
        titles: Mapping[bool, Sequence[Tensor]],
        user: Mapping[bool, Tensor],
        codes: Mapping[str, int],
    ) -> list[Said]:
        """What a field stands for, with separators between its pieces.

        Args:
            field: Its name.
            first: Whether a blank stands before the first piece.
            lists: Places of titles, by field.
            titles: Token ids by place.
            user: Of the user's text.
            codes: Of the context, by name.
        """
        rest = self.pieces.spaced
        values: list[Said] = []

        def add(of: Mapping[bool, Tensor], place: int = 0, name: str = "") -> None:
            spaced = rest if values else first
            if len(of[spaced]):
                values.append((of[spaced], Origin(field, place, name, spaced)))

        def pick(of: Mapping[bool, Sequence[Tensor]], at: int) -> dict[bool, Tensor]:
            return {spaced: each[at] for spaced, each in of.items()}

        if field in (LIKES, DISLIKES):
            for place in lists.get(field, ()):
                add(pick(titles, place), place)
        elif field == CONTEXT:
            for name, code in codes.items():
                add(pick({s: of[name] for s, of in self.texts.said.items()}, code), code, name)
        elif field == USER:
            if user:
                add(user)
        else:
            values_of = {spaced: of[field] for spaced, of in self.texts.values.items()}
            add(pick(values_of, codes[field]), codes[field], field)
        out: list[Said] = []
        for value in values:
            out += [(self.pieces.separator, None), value] if out else [value]
        return out


class _Writer:
    """Joins what a template says until a field comes, as it is tokenised in one.

    Args:
        pieces: Of the template.
        encode: Makes token ids of a text.
    """

    def __init__(self, pieces: PromptPieces, encode: Callable[[str], Tensor]) -> None:
        self.text, self._encode, self._item_spaced = pieces.header, encode, pieces.item_spaced
        self.out: list[Said] = [(pieces.prefix, None)] if len(pieces.prefix) else []

    def open_field(self) -> bool:
        """Gives a blank that comes before a field to the field; whether there was one."""
        spaced = self.text.endswith(" ")
        self.text = self.text[: len(self.text) - spaced]
        return spaced

    def flush(self) -> None:
        """Writes the text that has come up to here."""
        if self.text:
            self.out.append((self._encode(self.text), None))
        self.text = ""

    def finish(self) -> list[Said]:
        """All pieces up to the item."""
        if self._item_spaced:
            self.open_field()
        self.flush()
        return self.out


def _concatenate(pieces: Sequence[Said]) -> Tensor:
    """(L,) their token ids."""
    return torch.cat([torch.empty(0, dtype=torch.long), *(ids for ids, _ in pieces)])


def _cut(pieces: Sequence[Said], room: int) -> list[Said]:
    """The first tokens of pieces."""
    out = []
    for ids, origin in pieces:
        out.append((ids[:room], origin))
        room -= len(out[-1][0])
    return out

"""How a run's queries and items become prompts of a language model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recsys.config.schema import PromptOptions, RunConfig
from recsys.data.batches.catalog import Catalog, Tokenize
from recsys.data.context import ContextFeatures
from recsys.data.prompts.template import Part, PromptTemplate
from recsys.data.prompts.texts import FieldTexts, PromptPieces, PromptTexts
from recsys.encoders.language_model.chat import (
    find_lead,
    find_words,
    has_chat_template,
    split_chat,
)
from recsys.encoders.language_model.head import find_head
from recsys.encoders.pretrained.source import ModelFiles
from recsys.encoders.pretrained.tokenizer import load_tokenizer
from recsys.encoders.special_tokens import SpecialTokens

LONGEST = 1024
"""Tokens of a prompt at most, where `encoder.max_length` does not say; fewer where the model has
fewer positions."""


def check_language_model(run: RunConfig) -> None:
    """Refuses a model without a head, and words that are none, before data is read.

    Raises:
        ConfigError: So it is.
    """
    options = run.architecture.prompt
    if options is None:
        return
    files = ModelFiles.locate(run.encoder.model, run.encoder.revision)
    find_head(files)
    tokenizer = load_tokenizer(files)

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    names = run.architecture.reads_context
    specials = SpecialTokens.from_tokenizer(tokenizer)
    make_pieces(options, names, files.spec, tokenizer, tokenize, specials)


def _parse(options: PromptOptions, context: Sequence[str]) -> PromptTemplate:
    return PromptTemplate.parse(options.template, options.yes, options.no, context)


def make_pieces(
    options: PromptOptions,
    context: Sequence[str],
    spec: str,
    tokenizer: Any,  # noqa: ANN401 - no typed base
    tokenize: Tokenize,
    specials: SpecialTokens,
) -> PromptPieces:
    """The template as token ids.

    Args:
        options: What the architecture says.
        context: Names of what is known of a query.
        spec: As in `encoder.model`.
        tokenizer: Has the chat template.
        tokenize: Makes raw token ids of texts.
        specials: What the model expects around a text, where no chat template says it.

    Raises:
        ConfigError: The template, the words or the model's chat template cannot be used.
    """
    template, chats = _parse(options, context), options.chat and has_chat_template(tokenizer)
    header, footer = split_chat(spec, tokenizer) if chats else ("", "")
    lead, tail = find_lead(tokenize), template.tail + footer

    def encode(text: str) -> Tensor:
        return torch.tensor(tokenize([text])[0] if text else [], dtype=torch.long)

    # What stands before the item in every prompt; where the header does not in some, it is apart.
    opens = Part(text=header if len(template.lines) == 1 else "")
    before = (opens, *template.lines[-1])[-1]
    spaced = options.separator.endswith(" ")
    answers_spaced = not chats and not tail[-1:].isspace()
    return PromptPieces(
        prefix=torch.tensor([] if chats else specials.prefix, dtype=torch.long),
        header=header,
        lines=template.lines,
        tail=encode(tail),
        separator=encode(options.separator[: -1 if spaced else None]),
        spaced=spaced,
        item_spaced=before.text.endswith(" "),
        words=find_words(spec, tokenize, (options.yes, options.no), lead, answers_spaced),
    )


def make_prompt_texts(
    pieces: PromptPieces,
    tokenize: Tokenize,
    build_items: Callable[[str], Catalog],
    build_users: Callable[[str], Catalog],
    context: ContextFeatures,
    max_length: int,
    count_longest: Callable[[str], int],
    build_moments: Callable[[str], Catalog] | None = None,
    latest: bool = False,
) -> PromptTexts:
    """Prompts of a run.

    Args:
        pieces: Of the template.
        tokenize: Makes raw token ids of texts.
        build_items: Token ids of all item texts behind a blank or nothing.
        build_users: The same of the users' texts.
        context: What is known of queries.
        max_length: Longest prompt.
        count_longest: Tokens of the longest item of the fit behind a blank or nothing.
        build_moments: Token ids of what users said up to a query, by its code, behind a blank or
            nothing; None: nothing is said.
        latest: As of `PromptTexts`.

    Raises:
        ConfigError: The template leaves no room for a history.
    """
    lead = find_lead(tokenize)
    leads = {spaced: lead if spaced else "" for spaced in pieces.list_variants()}

    def encode(texts: Mapping[str, Iterable[str]], lead: str) -> dict[str, list[Tensor]]:
        return {
            name: [
                torch.tensor(tokenize([lead + text])[0] if text else [], dtype=torch.long)
                for text in of
            ]
            for name, of in texts.items()
        }

    said = context.format_codes()
    return PromptTexts(
        pieces,
        FieldTexts(
            titles={spaced: build_items(of) for spaced, of in leads.items()},
            users={spaced: build_users(of) for spaced, of in leads.items()},
            said={spaced: encode(said, of) for spaced, of in leads.items()},
            values={spaced: encode(context.values, of) for spaced, of in leads.items()},
            moments=None
            if build_moments is None
            else {spaced: build_moments(of) for spaced, of in leads.items()},
        ),
        tokenize,
        lead,
        max_length,
        count_longest(leads[pieces.item_spaced]),
        latest,
    )

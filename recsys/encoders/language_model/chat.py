"""How a tokenizer reads the pieces of a prompt: chats, blanks before words, words of one token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recsys.data.batches.catalog import Tokenize
from recsys.errors import ConfigError

_MARK = "\ue000"  # of private use: no template has it
_DATE = "26 Jul 2024"
"""Some templates say which day it is; a prompt must be the same every day."""


def has_chat_template(tokenizer: Any) -> bool:  # noqa: ANN401 - no typed base
    """Whether a tokenizer says how a chat is written."""
    return bool(getattr(tokenizer, "chat_template", None))


def split_chat(spec: str, tokenizer: Any) -> tuple[str, str]:  # noqa: ANN401 - no typed base
    """What stands before and behind the only message of a user, up to where the answer begins.

    Args:
        spec: As in `encoder.model`.
        tokenizer: Its tokenizer, with a chat template.

    Raises:
        ConfigError: The template does not take such a message.
    """
    try:
        text: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}],
            tokenize=False,
            add_generation_prompt=True,
            # What a template does not know it passes over: that of Qwen3 would begin to think.
            enable_thinking=False,
            date_string=_DATE,
        )
    except Exception as error:  # a template raises what it likes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"encoder.model: the chat template of {spec} takes no message of a user ({reason}); "
            "set architecture.chat=false."
        ) from error
    if text.count(_MARK) != 1:
        raise ConfigError(
            f"encoder.model: the chat template of {spec} does not write a message once; set "
            "architecture.chat=false."
        )
    header, _, footer = text.partition(_MARK)
    return header, footer


def find_lead(tokenize: Tokenize) -> str:
    """What a blank before a word is where pieces are tokenised on their own: itself, or nothing.

    To some tokenizers the beginning of a text is a blank already.
    """
    whole, head, spaced, bare = tokenize(["a: b", "a:", " b", "b"])
    return "" if head + spaced != whole and head + bare == whole else " "


def find_words(
    spec: str, tokenize: Tokenize, words: Sequence[str], lead: str, spaced: bool
) -> tuple[int, int]:
    """Token ids of yes and no, as they stand behind a prompt.

    Args:
        spec: As in `encoder.model`.
        tokenize: Makes raw token ids.
        words: Both.
        lead: What a blank before a word is to the tokenizer.
        spaced: Whether a blank is to stand before them. Where a word is one token only without it,
            or only with it, both are taken so.

    Raises:
        ConfigError: A word is several tokens either way, or both are the same token.
    """
    variants = [[lead + word for word in words], list(words)]
    found = [tokenize(variant) for variant in (variants if spaced else variants[::-1])]
    for yes, no in found:
        if len(yes) == len(no) == 1 and yes != no:
            return yes[0], no[0]
    for key, word, ids in zip(("yes", "no"), words, found[0], strict=True):
        if len(ids) != 1:
            raise ConfigError(
                f"architecture.{key}: '{word}' is {len(ids)} tokens to the tokenizer of {spec}, "
                "and a score is read off one; choose a word of one token, such as yes or no."
            )
    raise ConfigError(
        f"architecture.yes and architecture.no: '{words[0]}' and '{words[1]}' are not two words to "
        f"the tokenizer of {spec}; choose words that it tells apart."
    )

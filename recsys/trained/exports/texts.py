"""How a run's texts become tokens, in the words of tokenizers of other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.encoders.pretrained.tokenizer import load_tokenizer
from recsys.trained.exports.opened import OpenedRun

CHECKED = 64
"""How many items' texts a written file is tried with."""


@dataclass(frozen=True)
class TextFormat:
    """What stands around the text of an item or a query, and where it ends.

    Attributes:
        tokenizer: Pads and cuts at the right, to at most `longest` tokens.
        longest: Tokens of the longest text, special ones and the prompt included.
        item_prompt: What stands before an item's text.
        query_prompt: What stands before a free text.
        lower: Whether texts are read in lower case.
    """

    tokenizer: Any
    longest: int
    item_prompt: str
    query_prompt: str
    lower: bool

    @staticmethod
    def of_run(opened: OpenedRun) -> TextFormat:
        """Reads it off a run.

        An item's text is cut after `data.max_tokens`, a user's after `encoder.max_length`: the
        shorter one holds, by which item vectors are what they were.
        """
        encoding = opened.encoding
        following, specials = encoding.following, encoding.encoder.specials
        tokenizer = load_tokenizer(encoding.files, ends=following.ends)
        prompt = following.item_prompt
        spoken = prompt.lower() if following.lower else prompt
        kept = len(tokenizer(spoken, add_special_tokens=False)["input_ids"]) if prompt else 0
        kept += opened.run.config.data.max_tokens + len(specials.prefix) + len(specials.suffix)
        longest = min(kept, encoding.encoder.max_length)
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        tokenizer.model_max_length = longest
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(specials.pad)
        query = following.query_prompt
        return TextFormat(tokenizer, longest, prompt, query, following.lower)

    def prepare_text(self, text: str, query: bool = False) -> str:
        """A text behind its prompt, as it goes to a tokenizer."""
        whole = (self.query_prompt if query else self.item_prompt) + text
        return whole.lower() if self.lower else whole


def select_checked_rows(opened: OpenedRun) -> list[int]:
    """Catalog rows of the items that a written file is tried with: the longest texts among them."""
    sizes = np.array([len(text) for text in opened.texts])
    some = np.linspace(0, len(sizes) - 1, min(CHECKED, len(sizes))).astype(int)
    rows = {*some.tolist(), *np.argsort(-sizes, kind="stable")[:4].tolist()}
    return sorted(row for row in rows if opened.texts[row].strip())

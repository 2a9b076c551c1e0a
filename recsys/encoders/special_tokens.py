"""The special tokens of a model, read off its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsys.errors import ConfigError


@dataclass(frozen=True)
class SpecialTokens:
    """The token ids that a model expects around its texts.

    Attributes:
        prefix: Before a text or pair.
        separators: Between the two texts of a pair; None where the tokenizer says nothing of pairs,
            or puts others around them than around a text.
        suffix: After a text or pair.
        pad: Fills a batch; also the only token of an empty text where there is no prefix or suffix.
    """

    prefix: tuple[int, ...]
    separators: tuple[int, ...] | None
    suffix: tuple[int, ...]
    pad: int

    @staticmethod
    def from_tokenizer(tokenizer: Any) -> SpecialTokens:  # noqa: ANN401 - transformers' tokenizers share no typed base
        """Reads them off what the tokenizer puts around "a" and around the pair ("a", "b").

        Raises:
            ConfigError: The tokenizer alters the texts themselves when it adds special tokens.
        """
        name = type(tokenizer).__name__
        # By example: no attribute of a tokenizer says in all families what it adds, and where.
        a = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        b = list(tokenizer("b", add_special_tokens=False)["input_ids"])
        one = list(tokenizer("a")["input_ids"])
        two = list(tokenizer("a", "b")["input_ids"])
        start = _find_sublist(one, a)
        if not a or not b or start < 0:
            raise ConfigError(
                f"encoder: the special tokens of {name} cannot be told from its text tokens; "
                "choose a model with another tokenizer."
            )
        prefix, suffix = one[:start], one[start + len(a) :]
        head, tail = prefix + a, b + suffix
        between: tuple[int, ...] | None = None
        if (
            len(two) >= len(head) + len(tail)
            and two[: len(head)] == head
            and two[len(two) - len(tail) :] == tail
        ):
            between = tuple(two[len(head) : len(two) - len(tail)])
        pad = tokenizer.pad_token_id
        if pad is None:
            # Decoders often name no padding; it is masked, so that any known id will do.
            pad = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
        return SpecialTokens(tuple(prefix), between, tuple(suffix), int(pad))

    def get_separators(self) -> tuple[int, ...]:
        """What stands between the two texts of a pair.

        Raises:
            ConfigError: The tokenizer does not say.
        """
        if self.separators is None:
            raise ConfigError(
                "encoder: the tokenizer does not put the special tokens of a single text around a "
                "pair; choose a model with another tokenizer."
            )
        return self.separators

    def check_pairs(self, spec: str) -> None:
        """Refuses a tokenizer that does not say how two texts are read together.

        Args:
            spec: As in `encoder.model`.

        Raises:
            ConfigError: It does not.
        """
        if self.separators is None:
            raise ConfigError(
                f"encoder.model: the tokenizer of {spec} does not put the special tokens of a "
                "single text around a pair, which this architecture reads; choose another model, "
                "or give the post_processor of its tokenizer.json a template of pairs."
            )


def _find_sublist(haystack: list[int], needle: list[int]) -> int:
    """Start of the first occurrence of `needle`, or -1."""
    for start in range(len(haystack) - len(needle) + 1):
        if haystack[start : start + len(needle)] == needle:
            return start
    return -1

"""How tokenizers of several makes read blanks, words and chats."""

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from recsys.encoders.language_model.chat import find_lead, find_words, split_chat
from recsys.errors import ConfigError

LETTERS = [*"abYesNo:.", "▁", "Ġ"]


def make(vocabulary, pre_tokenizer=None, normalizer=None):
    """A tokenizer whose words are the longest pieces that it knows, letter by letter else."""
    pieces = [*LETTERS, *(piece for piece in vocabulary if piece not in LETTERS)]
    merges = [(p[:i], p[i:]) for p in vocabulary for i in range(1, len(p))]
    merges = [pair for pair in merges if pair[0] in pieces and pair[1] in pieces]
    raw = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges))
    if pre_tokenizer is not None:
        raw.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        raw.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=raw)


def tokenize_with(tokenizer):
    return lambda texts: tokenizer(list(texts), add_special_tokens=False)["input_ids"]


STEPS = ["Ye", "Yes", "No"]


@pytest.fixture
def of_bytes():
    """As GPT-2 and SmolLM2: a blank is the first letter of the word behind it."""
    spaced = ["ĠY", "ĠYe", "ĠYes", "ĠN", "ĠNo"]
    return make([*STEPS, *spaced], pre_tokenizers.ByteLevel(add_prefix_space=False))


@pytest.fixture
def of_pieces():
    """As Llama 2: the beginning of a text is a blank."""
    spaced = ["▁Y", "▁Ye", "▁Yes", "▁N", "▁No"]
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    return make([*STEPS, *spaced], normalizer=normalizers.Sequence(steps))


def test_a_blank_is_kept_where_the_tokenizer_adds_none(of_bytes, of_pieces):
    assert find_lead(tokenize_with(of_bytes)) == " "
    assert find_lead(tokenize_with(of_pieces)) == ""


def test_words_are_taken_as_they_stand_behind_the_prompt(of_bytes, of_pieces):
    pair = ("Yes", "No")
    tokens = of_bytes.get_vocab()
    spaced = find_words("m", tokenize_with(of_bytes), pair, " ", True)
    assert spaced == (tokens["ĠYes"], tokens["ĠNo"])
    bare = find_words("m", tokenize_with(of_bytes), pair, " ", False)
    assert bare == (tokens["Yes"], tokens["No"])
    tokens = of_pieces.get_vocab()
    assert find_words("m", tokenize_with(of_pieces), pair, "", True) == (
        tokens["▁Yes"],
        tokens["▁No"],
    )


def test_both_words_are_of_the_form_in_which_they_are_one_token(of_bytes):
    """`a` and `b` have no token with a blank."""
    tokens = of_bytes.get_vocab()
    pair = find_words("m", tokenize_with(of_bytes), ("a", "b"), " ", True)
    assert pair == (tokens["a"], tokens["b"])
    with pytest.raises(ConfigError, match=r"architecture.no: 'ab' is 3 tokens"):
        find_words("m", tokenize_with(of_bytes), ("Yes", "ab"), " ", True)


def test_a_chat_is_split_around_its_message(of_bytes):
    of_bytes.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }}\n{% endfor %}[me]"
        "{% if enable_thinking is defined and not enable_thinking %} (no thoughts){% endif %}"
    )
    assert split_chat("m", of_bytes) == ("[user] ", "\n[me] (no thoughts)")
    of_bytes.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(ConfigError, match=r"takes no message of a user.*chat=false"):
        split_chat("m", of_bytes)
    of_bytes.chat_template = "nothing of it"
    with pytest.raises(ConfigError, match=r"does not write a message once"):
        split_chat("m", of_bytes)

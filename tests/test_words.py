"""The words of a command: one way to read `key=value`, and one sentence where a word is none."""

from __future__ import annotations

import pytest

from recsys.boards import __main__ as boards
from recsys.data import __main__ as data
from recsys.errors import ConfigError
from recsys.fit import __main__ as fit
from recsys.recommend import __main__ as recommend
from recsys.sweep import __main__ as sweep
from recsys.words import (
    drop_words,
    find_value,
    get_key,
    partition_word,
    split_word,
    split_words,
)

WORDS = ["tuning=lora", "data.source.join=a=b", "seed=1", "seed=2"]


def test_a_value_keeps_its_equals_signs_and_the_last_of_a_key_counts() -> None:
    assert split_words(WORDS) == {"tuning": "lora", "data.source.join": "a=b", "seed": "2"}
    assert find_value(WORDS, "seed") == "2"
    assert find_value(WORDS, "output") is None
    assert split_word("text=") == ("text", "")


def test_words_are_dropped_by_their_whole_key() -> None:
    words = ["seed=1", "seeds=3", "seed"]
    assert drop_words(words, ["seed"]) == ["seeds=3"]
    assert [get_key(word) for word in words] == ["seed", "seeds", "seed"]


@pytest.mark.parametrize("word", ["runs", "=runs", ""])
def test_a_word_without_key_or_sign_is_none(word: str) -> None:
    assert partition_word(word) is None
    with pytest.raises(ConfigError, match="is not of the form key=value, as in k=10"):
        split_word(word, "k=10")


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (fit.main, ["experiment=lora_two_tower", "resume"]),
        (fit.main, ["resume=last", "tracking.wandb"]),
        (sweep.main, ["sweep=smoke", "resume"]),
        (data.main, ["source=quickstart", "split"]),
        (boards.main, ["push"]),
        (recommend.main, ["run=last", "user"]),
    ],
)
def test_each_command_names_the_word_that_lacks_its_value(
    main: object, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(main)
    assert main(words) == 2
    assert f"error: '{words[-1]}' is not of the form key=value, as in " in capsys.readouterr().err

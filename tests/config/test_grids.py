"""Numbers that validation may choose: fixed, among a list, or among a grid of their own."""

from dataclasses import dataclass

import pytest

from recsys.config.compose import make_options
from recsys.config.flags import parse_words
from recsys.config.options import walk_options
from recsys.config.schema import GridValue, grid_option, list_grid
from recsys.config.yaml_file import unwrap
from recsys.errors import ConfigError


@dataclass
class Options:
    """Two of them."""

    pull: GridValue = grid_option(None, "the pull", (0, 2.5, 10), least=0)
    window: GridValue = grid_option(3, "the window", (1, 3), least=1, most=9, whole=True)


def read(*words):
    return make_options(Options, unwrap(parse_words(words, ())), "x.")


@pytest.mark.parametrize(
    ("word", "want"),
    [
        ("pull=null", (0, 2.5, 10)),
        ("pull=''", (0, 2.5, 10)),
        ("pull=3", (3.0,)),
        ("pull=[1e-3]", (0.001,)),
        ("pull=[5, 1]", (5.0, 1.0)),
        ("window=[2,4]", (2, 4)),
        ("window=5.0", (5,)),
    ],
)
def test_what_is_open(word, want):
    name = word.partition("=")[0]
    got = list_grid(read(word), name)
    assert got == want
    assert word.endswith(("null", "''")) or {type(x) for x in got} == {type(x) for x in want}
    assert list_grid(Options(), "window") == (3,)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("pull=-1", r"x\.pull is -1.0; set it to 0 or more"),
        ("pull=[1,-1]", r"x\.pull=\[1.0, -1.0\] holds -1.0; set it to 0 or more"),
        ("pull=[1,.nan]", r"holds nan; set it to a finite number"),
        ("pull=1" + "0" * 400, r"x\.pull: 1000.* is too large"),
        ("pull=.inf", r"x\.pull is inf"),
        ("pull=[1,a]", r"x\.pull holds 'a'; set it to a number, to a list of them"),
        ("pull=true", r"x\.pull is 'True'; set it to a number"),
        ("pull={a: 1}", r"x\.pull is '\{'a': 1\}'; set it to a number"),
        ("pull=[]", r"x\.pull is an empty list; give each number"),
        ("pull=[1,1.0]", r"x\.pull \[1.0, 1.0\] holds a number twice"),
        ("window=2.5", r"x\.window is '2.5'; set it to a whole number"),
        ("window=[2,10]", r"x\.window=\[2, 10\] holds 10; set it to 9 or less"),
    ],
)
def test_one_bad_value_is_one_clear_error(word, said):
    with pytest.raises(ConfigError, match=said):
        read(word)


def test_help_names_the_grid_and_the_reference_the_kind():
    ((_, _, (pull, window)),) = walk_options(Options, "x.")
    assert pull.text == "the pull; null: chosen on validation among 0, 2.5, 10; a list: among those"
    assert pull.kind == float | list[float] | None
    assert (pull.bounds, window.bounds, window.default) == ("at least 0", "1 to 9", "3")

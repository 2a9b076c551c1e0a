"""`recsys COMMAND` says and returns what `python -m recsys.COMMAND` does."""

import subprocess
import sys

import pytest

import recsys
from recsys.__main__ import find_commands


def ended(*words):
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_alone_it_lists_the_commands():
    commands = ["fit", "pretrain", "sweep", "compare", "recommend", "export", "data", "boards"]
    commands += ["serve", "explain", "compress", "clean", "refresh", "forget", "chat"]
    assert set(commands) == set(find_commands())
    code, said, errors = ended("recsys")
    assert (code, errors) == (0, "")
    assert ended("recsys", "--help") == (code, said, errors)
    for name, command in find_commands().items():
        assert command.usage.split()[0] == name
        assert f"  recsys {command.usage}\n      {command.summary}\n" in said
        assert command.summary


def test_a_reader_that_went_away_is_no_error():
    command = [sys.executable, "-m", "recsys"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == (b"", 0)


def test_the_version_is_that_of_the_package():
    assert ended("recsys", "--version") == (0, f"recsys {recsys.__version__}\n", "")


def test_an_unknown_command_is_refused_with_the_nearest_match():
    code, said, errors = ended("recsys", "fti", "seed=1")
    assert (code, said) == (2, "")
    assert errors.startswith("error: 'fti' is no command of recsys. Did you mean 'fit'? Known: ")


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "experiment=popularity", "--print-config"],
        ["fit", "optimizer.lrr=1"],
        ["sweep", "--help"],
        ["compare"],
        ["recommend", "run=last"],
        ["export", "run=last"],
        ["data", "source=nothing"],
        ["boards"],
        ["serve", "run=last", "port=x"],
    ],
    ids=" ".join,
)
def test_words_and_exit_codes_are_the_same(words):
    name, *rest = words
    assert ended("recsys", name, *rest) == ended(f"recsys.{name}", *rest)


HEAVY = """
import sys
import recsys
from recsys.__main__ import find_commands, format_help
format_help()
heavy = ("omegaconf", "yaml", "numpy", "polars", "torch", "lightning", "optuna", "wandb")
print([name for name in heavy if name in sys.modules])
"""


def test_neither_the_package_nor_its_list_of_commands_loads_a_library():
    done = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

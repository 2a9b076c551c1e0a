"""What the README says is true: its commands compose, its tree exists, its experiments are all."""

import re
import shlex
from pathlib import Path

import pytest

from recsys.compare import read_words
from recsys.config import compose, compose_data, experiments
from recsys.data import __main__ as data_command
from recsys.recommend import _words
from recsys.sweeps import reading

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", README, flags=re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]


def words(module):
    found = [line.split(f"python -m {module} ")[1] for line in LINES if f"-m {module} " in line]
    return [shlex.split(line) for line in found]


@pytest.mark.parametrize("argv", words("recsys.fit"), ids=" ".join)
def test_fit_commands_compose(argv):
    resumed = [w for w in argv if w.startswith("resume=")]
    assert resumed or compose([w for w in argv if not w.startswith("seeds=")])


@pytest.mark.parametrize("argv", words("recsys.recommend"), ids=" ".join)
def test_recommend_commands_are_understood(argv):
    assert _words(argv)["run"]


@pytest.mark.parametrize("argv", words("recsys.compare"), ids=" ".join)
def test_compare_commands_are_understood(argv):
    assert read_words([word for word in argv if not word.startswith("--")]).runs


@pytest.mark.parametrize("argv", words("recsys.sweep"), ids=" ".join)
def test_sweep_commands_are_understood(argv):
    assert argv == ["status"] or reading.read(argv).methods


def test_every_sweep_is_told_of():
    assert [name for name in reading.names() if f"`{name}`" not in README] == []


@pytest.mark.parametrize("argv", words("recsys.data"), ids=" ".join)
def test_data_commands_compose(argv):
    words, own = data_command._words(argv)
    assert own["output"]
    assert compose_data(words)


def test_the_tree_names_every_file_and_folder_and_no_other():
    (tree,) = [block for block in BLOCKS if block.startswith("recsys/")]
    named, folder = set(), Path()
    for line in tree.splitlines():
        name = line.split()[0]
        folder = Path(name) if not line.startswith(" ") else folder
        named.add(name.rstrip("/") if not line.startswith(" ") else str(folder / name).rstrip("/"))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing
    inside = {
        f"recsys/{path.name}"
        for path in (ROOT / "recsys").iterdir()
        if path.name not in ("__init__.py", "__pycache__")
    }
    assert inside <= named


def test_every_experiment_is_told_of():
    assert [name for name in experiments() if f"`{name}`" not in README] == []


def test_both_commands_of_the_set_up_stand_there():
    assert (
        'pip install -e ".[quickstart]" && python -m recsys.fit experiment=lora_two_tower' in LINES
    )
    assert 'pip install -e ".[dev]" && pytest -n 2' in LINES

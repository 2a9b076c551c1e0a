"""What help prints: short, of a choice, of everything, as wide as the terminal."""

import dataclasses
import importlib
import subprocess
import sys
import time

import pytest

from recsys.__main__ import find_commands
from recsys.config.choices import AXES, list_choices, list_experiments
from recsys.config.compose import compose, compose_data
from recsys.config.flags import parse_words
from recsys.config.help import format_entries, format_topics
from recsys.config.options import list_groups, walk_options
from recsys.config.schema import RunConfig
from recsys.config.yaml_file import unwrap
from recsys.errors import ConfigError
from recsys.sweep.schema import SweepOptions

COMMANDS = sorted(find_commands())


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def run(name, *words):
    """Exit code of a command of this process; what it printed is in capsys."""
    return importlib.import_module(f"recsys.{name}.__main__").main(list(words))


def shown(capsys, name, *words):
    assert run(name, *words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys, name, *words):
    assert run(name, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def flat(text):
    return " ".join(text.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_alone_says_what_to_type_as_help_does(name, capsys):
    said = shown(capsys, name)
    assert said == shown(capsys, name, "--help") == shown(capsys, name, "-h")
    assert said.startswith(f"usage: python -m recsys.{name} ")
    assert len(said.splitlines()) <= 26


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_as_wide_as_the_terminal(name, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = shown(capsys, name, "--help", "all").splitlines()
    usage = [line for line in lines if "python -m recsys." in line]  # is copied, so never cut
    wider = [line for line in lines if len(line) > width and len(line.split()) > 1]
    assert set(wider) <= set(usage)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistyped_flag_is_told_with_the_nearest(name, capsys):
    assert "--hlep is not a flag. Did you mean '--help'?" in refused(capsys, name, "--hlep")
    assert "-help is not a flag. Did you mean '--help'?" in refused(capsys, name, "-help")


def test_a_key_with_dashes_is_told_without_them(capsys):
    said = refused(capsys, "fit", "--optimizer.lr=1e-3")
    assert "a key has no dashes; write optimizer.lr=1e-3." in said
    assert "takes no value" in refused(capsys, "fit", "--print-config=true")


def test_short_help_of_fit_names_every_choice_and_experiment(capsys):
    said = flat(shown(capsys, "fit"))
    for name in (*list_experiments(), *(name for axis in AXES for name in list_choices(axis))):
        assert name in said


@pytest.mark.parametrize("axis", AXES)
def test_a_choice_has_its_options_with_defaults_and_help(axis, capsys):
    for name, summary in list_choices(axis).items():
        said = flat(shown(capsys, "fit", f"{axis}={name}", "--help"))
        assert said.startswith(f"{axis}={name} {flat(summary)}")
        config = importlib.import_module(f"{AXES[axis]}.{name}").Config
        for field in dataclasses.fields(config):
            assert f" {axis}.{field.name}=" in said
            assert flat(field.metadata["help"]) in said
        assert bool(dataclasses.fields(config)) != ("It has no options." in said)


def test_a_default_is_shown_as_it_is_typed():
    """What help says of a key can be typed, and leaves it as it was."""
    words = [
        f"{option.key}={option.default}"
        for _, _, options in walk_options(RunConfig, "")
        for option in options
    ]
    run = compose(words)
    assert dataclasses.asdict(run) == dataclasses.asdict(compose([]))
    for axis in AXES:
        for name in list_choices(axis):
            config = importlib.import_module(f"{AXES[axis]}.{name}").Config
            for _, _, options in walk_options(config, f"{axis}."):
                given = [f"{option.key}={option.default}" for option in options]
                values = unwrap(parse_words(given, AXES))
                for key in axis.split("."):
                    values = values.get(key, {})
                plain = config()
                for option in options:
                    leaf = option.key.rpartition(".")[2]
                    default = getattr(plain, leaf)
                    assert values[leaf] == (list(default) if type(default) is tuple else default)


def test_several_words_are_explained_one_after_the_other(capsys):
    said = shown(capsys, "fit", "tuning=lora", "optimizer.lr=1e-3", "--help")
    assert "tuning.rank=8 " in said
    assert "optimizer.lr=0.0003  learning rate of tuned parameters (at least 0)\n" in said


def test_a_group_an_axis_and_experiments_are_explained(capsys):
    for group, summary in list_groups().items():
        said = shown(capsys, "fit", "--help", group)
        assert said.startswith(f"{group}: {summary}\n  {group}.")
    said = flat(shown(capsys, "fit", "tuning", "-h"))
    for name, summary in list_choices("tuning").items():
        assert f"{name} {flat(summary)}" in said
    said = shown(capsys, "fit", "experiment", "--help")
    assert all(f"\n  {name}" in said for name in list_experiments())
    said = shown(capsys, "fit", "experiment=lora_two_tower", "--help")
    assert "\n  tuning:\n    name: lora\n" in said


def test_help_all_has_every_key_of_its_command(capsys):
    keys = [option.key for _, _, each in walk_options(RunConfig, "") for option in each]
    said = shown(capsys, "fit", "--help", "all")
    assert said == shown(capsys, "fit", "--help=all")
    assert all(f"\n  {key}=" in said for key in keys)
    assert all(f"\n  {name} " in said for axis in AXES for name in list_choices(axis))
    said = shown(capsys, "sweep", "--help", "all")
    own = [field.name for field in dataclasses.fields(SweepOptions)]
    assert all(f"\n  {key}=" in said for key in (*own, *keys))
    assert "\n  sobol " in said
    said = shown(capsys, "compare", "--help", "all")
    assert "adds a test of equivalence" in flat(said)
    assert "data.k_core=null" in shown(capsys, "data", "--help", "all")


def test_the_data_command_explains_a_source_by_its_own_words(capsys):
    said = shown(capsys, "data", "source=tables", "path=x", "--help")
    assert said == shown(capsys, "fit", "data.source=tables", "--help")
    assert "data.k_core=null" in shown(capsys, "data", "k_core=5", "--help")


def test_a_sweep_is_explained_by_its_file(capsys):
    said = shown(capsys, "sweep", "sweep=smoke", "--help")
    assert "\n  space:\n    optimizer.lr: " in said
    assert "tuning.rank=8 " in shown(capsys, "sweep", "tuning=lora", "--help")


def test_an_unknown_word_beside_help_is_an_error(capsys):
    assert "Did you mean 'lora'?" in refused(capsys, "fit", "tuning=lroa", "--help")
    assert "Did you mean 'optimizer.lr'?" in refused(capsys, "fit", "lr=1", "--help")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr=1e-3", "'optimizer.lr'"),
        ("epochs=3", "'trainer.epochs'"),
        ("batch_size=8", "'trainer.batch_size' or 'evaluation.batch_size'"),
        ("rank=4", "'tuning.rank'"),
        ("interactions=x.csv", "'data.source.interactions'"),
        ("optimizer.epochs=3", "'trainer.epochs'"),
        ("optimizer.lrr=3", "'lr'"),
        ("epoch=3", "'trainer.epochs'"),
        ("tunning=lora", "'tuning'"),
        ("tuning.lr=1e-3", "'optimizer.lr'"),
    ],
)
def test_a_key_is_suggested_from_the_whole_schema(word, meant):
    with pytest.raises(ConfigError, match=rf"is not a known key\. Did you mean {meant}\?"):
        compose([word])


def test_nothing_is_suggested_where_nothing_is_near():
    with pytest.raises(ConfigError, match=r"zzz is not a known key\. Known: experiment, "):
        compose(["zzz=1"])
    with pytest.raises(ConfigError, match=r"Did you mean 'data\.k_core'\?"):
        compose_data(["k_core=5"])


def test_a_sweep_suggests_keys_of_its_own_and_of_a_run(capsys):
    said = refused(capsys, "sweep", "sweep=smoke", "lr=1e-3")
    assert "Did you mean 'optimizer.lr'?" in said
    assert "Did you mean 'trials'?" in refused(capsys, "sweep", "sweep=smoke", "trails=3")


def test_a_word_wider_than_its_column_has_its_meaning_below(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = format_entries([("a", "short"), ("b" * 40, "long"), ("c", "")])
    assert lines == ["  a".ljust(24) + "short", "  " + "b" * 40, " " * 24 + "long", "  c"]


def test_topics_of_nothing_are_nothing():
    assert format_topics([]) == []


LIGHT = """
import sys
from recsys.{name}.__main__ import main
assert main({words!r}) == 0
heavy = ("torch", "lightning", "transformers", "peft", "scipy", "sklearn", "wandb", "optuna")
heavy += () if {name!r} == "data" else ("polars", "numpy")
print("loaded:", [name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_no_heavy_library(name):
    """And so is there at once; the bound is ten times what it takes."""
    words = ["--help", "all"]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(name=name, words=words)], capture_output=True, text=True
    )
    assert time.monotonic() - start < 5
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded: []\n"), done.stdout[-200:]

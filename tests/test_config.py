import subprocess
import sys
import time

import pytest

from recsys.config import EXPERIMENTS, choice_name, compose, experiments, to_yaml
from recsys.errors import ConfigError
from recsys.usage import help_text


def refused(*words, folder=EXPERIMENTS):
    with pytest.raises(ConfigError) as caught:
        compose(words, folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_precedence_is_defaults_then_experiment_then_command_line(tmp_path):
    (tmp_path / "base.yaml").write_text("optimizer:\n  lr: 0.5\n  warmup: 0.25\nseed: 3\n")
    (tmp_path / "mine.yaml").write_text("extends: base\noptimizer:\n  lr: 0.25\n")
    run = compose(["experiment=mine", "optimizer.clip=2"], tmp_path)
    assert (run.optimizer.lr, run.optimizer.warmup, run.optimizer.clip) == (0.25, 0.25, 2.0)
    assert (run.seed, run.optimizer.schedule) == (3, "linear")


def test_a_name_replaces_a_node_and_a_key_amends_it(tmp_path):
    (tmp_path / "mine.yaml").write_text("tuning:\n  name: lora\n  rank: 3\n  alpha: 5\n")
    amended = compose(["experiment=mine", "tuning.rank=7"], tmp_path).tuning
    assert (choice_name(amended), amended.rank, amended.alpha) == ("lora", 7, 5.0)
    replaced = compose(["experiment=mine", "tuning.width=9", "tuning=adapter"], tmp_path).tuning
    assert (choice_name(replaced), replaced.width) == ("adapter", 9)
    assert choice_name(compose(["tuning=full"]).tuning) == "full"


def test_numbers_in_scientific_notation_are_numbers():
    assert compose(["optimizer.lr=3e-4"]).optimizer.lr == 3e-4


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["optimizer.lrr=1"], ["optimizer.lrr", "'lr'", "warmup"]),
        (["optimiser.lr=1"], ["optimiser", "'optimizer'"]),
        (["optimizer=1"], ["optimizer is a group", "lr"]),
        (["optimizer.lr=fast"], ["optimizer.lr", "fast"]),
        (["trainer.precision=bf15"], ["trainer.precision", "bf16-mixed"]),
        (["tuning=lorra"], ["tuning", "'lora'", "adapter"]),
        (["tuning.rnk=4"], ["tuning.rnk", "'rank'"]),
        (["data.source=movielense"], ["data.source", "'movielens'"]),
        (["experiment=lora_two_towr"], ["lora_two_towr", "'lora_two_tower'"]),
        (["architecture=no.such.module"], ["no.such.module"]),
        (["seed"], ["'seed'", "key=value"]),
    ],
)
def test_one_sentence_names_the_key_and_the_remedy(words, parts):
    text = refused(*words)
    assert all(part in text for part in parts), text


def test_experiments_that_extend_each_other_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    assert "circle" in refused("experiment=a", folder=tmp_path)


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_composes_and_its_print_composes_to_the_same(name, tmp_path):
    run = compose([f"experiment={name}"])
    text = to_yaml(run).replace(f"experiment: {name}\n", "")
    (tmp_path / "again.yaml").write_text(text)
    again = compose(["experiment=again"], tmp_path)
    again.experiment = name
    assert to_yaml(again) == to_yaml(run)


def test_help_names_every_choice():
    text = help_text("fit")
    for word in ("lora", "adapter", "two_tower", "in_batch", "movielens", "optimizer.lr=0.0003"):
        assert word in text


def test_a_typo_is_refused_in_under_two_seconds_without_a_traceback():
    start = time.monotonic()
    command = [sys.executable, "-m", "recsys.fit", "optimizer.lrr=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - start
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert seconds < 2

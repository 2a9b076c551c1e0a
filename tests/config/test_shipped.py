"""Experiments and sweeps of one's own: in the working folder, or by their path."""

import pytest

from recsys.config.compose import compose, list_experiments
from recsys.config.shipped import find_shipped, list_names
from recsys.errors import ConfigError
from recsys.fit.seeds import make_plan
from recsys.sweep import parsing
from recsys.sweep.command import _make_folder, expand_resume


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "sweeps").mkdir()
    return tmp_path


def refused(*words):
    with pytest.raises(ConfigError) as caught:
        compose(words)
    return str(caught.value)


def test_an_experiment_of_the_working_folder_comes_before_a_shipped_one(here):
    (here / "experiments" / "mine.yaml").write_text("extends: lora_two_tower\nseed: 5\n")
    assert {"mine", "lora_two_tower"} <= set(list_experiments())
    run = compose(["experiment=mine", "optimizer.lr=0.5"])
    shipped = compose(["experiment=lora_two_tower"])
    assert (run.seed, run.optimizer.lr, run.tuning) == (5, 0.5, shipped.tuning)
    (here / "experiments" / "popularity.yaml").write_text("architecture: tfidf\n")
    assert type(compose(["experiment=popularity"]).architecture).__module__.endswith(".tfidf")


def test_an_experiment_may_extend_the_shipped_one_of_its_own_name(here):
    (here / "experiments" / "lora_two_tower.yaml").write_text("extends: lora_two_tower\nseed: 7\n")
    run = compose(["experiment=lora_two_tower"])
    assert run.seed == 7
    run.seed = 0
    assert run == compose(["experiment=lora_two_tower"], find_shipped("experiment"))


def test_a_path_is_taken_with_what_it_extends_and_names_the_run(here):
    (here / "far").mkdir()
    (here / "far" / "base.yaml").write_text("extends: lora_two_tower\nseed: 1\n")
    (here / "far" / "named.yaml").write_text("extends: base\ntrainer: {epochs: 3}\n")
    (here / "far" / "by_path.yaml").write_text("extends: ../top.yml\ntrainer: {epochs: 4}\n")
    (here / "top.yml").write_text("extends: far/base.yaml\n")
    for name, epochs in (("named", 3), ("by_path", 4)):
        run = compose([f"experiment=far/{name}.yaml"])
        assert (run.experiment, run.seed, run.trainer.epochs) == (name, 1, epochs)
        assert compose([f"experiment={here / 'far' / name}.yaml"]) == run
        assert type(run.tuning).__module__ == "recsys.tuning.lora"


def test_errors_name_where_was_looked(here):
    said = refused("experiment=lora_two_towr")
    assert "Did you mean 'lora_two_tower'?" in said
    assert f"Looked in experiments and {find_shipped('experiment')}" in said
    assert "experiment=my/own.yaml" in said
    assert f"{here / 'mine.yaml'} is missing" in refused("experiment=mine.yaml")
    (here / "own.yaml").write_text("extends: nowhere.yaml\n")
    assert f"{here / 'nowhere.yaml'} is missing" in refused("experiment=own.yaml")
    (here / "own.yaml").write_text("extends: own.yaml\n")
    assert "circle: own -> own" in refused("experiment=own.yaml")
    with pytest.raises(ConfigError, match=r"Looked in sweeps and .*/sweeps; .* sweep=my/own.yaml"):
        parsing.read_definition(["sweep=smok"])


def test_a_sweep_of_the_working_folder_and_one_by_its_path_name_experiments_of_ones_own(here):
    space = "space: {optimizer.lr: {low: 0.1, high: 0.2}}\nbudget: {trials: 1}\n"
    (here / "sweeps" / "mine.yaml").write_text(f"experiment: own\n{space}")
    (here / "experiments" / "own.yaml").write_text("extends: lora_two_tower\nseed: 3\n")
    assert {"mine", "smoke"} <= set(parsing.list_sweeps())
    definition = parsing.read_definition(["sweep=mine"])
    assert definition.name == "mine"
    assert compose(definition.words).seed == 3
    (here / "far").mkdir()
    (here / "far" / "their.yaml").write_text(f"experiment: near.yaml\n{space}")
    with pytest.raises(ConfigError, match=r"far/near.yaml is missing"):
        parsing.read_definition(["sweep=far/their.yaml"])
    (here / "far" / "near.yaml").write_text("extends: lora_two_tower\nseed: 4\n")
    definition = parsing.read_definition(["sweep=far/their.yaml"])
    assert definition.name == "their"
    assert compose(definition.words).seed == 4


def test_a_path_means_the_same_file_from_another_folder(here, monkeypatch):
    (here / "own.yaml").write_text("architecture: popularity\n")
    (here / "their.yaml").write_text(
        "experiment: lora_two_tower\nspace: {optimizer.lr: {low: 0.1, high: 0.2}}\n"
        "budget: {trials: 1}\n"
    )
    plan = make_plan(["experiment=own.yaml", "seeds=2"])
    words = ["sweep=their.yaml", "experiment=own.yaml"]
    definition = parsing.read_definition(words)
    _make_folder(definition.folder, words, definition)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert compose(plan.words).experiment == "own"
    found = expand_resume([f"resume=../{definition.folder}"])
    assert parsing.read_definition(found).words == definition.words


def test_what_a_checkout_has_is_shipped():
    assert "lora_two_tower" in list_names([find_shipped("experiment")])
    assert "smoke" in list_names([find_shipped("sweep")])

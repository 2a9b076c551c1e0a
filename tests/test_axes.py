"""The contract of every axis: each module that lies in its folder, and each of its ways."""

import dataclasses
import importlib
import typing

import numpy as np
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import AXES, compose, list_choices
from recsys.config.yaml_file import as_word
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.testing import (
    ArchitectureContract,
    ObjectiveContract,
    PretrainingContract,
    SourceContract,
    TuningContract,
)
from recsys.testing.contract import LISTS, take_batch
from recsys.testing.objectives import LABELLED
from tests.data import samples


def config_of(axis, name):
    return importlib.import_module(f"{AXES[axis]}.{name}").Config


def example_of(axis, name):
    return config_of(axis, name).example


def named(prefix, name, contract, **own):
    """A class of tests of this module, by its name."""
    title = f"Test{prefix}_{name}"
    globals()[title] = type(title, (contract,), {"__module__": __name__, **own})


for tuning in list_choices("tuning"):
    settings = example_of("tuning", tuning)
    named("Tuning", tuning, TuningContract, choice=tuning, settings=settings)

for objective in list_choices("objective"):
    settings = example_of("objective", objective)
    named("Objective", objective, ObjectiveContract, choice=objective, settings=settings)

for pretraining in list_choices("pretraining"):
    settings = importlib.import_module(f"recsys.pretraining.{pretraining}").Config.example
    named("Pretraining", pretraining, PretrainingContract, choice=pretraining, settings=settings)


def ways_of(architecture):
    """Its defaults, and each other value of an option that has a few, where that alone may be."""
    config = config_of("architecture", architecture)
    hints = typing.get_type_hints(config)
    yield "", ()
    for field in dataclasses.fields(config):
        for value in typing.get_args(hints[field.name]):
            if isinstance(value, str) and value != field.default:
                yield f"_{field.name}_{value}", (f"{field.name}={value}",)


ALONE_REFUSED = {
    ("item=id",): "there is nothing for tuning=lora to adapt",
    ("context_as=text",): "set architecture.user=text",
    ("gap=inverse",): "set architecture.window to a number of steps",
}
"""Ways that go with another word only; they have tests of their own."""

for architecture in list_choices("architecture"):
    for way, settings in ways_of(architecture):
        own = {"choice": architecture, "settings": settings}
        if settings not in ALONE_REFUSED:
            named("Architecture", f"{architecture}{way}", ArchitectureContract, **own)


@pytest.mark.parametrize(("settings", "said"), ALONE_REFUSED.items())
def test_a_way_that_is_left_out_is_refused_alone(shop_words, settings, said):
    words = [f"architecture.{word}" for word in settings]
    name = "item_knn" if settings == ("gap=inverse",) else "two_tower"
    with pytest.raises(ConfigError, match=said):
        assembled(shop_words, f"architecture={name}", *words)


class TestDocument(ArchitectureContract):
    choice = "two_tower"
    settings = ("user=text", "towers=separate", "score=mlp", "temperature=1")


def choice_of(module):
    return module.__name__.rpartition(".")[2]


class FromSamples(SourceContract):
    def write(self, folder):
        module, config = samples.MAKERS[self.maker](folder)
        self.choice = choice_of(module)
        return [
            f"{field.name}={as_word(getattr(config, field.name))}"
            for field in dataclasses.fields(config)
            if getattr(config, field.name) != field.default
        ]


for maker in samples.MAKERS:
    named("Source", maker, FromSamples, choice=maker, maker=maker)


def test_every_source_has_samples(tmp_path):
    found = {choice_of(samples.make(maker, tmp_path)[0]) for maker in samples.MAKERS}
    assert found == set(list_choices("data.source")), "write its files in tests/data/samples.py"


TWO = ["architecture=two_tower"]
DOCUMENT = [*TWO, *(f"architecture.{word}" for word in TestDocument.settings)]
RUNS = {
    "text": [*TWO, "architecture.user=text"],
    "document": DOCUMENT,
    "cross": ["architecture=cross_encoder", "objective=sampled_softmax", *LISTS],
    "mlp": [*TWO, "architecture.score=mlp"],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def assembled(shop_words, *words):
    return build.assemble(compose([*shop_words, *words]))


def test_candidate_lists_hold_the_target_once_and_nothing_seen(shop_words):
    made = assembled(
        shop_words, "evaluation.protocol=candidates", "evaluation.candidates=9", "tuning=frozen"
    )
    lists = made.datamodule.lists[2]
    rows = made.examples.make_case_rows(lists.at)
    assert (lists.labels.sum(1) == 1).all()
    assert ((lists.candidates == rows.candidates).sum(1) == 1).all()
    assert all(len(set(row)) == 9 for row in lists.candidates.tolist())
    for at, row in zip(lists.at, lists.candidates, strict=True):
        batch = made.examples.make_batch(
            made.examples.make_case_rows(np.array([at])), made.datamodule.sizes
        )
        had = set(batch.plan.items[batch.history[0][batch.history[0] >= 0]].tolist())
        assert not had & set(row.tolist())
    again = assembled(
        shop_words, "evaluation.protocol=candidates", "evaluation.candidates=9", "tuning=full"
    ).datamodule.lists[2]
    assert (again.candidates == lists.candidates).all()


@pytest.mark.parametrize("way", RUNS)
def test_the_command_runs_them(shop_words, tmp_path, way):
    words = [*RUNS[way], "trainer.epochs=1"]
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=9", "evaluation.max_cases=11"]
    assert main([*shop_words, *words, *lists]) == 0
    assert main([*shop_words, *words, "data.train_users=7", "evaluation.max_cases=5"]) == 0


def test_labels_are_learned_and_ranked(shop_words, tmp_path):
    words = [
        *DOCUMENT,
        *LABELLED,
        "data.split=time",
        "objective=bce",
        "objective.negatives=0",
        "evaluation.protocol=labels",
        "evaluation.monitor=auc",
    ]
    assert main([*shop_words, *words]) == 0


OUTSIDE = """
from dataclasses import dataclass, field
from typing import ClassVar
from recsys.architectures import two_tower

@dataclass
class Config(two_tower.Config):
    reads_tokens: ClassVar[bool] = {tokens}
    kinds: list[str] = field(default_factory=lambda: ["kind"])
    moments: list[str] = field(default_factory=lambda: ["hour"])

    @property
    def reads_tags(self):
        return self.kinds

    @property
    def reads_context(self):
        return self.moments

class Model(two_tower.Model):
    pass
"""


@pytest.mark.parametrize("tokens", [True, False])
def test_an_architecture_outside_says_what_it_reads(situated_words, tmp_path, monkeypatch, tokens):
    """Whatever its own options are called."""
    name = f"outside_{tokens}_{tmp_path.name}"
    (tmp_path / f"{name}").mkdir()
    (tmp_path / name / "own.py").write_text(OUTSIDE.format(tokens=tokens))
    monkeypatch.syspath_prepend(tmp_path)
    asked = [f"architecture={name}.own", "tuning=frozen"]
    if tokens:
        made = assembled(situated_words, *asked)
        assert made.tokenize is not None
    else:
        monkeypatch.setattr("recsys.assembly.encoding.load_pretrained", None)
        made = assembled(situated_words, *asked, "architecture.item=text+id")
        assert made.tokenize is None
    model = made.recommender
    assert model.parts.tags.shape == (30, 2)
    assert dict(model.parts.context_sizes) == {"hour": 25}
    assert torch.isfinite(model(take_batch(made)).scores).all()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["architecture=popularity", "tuning=lora"], "does not train; leave out tuning"),
        (["architecture=tfidf", "objective=bce"], "does not train; leave out objective"),
        (["objective=bce", "objective.negatives=0"], "sees liked events only"),
        (["data.targets=labelled"], "needs an objective that reads labels"),
        (
            [
                "architecture=cross_encoder",
                "objective=bce",
                "encoder.pooling=attention",
                "evaluation.protocol=candidates",
            ],
            "set it to mean",
        ),
        (["architecture=cross_encoder", "objective=bce"], "protocol=candidates"),
        (["evaluation.protocol=candidates", "evaluation.candidates=31"], "30, the size"),
        (["evaluation.monitor=auc"], "'auc' is not a metric"),
        (["tuning=frozen", "encoder.pooling=attention"], "frozen"),
    ],
)
def test_what_makes_no_sense_is_refused(shop_words, words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        assembled(shop_words, *words)

"""The contract of every axis: each module found in its folder, pair by pair."""

import itertools

import numpy as np
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import choices, compose
from recsys.errors import ConfigError
from recsys.fit.__main__ import main

TUNINGS = sorted(choices("tuning"))
WORDS = {name: [f"tuning={name}"] for name in TUNINGS}
WORDS["peft"] += ["tuning.method=vera", "tuning.options.r=4"]
# The others go with each way in which texts reach an encoder; heads do not see how it is tuned.
EVERYWHERE = ("adapter", "frozen", "full", "lora")
REACHES = ("history", "separate", "text", "late", "cross")
OBJECTIVES = sorted(choices("objective"))
TWO = ["architecture=two_tower"]
ARCHITECTURES = {
    "history": TWO,
    "attention": [*TWO, "architecture.history=attention"],
    "causal": [*TWO, "architecture.history=causal"],
    "gru": [*TWO, "architecture.history=gru"],
    "text+id": [*TWO, "architecture.item=text+id"],
    "separate": [*TWO, "architecture.towers=separate", "architecture.history=mean"],
    "dot": [*TWO, "architecture.score=dot"],
    "mlp": [*TWO, "architecture.score=mlp"],
    "text": [*TWO, "architecture.user=text"],
    "document": [
        *TWO,
        "architecture.user=text",
        "architecture.towers=separate",
        "architecture.score=mlp",
        "architecture.temperature=1",
    ],
    "late": ["architecture=late_interaction"],
    "cross": [
        "architecture=cross_encoder",
        "evaluation.protocol=candidates",
        "evaluation.candidates=9",
    ],
}
LIKE_OTHERS = ("bce", "bpr", "full_softmax", "gbce", "mse")
"""Objectives that ask an architecture for what others ask for: a few architectures are enough."""
LABELS = ["data.targets=labelled", "data.positive_from=3", "data.source.rating=stars"]


def test_every_architecture_that_trains_is_in_the_contract():
    covered = {word.split("=")[1] for words in ARCHITECTURES.values() for word in words[:1]}
    assert covered | {"popularity", "tfidf", "item_knn", "ease"} == set(choices("architecture"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def objective_for(architecture):
    lists = architecture in ("late", "cross")
    return ["objective=sampled_softmax"] if lists else ["objective=in_batch"]


def assembled(shop_words, *words):
    return build.assemble(compose([*shop_words, *words]))


def some_batch(made):
    return next(iter(made.datamodule.train_dataloader()))


def loss_of(model, batch):
    loss = model.parts.objective(model(batch), batch, model.surroundings())
    return loss.total / loss.count


@pytest.mark.parametrize(
    ("tuning", "architecture"),
    [(t, a) for t in TUNINGS for a in ARCHITECTURES if t in EVERYWHERE or a in REACHES],
)
def test_tuning_and_architecture(shop_words, tmp_path, tuning, architecture):
    """Starts where the frozen one does, trains only its own, comes back as it was saved."""
    words = [*ARCHITECTURES[architecture], *objective_for(architecture)]
    made = assembled(shop_words, *WORDS[tuning], *words)
    frozen = assembled(shop_words, "tuning=frozen", *words)
    batch = some_batch(made)
    model, still = made.recommender.eval(), frozen.recommender.eval()
    with torch.no_grad():
        start = model(batch).scores
        same = torch.allclose(start, still(batch).scores, atol=1e-4)
    assert same is made.recommender.parts.tuned.identical
    assert same is (tuning != "prefix")  # which shares attention with what it adds
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    optimizer = torch.optim.SGD(model.trained().values(), lr=0.05)
    for _ in range(2):  # what is zero at first moves its partner in the second step
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    changed = {k for k, v in model.named_parameters() if not torch.equal(v, before[k])}
    assert changed
    assert changed <= set(model.trained())
    assert all(p.grad is not None for p in model.trained().values())
    model.save_trained(tmp_path / "x.safetensors")
    again = assembled(shop_words, *WORDS[tuning], *words).recommender.eval()
    again.load_trained(tmp_path / "x.safetensors")
    with torch.no_grad():
        assert torch.allclose(again(batch).scores, model(batch).scores, atol=1e-5)
        assert not torch.allclose(model(batch).scores, start, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "objective"),
    [
        (architecture, objective)
        for architecture, objective in itertools.product(ARCHITECTURES, OBJECTIVES)
        if objective not in LIKE_OTHERS or architecture in ("history", "mlp", "text", "cross")
    ],
)
def test_architecture_and_objective_learn_a_batch_by_heart(shop_words, architecture, objective):
    words = [*ARCHITECTURES[architecture], f"objective={objective}", "tuning=full"]
    if objective == "mse":
        words += LABELS
    if objective == "full_softmax":
        words.append("objective.encode_catalog=true")
    if architecture in ("late", "cross") and objective in ("in_batch", "full_softmax"):
        with pytest.raises(ConfigError, match=f"{objective} needs (queries|table)"):
            assembled(shop_words, *words)
        return
    made = assembled(shop_words, *words)
    model, examples = made.recommender.eval(), made.examples
    # The first six users like a colour each: no two of them ask the same.
    rows = examples.train_rows("last", np.sort(examples.epoch("last", 1, 0, 0))[:6])
    drawn = None
    if objective not in ("in_batch", "full_softmax"):
        drawn = examples.negatives(rows, 8, "uniform", 0, 0)
    batch = examples.batch(rows, made.datamodule.sizes, drawn)
    optimizer = torch.optim.Adam(
        model.trained().values(), lr=3e-3 if objective in ("bce", "mse") else 6e-3
    )
    # One score at a time needs the scale as well as the order, and takes longer.
    steps = {"bce": 400, "mse": 400, "gbce": 150}.get(objective, 100)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    first = loss_of(model, batch).item()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        decay.step()
    with torch.no_grad():
        assert loss_of(model, batch).item() < (0.02 if steps > 100 else 0.01) * first
        scores = model.score(model.queries(batch, model.index(batch.plan)), model.index(batch.plan))
        if objective == "in_batch":  # against the targets of the other queries
            scores = scores[:, batch.candidates[:, 0]]
            assert (scores.argmax(1) == torch.arange(len(scores))).all()
        elif objective == "full_softmax":  # against all that training has seen
            queries = model.queries(batch, model.index(batch.plan))
            scores = model.score(queries, model.index_catalog())
            scores = scores.masked_fill(model.parts.counts == 0, -torch.inf)
            assert (scores.argmax(1) == batch.plan.items[batch.candidates[:, 0]]).all()
        elif objective != "mse":  # against the drawn negatives; labels of one class rank nothing
            own = scores.gather(1, batch.candidates.clamp(min=0))
            items = batch.plan.items[batch.candidates.clamp(min=0)]
            liked = model.surroundings().known_each(batch.users, items)
            liked[:, 0] = False
            own = own.masked_fill(liked | (batch.candidates < 0), -torch.inf)
            assert (own.argmax(1) == 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_do_not_depend_on_company(shop_words, architecture):
    """Neither on the other rows of the batch (padding), nor on the order of the candidates."""
    words = [*ARCHITECTURES[architecture], *objective_for(architecture)]
    made = assembled(
        shop_words, *words, "evaluation.protocol=candidates", "evaluation.candidates=9"
    )
    model, examples = made.recommender.eval(), made.examples
    lists = made.datamodule.lists[2]
    rows = examples.list_rows(lists)
    together = examples.batch(rows, made.datamodule.sizes)
    alone = examples.batch(examples.list_rows(part(lists, slice(3, 4))), made.datamodule.sizes)
    order = np.random.default_rng(0).permutation(9)
    shuffled = part(lists, slice(3, 4))
    shuffled = type(lists)(
        shuffled.at, shuffled.candidates[:, order], shuffled.labels[:, order], shuffled.inserted
    )
    mixed = examples.batch(examples.list_rows(shuffled), made.datamodule.sizes)
    with torch.no_grad():
        want = model(together).scores[3]
        assert torch.allclose(model(alone).scores[0], want, atol=1e-4)
        assert torch.allclose(model(mixed).scores[0], want[order], atol=1e-4)
        items = model.index(together.plan)
        assert torch.allclose(model.candidate_scores(together, items)[3], want, atol=1e-4)
        every = model.score(model.queries(alone, model.index(alone.plan)), model.index(alone.plan))
        assert torch.allclose(every[0][alone.candidates[0]], want, atol=1e-4)


def part(lists, where):
    return type(lists)(
        lists.at[where], lists.candidates[where], lists.labels[where], lists.inserted[where]
    )


def test_candidate_lists_hold_the_target_once_and_nothing_seen(shop_words):
    made = assembled(
        shop_words, "evaluation.protocol=candidates", "evaluation.candidates=9", "tuning=frozen"
    )
    lists = made.datamodule.lists[2]
    rows = made.examples.case_rows(lists.at)
    assert (lists.labels.sum(1) == 1).all()
    assert ((lists.candidates == rows.candidates).sum(1) == 1).all()
    assert all(len(set(row)) == 9 for row in lists.candidates.tolist())
    for at, row in zip(lists.at, lists.candidates, strict=True):
        batch = made.examples.batch(made.examples.case_rows(np.array([at])), made.datamodule.sizes)
        had = set(batch.plan.items[batch.history[0][batch.history[0] >= 0]].tolist())
        assert not had & set(row.tolist())
    again = assembled(
        shop_words, "evaluation.protocol=candidates", "evaluation.candidates=9", "tuning=full"
    ).datamodule.lists[2]
    assert (again.candidates == lists.candidates).all()


@pytest.mark.parametrize("architecture", ["text", "document", "cross", "mlp"])
def test_the_command_runs_them(shop_words, tmp_path, architecture):
    words = [*ARCHITECTURES[architecture], *objective_for(architecture), "trainer.epochs=1"]
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=9", "evaluation.max_cases=11"]
    assert main([*shop_words, *words, *lists]) == 0
    assert main([*shop_words, *words, "data.train_users=7", "evaluation.max_cases=5"]) == 0


def test_labels_are_learned_and_ranked(shop_words, tmp_path):
    words = [
        *ARCHITECTURES["document"],
        *LABELS,
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
        monkeypatch.setattr("recsys.assembly.encoding.load_all", None)
        made = assembled(situated_words, *asked, "architecture.item=text+id")
        assert made.tokenize is None
    model = made.recommender
    assert model.parts.tags.shape == (30, 2)
    assert dict(model.parts.situations) == {"hour": 25}
    assert torch.isfinite(model(some_batch(made)).scores).all()


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

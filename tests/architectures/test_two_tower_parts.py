"""Learned item vectors, tags and context begin as without them, and are the same in any company."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recsys.assembly import build, encoding
from recsys.config.compose import compose
from recsys.encoders.encoder import Encoder
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommend.__main__ import main as recommend

TWO = ["architecture=two_tower", "tuning=frozen", "data.queries=all"]
IDS = [*TWO, "architecture.item=id", "architecture.width=8"]
BOTH = [*TWO, "architecture.item=text+id"]
CONTEXT = [*TWO, "architecture.context=[hour,weekday,device]"]
TAGS = [*TWO, "architecture.categories=[kind,made]"]
KINDS = {"id": IDS, "text+id": BOTH, "context": CONTEXT, "tags": TAGS}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def words(situated_words):
    return situated_words


def assembled(words, *more):
    return build.assemble(compose([*words, *more]))


def batch_of(made, size=6):
    examples = made.examples
    rows = examples.make_train_rows("all", np.sort(examples.sample_epoch("all", 1, 0, 0))[:size])
    return examples.make_batch(rows, made.datamodule.sizes)


def learned(model):
    parts = [p for p in (model.ids, model.tags, model.context) if p is not None]
    return [part.vectors for part in parts]


def perturbed(model):
    """Vectors as training might leave them."""
    generator = torch.Generator().manual_seed(3)
    for vectors in learned(model):
        with torch.no_grad():
            vectors.copy_(torch.randn(vectors.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("text+id", "architecture.towers=separate"),
        ("text+id", "architecture.score=mlp"),
        ("context", "architecture.score=dot"),
        ("context", "architecture.towers=separate"),
        ("tags", "architecture.towers=separate"),
    ],
)
def test_they_begin_as_without_them(words, name, more):
    made, plain = assembled(words, *KINDS[name], more), assembled(words, *TWO, more)
    batch = batch_of(made)
    with torch.no_grad():
        got = made.recommender.eval()(batch)
        want = plain.recommender.eval()(batch)
        changed = perturbed(made.recommender)(batch)
    assert torch.allclose(got.queries, want.queries, atol=1e-6)
    assert torch.allclose(got.items, want.items, atol=1e-6)
    assert not torch.allclose(changed.scores, want.scores, atol=1e-2)


def test_a_text_users_query_has_its_context(words):
    more = ["architecture=two_tower", "tuning=frozen", "architecture.user=text"]
    made = assembled(words, *more, "architecture.context=[device]")
    plain = assembled(words, *more)
    batch = next(iter(made.datamodule.train_dataloader()))
    with torch.no_grad():
        want = plain.recommender.eval()(batch).queries
        assert torch.allclose(made.recommender.eval()(batch).queries, want, atol=1e-6)
        added = perturbed(made.recommender).context(batch.context)
        got = made.recommender(batch).queries
    assert torch.allclose(got, F.normalize(want + added, dim=-1), atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_they_train_are_saved_and_come_back(words, tmp_path, name):
    made = assembled(words, *KINDS[name], "architecture.history=attention")
    model, batch = made.recommender.eval(), batch_of(made)
    optimizer = torch.optim.SGD(model.get_trained_parameters().values(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        loss = model.parts.objective(model(batch), batch, model.get_objective_context())
        (loss.total / loss.count).backward()
        optimizer.step()
    # What has no gradient would stop DDP.
    assert all(p.grad is not None for p in model.get_trained_parameters().values())
    assert {id(p) for p in learned(model)} <= {id(p) for _, p in model.group_by_role()["head"]}
    model.save_trained(tmp_path / "x.safetensors")
    again = assembled(words, *KINDS[name], "architecture.history=attention", "seed=5").recommender
    again.load_trained(tmp_path / "x.safetensors")
    with torch.no_grad():
        want, fresh = model(batch).scores, assembled(words, *KINDS[name]).recommender.eval()
        assert torch.allclose(again.eval()(batch).scores, want, atol=1e-6)
        assert not torch.allclose(fresh(batch).scores, want, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "history"),
    [("id", "causal"), ("text+id", "gru"), ("context", "causal"), ("tags", "recency")],
)
def test_a_query_is_the_same_alone_and_in_company(words, name, history):
    made = assembled(words, *KINDS[name], f"architecture.history={history}")
    model, examples, sizes = perturbed(made.recommender), made.examples, made.datamodule.sizes
    if history != "recency":
        torch.nn.init.normal_(model.mix.close.out.weight)
    rows = examples.make_train_rows("all", np.arange(6))
    batch = examples.make_batch(rows, sizes)
    with torch.no_grad():
        want = model(batch)
        for at, event in enumerate(rows.event.tolist()):
            alone = examples.make_batch(examples.make_train_rows("last", np.array([event])), sizes)
            assert torch.allclose(model(alone).queries[0], want.queries[at], atol=1e-5)
            assert torch.allclose(model(alone).scores[0, 0], want.scores[at, 0], atol=1e-4)


def test_ids_read_no_text(words, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("nothing may be loaded or encoded")

    for name in ("load_pretrained", "Store"):
        monkeypatch.setattr(encoding, name, refuse)
    made = assembled(words, *IDS, "encoder.model=/nowhere")
    model = made.recommender
    assert not [m for m in model.modules() if isinstance(m, Encoder)]
    assert model.index_catalog().shape == (30, 8)
    assert made.tokenize is None
    assert model.parts.encoding is None


@pytest.mark.parametrize(
    ("name", "objective"), [("id", "full_softmax"), ("id", "bce"), ("text+id", "in_batch")]
)
def test_what_training_never_shows_keeps_its_start(words, name, objective):
    made = assembled(
        words, *KINDS[name], "data.queries=last", f"objective={objective}",
        "regularization.weight_decay=0.0",
    )  # fmt: skip
    model = made.recommender.train()
    before = model.ids.vectors.detach().clone()
    optimizer = torch.optim.AdamW([model.ids.vectors], lr=0.1, weight_decay=0.0)
    examples = made.examples
    cold = torch.from_numpy(examples.count_train_items() == 0)
    # A seventh of the users leaves some items out: those stand for all that training never shows.
    shown = torch.zeros(30, dtype=torch.bool)
    rows = examples.make_train_rows("last", np.sort(examples.sample_epoch("last", 1, 0, 0))[:2])
    drawn = made.datamodule.sampler.sample(rows, 2, 0, 0) if objective == "bce" else None
    batch = examples.make_batch(rows, made.datamodule.sizes, drawn)
    shown[batch.plan.items] = True
    if objective == "full_softmax":
        shown |= ~cold
    for _ in range(2):
        optimizer.zero_grad()
        model.parts.objective(model(batch), batch, model.get_objective_context()).total.backward()
        optimizer.step()
    moved = (model.ids.vectors.detach() != before).any(1)
    assert moved.any()
    assert not (moved & ~shown).any()
    if name == "text+id":
        assert not before.any()
    else:
        assert before.any(1).all()


def test_tags_are_the_mean_of_their_vectors(words):
    made = assembled(words, *TAGS)
    tags = perturbed(made.recommender).tags
    codes = made.recommender.parts.tags
    names = {name: 1 + i for i, name in enumerate(["wood", "home", "metal"])}
    # The tags of a column come first seen first; the same word in another column is another tag.
    made_of = [len(names) + 1, len(names) + 2]
    vectors = tags.vectors
    for row, kinds in enumerate([["wood", "home"], ["home"], [], ["wood"], ["metal"]]):
        own = [*(names[k] for k in kinds), made_of[row % 2]]
        assert sorted(codes[row][codes[row] > 0].tolist()) == sorted(own)
        assert torch.allclose(tags(torch.tensor([row]))[0], vectors[own].mean(0), atol=1e-6)
    assert tags(torch.empty(0, dtype=torch.long)).shape == (0, 32)
    assert not list(tags.buffers())  # DDP would send them in every step


def test_context_is_that_of_the_targets_event(words):
    made = assembled(words, *CONTEXT)
    split, frame = made.split, made.tables.interactions
    rows = made.examples.make_train_rows("all", np.arange(4))
    known = made.examples.make_batch(rows, made.datamodule.sizes).context
    moments = frame["time"].gather(split.row[rows.event]).cast(int).to_numpy() // 1000
    import datetime

    for at, seconds in enumerate(moments.tolist()):
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        assert known["hour"][at] == 1 + moment.hour
        assert known["weekday"][at] == 1 + moment.weekday()
    items = made.tables.items["item"].to_numpy()
    targets = items[rows.candidates[:, 0]].tolist()
    assert frame["item"].gather(split.row[rows.event]).to_list() == targets
    devices = frame["device"].gather(split.row[rows.event]).fill_null("").to_list()
    codes = {"desk": 1, "phone": 2, "": 0}
    assert [codes[d] for d in devices] == known["device"].tolist()
    case = next(iter(made.datamodule.test_dataloader()))
    # Only the test knows of a watch: for training it is unknown.
    assert not case.context["device"].any()
    assert case.context["hour"].all()
    assert len(case.context["hour"]) == len(case.query)


def test_nothing_is_known_of_who_asks_now(words):
    made = assembled(words, *CONTEXT)
    batch = made.examples.make_serving_batch(np.array([3, 4]))
    assert set(batch.context) == {"hour", "weekday", "device"}
    assert not any(of.any() for of in batch.context.values())
    moved = dataclasses.replace(batch).to(torch.device("cpu"))
    assert moved.context.keys() == batch.context.keys()
    with torch.no_grad():
        assert torch.isfinite(
            made.recommender.queries(batch, made.recommender.index(batch.plan))
        ).all()


def test_no_history_gives_no_gradient_that_is_not_finite(words):
    made = assembled(words, *CONTEXT)
    batch = batch_of(made)
    empty = dataclasses.replace(
        batch, query=torch.stack([batch.query[:, 0], 0 * batch.query[:, 1]], 1)
    )
    model = made.recommender
    model(empty).scores.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert not model.context.vectors.grad.any()


def test_an_id_run_recommends_by_history_and_refuses_a_text(words, tmp_path, capsys):
    more = ["experiment=sasrec", "trainer.max_steps=2", "architecture.width=8"]
    assert main([*words, *more]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    for ask in ("user=u3", "history=000,007"):
        capsys.readouterr()
        assert recommend([f"run={folder}", ask, "k=3"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3
    assert recommend([f"run={folder}", "text=red lamp"]) == 2
    assert "architecture.item=id reads no texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([*IDS, "tuning=lora"], "set tuning=frozen"),
        ([*IDS, "architecture.user=text"], "architecture.user=text needs one"),
        ([*IDS, "architecture.towers=separate"], "separate needs one"),
        ([*IDS, "trainer.batch_tokens=500"], "trainer.batch_tokens needs one"),
        ([*TWO, "architecture.context=[rating]"], "not known when a recommendation"),
        ([*TWO, "architecture.context=[item]"], "not known when a recommendation"),
        ([*TWO, "architecture.context=[place]"], "no column 'place'.*hour, weekday, .*device"),
        ([*TWO, "architecture.context=[hour,hour]"], "twice"),
        ([*TWO, "architecture.context=[review]"], "'review' names the event or tells what came"),
        ([*TWO, "architecture.categories=[genre]"], "no column 'genre'.*kind, made, price"),
        ([*TWO, "architecture.categories=[text]"], "no column 'text'"),
        ([*TWO, "architecture.categories=[name]"], "'name' has 30 tags for 30 items.*text\\+id"),
        ([*TWO, "architecture.categories=[price]"], "'price' holds measures, such as 0.5"),
    ],
)
def test_what_cannot_be_is_refused(words, more, sentence):
    with pytest.raises(ConfigError, match=sentence):
        assembled(words, *more)

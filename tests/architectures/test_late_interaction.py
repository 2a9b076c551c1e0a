"""Late interaction: the kernel against a double loop, kept states, and the command."""

import dataclasses

import numpy as np
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.encoders.cache.frozen_layers import FrozenLayerCache
from recsys.errors import ConfigError
from recsys.evaluation.evaluator import Evaluator
from recsys.fit.__main__ import main
from recsys.layers.maxsim import score_all_pairs, score_lists
from recsys.recommend.__main__ import main as recommend
from recsys.recommender.optim import make_adamw
from recsys.types import ItemBatch, Ragged

LATE = ["architecture=late_interaction", "objective=sampled_softmax"]
LISTS = ["evaluation.protocol=candidates", "evaluation.candidates=9"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def assembled(shop_words, *words):
    return build.assemble(compose([*shop_words, *LATE, *words]))


def some_batch(made):
    return next(iter(made.datamodule.train_dataloader()))


def texts(count, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 9, (count,), generator=generator).tolist()
    values = torch.randn(sum(sizes), 5, generator=generator, dtype=torch.float64)
    return Ragged(values.requires_grad_(), tuple(sizes))


def one(a, b):
    """MaxSim of two texts, token by token."""
    return torch.stack([torch.stack([x @ y for y in b]).max() for x in a]).mean()


@pytest.mark.parametrize("block", [1, 700, 1 << 20])
@pytest.mark.parametrize("kept", [0, 1 << 26])
def test_lists_and_their_gradients_are_those_of_a_double_loop(monkeypatch, block, kept):
    monkeypatch.setattr("recsys.layers.maxsim.KEPT", kept)
    generator = torch.Generator().manual_seed(2)
    asking, other = texts(11, 0), texts(13, 1)
    history = torch.randint(-1, 11, (7, 4), generator=generator)
    history[3] = -1
    candidates = torch.randint(0, 13, (7, 6), generator=generator)
    weights = torch.rand(7, 4, generator=generator, dtype=torch.float64).requires_grad_()
    a, b = asking.split(), other.split()
    zero = weights.sum() * 0.0
    want = torch.stack(
        [
            torch.stack(
                [
                    sum((w * one(a[h], b[c]) for h, w in zip(hs, ws, strict=True) if h >= 0), zero)
                    for c in cs
                ]
            )
            for hs, ws, cs in zip(history.tolist(), weights, candidates.tolist(), strict=True)
        ]
    )
    leaves = [asking.values, other.values, weights]
    slopes = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad((want * slopes).sum(), leaves)
    got = score_lists(asking, other, history, weights, candidates, block)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad((got * slopes).sum(), leaves)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)
    with torch.no_grad():  # the other maximum
        got = score_lists(asking, other, history, weights, candidates, block)
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("block", [1, 700, 1 << 20])
def test_all_pairs_and_their_gradients_are_those_of_a_double_loop(block):
    asking, other = texts(11, 3), texts(13, 4)
    want = torch.stack([torch.stack([one(x, y) for y in other.split()]) for x in asking.split()])
    got = score_all_pairs(asking, other, block)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    leaves = [asking.values, other.values]
    slopes = torch.randn(11, 13, dtype=torch.float64)
    expected = torch.autograd.grad((want * slopes).sum(), leaves)
    for x, y in zip(torch.autograd.grad((got * slopes).sum(), leaves), expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)


def test_no_text_at_all():
    empty, some = Ragged(torch.zeros(0, 5), ()), texts(3, 0)
    assert score_all_pairs(empty, some).shape == (0, 3)
    assert score_all_pairs(some, empty).shape == (3, 0)
    none = torch.zeros(2, 0, dtype=torch.long)
    assert score_lists(some, some, none - 1, torch.zeros(2, 0), none).shape == (2, 0)


def test_blocks_bound_what_is_held(monkeypatch):
    """No block of several queries holds more products than it was told."""
    held = []
    plain = torch.nn.functional.embedding

    def watched(at, values):
        held.append(at.shape)
        return plain(at, values)

    monkeypatch.setattr("recsys.layers.maxsim.F.embedding", watched)
    asking, other = texts(30, 5), texts(40, 6)
    history = torch.arange(30).view(10, 3)
    candidates = torch.arange(40).view(10, 4)
    score_lists(asking, other, history, torch.ones(10, 3, dtype=torch.float64), candidates, 900)
    for theirs, mine in zip(held[::2], held[1::2], strict=True):
        assert theirs[0] == 1 or theirs[0] * theirs[1] * mine[1] <= 900
    assert 1 < len(held) // 2 < 10


def test_a_score_is_the_weighted_mean_of_maxsim_over_titles(shop_words):
    made = assembled(shop_words, "tuning=frozen", "architecture.titles=2", *LISTS)
    model, batch = made.recommender.eval(), next(iter(made.datamodule.val_dataloader()))
    at = int(batch.query[:, 1].argmax())
    row, prefix = batch.query[at].tolist()
    assert prefix > 2
    rows = batch.plan.rows
    tokens = model.encoding.catalog.gather_tokens(rows)
    specials = model.encoder.specials
    with torch.no_grad():
        states = model.encoder.compute_states(tokens).split()
    before, after = len(specials.prefix), len(specials.suffix)
    states = [torch.nn.functional.normalize(s[before : len(s) - after], dim=-1) for s in states]
    last, older = batch.history[row, prefix - 1], batch.history[row, prefix - 2]
    decay = torch.tensor([0.0, -0.3]).softmax(0)
    with torch.no_grad():
        scores = model(batch).scores[at]
    for place, score in zip(batch.candidates[at].tolist(), scores, strict=True):
        want = decay[0] * one(states[last], states[place])
        want = want + decay[1] * one(states[older], states[place])
        assert float(score) == pytest.approx(float(want) / 0.05, abs=1e-3)


@pytest.mark.parametrize(("tuning", "specials"), [("frozen", "false"), ("lora", "true")])
def test_kept_states_change_nothing(shop_words, tuning, specials):
    """Below the lowest trained layer, or all of them: scores and gradients are the same."""
    words = [f"tuning={tuning}", f"architecture.special_tokens={specials}"]
    words += ["tuning.layers=1"] if tuning == "lora" else []
    kept = assembled(shop_words, *words)
    plain = assembled(shop_words, *words, "encoder.cache=false", "architecture.keep_gb=0", *LISTS)
    assert isinstance(kept.recommender.encoding.prefix, FrozenLayerCache)
    assert plain.recommender.encoding.prefix is None
    assert kept.recommender.encoding.vectors is None
    batch = some_batch(kept)
    found = []
    for made in (kept, plain):
        model = made.recommender.eval()
        scores = model(batch).scores
        scores.square().sum().backward()
        found.append([scores, *(p.grad for p in model.get_trained_parameters().values())])
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_an_evaluation_encodes_an_item_once_and_again_after_a_step(shop_words, monkeypatch):
    made = assembled(shop_words, "tuning=lora", "encoder.cache=false", *LISTS)
    model = made.recommender.eval()
    counted = []
    plain = model.encoder.compute_states

    def watched(tokens):
        counted.append(len(tokens))
        return plain(tokens)

    monkeypatch.setattr(model.encoder, "compute_states", watched)
    batches = list(made.datamodule.val_dataloader())
    for _ in range(2):
        model.evaluate(batches)
    assert 0 < sum(counted) <= len(model.parts.texts)
    before, counted[:] = model.evaluate(batches), []
    assert not counted
    with torch.no_grad():
        for p in model.get_trained_parameters().values():
            p.add_(torch.randn_like(p))
    assert model.evaluate(batches) != before
    assert counted


@pytest.mark.parametrize("cache", ["true", "false"])
def test_validations_see_what_the_steps_between_them_did(shop_words, cache):
    """The optimiser's fused step leaves no trace in a parameter's version."""
    words = ["tuning=lora", "tuning.layers=1", f"encoder.cache={cache}", *LISTS]
    made = assembled(shop_words, *words)
    model, batches = made.recommender, list(made.datamodule.val_dataloader())
    model.evaluate(batches)
    groups = [{"params": list(model.get_trained_parameters().values()), "lr": 0.1}]
    optimizer, _ = make_adamw(groups, (0.9, 0.99), 10, 0.0, "constant")
    for _ in range(2):
        model.train()(some_batch(made)).scores.square().sum().backward()
        optimizer.step()
    fresh = assembled(shop_words, *words).recommender
    start = fresh.eval()(batches[0]).scores.detach()
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        got, want = model.eval()(batches[0]).scores, fresh.eval()(batches[0]).scores
    assert torch.allclose(got, want, atol=1e-4)
    assert not torch.allclose(start, want, atol=1e-2)


def test_a_frozen_encoder_is_not_asked_in_training(shop_words, monkeypatch):
    made = assembled(shop_words, "tuning=frozen", "architecture.keep_gb=1")
    model, batch = made.recommender, some_batch(made)
    with torch.inference_mode():  # what a validation made goes on into training
        model.eval()(batch)

    def never(*args):
        raise AssertionError("encoded again")

    monkeypatch.setattr(model.states, "_compute_rows", never)
    model.train()(batch).scores.sum().backward()
    assert all(p.grad is not None for p in model.get_trained_parameters().values())


def test_lists_and_all_pairs_say_the_same_of_every_protocol(shop_words):
    """The candidates of lists of the whole catalog rank as the catalog does."""
    made = assembled(shop_words, "tuning=frozen", "evaluation.mask_history=false")
    model = made.recommender.eval()
    batch = next(iter(made.datamodule.val_dataloader()))
    every = model.index_catalog()
    scores = model.score(model.queries(batch, every[batch.plan.items]), every)
    plan = batch.plan.items
    everything = torch.arange(len(every))
    rest = everything[~torch.isin(everything, plan)]
    place = torch.empty(len(every), dtype=torch.long)
    place[torch.cat([plan, rest])] = everything
    whole = ItemBatch(torch.cat([plan, rest]), ())
    lists = dataclasses.replace(batch, plan=whole, candidates=place.expand(len(scores), -1))
    with torch.no_grad():
        torch.testing.assert_close(model.score_candidates(lists, whole.items), scores)
    assert isinstance(model.evaluator, Evaluator)


def test_a_projection_starts_near_the_whole_width(shop_words):
    words = ["tuning=frozen"]
    whole = assembled(shop_words, *words).recommender.eval()
    batch = some_batch(assembled(shop_words, *words))
    with torch.no_grad():
        want = whole(batch).scores
        errors = []
        for width in (32, 12, 3):
            model = assembled(shop_words, *words, f"architecture.width={width}").recommender.eval()
            assert model.project.weight.shape == (width, 32)
            errors.append(float((model(batch).scores - want).abs().mean()))
    assert errors[0] < 1e-3  # a rotation
    assert errors[0] < errors[1] < errors[2]
    with pytest.raises(ConfigError, match="more than the encoder's 32"):
        assembled(shop_words, *words, "architecture.width=33")


def test_a_history_of_nothing_gives_every_parameter_a_gradient(shop_words):
    made = assembled(shop_words, "tuning=lora", "architecture.width=8")
    model, batch = made.recommender.train(), some_batch(made)
    nothing = torch.stack([batch.query[:, 0], torch.zeros_like(batch.query[:, 1])], dim=1)
    scores = model(dataclasses.replace(batch, query=nothing)).scores
    assert not scores.detach().any()
    scores.sum().backward()
    assert all(p.grad is not None for p in model.get_trained_parameters().values())


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_the_command_trains_ranks_and_recommends(shop_words, tmp_path, capsys, tuning):
    words = [*shop_words, *LATE, f"tuning={tuning}", "trainer.epochs=1"]
    assert main(words) == 0
    run = f"run={next((tmp_path / 'runs').iterdir())}"
    capsys.readouterr()
    found = []
    for asked in ("user=u3", "history=003,001", "text=red lamp"):
        assert recommend([run, asked, "k=30"]) == 0
        found.append(capsys.readouterr().out)
    assert found[2].splitlines()[0].endswith("red lamp")  # itself
    assert len(found[2].splitlines()) == 30
    assert len(found[1].splitlines()) == 28
    assert all("red lamp" in text for text in found[:1] + found[2:])


def test_labels_are_ranked(shop_words):
    words = ["data.targets=labelled", "data.positive_from=3", "data.source.rating=stars"]
    words += ["data.split=time", "objective=bce", "objective.negatives=0", "tuning=frozen"]
    ranked = ["evaluation.protocol=labels", "evaluation.monitor=auc", "trainer.epochs=1"]
    assert main([*shop_words, "architecture=late_interaction", *words, *ranked]) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["architecture.keep_gb=0"], "raise architecture.keep_gb"),
        (["encoder.pooling=attention"], "set it to mean"),
        (["trainer.encoder_updates=half_epoch"], "many vectors an item"),
        (["architecture.temperature=0"], "above 0"),
        (["objective=in_batch"], "needs queries"),
        (["objective=full_softmax"], "needs table"),
    ],
)
def test_what_cannot_be_is_refused(shop_words, words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        assembled(shop_words, *words)


def test_lists_do_not_mind_large_catalogs(shop_words):
    made = assembled(shop_words, "architecture.keep_gb=0", *LISTS, "tuning=frozen")
    assert not made.recommender.states.keeps
    assert np.isfinite(made.recommender.evaluate(made.datamodule.val_dataloader())["ndcg@10"])

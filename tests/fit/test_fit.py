"""The user's command on a made-up shop, with a tiny encoder in a folder."""

import json
import math

import numpy as np
import polars as pl
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommend.__main__ import main as recommend


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def words(shop_words):
    return shop_words


def only(tmp_path):
    (folder,) = (tmp_path / "runs").iterdir()
    return folder, json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("tuning", ["full", "frozen", "lora", "adapter"])
def test_a_run_leaves_its_result(words, tmp_path, tuning):
    assert main([*words, f"tuning={tuning}"]) == 0
    folder, result = only(tmp_path)
    assert set(result["floors"]) == {"popularity", "tfidf", "zero-shot"}
    assert result["test"]["cases"] == 40
    assert result["protocol"]["unreachable"] == 0
    cases = pl.read_parquet(folder / "cases.parquet")
    assert cases["user"][0].startswith("u")
    assert cases["target"][0].startswith("0")
    assert cases["ties"].max() == 0
    hits = (cases["rank"] <= 10).mean()
    assert result["test"]["hr@10"] == pytest.approx(hits)
    assert (folder / "checkpoints" / "best.safetensors").is_file()
    # The texts give it away: one colour a user, which word counts find at once.
    assert result["floors"]["tfidf"]["hr@10"] == 1.0


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (["tuning=lora", "architecture.history=causal"], "zero-shot"),
        (["tuning=lora", "architecture.item=text+id"], "zero-shot"),
        (["tuning=prefix"], "before training"),
        (["tuning=frozen", "architecture.item=id"], "before training"),
        (["architecture.history=causal", "architecture.mix=false"], "before training"),
    ],
)
def test_the_start_is_zero_shot_only_where_it_is_the_encoders(words, more, name):
    assert build.assemble(compose([*words, *more])).recommender.start == name


def test_an_untouched_encoder_is_an_experiment(words, tmp_path):
    assert main([*words, "experiment=zero_shot"]) == 0
    folder, result = only(tmp_path)
    assert result["test"] == result["floors"]["zero-shot"]
    assert folder.name.startswith("zero_shot-")


def test_training_learns_what_the_texts_say(words, tmp_path):
    assert main([*words, "tuning=full", "trainer.epochs=40", "data.queries=all"]) == 0
    _, result = only(tmp_path)
    assert result["test"]["ndcg@10"] > 1.3 * result["floors"]["popularity"]["ndcg@10"]
    assert result["validation"]["step"] > 0


def test_the_mean_of_warm_and_cold_may_decide(words, tmp_path, capsys):
    assert main([*words, "tuning=frozen", "evaluation.monitor=balanced/ndcg@10"]) == 0
    _, result = only(tmp_path)
    validation, shown = result["validation"], capsys.readouterr().out
    assert validation["monitor"] == "val/balanced/ndcg@10"
    # 40 cases, none of them cold, or too few
    assert validation["metrics"]["cold/cases"] < 30
    assert validation["best"] == pytest.approx(validation["metrics"]["warm/ndcg@10"])
    assert "0 of 40 validation cases are cold" in shown
    assert [x for x in shown.splitlines() if x.lstrip().startswith("balanced/ndcg@10")]


def test_the_same_seed_gives_the_same_numbers(words, tmp_path):
    for part in ("a", "b"):
        assert main([*words, f"output={tmp_path / part}"]) == 0
    numbers = [
        json.loads(next((tmp_path / part).glob("*/result.json")).read_text())["test"]
        for part in ("a", "b")
    ]
    assert all(numbers[0][k] == v or math.isnan(v) for k, v in numbers[1].items())


@pytest.mark.parametrize("tuning", ["full", "frozen", "lora", "adapter"])
def test_two_towers_begin_at_the_zero_shot_cosine(words, tuning):
    made = build.assemble(compose([*words, f"tuning={tuning}", "architecture.history=mean"]))
    model = made.recommender.eval()
    batch = next(iter(made.datamodule.test_dataloader()))
    scores = model(batch).scores[:, 0].detach()
    plan = batch.plan.items
    for q in range(5):
        had = plan[batch.history[q][batch.history[q] >= 0]]
        texts = [
            model.encoder(made.recommender.encoding.catalog.gather_tokens(i[None]))[0] for i in had
        ]
        unit = [t / t.norm() for t in texts]
        user = torch.stack(unit).mean(0)
        target = model.encoder(model.encoding.catalog.gather_tokens(plan[batch.candidates[q]]))[0]
        want = torch.cosine_similarity(user, target, dim=0) / 0.05
        assert scores[q] == pytest.approx(want.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["popularity", "tfidf"])
def test_floors_are_architectures_of_the_same_command(words, tmp_path, name):
    assert main([*words, f"architecture={name}"]) == 0
    _, result = only(tmp_path)
    assert result["cost"]["trained_parameters"] == 0
    assert result["test"]["cases"] == 40


@pytest.mark.parametrize(
    ("words_of_it", "part"),
    [
        (["evaluation.monitor=ndcg@7"], "ndcg@7"),
        (["objective=mse"], "mse"),
        (["encoder.model=package:no_such_package/model"], "no_such_package"),
        (["data.source.interactions=nowhere.csv"], "nowhere.csv"),
        (["data.source.item=whta"], "'what'"),
    ],
)
def test_a_mistake_is_one_sentence(words, capsys, words_of_it, part):
    assert main([*words, *words_of_it]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert part in error
    assert "Traceback" not in error


def test_a_checkpoint_of_another_method_is_refused(words, tmp_path):
    made = build.assemble(compose([*words, "tuning=lora"]))
    made.recommender.save_trained(tmp_path / "x.safetensors")
    other = build.assemble(compose([*words, "tuning=adapter"]))
    with pytest.raises(ConfigError, match="another architecture or tuning method"):
        other.recommender.load_trained(tmp_path / "x.safetensors")


@pytest.mark.parametrize("architecture", ["two_tower", "tfidf", "popularity", "cross_encoder"])
def test_a_run_recommends_unseen_items(words, tmp_path, capsys, architecture):
    cross = ["objective=sampled_softmax", "evaluation.protocol=candidates"]
    cross.append("evaluation.candidates=30")
    extra = cross if architecture == "cross_encoder" else []
    assert main([*words, f"architecture={architecture}", *extra]) == 0
    folder, _ = only(tmp_path)
    had = pl.read_csv(words[1].partition("=")[2], schema_overrides={"what": pl.String})
    had = set(had.filter(pl.col("who") == "u3")["what"])
    capsys.readouterr()
    assert recommend([f"run={folder}", "user=u3", "k=30"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[2] for line in lines]
    assert len(shown) == 30 - len(had)
    assert not had & set(shown)
    scores = [float(line.split()[1]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    newest = [f"output={tmp_path / 'runs'}", "run=last"]
    assert recommend([*newest, "history=000,001", "k=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    code = recommend([*newest, "text=green chair", "k=3"])
    shown = capsys.readouterr()
    if architecture == "popularity":
        assert code == 2
        assert "The architecture popularity does not read texts" in shown.err
        return
    assert code == 0
    assert len(shown.out.splitlines()) == 3
    if architecture == "tfidf":
        assert "green chair" in shown.out.splitlines()[0]
        assert all("red" in line or "lamp" in line or "chair" in line for line in lines)


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        (["user=u99"], "u99"),
        (["history=nothing"], "nothing"),
        (["user=u1", "history=000"], "one of"),
        (["usr=u1"], "'user'"),
        (["user=u1", "k=none"], "k"),
    ],
)
def test_a_wrong_question_is_one_sentence(words, tmp_path, capsys, asked, part):
    assert main([*words, "architecture=popularity"]) == 0
    folder, _ = only(tmp_path)
    capsys.readouterr()
    assert recommend([f"run={folder}", *asked]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert part in error


def test_a_frozen_encoder_runs_once_over_the_catalog(words, monkeypatch):
    made = build.assemble(compose([*words, "tuning=frozen", "encoder.cache=false"]))
    model, texts = made.recommender, []
    encode = type(model)._encode

    def counted(self, rows, encoder, prefix):
        texts.append(len(rows))
        return encode(self, rows, encoder, prefix)

    monkeypatch.setattr(type(model), "_encode", counted)
    batch = next(iter(made.datamodule.train_dataloader()))
    model(batch).scores.sum().backward()
    model.index_catalog()
    assert sum(texts) == 30
    assert model.item_head.weight.grad is not None
    fresh = encode(model, batch.plan.items, model.encoder, None)
    assert torch.allclose(model.encode_items(batch.plan), fresh, atol=1e-5)


@pytest.mark.parametrize("tuning", ["full", "lora", "adapter"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_kept_prefix_gives_the_same_scores_and_gradients(words, tuning, layers):
    asked = [*words, f"tuning={tuning}", f"tuning.layers={layers}", "encoder.chunk_tokens=12"]
    plain = build.assemble(compose([*asked, "encoder.cache=false"]))
    kept = build.assemble(compose(asked))
    assert plain.recommender.encoding.prefix is None
    assert kept.recommender.encoding.prefix is not None
    batch = next(iter(plain.datamodule.train_dataloader()))
    grads = []
    for made in (plain, kept):
        model = made.recommender.eval()
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            for p in model.get_trained_parameters().values():
                p.add_(0.05 * torch.randn(p.shape, generator=generator))
        loss = model.parts.objective(model(batch), batch, model.parts.around(model.score))
        loss.total.backward()
        grads.append(
            (loss.total.detach(), [p.grad for p in model.get_trained_parameters().values()])
        )
    assert torch.allclose(grads[0][0], grads[1][0], rtol=1e-5)
    for one, two in zip(grads[0][1], grads[1][1], strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)


def test_states_that_would_be_too_large_are_not_kept(words, capsys):
    run = compose([*words, "tuning.layers=1", "encoder.cache_gb=1e-6"])
    made = build.assemble(run)
    assert made.recommender.encoding.prefix is None
    assert "encoder.cache_gb=1e-06" in capsys.readouterr().err


def test_everything_before_a_case_is_masked_however_short_the_history(words):
    ranks = {}
    for length in (1, 4):
        run = compose([*words, "architecture=popularity", f"data.max_history={length}"])
        made = build.assemble(run)
        made.recommender.evaluate(made.datamodule.test_dataloader())
        rows = made.recommender.evaluator.rows
        ranks[length] = torch.cat([row["rank"] for row in rows])
        assert (torch.cat([row["size"] for row in rows]) == 30 - 4).all()
    assert torch.equal(ranks[1], ranks[4])


def test_a_user_without_history_gets_what_is_popular(words):
    made = build.assemble(compose([*words, "tuning=frozen"]))
    popular = build.assemble(compose([*words, "architecture=popularity"]))
    empty = np.empty(0, dtype=np.int64)
    none = torch.empty(0, dtype=torch.long)
    _, rows = made.recommender.select_top(made.examples.make_serving_batch(empty), 30, none)
    _, wanted = popular.recommender.select_top(popular.examples.make_serving_batch(empty), 30, none)
    counts = made.recommender.parts.counts
    assert counts[rows].tolist() == counts[wanted].tolist()
    assert counts[rows[0]] == counts.max()

"""EASE pulled towards item vectors, as a run: what validation chooses, and who uses it then."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose, read_config
from recsys.data.batches.batch_loaders import BatchLoaders
from recsys.fit.__main__ import main
from recsys.fit.baseline import BaselineExecutor
from recsys.models.ease import Model
from recsys.recommend.__main__ import main as recommend
from recsys.testing import ArchitectureContract
from recsys.tracking.wandb_run import make_summary

EASE = ["experiment=ease_text"]
FIXED = ["architecture.l2=5", "architecture.recency=0.3", "architecture.rho=20"]
GRID = ["architecture.l2=[5,50]", "architecture.rho=[0,20]", "architecture.text_l2=[1,10]"]


LABELLED = ["evaluation.protocol=labels", "data.source.rating=stars", "data.positive_from=3"]


class TestPulled(ArchitectureContract):
    choice = "ease"
    settings = ("vectors=encoder", "l2=5", "recency=0.3", "rho=20", "text_l2=1")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def only(tmp_path, pattern="*"):
    (folder,) = (tmp_path / "runs").glob(pattern)
    return folder


def read(folder, name="result.json"):
    return json.loads((folder / name).read_text())


def test_the_run_names_what_was_tried_and_takes_the_best(shop_words, tmp_path, capsys):
    assert main([*EASE, *shop_words, *GRID]) == 0
    folder = only(tmp_path)
    fit, result = read(folder, "fit.json"), read(folder)
    # 2 penalties, 3 recencies, and without a pull the penalty of the vectors is one
    assert len(fit["tried"]) == 2 * 3 * (1 + 2)
    assert all(row["balanced/ndcg@10"] == row["warm/ndcg@10"] for row in fit["tried"])  # 2 are cold
    best = max(fit["tried"], key=lambda row: row["balanced/ndcg@10"])
    assert fit["chosen"] == {n: best[n] for n in ("l2", "recency", "rho", "text_l2")}
    assert fit["chosen"] == fit["state"]
    assert result["fit"] == {name: fit[name] for name in ("chosen", "tried", "notes")}
    assert result["notes"] == fit["notes"]
    out = capsys.readouterr().out
    assert all(note in out for note in fit["notes"])
    assert f"rho={fit['chosen']['rho']:g}" in fit["notes"][0]
    assert result["validation"]["best"] == pytest.approx(best["balanced/ndcg@10"])
    assert result["validation"]["metrics"]["cases"] == 40
    (row,) = csv.DictReader((folder / "log" / "metrics.csv").open())
    assert float(row["test/ndcg@10"]) == pytest.approx(result["test"]["ndcg@10"], rel=1e-6)
    assert make_summary(result)["chosen/l2"] == fit["chosen"]["l2"]


def test_each_alternative_is_measured_as_its_own_run_would_be(shop_words, tmp_path):
    """And what is fixed is not chosen: no fit, the same figures, the test's as well."""
    assert main([*EASE, *shop_words, *GRID, "architecture.recency=0.3"]) == 0
    chosen = only(tmp_path)
    tried, test = read(chosen, "fit.json")["tried"], read(chosen)["test"]
    for place in (1, len(tried) - 1):
        alone = [f"architecture.{n}={tried[place][n]}" for n in ("l2", "rho", "text_l2", "recency")]
        output = tmp_path / "alone" / str(place)
        words = [*EASE, *shop_words, *alone, "evaluation.test=false", f"output={output}"]
        assert main(words) == 0
        (folder,) = output.glob("*")
        assert not (folder / "fit.json").exists()
        result = read(folder)
        assert "fit" not in result
        metrics = result["validation"]["metrics"]
        for name in ("ndcg@10", "warm/ndcg@10"):
            assert metrics[name] == pytest.approx(tried[place][name], abs=1e-9)
    taken = [
        f"architecture.{name}={value}" for name, value in read(chosen)["fit"]["chosen"].items()
    ]
    assert main([*EASE, *shop_words, *taken, f"output={tmp_path / 'taken'}"]) == 0
    (folder,) = (tmp_path / "taken").glob("*")
    assert read(folder)["test"] == test


def test_no_test_case_is_read_before_the_choice_stands(shop_words, shop, tmp_path, monkeypatch):
    """With the test part unreadable, and with other items in it, validation decides the same."""
    assert main([*EASE, *shop_words]) == 0
    want = (only(tmp_path) / "fit.json").read_bytes()
    load, choose = BatchLoaders.make_case_loader, Model.fit

    def refuse(self, role, most=None):
        assert role == 1, "a test case was read"
        return load(self, role, most)

    def fit(self, batches, monitor):
        with monkeypatch.context() as patch:
            patch.setattr(BatchLoaders, "make_case_loader", refuse)
            return choose(self, batches, monitor)

    monkeypatch.setattr(Model, "fit", fit)
    lines = (shop / "events.csv").read_text().splitlines()
    for at in range(5, len(lines), 5):  # each user's last event
        who, _, rest = lines[at].split(",", 2)
        lines[at] = f"{who},0{at % 30:02d},{rest}"
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    other = f"data.source.interactions={tmp_path / 'events.csv'}"
    assert main([*EASE, *shop_words, other, f"output={tmp_path / 'other'}"]) == 0
    (folder,) = (tmp_path / "other").glob("*")
    assert read(folder)["test"] != read(only(tmp_path))["test"]
    assert (folder / "fit.json").read_bytes() == want


def test_a_stopped_run_takes_what_was_chosen(shop_words, tmp_path, monkeypatch):
    words = [*EASE, *shop_words, *GRID]
    assert main([*words, f"output={tmp_path / 'whole'}"]) == 0
    (whole,) = (tmp_path / "whole").glob("*")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BaselineExecutor, "_evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            main(words)
    folder = only(tmp_path)
    assert not (folder / "result.json").exists()
    monkeypatch.setattr(Model, "fit", lambda *_: pytest.fail("chosen again"))
    assert main([f"resume={folder}"]) == 0
    for name in ("test", "fit", "validation"):
        assert read(folder)[name] == read(whole)[name]


def test_many_cases_are_sampled_and_the_figure_is_of_all(shop_words, tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "most_cases", 12)
    words = [*EASE, *shop_words, *GRID, "evaluation.test=false"]
    assert main(words) == 0
    result = read(only(tmp_path))
    assert result["notes"][0] == (
        "chosen on a sample of 12 of 40 validation cases (data.sample_seed)."
    )
    assert result["validation"]["metrics"]["cases"] == 40
    fixed = [f"architecture.{name}={value}" for name, value in result["fit"]["chosen"].items()]
    output = f"output={tmp_path / 'fixed'}"
    assert main([*EASE, *shop_words, *fixed, "evaluation.test=false", output]) == 0
    (folder,) = (tmp_path / "fixed").glob("*")
    assert read(folder)["validation"]["metrics"] == result["validation"]["metrics"]


@pytest.mark.parametrize(
    "words",
    [
        ["evaluation.protocol=candidates", "evaluation.candidates=9"],
        ["evaluation.protocol=sampled", "evaluation.sampled_negatives=5"],
        [*LABELLED, "data.split=time"],
        ["evaluation.monitor=ndcg@10", "evaluation.mask_history=false"],
        ["evaluation.monitor=warm/hr@5", "evaluation.k=[5,10]"],
    ],
)
def test_every_protocol_chooses_by_its_own_metric(shop_words, tmp_path, words):
    assert main([*EASE, *shop_words, *GRID, *words]) == 0
    result = read(only(tmp_path))
    monitor = result["validation"]["monitor"].removeprefix("val/")
    values = [row[monitor] for row in result["fit"]["tried"]]
    assert result["validation"]["best"] == pytest.approx(max(values))
    assert len(values) == 2 * 3 * (1 + 2)


def test_recommend_and_a_text(shop_words, tmp_path, capsys):
    assert main([*EASE, *shop_words, "architecture.rho=[20,30]"]) == 0
    run = ["run=last", f"output={tmp_path / 'runs'}", "k=5"]
    capsys.readouterr()
    answers = {}
    for asked in ("user=u3", "history=000,001", "text=red chair"):
        assert recommend([*run, asked]) == 0
        answers[asked] = capsys.readouterr().out.splitlines()
        assert len(answers[asked]) == 5
    folder = only(tmp_path)
    config = read_config(folder / "config.yaml").architecture
    made = build.assemble(read_config(folder / "config.yaml"))
    assert made.recommender.needs_fit
    assert config.rho == [20, 30]
    made.recommender.restore(read(folder, "fit.json")["state"])
    # The text is what an item of that title would be as all of a history: 001 is "red chair".
    vector = made.recommender.vectors[1]
    text = made.recommender.form.text
    scores = torch.from_numpy(vector @ text.weights)
    best = [f"{row:03d}" for row in scores.topk(5).indices.tolist()]
    assert [line.split()[2] for line in answers["text=red chair"]] == best
    (folder / "fit.json").write_text("{}")
    assert recommend([*run, "user=u3"]) == 2
    assert "fit.json is damaged; run fit again" in capsys.readouterr().err


def test_vectors_are_centred_and_of_unit_length(shop_words):
    """So that what all texts share, and how long a run's vectors are, changes nothing."""
    made = build.assemble(compose([*EASE, *shop_words, *FIXED]))
    model, given = made.recommender, made.recommender.parts.item_vectors
    unit = given / given.norm(dim=1, keepdim=True)
    want = unit - unit.mean(0)
    want = want / want.norm(dim=1, keepdim=True)
    torch.testing.assert_close(torch.from_numpy(model.vectors), want, atol=1e-5, rtol=1e-4)
    longer = dataclasses.replace(
        model.parts, item_vectors=given * torch.linspace(1, 9, 30)[:, None]
    )
    again = type(model)(longer, model.config).vectors
    np.testing.assert_allclose(again, model.vectors, atol=1e-5)


def test_a_text_asks_nobody_where_texts_have_no_part(shop_words, tmp_path, capsys):
    assert main([*EASE, *shop_words, *FIXED[:2], "architecture.rho=0"]) == 0
    assert recommend(["run=last", f"output={tmp_path / 'runs'}", "text=red chair"]) == 2
    assert "ease has rho=0" in capsys.readouterr().err


def test_vectors_of_a_run(shop_words, tmp_path, capsys):
    """Those of the tuned encoder, not of the pretrained one; and what cannot give any is named."""
    runs, words = tmp_path / "runs", [*EASE, *FIXED, *shop_words]
    base = ["trainer.max_steps=3", "tuning=full"]
    assert main([*shop_words, "experiment=full_two_tower", *base]) == 0
    assert main([*shop_words, "experiment=ease"]) == 0
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=9"]
    assert main([*shop_words, "experiment=full_cross_encoder", *lists, *base]) == 0
    tuned, plain = only(tmp_path, "full_two_tower*"), only(tmp_path, "ease-*")
    pairs = only(tmp_path, "full_cross*")
    assert main([*words, f"architecture.vectors={tuned}"]) == 0
    folder = only(tmp_path, "ease_text*")
    (source,) = read(folder)["built_on"]
    assert source["run"] == str(tuned)
    made = [
        build.assemble(compose([*words, f"architecture.vectors={of}"])).recommender.vectors
        for of in ("encoder", tuned)
    ]
    assert np.abs(np.linalg.norm(made[1], axis=1) - 1).max() < 1e-5
    assert np.abs(made[0] - made[1]).max() > 1e-3
    capsys.readouterr()
    asked = ["run=last", f"output={runs}", "k=3"]
    assert recommend([*asked, "user=u3"]) == 0
    assert recommend([*asked, "text=red chair"]) == 2
    assert f"ask the run {tuned}" in capsys.readouterr().err
    gone = tmp_path / "gone"
    shutil.copytree(tuned, gone)
    (gone / "result.json").unlink()
    refused = {
        plain: f"architecture.vectors={plain} has no vector for each item",
        pairs: f"architecture.vectors={pairs} has no vector for each item",
        tmp_path / "nowhere": "architecture.vectors=",
        gone: "the run is not complete",
    }
    for vectors, said in refused.items():
        assert main([*words, f"architecture.vectors={vectors}"]) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
        assert said in line
    assert main([*words, f"architecture.vectors={tuned}", "data.max_items=20"]) == 2
    assert "was trained on other data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["architecture.rho=-1"], "architecture.rho is -1.0; set it to 0 or more"),
        (["architecture.rho=[1,-2]"], "architecture.rho=[1.0, -2.0] holds -2.0; set it to 0 or"),
        (["architecture.l2=[1,0]"], "holds 0.0; set it above 0"),
        (["architecture.l2=[1,2,3,4,5]"], "has 5 penalties to choose among, and each costs a"),
        (["architecture.vectors=none", "architecture.rho=5"], "architecture.vectors=none; set"),
        (["architecture.text_l2=x"], "architecture.text_l2 is 'x'; set it to a number, to a list"),
        (["tuning=lora"], "architecture ease does not train; leave out tuning"),
        (["architecture.limit_gb=1e-9"], "choose architecture=item_knn architecture.vectors=enc"),
        (["evaluation.monitor=cold/ndcg@10"], "evaluation.monitor=cold/ndcg@10 has no value"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(shop_words, tmp_path, capsys, words, said):
    assert main([*EASE, *shop_words, *words]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert said in line
    assert not list((tmp_path / "runs").glob("*/fit.json"))


def test_no_memory_is_told_before_it_is_taken(shop_words, capsys, monkeypatch):
    monkeypatch.setattr("recsys.models.ease.read_available_gb", lambda: 1e-9)
    assert main([*EASE, *shop_words]) == 2
    err = capsys.readouterr().err
    assert "GB of free memory; keep fewer items" in err
    assert "architecture=item_knn architecture.vectors=encoder" in err

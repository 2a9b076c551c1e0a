"""Item kNN with texts, as a run: what a score is, what validation chooses, and who uses it then."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from recsys.data.batches.batch_loaders import BatchLoaders
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.models.item_knn import Model
from recsys.recommend.__main__ import main as recommend
from recsys.testing import ArchitectureContract
from tests.architectures.test_baselines import assembled
from tests.layers.test_vector_neighbours import sort_naively

TEXT = ["experiment=item_knn_text"]
GRID = ["architecture.shrink=[2,20]", "architecture.text_weight=[0,0.3,1]"]
FIXED = ("shrink=3", "recency=0.3", "text_weight=0.4")


class TestTexts(ArchitectureContract):
    choice = "item_knn"
    settings = ("vectors=encoder", "text_neighbours=4", *FIXED)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def taken_words(*more):
    return [f"architecture.{word}" for word in ("shrink=3", "recency=0.3", *more)]


def only(tmp_path, place="runs"):
    (folder,) = (tmp_path / place).glob("*")
    return folder


def read(folder, name="result.json"):
    return json.loads((folder / name).read_text())


def score_cases(made, items=None):
    """Histories of test cases, and scores of all items for each."""
    cases = made.split.list_cases(2)
    batch = made.examples.make_batch(made.examples.make_case_rows(cases), made.datamodule.sizes)
    model = made.recommender
    queries = model.queries(batch, model.index(batch.plan))
    return queries, model.score(queries, torch.arange(30) if items is None else items)


def test_a_score_is_the_weighted_mean_of_both_kinds_of_similarity(shop_words):
    words = [*TEXT, *shop_words, "architecture.text_neighbours=4"]
    fixed = [f"architecture.{word}" for word in FIXED]
    made = assembled(words, *fixed)
    alone = assembled(
        words,
        *fixed,
        "architecture.vectors=none",
        "architecture.text_weight=null",
        "architecture.text_neighbours=50",
    )
    queries, got = score_cases(made)
    similar = alone.recommender.form.score(torch.arange(30)[:, None], torch.arange(30)).numpy()
    near = sort_naively(made.recommender.parts.item_vectors, 4)
    near[near < 1e-6] = 0
    mixed = 0.6 * similar / similar[similar > 0].mean() + 0.4 * near / near[near > 0].mean()
    for history, row in zip(queries.tolist(), got.numpy(), strict=True):
        history = [item for item in history if item >= 0]
        fading = np.exp(-0.3 * np.arange(len(history))[::-1])
        np.testing.assert_allclose(row, fading @ mixed[history], rtol=1e-3, atol=1e-4)
    some = torch.tensor([5, 29, 0])
    assert torch.equal(score_cases(made, some)[1], got[:, some])
    only_texts, only_events = (
        assembled(words, *fixed, f"architecture.text_weight={weight}") for weight in (1, 0)
    )
    mean = near[near > 0].mean()
    one = only_texts.recommender.form.score(torch.arange(30)[:, None], torch.arange(30))
    np.testing.assert_allclose(one.numpy(), near / mean, rtol=1e-3, atol=1e-4)
    counted, plain = score_cases(only_events)[1], score_cases(alone)[1]
    np.testing.assert_allclose(counted * similar[similar > 0].mean(), plain, rtol=1e-5)


def test_cold_items_are_found_by_their_texts(shop_words):
    """Items that nobody has had in training score above 0 beside items of their colour."""
    made = assembled([*TEXT, *shop_words], *(f"architecture.{word}" for word in FIXED))
    parts = made.recommender.parts
    keep = parts.interactions.items != 7
    events = type(parts.interactions)(
        *(getattr(parts.interactions, n)[keep] for n in ("users", "items", "times", "chosen"))
    )
    model = Model(dataclasses.replace(parts, interactions=events), made.recommender.config)
    near = model.near.toarray()[:, 7]
    assert near.any()
    leads = int(near.argmax())
    scores = model.score(torch.tensor([[leads]]), torch.arange(30))
    assert scores[0, 7] > 0
    assert not model.form.score(torch.tensor([[int(near.argmin())]]), torch.tensor([7])).any()


def test_validation_alone_chooses_and_the_run_names_it(shop_words, shop, tmp_path, monkeypatch):
    """With the test part unreadable, and with other items in it, the choice is the same."""
    words = [*TEXT, *shop_words, *GRID]
    assert main(words) == 0
    folder = only(tmp_path)
    fit, result = read(folder, "fit.json"), read(folder)
    assert len(fit["tried"]) == 2 * 2 * 3
    best = max(fit["tried"], key=lambda row: row["balanced/ndcg@10"])
    assert fit["chosen"] == {n: best[n] for n in ("shrink", "recency", "text_weight")}
    assert result["fit"]["chosen"] == fit["chosen"]
    load, choose = BatchLoaders.make_case_loader, Model.fit

    def refuse(self, role, most=None):
        assert role == 1, "a test case was read"
        return load(self, role, most)

    def fit_without_test(self, batches, monitor):
        with monkeypatch.context() as patch:
            patch.setattr(BatchLoaders, "make_case_loader", refuse)
            return choose(self, batches, monitor)

    monkeypatch.setattr(Model, "fit", fit_without_test)
    lines = (shop / "events.csv").read_text().splitlines()
    for at in range(5, len(lines), 5):  # each user's last event
        who, _, rest = lines[at].split(",", 2)
        lines[at] = f"{who},0{at % 30:02d},{rest}"
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    other = f"data.source.interactions={tmp_path / 'events.csv'}"
    assert main([*words, other, f"output={tmp_path / 'other'}"]) == 0
    assert read(only(tmp_path, "other"))["test"] != result["test"]
    assert (only(tmp_path, "other") / "fit.json").read_bytes() == (folder / "fit.json").read_bytes()


def test_what_was_chosen_is_what_its_own_run_gives(shop_words, tmp_path, capsys):
    words = [*TEXT, *shop_words]
    assert main([*words, *GRID]) == 0
    chosen = read(only(tmp_path))["fit"]["chosen"]
    taken = [f"architecture.{name}={value}" for name, value in chosen.items()]
    assert main([*words, *taken, f"output={tmp_path / 'taken'}"]) == 0
    assert "fit" not in read(only(tmp_path, "taken"))
    assert read(only(tmp_path, "taken"))["test"] == read(only(tmp_path))["test"]
    capsys.readouterr()
    lines = []
    for place in ("runs", "taken"):
        asked = [f"output={tmp_path / place}", "run=last", "k=5", "history=000,001"]
        assert recommend(asked) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
    assert lines[0].count("\n") == 5


def test_a_text_leads_to_what_an_item_of_that_title_leads_to(shop_words, tmp_path, capsys):
    words = [*TEXT, *shop_words, "architecture.text_neighbours=4", *taken_words("text_weight=1")]
    assert main(words) == 0
    asked = [f"output={tmp_path / 'runs'}", "run=last", "k=5"]
    capsys.readouterr()
    found = {}
    for word in ("text=red chair", "history=001"):  # which is "red chair"
        assert recommend([*asked, word]) == 0
        found[word] = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    assert found["text=red chair"] == ["001", *found["history=001"][:3], found["text=red chair"][4]]
    words = [*words[:-3], *taken_words("text_weight=0"), f"output={tmp_path / 'none'}"]
    assert main(words) == 0
    assert recommend([f"output={tmp_path / 'none'}", "run=last", "text=red chair"]) == 2
    assert "text_weight=0, so that texts have no part" in capsys.readouterr().err


def test_without_vectors_only_what_counts_is_named(shop_words, tmp_path):
    words = ["experiment=co_occurrence", *shop_words, "architecture.shrink=[0,5]"]
    assert main(words) == 0
    assert list(read(only(tmp_path))["fit"]["chosen"]) == ["shrink", "recency"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["architecture.text_weight=0.5"], "architecture.vectors=none"),
        (["architecture.text_neighbours=5"], "architecture.vectors=none"),
        (["architecture.vectors=encoder", "architecture.text_weight=1.5"], "1 or less"),
        (["architecture.vectors=encoder", "architecture.text_weight=[0,2]"], "holds 2"),
        (["architecture.vectors=nowhere"], "architecture.vectors=nowhere is no run"),
    ],
)
def test_what_makes_no_sense_is_refused(shop_words, words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        assembled(["experiment=item_knn", *shop_words], *words)

"""Impressions and sampled lists, slices, and what stands beside accuracy in a result."""

import json
import math
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import ndcg_score, roc_auc_score
from transformers import AutoTokenizer

from recsys.assembly import build, checks, protocols
from recsys.compare.measures.slices import slice_cases as compared_parts
from recsys.config.compose import compose
from recsys.config.schema import EvaluationOptions
from recsys.data.batches.examples import TEST, TRAIN, Examples
from recsys.data.batches.impressions import (
    ImpressionSampler,
    count_impressions,
    drop_lone_clicks,
    make_impression_lists,
)
from recsys.data.batches.negatives import compute_tie_order
from recsys.data.batches.sampled_lists import make_sampled_lists
from recsys.data.splits import methods
from recsys.data.splits.history import CaseHistories
from recsys.data.tables import Tables
from recsys.errors import ConfigError, DataError
from recsys.evaluation import beyond_accuracy, slices
from recsys.evaluation.evaluator import Evaluator
from recsys.fit.__main__ import main
from recsys.metrics.functional import compute_from_lists
from recsys.runs import display
from tests.evaluation.test_evaluator import COUNTS, Given, batch, ranked

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = Path(os.environ.get("RECSYS_TEST_DATA", SHARED)) / "mind-sample"


def tables(rows):
    """Of rows (user, item, time, rating, impression, split)."""
    names = ["user", "item", "time", "rating", "impression", "split"]
    frame = pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.col("rating").cast(pl.Float64), pl.col("time") * 10**12, pl.col("impression").cast(str)
    )
    items = pl.DataFrame({"item": sorted(set(frame["item"])), "kind": None}).with_columns(
        text="item", kind=pl.col("item").replace_strict(KINDS, default=None)
    )
    users = frame.select("user").unique(maintain_order=True).with_columns(text=pl.lit(""))
    return Tables(frame, items, users)


KINDS = {"a": "x", "b": "x", "c": "y", "d": "y"}
ROWS = [
    ("u", "a", 1, 1, None, "train"),
    ("u", "b", 2, 1, "1", "train"),
    ("u", "c", 2, 0, "1", "train"),
    ("u", "d", 2, 1, "1", "train"),
    ("u", "e", 2, 0, "1", "train"),
    ("u", "c", 3, 1, "2", "train"),
    ("v", "a", 1, 1, "3", "train"),
    ("v", "b", 1, 0, "3", "train"),
    ("u", "e", 4, 1, "4", "test"),
    ("u", "a", 4, 0, "4", "test"),
    ("u", "b", 4, 1, "4", "test"),
    ("v", "c", 5, 0, "5", "test"),
    ("v", "d", 6, 1, "6", "test"),
    ("v", "e", 7, 1, "7", "test"),
    ("v", "d", 7, 0, "7", "test"),
]


def made(rows=ROWS):
    found = tables(rows)
    return found, methods.make_split(found, "given", positive_from=1)


def names(found, rows):
    return [found.items["item"][int(i)] for i in rows if i >= 0]


def test_a_history_ends_before_the_impression():
    found, split = made()
    examples = Examples(split, 5, max_history=9)
    rows = examples.make_case_rows(split.list_cases(TRAIN))
    work = examples.make_batch(rows, np.zeros(5, dtype=np.int64), with_seen=True)
    plan = work.plan.items
    read = [
        (names(found, plan[h[h >= 0]]), names(found, plan[c])[0])
        for h, c in zip(work.history, work.candidates, strict=True)
    ]
    assert read == [([], "a"), (["a"], "b"), (["a"], "d"), (["a", "b", "d"], "c"), ([], "a")]
    seen = [names(found, work.seen[work.seen[:, 0] == q, 1]) for q in range(5)]
    assert seen == [[], ["a"], ["a"], ["a", "b", "c", "d", "e"], []]


def test_lists_of_impressions_and_what_is_left_out():
    found, split = made()
    lists = make_impression_lists(split, TEST)
    assert [names(found, row) for row in lists.candidates] == [["e", "a", "b"], ["e", "d"]]
    assert lists.labels.tolist() == [[1, 0, 1], [1, 0, 0]]
    assert count_impressions(split, TEST) == (4, 1, 1)
    past = CaseHistories(split)
    assert past.count_events(lists.at).tolist() == [4, 2]
    owner, items = past.list_items(lists.at)
    assert owner.tolist() == [0, 0, 0, 0, 1, 1]
    assert names(found, items) == ["a", "b", "d", "c", "a", "d"]
    with pytest.raises(ConfigError, match="no impression of validation"):
        make_impression_lists(split, 1)


def test_negatives_are_what_was_shown_and_not_clicked():
    found, split = made()
    examples = drop_lone_clicks(Examples(split, 5, max_history=9))
    sampler = ImpressionSampler(split)
    at = examples.sample_epoch("random", 6, seed=0, epoch=0)
    # c was clicked beside nothing, a and v's a have no history.
    assert {found.items["item"][int(split.item[e])] for e in at} == {"b", "d"}
    rows = examples.make_train_rows("random", np.unique(at))
    drawn = sampler.sample(rows, 3, 0, 0)
    assert [sorted(names(found, row)) for row in drawn] == [["c", "e"], ["c", "e"]]
    few = [sampler.sample(rows, 1, 0, e)[0, 0] for e in range(20)]
    assert set(names(found, few)) == {"c", "e"}
    alone = sampler.sample(examples.make_train_rows("random", at[:1]), 1, 0, 7)
    whole = sampler.sample(examples.make_train_rows("random", at), 1, 0, 7)
    assert alone[0] == whole[0]


def test_what_is_no_impression_is_refused():
    cut = [*ROWS[:5], ("u", "d", 9, 0, "1", "test"), *ROWS[5:]]
    split = made(cut)[1]
    with pytest.raises(ConfigError, match="one impression into two parts"):
        make_impression_lists(split, TEST)
    torn = [*ROWS, ("u", "a", 5, 0, "8", "test"), ("u", "a", 6, 0, "9", "test")]
    torn += [("u", "c", 7, 0, "8", "test")]
    with pytest.raises(DataError, match="have others between them"):
        make_impression_lists(made(torn)[1], TEST)
    found = tables(ROWS)
    plain = Tables(found.interactions.drop("impression"), found.items, found.users)
    with pytest.raises(ConfigError, match="no column 'impression'"):
        count_impressions(methods.make_split(plain, "given", positive_from=1), TEST)


def test_an_impression_worked_by_hand_and_by_sklearn():
    """Clicks at ranks 2 and 4 of 6, as the `evaluate.py` of MIND counts them."""
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]])
    labels = torch.tensor([[0.0, 1, 0, 1, 0, 0], [1.0, 0, 0, 0, 0, 1]])
    found = compute_from_lists(scores, labels, torch.ones(2, 6, dtype=torch.bool), (5, 10))
    assert found["auc"][0] == pytest.approx(5 / 8)
    assert found["mrr_all"][0] == pytest.approx((1 / 2 + 1 / 4) / 2)
    ideal = 1 + 1 / math.log2(3)
    assert found["ndcg@5"][0] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert found["ndcg@5"][1] == pytest.approx(1 / ideal)
    for row in range(2):
        truth, guess = labels[row].numpy(), scores[row].numpy()
        assert found["auc"][row] == pytest.approx(roc_auc_score(truth, guess), abs=1e-12)
        for k in (5, 10):
            want = ndcg_score([truth], [guess], k=k)
            assert found[f"ndcg@{k}"][row] == pytest.approx(want, abs=1e-6)


def test_an_impression_metric_is_a_mean_over_impressions_not_over_pairs():
    work = batch([[0, 1, -1], [1, 2, 3]], [[1.0, 0, 0], [0.0, 0, 1]])
    metrics, row = ranked("impressions", [[2.0, 1, 0, 0], [0.0, 3, 2, 1]], work)
    assert metrics["auc"] == (1 + 0) / 2
    assert row["mrr_all"].tolist() == pytest.approx([1, 1 / 3])
    assert row["auc"].tolist() == [1, 0]


def test_sampled_lists_hold_the_target_and_other_unseen_items():
    rng = np.random.default_rng(0)
    rows = [
        (f"u{u}", f"i{int(i):02d}", t, 1, None, ("train", "train", "val", "test")[t - 1])
        for u in range(30)
        for t, i in enumerate(np.sort(rng.choice(30, 4, replace=False)), 1)
    ]
    split = made(rows)[1]
    size = int(split.item.max()) + 1
    examples = Examples(split, size, max_history=9)
    at = split.list_cases(TEST)
    for by in ("uniform", "popularity"):
        lists = make_sampled_lists(examples, at, 8, by, mask_history=True)
        assert lists.candidates.shape == (30, 9)
        assert (lists.candidates[:, 0] == split.item[at]).all()
        assert lists.labels.sum(1).tolist() == [1] * 30
        for event, row in zip(at, lists.candidates, strict=True):
            assert len(set(row.tolist())) == 9
            assert not set(row.tolist()) & set(split.item[split.slice_history(int(event))].tolist())
        part = make_sampled_lists(examples, at[7:9], 8, by, mask_history=True)
        assert (part.candidates == lists.candidates[7:9]).all()
    with pytest.raises(ConfigError, match="has only"):
        make_sampled_lists(examples, at, size - 2, "uniform", mask_history=True)


def test_popular_negatives_come_as_often_as_training_shows_them():
    """One draw a case: the chances are the shares of the training events."""
    rows = [(f"u{n}", "a" if n % 4 else "b", 1, 1, None, "train") for n in range(400)]
    rows += [(f"u{n}", "c", 2, 1, None, "test") for n in range(400)]
    split = made([*rows, ("w", "d", 1, 0, None, "train")])[1]
    examples = Examples(split, 4, max_history=9)
    lists = make_sampled_lists(
        examples, split.list_cases(TEST), 1, "popularity", mask_history=False
    )
    drawn = np.bincount(lists.candidates[:, 1], minlength=4) / 400
    assert drawn[0] == pytest.approx(0.75, abs=0.07)
    assert drawn[1] == pytest.approx(0.25, abs=0.07)
    assert drawn[2:].tolist() == [0, 0]
    lists = make_sampled_lists(examples, split.list_cases(TEST), 1, "uniform", mask_history=False)
    drawn = np.bincount(lists.candidates[:, 1], minlength=4) / 400
    assert drawn[[0, 1, 3]] == pytest.approx([1 / 3] * 3, abs=0.08)


def test_the_best_items_are_unseen_and_nothing_else_changes():
    scores = [[9.0, 1, 2, 3], [4.0, 1, 8, 9]]
    work = batch([[0], [0]], [[1.0], [1.0]], seen=[[0, 0], [1, 3], [1, 2]])
    want, plain = ranked("catalog", scores, work)
    evaluator = Evaluator("catalog", (1, 2), True, COUNTS)
    evaluator.keep = 3
    evaluator.start(Given(torch.tensor(scores)))
    evaluator.step(Given(torch.tensor(scores)), work)
    assert evaluator.end() == pytest.approx(want, nan_ok=True)
    (row,) = evaluator.rows
    case, top = beyond_accuracy.take_top([row])
    assert case.tolist() == [0, 1]
    assert top.tolist() == [[3, 2, 1], [0, 1, -1]]
    assert {k: v.tolist() for k, v in row.items()} == {k: v.tolist() for k, v in plain.items()}
    assert beyond_accuracy.take_top([row]) is None


def test_tiers_by_cumulated_events():
    counts = np.array([50, 30, 10, 5, 5, 0])  # above them lie 0, 50, 80, 90 and 90 of 100
    assert slices.assign_tiers(counts).tolist() == ["head", "mid", "tail", "tail", "tail", "cold"]


def result_of(words):
    assert main(words) == 0
    folder = next(Path(words[-1].removeprefix("output=")).iterdir())
    return json.loads((folder / "result.json").read_text()), pl.read_parquet(
        folder / "cases.parquet"
    )


def plain(shop_words):
    """The words of the shop without those of training."""
    return [w for w in shop_words if not w.startswith(("encoder.", "optimizer."))]


def test_slices_add_up_and_measures_stand_in_the_result(shop_words, capsys):
    words = ["architecture=tfidf", "evaluation.slices=[name]", "evaluation.category=name"]
    result, cases = result_of([*words, *plain(shop_words)])
    cut = result["slices"]
    assert set(cut) == {"item", "user", "history", "popularity", "name"}
    for kinds in cut.values():
        assert sum(part["cases"] for part in kinds.values()) == 40
        for metric in ("hr@10", "ndcg@10", "mrr"):
            total = sum(p["cases"] * p[metric] for p in kinds.values() if p["cases"])
            assert total / 40 == pytest.approx(result["test"][metric], abs=1e-9)
    assert list(cut["history"]) == ["1-4"]
    assert cases["past"].to_list() == [4] * 40
    assert not cases["cold_user"].any()
    assert "other" in cut["name"]
    found = result["beyond"]
    assert 0 < found["coverage@10"] <= 1
    assert found["cases"] == 40
    assert found["calibration@10"] > 0
    assert 0 < found["diversity@10"] < 1
    assert "beyond accuracy, at 10: coverage" in capsys.readouterr().out


def test_a_price_is_cut_into_ranges_in_the_result_and_in_a_comparison(situated_words):
    """30 prices in a text file, as text there: four ranges, and the same ones by compare."""
    words = sorted(plain(situated_words), key=lambda word: word.startswith("output="))
    words = ["architecture=tfidf", "evaluation.slices=[price]", *words]
    result, cases = result_of(words)
    cut = result["slices"]["price"]
    assert len(cut) == 4
    spans = [tuple(map(float, label.split(" to "))) for label in cut]
    price = cases["item.price"].cast(pl.Float64).to_numpy()
    assert spans[0][0] == price.min()
    assert spans[-1][1] == price.max()
    for (low, high), part in zip(spans, cut.values(), strict=True):
        assert part["cases"] == ((price >= low) & (price <= high)).sum() >= 8
    assert spans == sorted(spans)
    assert [part.label for part in compared_parts(cases, "item.price")] == list(cut)


def test_beyond_can_be_left_out(shop_words):
    words = ["architecture=popularity", "evaluation.beyond=false"]
    result, cases = result_of([*words, *plain(shop_words)])
    assert "beyond" not in result
    assert "top" not in cases.columns


def test_sampled_metrics_say_so_everywhere(shop_words, capsys):
    words = ["architecture=tfidf", "evaluation.protocol=sampled", "evaluation.sampled_negatives=5"]
    wrong = [*words, "evaluation.monitor=ndgc@10", *plain(shop_words)]
    with pytest.raises(ConfigError, match="Did you mean 'sampled5-ndcg@10'"):
        checks.check_pairs(compose(wrong))
    asked = compose([*words, "evaluation.monitor=sampled5-mrr", *plain(shop_words)])
    assert asked.evaluation.monitor == "sampled5-mrr"
    result, cases = result_of([*words, *plain(shop_words)])
    bare = [name for name in result["test"] if "cases" not in name and "sampled5-" not in name]
    assert not bare
    assert result["protocol"]["negatives"] == 5
    assert cases["size"].to_list() == [6] * 40
    assert "sampled5-mrr" in result["slices"]["item"]["warm"]
    said = capsys.readouterr().out
    assert "Krichene" in said
    assert "among 5 random items" in said


def test_a_table_says_the_label_of_sampled_metrics_once(capsys):
    options = EvaluationOptions("sampled", sampled_negatives=19, sampled_by="popularity")
    options.monitor = "sampled19popular-ndcg@10"
    row = {name: 0.1234 for name in display.list_columns(options)}
    display.print_results({"step 0": row}, options)
    display.print_spread([row, row], options)
    said = capsys.readouterr().out
    assert "…" not in said
    for name in ("hr@10", "ndcg@10", "mrr", "auc", "warm/ndcg@10", "cold/ndcg@10"):
        assert said.count(f" {name} ") == 2
    assert said.replace("\n", " ").count("sampled19popular-METRIC") == 2


def test_the_tables_of_a_run_are_plain_and_break_no_word(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    options = EvaluationOptions("candidates")
    row = {name: 0.1234 for name in display.list_shown(options)}
    names = ["frozen_two_tower", "zero-shot", "popularity", "popularity_recent", "tfidf", "knn"]
    display.print_results(dict.fromkeys(names, row), options)
    display.print_spread([row, row], options)
    said = capsys.readouterr().out
    assert all(part in said.split() for part in ("two_tower", "zero-shot", "popularity", "recent"))
    assert max(map(len, said.splitlines())) <= 80
    assert not set("┃│┏") & set(said)


def test_rarest_first_is_popularity_turned_round(shop_words):
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=5"]
    words = ["architecture=popularity", *lists, *plain(shop_words)]
    result, forth = result_of(words)
    _, back = result_of(["architecture.kind=reversed", *words[:-1], f"{words[-1]}-reversed"])
    assert back["rank"].to_list() == (forth["size"] + 1 - forth["rank"] - forth["ties"]).to_list()
    assert back["ties"].to_list() == forth["ties"].to_list()
    assert "target" not in result["slices"]  # every list holds its target by itself
    put = forth["rank"] == forth["rank"].max()
    parts = slices.compute_slice_means(forth.with_columns(inserted=put), ["mrr"], "", [])["target"]
    assert {name: part["cases"] for name, part in parts.items()} == {
        "proposed": (~put).sum(),
        "put in": put.sum(),
    }
    assert 0 < parts["put in"]["mrr"] < parts["proposed"]["mrr"]


def test_lists_that_tell_the_target_by_their_making_are_told(shop_words, capsys):
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=5", "tuning=frozen"]
    floors = result_of([*lists, *shop_words])[0]["floors"]
    assert set(floors) == {"popularity", "tfidf", protocols.REVERSED, "chance", "zero-shot"}
    rare, best = floors[protocols.REVERSED], max(floors[name]["mrr"] for name in protocols.FLOORS)
    said = protocols.describe_rarity_bias(floors, "mrr")
    assert (said is None) == (rare["mrr"] <= best)
    told = protocols.describe_rarity_bias(
        {**floors, protocols.REVERSED: {"mrr": best + 0.01}}, "mrr"
    )
    assert told is not None
    assert "rarest items first" in told
    assert (
        protocols.describe_rarity_bias({**floors, protocols.REVERSED: {"mrr": best}}, "mrr") is None
    )
    none = {**floors, "tfidf": {"mrr": math.nan}, "popularity": {"mrr": math.nan}}
    assert protocols.describe_rarity_bias(none, "mrr") is None
    known = {name: floors[name] for name in protocols.FLOORS}
    assert protocols.describe_rarity_bias(known, "mrr") is None
    printed = protocols.describe_rarity_bias(floors, "ndcg@10")
    assert printed is None or printed in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evaluation.slices=[colour]"], "no column 'colour'"),
        (["evaluation.category=nam"], "no column 'nam'"),
        (["evaluation.protocol=impressions"], "no column 'impression'"),
        (["data.negatives=impression"], "not with in_batch and 0"),
        (["objective.negatives=4"], r"objective\.negatives=4 of in_batch stand beside"),
        (["data.negatives=impression", "objective=gbce"], r"objective\.calibration=0\.75 allows"),
        (
            [
                "data.negatives=impression",
                "objective=sampled_softmax",
                "objective.sampling=frequency",
            ],
            "leave it out",
        ),
        (["data.negatives=impression", "objective=bpr"], "no column 'impression'"),
    ],
)
def test_what_makes_no_sense_is_refused(shop_words, words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build.assemble(compose([*shop_words, *words]))


def mind_words(tiny_bert, folder, *more):
    return [
        "data.source=mind",
        f"data.source.path={folder}",
        "data.positive_from=1",
        "evaluation.protocol=impressions",
        f"encoder.model={tiny_bert}",
        "encoder.max_length=16",
        "trainer.accelerator=cpu",
        *more,
    ]


def write_mind(folder):
    """Clicks on the colour that a user likes; the last impression has no click."""
    colours = ["red", "blue", "green", "black"]
    things = ["lamp", "chair", "table", "shelf", "mirror"]
    news = [f"{c} {t}" for c in colours for t in things]
    text = "".join(f"N{i}\t{n.split()[0]}\ts\t{n}\t\tu\t[]\t[]\n" for i, n in enumerate(news))
    rng = np.random.default_rng(0)
    for part, day in (("MINDsmall_train", 1), ("MINDsmall_dev", 5)):
        (folder / part).mkdir(parents=True)
        (folder / part / "news.tsv").write_text(text)
        rows = []
        for user in range(20):
            own = 5 * (user % 4)
            for time in range(3):
                past, *clicked = own + rng.permutation(5)[:3]
                other = [int(i) for i in rng.permutation(20) if i // 5 != user % 4][:3]
                shown = [f"N{i}-1" for i in clicked] + [f"N{i}-0" for i in other]
                moment = f"11/{day + time}/2019 1:00:{user:02d} PM"
                rows.append((f"U{user}", moment, f"N{past}", " ".join(rng.permutation(shown))))
        rows.append(("U0", f"11/{day + 3}/2019 1:00:00 PM", "N0", "N1-0 N2-0"))
        lines = ["\t".join((str(n), *row)) for n, row in enumerate(rows, 1)]
        (folder / part / "behaviors.tsv").write_text("\n".join(lines) + "\n")


def test_impressions_are_trained_on_and_ranked(tiny_bert, tmp_path):
    write_mind(tmp_path / "mind")
    words = mind_words(
        tiny_bert,
        tmp_path / "mind",
        "objective=sampled_softmax",
        "objective.negatives=3",
        "data.negatives=impression",
        "data.queries_per_user=3",
        "trainer.epochs=3",
        "optimizer.lr=0.01",
        "evaluation.slices=[category]",
        f"output={tmp_path / 'runs'}",
    )
    result, cases = result_of(words)
    assert cases.height == 60
    assert cases["positives"].to_list() == [2] * 60
    assert result["test"]["auc"] > 0.7
    assert result["test"]["auc"] == pytest.approx(cases["auc"].mean())
    assert result["test"]["mrr_all"] == pytest.approx(cases["mrr_all"].mean())
    assert set(result["slices"]["category"]) == {"red", "blue", "green", "black"}
    assert {"auc", "mrr_all", "ndcg@5", "ndcg@10"} < set(result["slices"]["item"]["warm"])
    options = compose(words).evaluation
    assert display.list_columns(options)[:4] == ["auc", "mrr_all", "ndcg@5", "ndcg@10"]


def test_the_real_sample_of_mind_from_end_to_end(tiny_bytes, tmp_path, capsys):
    """Its README counts 2,445 usable impressions: a check of format and protocol, no more.

    Titles are Chinese for nearly all news; the encoder reads bytes.
    """
    if not REAL.is_dir():
        pytest.skip("no folder mind-sample in RECSYS_TEST_DATA or ../shared/data")
    assert len(AutoTokenizer.from_pretrained(tiny_bytes)("新闻")["input_ids"]) == 2 * 3 + 2
    words = mind_words(
        tiny_bytes,
        REAL,
        "data.source.behaviors=behaviors_train5000.tsv",
        "data.source.news=news_en_2000.tsv",
        f"data.source.titles={REAL}/xMINDsmall_dev_cmn.zip",
        "data.source.need_history=true",
        "data.max_tokens=24",
        "objective=sampled_softmax",
        "data.negatives=impression",
        "tuning=frozen",
        "trainer.max_steps=2",
        f"output={tmp_path / 'runs'}",
    )
    result, cases = result_of(words)
    assert f"mind: {5000 - 2445} of 5000 impressions are left" in capsys.readouterr().out
    left = {"impressions": cases.height, "without_positive": 0, "without_negative": 0}
    assert result["protocol"]["left_out"] == left
    assert cases.height == result["test"]["cases"] == 464
    assert 0.2 < result["test"]["auc"] < 0.8


def listed(words, size, *more):
    lists = ["evaluation.protocol=candidates", f"evaluation.candidates={size}", "tuning=frozen"]
    return build.assemble(compose([*words, *lists, *more]))


def proposals(made, event, mask):
    """What each floor proposes for a case by its own scores, equals by popularity, by hand."""
    counts = made.examples.count_train_items()
    drawn = np.random.default_rng(4).permutation(len(counts))
    user = made.split.compute_user_rows()[event]
    had = made.split.item[made.split.offsets[user] : event]
    batch = made.examples.make_batch(
        made.examples.make_case_rows(np.array([event])), made.datamodule.sizes
    )
    out = []
    for name in ("popularity", "tfidf"):
        floor = build.make_baseline(name, made.parts).eval()
        items = floor.index_catalog()
        scores = floor.score(floor.queries(batch, items[batch.plan.items]), items)[0].tolist()
        order = sorted(
            range(len(counts)), key=lambda i: (-np.float32(scores[i]), -counts[i], drawn[i])
        )
        out.append([item for item in order if not mask or item not in had])
    return out


@pytest.mark.parametrize("mask", [True, False])
def test_candidate_lists_hold_nothing_had_and_equals_by_popularity(shop_words, mask, monkeypatch):
    """With 30 items, few are left: lists are shorter then, the target apart."""
    monkeypatch.setenv("RECSYS_CACHE", shop_words[-1].partition("=")[2] + "/cache")
    for size in (30, 8):
        made = listed(shop_words, size, f"evaluation.mask_history={str(mask).lower()}")
        lists = made.datamodule.lists[TEST]
        assert len(lists.at) == 40
        for event, row in zip(lists.at, lists.candidates, strict=True):
            popular, alike = proposals(made, event, mask)
            turns = [item for pair in zip(popular, alike, strict=True) for item in pair]
            want = list(dict.fromkeys(turns))[:size]
            target = made.split.item[event]
            if target not in want:
                want[-1] = target
            assert [item for item in row if item >= 0] == want
            assert len(want) == min(size, 30 - 4 * mask)
        short = [note for note in made.split.notes if note.startswith("candidates:")]
        assert bool(short) == (mask and size == 30)
        assert not short or "40 of 40 test lists have fewer than 30 items (down to 26)" in short[0]


def test_chance_on_short_lists_is_that_of_their_own_sizes(shop_words, monkeypatch):
    """What says nothing of items reaches hits in proportion to how long each list is."""
    monkeypatch.setenv("RECSYS_CACHE", shop_words[-1].partition("=")[2] + "/cache")
    made = listed(shop_words, 30, "evaluation.mask_history=true", "evaluation.k=[10]")
    floor = build.make_baseline("popularity", made.parts)
    floor.score = lambda queries, items: torch.zeros(len(queries), len(items))
    found = floor.evaluate(made.datamodule.make_case_loader(TEST))
    assert found["hr@10"] == pytest.approx(10 / 26)
    assert (torch.cat([row["size"] for row in floor.evaluator.rows]) == 26).all()


def test_who_has_no_history_is_proposed_what_is_popular(shop_words, shop, tmp_path, monkeypatch):
    """Not the first rows of the catalog: there all titles are equally unlike nothing."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    header, *rows = (shop / "events.csv").read_text().splitlines()
    part = ["train"] * 120 + ["val"] * 20 + ["test"] * 60
    parts = [f"{row},{name}" for row, name in zip(rows, part, strict=True)]
    (tmp_path / "parts.csv").write_text("\n".join([f"{header},split", *parts]) + "\n")
    words = [w for w in shop_words if not w.startswith(("data.source.inter", "data.split"))]
    words += [f"data.source.interactions={tmp_path / 'parts.csv'}", "data.split=given"]
    made = listed(words, 6, "evaluation.monitor=hr@10")
    lists = made.datamodule.lists[TEST]
    counts = made.examples.count_train_items()
    new = lists.at == made.split.offsets[made.split.compute_user_rows()[lists.at]]
    assert 0 < new.sum() < len(new)
    order = compute_tie_order(counts)
    assert (np.diff(counts[order]) <= 0).all()
    for row, put in zip(lists.candidates[new], lists.inserted[new], strict=True):
        assert row[: 6 - put].tolist() == order[: 6 - put].tolist()
    assert order[:6].tolist() != list(range(6))

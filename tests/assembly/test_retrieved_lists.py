"""Candidate lists that are the best items of a finished run: what a re-ranker ranks."""

import json
import math
import shutil

import numpy as np
import polars as pl
import pytest

from recsys.compare.__main__ import main as compare
from recsys.fit.__main__ import main
from recsys.trained.run import TrainedRun

CATALOG = ["tuning=frozen", "trainer.max_steps=0", "evaluation.k=[1,2,4]"]
SIZE = 4
ITEMS = 30
JUDGED = "evaluation.monitor=ndcg@4"


def run(output, *words):
    """Runs the command and gives the folder of the run."""
    before = set(output.glob("*"))
    assert main([*words, JUDGED, f"output={output}"]) == 0
    (folder,) = set(output.glob("*")) - before
    return folder


def read(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def base(shop_base, tmp_path_factory):
    """Words of the shop; what colours have in common is no news, so that lists miss some."""
    root = tmp_path_factory.mktemp("retrieved")
    rng, rows = np.random.default_rng(3), []
    for user in range(50):
        for time, item in enumerate(rng.choice(ITEMS, 5, replace=False)):
            rows.append(f"u{user},{item:03d},{1_600_000_000 + 100 * user + time},3\n")
    (root / "events.csv").write_text("who,what,when,stars\n" + "".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))
        yield root, [*shop_base, f"data.source.interactions={root / 'events.csv'}"]


@pytest.fixture(scope="module")
def retriever(base):
    root, words = base
    return run(root / "first", *words, *CATALOG)


def lists_of(folder):
    return [
        "evaluation.protocol=candidates",
        f"evaluation.candidates={SIZE}",
        f"evaluation.candidates_from={folder}",
        "evaluation.k=[1,2,4]",
    ]


@pytest.fixture(scope="module")
def again(base, retriever):
    """The retriever itself over its own lists."""
    root, words = base
    return run(root / "second", *words, *CATALOG, *lists_of(retriever))


def test_the_retriever_over_its_own_lists_is_as_good_as_over_the_catalog(retriever, again):
    """Also its order as a baseline, and its validation: misses count in both."""
    first, second = read(retriever), read(again)
    names = [f"{metric}@{k}" for metric in ("hr", "ndcg", "recall", "map") for k in (1, 2, 4)]
    for name in [*names, "cold/ndcg@4", "warm/ndcg@4"]:
        assert second["test"][name] == pytest.approx(first["test"][name], abs=1e-12, nan_ok=True)
        assert second["floors"]["retriever"][name] == pytest.approx(
            first["test"][name], abs=1e-12, nan_ok=True
        )
    assert 0 < second["test"]["hr@4"] < 1
    start = second["validation"]["metrics"]["hr@4"]
    assert start == pytest.approx(first["validation"]["metrics"]["hr@4"], abs=1e-12)
    assert 0 < start < 1
    assert second["test"]["mrr"] < first["test"]["mrr"]  # what is behind the list is lost


def test_a_target_that_the_list_lacks_is_a_miss_and_is_counted(retriever, again):
    result, own = read(again), read(retriever)
    cases = pl.read_parquet(again / "cases.parquet")
    whole = pl.read_parquet(retriever / "cases.parquet")
    assert cases["target"].to_list() == whole["target"].to_list()
    missed = cases["missed"].to_numpy()
    assert missed.tolist() == (whole["rank"] > SIZE).to_list()
    assert 0 < missed.sum() < len(cases)
    assert set(cases.filter("missed")["rank"]) == {ITEMS + 1}
    assert set(cases.filter("missed")["auc"]) == {0.0}
    assert (cases.filter(~pl.col("missed"))["rank"] <= SIZE).all()
    assert not cases["inserted"].any()
    protocol = result["protocol"]
    assert protocol["missed"] == missed.sum()
    assert protocol["inserted"] == 0
    assert protocol["list_recall"] == pytest.approx(own["test"]["hr@4"], abs=1e-12)
    assert str(retriever) in protocol["candidates_from"]
    assert set(result["floors"]) == {"popularity", "tfidf", "retriever", "chance", "zero-shot"}
    # no order of the lists reaches more, and a random one reaches as much at the lists' length
    for floor in result["floors"].values():
        assert floor["hr@4"] == pytest.approx(protocol["list_recall"], abs=1e-12)
    chance = result["floors"]["chance"]["hr@1"]
    assert chance == pytest.approx(protocol["list_recall"] / SIZE, abs=1e-12)
    parts = result["slices"]["target"]
    assert parts["missed"]["cases"] == missed.sum()
    assert parts["proposed"]["hr@4"] == 1
    assert parts["missed"]["hr@4"] == 0


def test_what_a_run_builds_on_is_named_with_its_cost(retriever, again):
    (source,) = read(again)["built_on"]
    assert source["run"] == str(retriever)
    assert source["cost"]["method_cpu_seconds"] > 0
    assert "built_on" not in read(retriever)


def test_a_cross_encoder_ranks_the_same_lists_and_compare_names_them(
    base, retriever, again, capsys
):
    root, words = base
    frozen = ["architecture=cross_encoder", "objective=bpr", *CATALOG]
    cross = run(root / "second", *words, *frozen, *lists_of(retriever))
    out = capsys.readouterr().out
    assert f"among the best {SIZE} of {retriever}" in out
    assert " lack their target and count as misses" in out
    assert read(cross)["data"]["lists_sha256"] == read(again)["data"]["lists_sha256"]
    assert read(cross)["protocol"]["list_recall"] == read(again)["protocol"]["list_recall"]
    assert compare([str(again), str(cross), f"output={root / 'page'}", "metric=ndcg@4"]) == 0
    page = "".join(p.read_text() for p in (root / "page").rglob("*.md"))
    assert f"({retriever})" in page
    # a list with the target put in is another question
    usual = run(root / "second", *words, *CATALOG, *lists_of(retriever)[:2])
    assert compare([str(again), str(usual), "metric=ndcg@1"]) == 2


def test_an_ensemble_of_re_rankers_misses_what_they_miss(base, retriever, again):
    root, words = base
    counts = run(root / "second", *words, "architecture=tfidf", *lists_of(retriever))
    members = f"architecture.members=[{again},{counts}]"
    own = [*words, "architecture=ensemble", members, "architecture.combine=rrf"]
    both = run(root / "second", *own, *lists_of(retriever))
    assert read(both)["protocol"]["missed"] == read(again)["protocol"]["missed"]
    assert read(both)["test"]["hr@4"] == pytest.approx(read(again)["test"]["hr@4"])
    assert main([*own, *lists_of(retriever)[:2], JUDGED, f"output={root}"]) == 2
    # what is fitted counts misses too: the weights' own figure is that of the validation
    own[-1] = "architecture.combine=weighted"
    fitted = run(root / "second", *own, *lists_of(retriever), "architecture.normalize=zscore")
    result = read(fitted)
    (tried,) = result["fit"]["tried"]
    assert tried["ndcg@4"] == pytest.approx(result["validation"]["metrics"]["ndcg@4"], abs=1e-4)
    assert 0 < tried["ndcg@4"] < result["validation"]["metrics"]["hr@4"] < 1


def test_a_re_ranker_recommends_when_its_retriever_is_gone(base, retriever, again):
    root, words = base
    kept = root / "kept"
    shutil.copytree(retriever, kept)
    again_ = run(root / "third", *words, *CATALOG, *lists_of(kept))
    assert read(again_)["data"]["lists_sha256"] == read(again)["data"]["lists_sha256"]
    shutil.rmtree(kept)
    best = TrainedRun(again_).recommend(users=["u0"], k=3)
    assert len(best) == 3
    assert all(math.isfinite(score) for score in best["score"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluation.protocol=catalog"], "set evaluation.protocol=candidates, or leave it out"),
        (["evaluation.candidates_from=nowhere"], "evaluation.candidates_from=nowhere"),
        (["evaluation.candidates_from={several}"], "holds several runs; name one of them, such as"),
        (["evaluation.mask_history=false"], "has evaluation.mask_history=true and this run false"),
        (["data.split=random"], "splits the events in another way"),
        (["evaluation.candidates=31"], "evaluation.candidates is 31; use 2 to 30"),
    ],
)
def test_bad_input_is_one_sentence(base, retriever, words, said, capsys):
    root, own = base
    words = [word.format(several=retriever.parent) for word in words]
    assert main([*own, *CATALOG, *lists_of(retriever), *words, JUDGED, f"output={root}"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_what_reads_pairs_proposes_nothing(base, retriever, capsys):
    root, words = base
    cross = ["architecture=cross_encoder", "objective=bpr", *CATALOG]
    folder = run(root / "pairs", *words, *cross, *lists_of(retriever)[:2], "evaluation.k=[4]")
    assert main([*words, *CATALOG, *lists_of(folder), JUDGED, f"output={root}"]) == 2
    assert "cannot rank the whole catalog" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.split=random"], "splits the events in another way"),
        (["evaluation.candidates=31"], "evaluation.candidates is 31; use 2 to 30"),
    ],
)
def test_lists_that_cannot_be_are_refused_before_an_encoder_is_loaded(
    base, retriever, words, said, capsys
):
    root, own = base
    cross = ["architecture=cross_encoder", "objective=bpr", JUDGED, f"output={root}"]
    assert main([*own, *cross, *lists_of(retriever), *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "loading the encoder" not in err

"""Finished runs that score together."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose, read_config
from recsys.data.batches.batch_loaders import BatchLoaders
from recsys.data.batches.examples import TEST
from recsys.errors import ConfigError, DataError
from recsys.fit.__main__ import main
from recsys.models.fusion.cases import Judge, ScoredCases
from recsys.models.fusion.weights import WeightSearch
from recsys.recommender.fitted import read_fit
from recsys.testing.contract import LISTS
from recsys.testing.objectives import LABELLED
from recsys.trained.run import TrainedRun

RUNS = {
    "knn": ["architecture=item_knn", "data.max_history=4"],
    "text": ["tuning=frozen", "trainer.max_steps=8"],
    "words": ["architecture=tfidf", "data.max_history=1"],
}


def write_events(path):
    """Sixty users who like one colour and one thing; no method is always right."""
    rng, rows = np.random.default_rng(0), []
    for user in range(60):
        weight = np.ones(30)
        weight[5 * (user % 6) : 5 * (user % 6) + 5] += 6
        weight[user % 5 :: 5] += 6
        for time, item in enumerate(rng.choice(30, 6, replace=False, p=weight / weight.sum())):
            rows.append(f"u{user},{item:03d},{1_600_000_000 + 100 * user + time},3\n")
    path.write_text("who,what,when,stars\n" + "".join(rows))


@pytest.fixture(scope="module")
def base(shop_base, tmp_path_factory):
    root = tmp_path_factory.mktemp("ensembles")
    write_events(root / "events.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))
        events = f"data.source.interactions={root / 'events.csv'}"
        yield root, [*shop_base, events, "evaluation.k=[5]", "evaluation.monitor=ndcg@5"]


def fit(base, output, *words):
    """Runs the command and gives the folder of the run."""
    root, own = base
    before = set((root / output).glob("*"))
    assert main([*own, f"output={root / output}", *words]) == 0
    (folder,) = set((root / output).glob("*")) - before
    return folder


@pytest.fixture(scope="module")
def runs(base):
    return {name: fit(base, "members", *words) for name, words in RUNS.items()}


def of(*members):
    return ["architecture=ensemble", f"architecture.members=[{','.join(map(str, members))}]"]


def read(folder, name="result.json"):
    return json.loads((folder / name).read_text())


def cases_of(folder):
    return pl.read_parquet(folder / "cases.parquet").sort("case")


@pytest.fixture(scope="module")
def weighted(base, runs):
    return fit(base, "out", *of(*runs.values()))


@pytest.mark.parametrize("combine", ["rrf", "weighted"])
@pytest.mark.parametrize("member", ["knn", "text"])
def test_one_member_alone_is_itself(base, runs, combine, member):
    made = fit(base, "out", *of(runs[member]), f"architecture.combine={combine}")
    assert read(made)["test"] == read(runs[member])["test"]
    own, other = cases_of(made), cases_of(runs[member])
    for column in ("case", "target", "rank", "ties", "size", "cold", "past"):
        assert own[column].equals(other[column])


def test_a_ranker_of_one_member_reorders_its_best_and_nothing_else(base, runs):
    words = ["architecture.combine=ranker", "architecture.top=5"]
    made = fit(base, "out", *of(runs["text"]), *words)
    own, other = cases_of(made), cases_of(runs["text"])
    below = (other["rank"] > 5).to_numpy()
    assert 0 < below.sum() < len(below)
    assert own["rank"].to_numpy()[below].tolist() == other["rank"].to_numpy()[below].tolist()
    assert (own["rank"].to_numpy()[~below] <= 5).all()
    assert (own["rank"] != other["rank"]).any()


def test_weights_are_measured_out_of_fold_by_the_evaluator_as_by_the_search(weighted):
    result = read(weighted)
    best = max(row["ndcg@5"] for row in result["fit"]["tried"])
    assert result["validation"]["best"] == pytest.approx(best, abs=1e-6)
    chosen = result["fit"]["chosen"]["weights"]["all"]
    assert sum(chosen.values()) == pytest.approx(1, abs=1e-3)
    assert list(chosen) == ["item_knn", "frozen two_tower", "tfidf"]


def test_the_result_names_its_members_and_what_they_cost(weighted, runs):
    built = read(weighted)["built_on"]
    assert [row["run"] for row in built] == [str(folder) for folder in runs.values()]
    for row, folder in zip(built, runs.values(), strict=True):
        assert row["cost"]["method_cpu_seconds"] == read(folder)["cost"]["method_cpu_seconds"]


def test_the_closing_table_has_the_members_beside_it(base, runs, capsys):
    # Of a cut-off that members did not count they say nothing.
    more = ["architecture.combine=rrf", "evaluation.k=[5,3]", "tracking.wandb=offline"]
    fit(base, "out", *of(runs["knn"], runs["text"]), *more)
    shown = capsys.readouterr().out
    (row,) = (line for line in shown.splitlines() if line.strip().startswith("ndcg@5 "))
    own = [f"{100 * read(runs[name])['test']['ndcg@5']:.2f}" for name in ("knn", "text")]
    assert row.split()[1:3] == own
    (row,) = (line for line in shown.splitlines() if line.strip().startswith("hr@3 "))
    assert row.split()[1:3] == ["-", "-"]


@pytest.mark.parametrize("combine", ["weighted", "ranker"])
def test_the_fit_reads_no_test_case(base, runs, combine, monkeypatch):
    words = [*of(*runs.values()), f"architecture.combine={combine}"]
    made = fit(base, "out", *words)
    _, own = base

    # Whatever a test event held, every one is now of the first item, and no test is loaded.
    def make_case_loader(self, role, *more):
        assert role != TEST
        return load(self, role, *more)

    load = BatchLoaders.make_case_loader
    monkeypatch.setattr(BatchLoaders, "make_case_loader", make_case_loader)
    blind = build.assemble(compose([*own, *words]))
    for examples in (blind.examples, *(m.examples for m in blind.recommender.parts.members)):
        held = examples.split.role == TEST
        assert held.sum() == 60
        examples._item[held] = 0
    found = blind.recommender.fit(blind.datamodule.val_dataloader, "ndcg@5")
    assert json.loads(json.dumps(found.state)) == read(made, "fit.json")["state"]
    assert found.validation == pytest.approx(read_fit(made).validation, nan_ok=True)


def test_a_stopped_run_goes_on_with_what_was_fitted(base, runs, weighted, monkeypatch):
    root, own = base

    def make_case_loader(self, role, *more):
        if role == TEST:
            raise DataError("the disk is full.")
        return load(self, role, *more)

    load = BatchLoaders.make_case_loader
    words = [*own, *of(*runs.values()), f"output={root / 'stopped'}"]
    with monkeypatch.context() as patch:
        patch.setattr(BatchLoaders, "make_case_loader", make_case_loader)
        assert main(words) == 2
    (folder,) = (root / "stopped").glob("*")
    fitted = (folder / "fit.json").stat().st_mtime_ns
    assert main([f"resume={folder}"]) == 0
    assert (folder / "fit.json").stat().st_mtime_ns == fitted
    assert read(folder)["test"] == read(weighted)["test"]
    assert read(folder)["fit"] == read(weighted)["fit"]


def test_it_recommends_what_its_only_member_does(base, runs):
    """Also of a history that is longer than the ensemble's own option says."""
    made = fit(base, "out", *of(runs["knn"]), "data.max_history=1")
    asked = {"histories": [["000", "006", "001"], ["012"]], "k": 7}
    own, other = (TrainedRun(folder).recommend(**asked) for folder in (made, runs["knn"]))
    assert own.equals(other)
    users = {"users": ["u1", "u2"], "k": 7}
    own, other = (TrainedRun(folder).recommend(**users) for folder in (made, runs["knn"]))
    assert own.equals(other)


@pytest.mark.parametrize("combine", ["rrf", "weighted", "ranker"])
def test_a_finished_ensemble_recommends(base, runs, combine):
    made = fit(base, "out", *of(*runs.values()), f"architecture.combine={combine}")
    frame = TrainedRun(made).recommend(users=["u3"], k=6)
    had = pl.read_csv(base[0] / "events.csv", infer_schema=False).filter(pl.col("who") == "u3")
    assert len(frame) == 6
    assert not set(had["what"]) & set(frame["item"])
    assert frame["score"].is_sorted(descending=True)


def test_a_table_of_many_members_has_the_best(base, runs, capsys):
    ways = [0.1, 0.5, 1, 2]
    more = [fit(base, "more", "architecture=item_knn", f"architecture.shrink={w}") for w in ways]
    capsys.readouterr()
    made = fit(base, "out", *of(*runs.values(), *more), "architecture.combine=rrf")
    shown = capsys.readouterr().out
    worth = sorted(read(Path(row["run"]))["test"]["ndcg@5"] for row in read(made)["built_on"])
    (row,) = (line for line in shown.splitlines() if line.strip().startswith("ndcg@5 "))
    assert sorted(map(float, row.split()[1:-1])) == [round(100 * value, 2) for value in worth[1:]]
    assert "the table has the best 6 members by ndcg@5; 1 are left out." in shown


def test_an_ensemble_is_a_member_of_another(base, runs, weighted):
    made = fit(base, "out", *of(weighted), "architecture.combine=rrf")
    assert read(made)["test"] == read(weighted)["test"]
    (built,) = read(made)["built_on"]
    assert [row["run"] for row in built["built_on"]] == [str(run) for run in runs.values()]


def test_a_folder_of_seeds_stands_for_its_runs_and_a_glob_for_the_newest(base, runs, weighted):
    root, own = base
    words = ["architecture.combine=rrf", f"output={root / 'globs'}"]
    for member in (root / "members", root / "mem*"):
        assert main([*own, *of(member), *words]) == 0
    assert main([*own, *of(root / "members" / "tfidf*", root / "members" / "item*"), *words]) == 0
    *whole, two = sorted((root / "globs").glob("*"), key=lambda path: path.stat().st_mtime_ns)
    named = [members_of(folder) for folder in (*whole, two)]
    assert named[0] == named[1] == sorted(map(str, (root / "members").glob("*")))
    assert named[2] == [str(runs["words"]), str(runs["knn"])]


def members_of(folder):
    return read_config(folder / "config.yaml").architecture.members


def test_a_query_without_history_is_answered_as_each_member_does(base, runs):
    _, own = base
    made = build.assemble(compose([*own, *of(runs["knn"]), "architecture.combine=rrf"]))
    batch = made.examples.make_serving_batch(np.empty(0, dtype=np.int64))
    _, rows = made.recommender.select_top(batch, 3, torch.empty(0, dtype=torch.long))
    best = made.recommender.parts.counts.sort(descending=True).values[:3]
    assert made.recommender.parts.counts[rows].tolist() == best.tolist()


def test_members_that_read_pairs_join_in_lists_alone(base, runs):
    pair = ["architecture=cross_encoder", "objective=bce", "trainer.max_steps=1", *LISTS]
    cross = fit(base, "members", *pair)
    knn = fit(base, "members", "architecture=item_knn", *LISTS)
    alone = fit(base, "out", *of(cross), *LISTS, "architecture.combine=rrf")
    assert read(alone)["test"] == read(cross)["test"]
    with pytest.raises(ConfigError, match="reads user and item together and ranks lists only"):
        TrainedRun(alone).recommend(users=["u1"])
    both = fit(base, "out", *of(cross, knn), *LISTS)
    best = max(row["ndcg@5"] for row in read(both)["fit"]["tried"])
    assert read(both)["validation"]["best"] == pytest.approx(best, abs=1e-6)
    fit(base, "out", *of(cross, knn), *LISTS, "architecture.combine=ranker")


SAMPLED = ["evaluation.protocol=sampled", "evaluation.sampled_negatives=9"]


def test_samples_are_combined_under_their_own_name(base):
    name = "sampled9-ndcg@5"
    words = [*SAMPLED, f"evaluation.monitor={name}"]
    members = [fit(base, "sampled", f"architecture={m}", *words) for m in ("item_knn", "tfidf")]
    result = read(fit(base, "out", *of(*members), *words))
    best = max(row[name] for row in result["fit"]["tried"])
    assert result["validation"]["best"] == pytest.approx(best, abs=1e-6)
    assert result["test"][name] > 0


def test_lists_with_several_positives_are_combined(base, shop_base, tmp_path):
    words = [*shop_base, *LABELLED, "evaluation.protocol=labels", "evaluation.monitor=auc"]
    every = (base[0], [w for w in words if w != "evaluation.k=[5]"])
    members = [fit(every, "labels", f"architecture={m}") for m in ("item_knn", "popularity")]
    for combine in ("weighted", "ranker"):
        result = read(fit(every, "out", *of(*members), f"architecture.combine={combine}"))
        best = max(row["auc"] for row in result["fit"]["tried"])
        assert result["validation"]["best"] == pytest.approx(best, abs=1e-6)


def test_members_that_ranked_other_lists_are_refused(base, capsys):
    short = fit(base, "short", "architecture=item_knn", "data.max_history=1", *LISTS)
    said = refuse(base, capsys, *of(short), *LISTS)
    assert "ranked other lists: proposals are made of histories of data.max_history=1" in said


def refuse(base, capsys, *words):
    root, own = base
    capsys.readouterr()
    assert main([*own, f"output={root / 'refused'}", *words]) == 2
    assert not (root / "refused").exists()
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    return line


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["architecture.members=[]"], "architecture.members is empty; name the folders"),
        (["architecture.members=[{knn},{knn}/]"], "names {knn}/ twice"),
        (["architecture.members=[nowhere*]"], "nowhere* names no complete run"),
        (["architecture.members=[nowhere]"], "nowhere is no run: config.yaml is missing"),
        (["architecture.members=[{knn}]", "architecture.by=[cols]"], "Did you mean 'cold'?"),
        (
            ["architecture.members=[{knn}]", "architecture.by=[cold]", "architecture.combine=rrf"],
            "architecture.by is of weighted scores, and architecture.combine is rrf",
        ),
        (["architecture.members=[{knn}]", "data.max_items=20"], "was trained on other data"),
        (["architecture.members=[{knn}]", "data.split=random"], "splits the events in another way"),
        (
            ["architecture.members=[{knn}]", *LISTS],
            "has evaluation.protocol=catalog and this run candidates",
        ),
        (
            ["architecture.members=[{knn}]", "evaluation.mask_history=false"],
            "set evaluation.mask_history=true, or fit the member again",
        ),
        (["architecture.members=[{knn}]", "tuning=lora"], "does not train; leave out tuning"),
    ],
)
def test_what_cannot_be_combined_is_refused(base, runs, capsys, words, sentence):
    named = [word.format(**runs) for word in words]
    said = refuse(base, capsys, "architecture=ensemble", *named)
    assert sentence.format(**runs) in said


def test_members_that_are_unfinished_or_gone_are_refused(base, runs, capsys):
    root, _ = base
    copy = root / "copy"
    shutil.copytree(runs["text"], copy)
    (copy / "result.json").rename(copy / "kept.json")
    assert "the run is not complete, result.json is missing" in refuse(base, capsys, *of(copy))
    (copy / "kept.json").rename(copy / "result.json")
    made = fit(base, "out", *of(copy), "architecture.combine=rrf")
    shutil.rmtree(copy)
    from recsys.recommend.__main__ import main as recommend

    capsys.readouterr()
    assert recommend([f"run={made}", "user=u1"]) == 2
    assert f"architecture.members={copy} is no run" in capsys.readouterr().err


@pytest.mark.parametrize("combine", ["weighted", "ranker"])
def test_too_few_validation_cases_are_refused(base, capsys, combine):
    few = "evaluation.max_cases=10"
    members = [fit(base, "few", f"architecture={name}", few) for name in ("tfidf", "popularity")]
    root, own = base
    words = [*own, f"output={root / 'none'}", *of(*members), few, f"architecture.combine={combine}"]
    assert main(words) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "10 are fewer than 20; set architecture.combine=rrf" in said
    assert not (root / "none").exists()


def test_without_lightgbm_there_is_no_ranker_and_no_folder(base, runs, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    root, own = base
    words = [*own, f"output={root / 'none'}", *of(runs["words"]), "architecture.combine=ranker"]
    assert main(words) == 2
    assert "pip install 'recsys[ensemble]'" in capsys.readouterr().err
    assert not (root / "none").exists()


def make_cases(right, lengths, cold_items=None):
    """Cases of ten items, the first the target: which of two members is right about it."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(len(right), 10, 2, generator=generator)
    scores[torch.arange(len(right)), 0, right] += 3
    labels = torch.zeros(len(right), 10)
    labels[:, 0] = 1
    items = torch.arange(10).expand(len(right), -1).clone()
    cold = torch.zeros(len(right), dtype=torch.bool)
    if cold_items is not None:
        items[cold_items, 0] = 10  # the only cold item of the catalog
        cold[cold_items] = True
    return ScoredCases(
        {"zscore": scores},
        scores.argsort(1, descending=True).argsort(1).float() + 1,
        items,
        labels,
        torch.ones(len(right), dtype=torch.bool),
        cold,
        lengths,
        torch.arange(len(right)),
        torch.arange(len(right)),
        torch.zeros(len(right), dtype=torch.bool),
    )


COUNTS = torch.tensor([5] * 10 + [0])
JUDGE = Judge("ndcg@5", "", (5,))


def test_weights_by_history_follow_who_is_right_there():
    right = torch.tensor([0, 1]).repeat(200)
    cases = make_cases(right, torch.where(right == 0, 3, 30))
    search = WeightSearch(cases, JUDGE, 60, COUNTS)
    alike, apart = search.find("zscore", ()), search.find("zscore", ("history",))
    short, long = apart.whole.weights[1], apart.whole.weights[4]
    assert short[0] > 0.7 > 0.3 > long[0]
    assert apart.measure(cases, JUDGE) > alike.measure(cases, JUDGE) + 0.02
    # A bin without cases of its own has the weights of all.
    assert torch.equal(apart.whole.weights[5], alike.whole.weights[0])


def test_weights_of_cold_items_follow_who_is_right_about_them():
    right = torch.tensor([0, 0, 0, 1]).repeat(100)
    cases = make_cases(right, torch.full((400,), 7), cold_items=right == 1)
    search = WeightSearch(cases, JUDGE, 60, COUNTS)
    alike, apart = search.find("zscore", ()), search.find("zscore", ("cold",))
    assert apart.whole.cold[1] > 0.5 > apart.whole.weights[0, 1]
    assert apart.measure(cases, JUDGE) > alike.measure(cases, JUDGE) + 0.02


def test_weights_of_a_fold_do_not_depend_on_its_cases():
    right = torch.randint(0, 2, (300,), generator=torch.Generator().manual_seed(3))
    cases = make_cases(right, torch.full((300,), 7))
    folds = WeightSearch(cases, JUDGE, 60, COUNTS).find("zscore", ()).folds
    changed = make_cases(torch.where(cases.folds == 2, 1, right), cases.lengths)
    assert torch.equal(
        WeightSearch(changed, JUDGE, 60, COUNTS).find("zscore", ()).folds[2].weights,
        folds[2].weights,
    )


def test_cold_cases_that_are_too_few_have_the_weights_of_all(base, runs):
    made = fit(base, "out", *of(runs["knn"], runs["text"]), "architecture.by=[cold,history]")
    result = read(made)
    assert any("cold validation cases are too few (50)" in note for note in result["notes"])
    assert [row["by"] for row in result["fit"]["tried"]] == [[], [], [], ["history"]]

"""A choice by validation cases ranks as a run does, takes the best, and says why."""

import pytest
import torch

from recsys.errors import DataError
from recsys.evaluation.evaluator import Evaluator
from recsys.recommender.choosing import Trial, choose_best, measure_alternatives
from tests.evaluation.test_evaluator import COUNTS, Given, batch

SCORES = {1.0: [[1.0, 9, 3, 4]], 2.0: [[9.0, 1, 3, 4]], 3.0: [[4.0, 9, 3, 1]]}


def make_evaluator():
    return Evaluator("catalog", (1, 2), True, COUNTS)


def test_all_are_ranked_as_each_alone_over_batches_that_are_made_once():
    made = []

    def batches():
        for target in (0, 3):
            made.append(target)
            yield batch([[target]], [[1.0]])

    rankers = {value: Given(torch.tensor(scores)) for value, scores in SCORES.items()}
    trials = measure_alternatives(
        [({"rho": value}, ranker) for value, ranker in rankers.items()], make_evaluator, batches()
    )
    assert made == [0, 3]
    for trial in trials:
        alone = make_evaluator()
        ranker = rankers[trial.settings["rho"]]
        alone.start(ranker)
        for each in batches():
            alone.step(ranker, each)
        want = alone.end()
        assert trial.metrics.keys() == want.keys()
        assert all(trial.metrics[name] == pytest.approx(want[name], nan_ok=True) for name in want)


def make_trial(rho, value, cold=40, warm=60):
    parts = {"ndcg@10": value, "cold/ndcg@10": value / 2, "warm/ndcg@10": value}
    cases = {"cases": cold + warm, "cold/cases": cold, "warm/cases": warm}
    return Trial({"rho": rho}, {**parts, "balanced/ndcg@10": value, **cases})


def test_the_first_of_the_best_is_taken_and_all_are_named():
    trials = [make_trial(*each) for each in [(0, 0.1), (1, float("nan")), (2, 0.3), (3, 0.3)]]
    fit = choose_best(trials, "balanced/ndcg@10", ["rho"])
    assert fit.chosen == fit.state == {"rho": 2}
    assert fit.validation["ndcg@10"] == 0.3
    assert [row["rho"] for row in fit.tried] == [0, 1, 2, 3]
    assert set(fit.tried[0]) == {"rho", "balanced/ndcg@10"} | {
        f"{part}ndcg@10" for part in ("", "cold/", "warm/")
    }
    (note,) = fit.notes
    assert len(choose_best([make_trial(0, 0.5), *trials], "ndcg@10", ["rho"]).notes) == 1
    assert note == "chosen on validation: rho=2; balanced/ndcg@10 30.00, the best of 4."


@pytest.mark.parametrize(
    ("best", "cold", "monitor", "said"),
    [
        (3, 40, "ndcg@10", "rho=3 is the largest that was tried; a larger one may be better."),
        (1, 40, "ndcg@10", "rho=1 is the smallest that was tried"),
        (2, 0, "balanced/ndcg@10", "no cold case: it was chosen on warm cases alone"),
        (
            2,
            1,
            "balanced/ndcg@10",
            "1 of 61 validation cases are cold, fewer than 30: it was chosen on",
        ),
        (
            2,
            3,
            "cold/ndcg@10",
            "it was chosen on 3 cold cases; evaluation.monitor=ndcg@10 counts all.",
        ),
    ],
)
def test_what_a_choice_rests_on_is_said(best, cold, monitor, said):
    trials = [make_trial(rho, 0.5 if rho == best else 0.1, cold) for rho in (1, 2, 3)]
    assert said in choose_best(trials, monitor, ["rho"]).notes[1]


@pytest.mark.parametrize(
    ("cold", "warm", "said"),
    [
        (
            40,
            2,
            "2 of 42 validation cases are warm, fewer than 30: it was chosen on cold ones alone.",
        ),
        (
            5,
            7,
            "5 of 12 validation cases are cold and 7 warm, both fewer than 30: it was chosen",
        ),
    ],
)
def test_a_mean_of_both_kinds_says_what_it_leaves_out(cold, warm, said):
    trials = [make_trial(1, 0.5, cold, warm)]
    assert choose_best(trials, "balanced/ndcg@10").notes[1].startswith(said)


def test_a_metric_without_a_case_decides_nothing():
    trials = [make_trial(1, float("nan"), cold=0)]
    with pytest.raises(DataError, match="60 cases, 0 of them cold"):
        choose_best(trials, "cold/ndcg@10")

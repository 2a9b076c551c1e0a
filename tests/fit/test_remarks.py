"""What a closing table says beside its figures."""

import json
import math
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recsys.config.schema import EvaluationOptions
from recsys.fit import remarks
from recsys.fit.__main__ import main
from recsys.runs import display
from recsys.runs.validation_log import ValidationRecord

CASES = pl.DataFrame({"cold": [True, False, True, False]})


def metrics(total, cold):
    return {"ndcg@10": total, "cold/ndcg@10": cold}


def test_a_run_below_its_start_or_a_baseline_is_told_also_for_cold_items():
    floors = {
        "popularity": metrics(0.044, 0.0),
        "reversed popularity": metrics(0.9, 0.9),
        "zero-shot": metrics(0.02, 0.06),
    }
    assert remarks.describe_shortfalls(
        "ndcg@10", metrics(0.03, 0.031), floors, "zero-shot", CASES
    ) == [
        "caution: ndcg@10 of 3.00 is below popularity 4.40.",
        "caution: ndcg@10 of 3.10 for the 2 cold test cases is below its own start (zero-shot) "
        "6.00.",
    ]
    assert (
        remarks.describe_shortfalls("ndcg@10", metrics(0.05, 0.06), floors, "zero-shot", CASES)
        == []
    )
    without = {"popularity": metrics(0.01, math.nan)}
    assert (
        remarks.describe_shortfalls("ndcg@10", metrics(0.02, math.nan), without, "zero-shot", CASES)
        == []
    )


def validations(*values):
    return [ValidationRecord(step, float(step), value, 0.0) for step, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "most", "pick", "said"),
    [
        ((0.1, 0.2, 0.3), None, "best", "still rising at the last validation: train longer (trainer"
        ".epochs=10)."),
        ((0.1, 0.2, 0.3), 60, "last", "still rising at the last validation: train longer (trainer."
        "max_steps=120)."),
        ((0.1, 0.3, 0.3), None, "best", None),
        ((0.3, 0.2, 0.1), None, "best", "the best validation was before the first step: training "
        "did not help."),
        ((0.3, 0.2, 0.1), None, "last", None),
        ((0.3,), 0, "best", None),
    ],
)  # fmt: skip
def test_whether_training_should_have_gone_on_is_told(values, most, pick, said):
    run = SimpleNamespace(
        trainer=SimpleNamespace(epochs=5, max_steps=most), checkpoint=SimpleNamespace(pick=pick)
    )
    assert remarks.describe_training(run, validations(*values)) == ([] if said is None else [said])


def test_a_result_says_what_its_table_says(shop_words, tmp_path, capsys):
    """Trained away from a start that knows more, at a rate that destroys it."""
    words = [*shop_words, "tuning=frozen", "optimizer.lr=0", "optimizer.head_lr=0.000001"]
    assert main([*words, "checkpoint.pick=last", "evaluation.k=[3,10]"]) == 0
    out = capsys.readouterr().out
    (folder,) = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    best = max(result["floors"].values(), key=lambda floor: floor["ndcg@10"])["ndcg@10"]
    assert result["test"]["ndcg@10"] < best
    (said,) = [note for note in result["notes"] if note.startswith("caution: ndcg@10 of ")]
    assert f" {100 * best:.2f}" in said
    assert said in out.splitlines()
    # every cut-off that was asked for, each with its own figure
    for name in ("hr@3", "ndcg@3", "hr@10", "ndcg@10"):
        (cells,) = [line.split() for line in out.splitlines() if line.split()[:1] == [name]]
        assert cells[-1] == f"{100 * result['test'][name]:.2f}"


def test_one_thing_is_one_row(shop_words, tmp_path, capsys):
    assert main([*shop_words, "experiment=zero_shot"]) == 0
    out = capsys.readouterr().out
    (head,) = [line for line in out.splitlines() if "popularity" in line and "tfidf" in line]
    assert "zero_shot" in head
    assert "zero-shot" not in head
    (folder,) = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["floors"]["zero-shot"] == result["test"]
    assert not [note for note in result["notes"] if "its own start" in note]


def test_the_chance_of_lists_stands_beside_them(shop_words, tmp_path):
    """One target among candidates in random order is found first as often as one in so many."""
    lists = ["evaluation.protocol=sampled", "evaluation.sampled_negatives=9", "evaluation.k=[1,10]"]
    assert main([*shop_words, "tuning=frozen", "trainer.max_steps=0", *lists]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    chance = json.loads((folder / "result.json").read_text())["floors"]["chance"]
    assert chance["sampled9-hr@1"] == pytest.approx(0.1)
    assert chance["sampled9-hr@10"] == pytest.approx(1.0)
    assert chance["sampled9-ndcg@10"] == pytest.approx(np.mean(1 / np.log2(np.arange(2, 12))))
    assert chance["sampled9-auc"] == pytest.approx(0.5)


def test_every_cut_off_has_a_row_and_the_monitor_its_parts():
    shown = display.list_shown(EvaluationOptions(k=[5, 10, 20], monitor="ndcg@20"))
    assert shown == [
        *("hr@5", "ndcg@5", "hr@10", "ndcg@10", "hr@20", "ndcg@20"),
        *("mrr", "warm/ndcg@20", "cold/ndcg@20"),
    ]
    lists = display.list_shown(EvaluationOptions(k=[10], protocol="impressions", monitor="auc"))
    assert lists[:6] == ["auc", "mrr_all", "hr@5", "ndcg@5", "hr@10", "ndcg@10"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [["architecture=tfidf"], ["experiment=zero_shot"]])
def test_what_has_no_seeds_has_no_spread(shop_words, capfd, options):
    assert main([*shop_words, *options, "seeds=2"]) == 0
    out = capfd.readouterr().out
    assert "no seeds: deterministic" in out
    assert "standard deviation" not in out
    assert "2 seeds" not in out


@pytest.mark.parametrize("masked", [True, False])
def test_targets_that_the_mask_hides_are_counted_as_the_ranking_counts_them(
    shop, shop_words, tmp_path, capsys, masked
):
    """Every fifth user comes back at last to the first item."""
    header, *rows = (shop / "events.csv").read_text().splitlines()
    for user in range(0, 40, 5):
        first, last = rows[5 * user].split(","), rows[5 * user + 4].split(",")
        rows[5 * user + 4] = ",".join([last[0], first[1], *last[2:]])
    (tmp_path / "events.csv").write_text("\n".join([header, *rows]) + "\n")
    own = [word for word in shop_words if not word.startswith("data.source.interactions")]
    own += [f"data.source.interactions={tmp_path / 'events.csv'}", "architecture=popularity"]
    assert main([*own, f"evaluation.mask_history={str(masked).lower()}"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    counted = json.loads((folder / "result.json").read_text())["protocol"]["unreachable"]
    told = [line for line in capsys.readouterr().out.splitlines() if "unreachable: " in line]
    assert counted == (8 if masked else 0)
    assert [line.split(" targets")[0] for line in told] == (
        ["unreachable: 8 of 40 test"] if masked else []
    )

import html
import itertools
import math
import re
import statistics
import time
from html.parser import HTMLParser

import pytest

from recsys.sweep import status
from recsys.sweep.record import SearchAxis, read_record, write_record
from recsys.sweep.report import (
    best_of_k,
    figures,
    formatting,
    importance,
    optuna_plots,
    optuna_study,
    page,
    sensitivity,
    sentences,
    tables,
)
from tests.sweep import made


@pytest.fixture(scope="module")
def realistic(tmp_path_factory):
    found = made.realistic(tmp_path_factory.mktemp("sweep"))
    return found, page.write_page(found).read_text()


class Links(HTMLParser):
    """Everything that a browser would load or follow."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found += [(tag, k, v) for k, v in attributes if k in ("src", "href", "data", "action")]
        self.found += [(tag, k, v) for k, v in attributes if k == "style" and "url(" in (v or "")]


# --- numbers


@pytest.mark.parametrize("better", [1, -1])
def test_best_of_k_is_the_mean_over_all_subsets(better):
    values = [0.31, 0.12, 0.55, 0.12, 0.47, 0.9]
    best = max if better == 1 else min
    for k, found in enumerate(best_of_k.compute_expected_best(values, better), start=1):
        subsets = [best(chosen) for chosen in itertools.combinations(values, k)]
        assert found == pytest.approx(statistics.fmean(subsets), abs=1e-12)


def test_best_of_k_holds_for_many_trials():
    found = best_of_k.compute_expected_best([float(value) for value in range(700)])
    assert found[0] == pytest.approx(349.5)
    assert found[-1] == 699
    assert found == sorted(found)


def test_every_trial_that_used_budget_is_a_draw_once(tmp_path):
    trials = [
        made.trial("full", 0, 0.2),
        made.trial("full", 1, 0.05, state="pruned"),
        made.trial("full", 2, None, state="failed"),
        made.trial("full", 3, None, state="failed"),  # lost, and repeated by the next
        made.trial("full", 4, 0.3, retry_of=3),
        made.trial("full", 5, 0.9, state="running"),
    ]
    assert best_of_k.list_scores(made.sweep(tmp_path, trials), "full") == [0.2, 0.05, 0.05, 0.3]
    assert best_of_k.list_scores(made.sweep(tmp_path, trials[2:4]), "full") == []


def test_the_envelope_keeps_what_beats_all_trials_farther_out():
    found = [(1, 2), (2, 1), (3, 5), (4, 9), (5, 3), (6, 6), (7, 2), (8, 4), (6, 1)]
    assert sensitivity.compute_envelope(found, 1) == [(1, 2), (3, 5), (4, 9), (6, 6), (8, 4)]
    turned = [(x, -y) for x, y in found]
    assert sensitivity.compute_envelope(turned, -1) == [(1, -2), (3, -5), (4, -9), (6, -6), (8, -4)]
    assert sensitivity.compute_envelope([], 1) == []
    assert sensitivity.compute_envelope([(1, 4), (2, 4)], 1) == [(1, 4), (2, 4)]


def test_the_range_near_the_best_is_that_of_trials_within_five_percent(tmp_path):
    rates = {1e-5: 0.05, 1e-4: 0.0951, 2e-4: 0.02, 3e-4: 0.1, 8e-4: 0.0949, 4e-4: 0.096}
    trials = [
        made.trial("full", at, value, values={"optimizer.lr": lr})
        for at, (lr, value) in enumerate(rates.items())
    ]
    found = sensitivity.find_near_best_range(made.sweep(tmp_path, trials), "full", made.LR)
    assert (found.best, found.low, found.high) == (3e-4, 1e-4, 4e-4)
    assert (found.near, found.trials, found.enough) == (3, 6, False)
    assert sensitivity.compute_width(made.LR, found) == pytest.approx(4)


@pytest.mark.parametrize(
    ("lr", "end"), [(1.9e-5, "lower"), (2.1e-5, None), (4.9e-3, None), (5.1e-3, "upper")]
)
def test_a_best_trial_within_a_tenth_of_the_range_is_warned_of(tmp_path, lr, end):
    # three decades: a tenth of them is a factor of 10 ** 0.3, just below 2
    values = {"optimizer.lr": lr, "optimizer.weight_decay": 0.15}
    found = made.sweep(tmp_path, [made.trial("lora", 0, 0.1, values=values)])
    warned = sentences.describe_edges(found)
    assert len(warned) == (end is not None)
    assert all(f"{end} end" in text and "widen" in text for text in warned)


def test_nobody_is_told_to_search_below_zero(tmp_path):
    values = {"optimizer.weight_decay": 0.001}
    found = made.sweep(tmp_path, [made.trial("lora", 0, 0.1, values=values)])
    (warned,) = sentences.describe_edges(found)
    assert "cannot go" in warned
    assert "widen" not in warned


def test_axes_are_known_by_their_names():
    roles = {
        "optimizer.lr": "learning rate",
        "optimizer.encoder_lr": "learning rate",
        "lr": "learning rate",
        "optimizer.weight_decay": "regularisation",
        "tuning.dropout": "regularisation",
        "optimizer.l2_sp": "regularisation",
        "objective.label_smoothing": "regularisation",
        "tuning.rank": "other",
        "trainer.early": "other",
    }
    axes = {name: SearchAxis(name, "float", False, 0, 1, (), ()) for name in roles}
    assert {name: sensitivity.infer_role(axis) for name, axis in axes.items()} == roles


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-4, "3e-4"), (0.00123, "0.00123"), (1.234e-5, "1.23e-5"), (0.0, "0"), (16, "16"),
     (0.1, "0.1"), (2048.0, "2048"), (True, "true"), (None, "null"), ("mean", "mean")],
)  # fmt: skip
def test_parameters_are_written_short(value, text):
    assert formatting.format_parameter(value) == text


# --- importance


def axis_that_decides(folder, count):
    """Only the learning rate matters; the second axis is noise."""
    trials = []
    for at in range(count):
        lr, decay = 10 ** (-5 + 3 * ((at * 0.618) % 1)), 0.3 * ((at * 0.4142) % 1)
        value = 0.1 - 0.02 * abs(math.log10(lr / 3e-4))
        values = {"optimizer.lr": lr, "optimizer.weight_decay": decay}
        trials.append(made.trial("full", at, value, values=values))
    return made.sweep(folder, trials)


def test_importance_is_hidden_below_the_threshold_and_says_why(tmp_path):
    few, enough = axis_that_decides(tmp_path, 19), axis_that_decides(tmp_path, 20)
    assert importance.compute_importances(few, "full") is None
    assert importance.compute_significance(few, "full") is None
    assert importance.draw_importance(few, "full") is None
    assert "needs 20" in importance.explain_missing(few, "full")
    assert importance.compute_importances(enough, "full") is not None
    assert importance.explain_missing(enough, "full") == ""


def test_importance_finds_the_axis_that_decides_and_knows_chance(tmp_path):
    found = axis_that_decides(tmp_path, 40)
    shares = importance.compute_importances(found, "full")
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "optimizer.lr"
    assert importance.compute_significance(found, "full") == {
        "optimizer.lr": True,
        "optimizer.weight_decay": False,
    }


def test_the_study_in_memory_has_the_trials_as_they_are(realistic):
    sweep, _ = realistic
    study = optuna_study.make_study(sweep, "lora")
    assert [trial.number for trial in study.trials] == [
        t.number for t in sweep.select_trials("lora")
    ]
    assert study.best_trial.number == sweep.find_best("lora").number
    assert study.best_value == pytest.approx(100 * sweep.find_best("lora").objectives[0])
    assert "tuning.rank" not in optuna_study.make_study(sweep, "full").trials[0].params
    states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "running": "RUNNING"}
    for ours, theirs in zip(sweep.select_trials("lora"), study.trials, strict=True):
        assert theirs.state.name == states[ours.state]
        assert theirs.params == dict(ours.values)


# --- the page


def test_the_page_loads_nothing_from_anywhere(realistic):
    _, text = realistic
    links = Links(text).found
    assert links == []
    assert text.count("* plotly.js v") == 1
    rules = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert "url(" not in rules
    assert "@import" not in rules


def test_every_trial_is_in_the_table_and_in_the_pictures(realistic):
    sweep, text = realistic
    body = text[text.index("All trials") : text.index("<script>/**")]
    rows = re.findall(r"<tr>(<td.*?)</tr>", body)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    assert len(cells) == len(sweep.trials)
    for trial, row in zip(sweep.trials, cells, strict=True):
        assert row[:4] == [trial.method, trial.state, html.escape(trial.reason), str(trial.number)]
    drawn = text[text.index('id="figure-sensitivity"') :]
    drawn = drawn[: drawn.index("</script>")]
    for trial in sweep.trials:
        assert (f"{trial.method} #{trial.number}, " in drawn) == (trial.state != "running")


def test_texts_of_a_sweep_are_never_markup(tmp_path):
    bad = "</script><b>lost & found</b>"
    trials = [
        made.trial("full", 0, None, state="failed", reason=bad, values={"optimizer.lr": 1e-3}),
        made.trial("full", 1, 0.1, values={"optimizer.lr": 1e-3}),
    ]
    sweep = made.sweep(tmp_path, trials, notes=(bad,), name=bad, common={"key": bad})
    text = page.render_page(sweep)
    assert "<b>" not in text[: text.index("<script>/**")]
    assert html.escape(bad) in text
    # four scripts of data and two of code end where they should
    assert text.count("<script") == text.count("</script>")


def test_the_comparison_is_linked_where_it_was_made(tmp_path):
    sweep = made.sweep(tmp_path, [made.trial("full", 0, 0.1)])
    assert Links(page.render_page(sweep)).found == []
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "report.html").write_text("")
    assert Links(page.render_page(sweep)).found == [("a", "href", "comparison/report.html")]


LR = {"optimizer.lr": 3e-4}
SMALL = {
    "nothing": [],
    "running": [made.trial("full", 0, None, state="running", values=LR)],
    "failed": [made.trial("full", 0, None, state="failed", reason="out of memory", values=LR)],
    "pruned": [made.trial("full", 0, 0.02, state="pruned", values=LR)],
    "one": [made.trial("full", 0, 0.1, values=LR)],
    "no axis": [made.trial("full", 0, 0.1)],
    "alike": [made.trial("full", at, 0.1, values=LR) for at in range(5)],
}


@pytest.mark.parametrize("trials", SMALL.values(), ids=SMALL)
def test_a_sweep_of_few_trials_has_a_page(tmp_path, trials):
    sweep = made.sweep(tmp_path, trials)
    text = page.write_page(sweep).read_text()
    complete = any(trial.state == "complete" for trial in trials)
    assert ("No trial is complete yet" in text) != complete
    assert ("<h2>Answers</h2>" in text) == bool(complete and trials[0].values)
    assert page.render_markdown(sweep).startswith("# Sweep made")
    status.print_status(sweep)


def test_choices_are_drawn_and_numbers_that_are_choices_too(tmp_path):
    axis = SearchAxis(
        "encoder.pooling", "choice", False, None, None, ("mean", "cls", None), ("full",)
    )
    decay = SearchAxis("optimizer.l2_sp", "choice", False, None, None, (0, 0.1), ("full",))
    trials = [
        made.trial("full", at, 0.1 + 0.01 * at,
                   values={"encoder.pooling": pool, "optimizer.l2_sp": l2, **LR})
        for at, (pool, l2) in enumerate(itertools.product(("mean", "cls", None), (0, 0.1)))
    ]  # fmt: skip
    sweep = made.sweep(tmp_path, trials, axes=(axis, decay, made.LR))
    figure = figures.draw_sensitivity(sweep).figure
    # Numbers stand before choices of the same role.
    titles = [figure.layout[f"xaxis{n}"].title.text for n in ("", "2", "3")]
    assert titles == ["optimizer.lr", "optimizer.l2_sp", "encoder.pooling"]
    assert list(figure.layout.xaxis3.categoryarray) == ["mean", "cls", "null"]
    assert len(optuna_plots.draw_study_plots(sweep, "full")) >= 4
    # pytest.approx: sums of floats
    best = sensitivity.find_best_by_choice(sweep.trials, axis, 1)
    assert best == pytest.approx({"mean": 0.11, "cls": 0.13, "null": 0.15})


def test_two_objectives_are_drawn_against_each_other(tmp_path):
    sweep = made.realistic(tmp_path, count=6, two=True, tested=False)
    names = [picture.name for picture in figures.draw_plots(sweep)]
    assert names[:3] == ["sensitivity", "best_of_k", "cost"]
    complete = [trial for trial in sweep.trials if trial.state == "complete"]
    from recsys.sweep.report.training_plots import find_pareto_front

    kept = find_pareto_front(sweep)
    for trial in complete:
        beaten = any(
            other.objectives[0] > trial.objectives[0] and other.objectives[1] < trial.objectives[1]
            for other in complete
        )
        assert (trial in kept) != beaten
    assert any(p.name == "front-lora" for p in optuna_plots.draw_study_plots(sweep, "lora"))
    text = page.write_page(sweep).read_text()
    assert "ndcg@10 against training time" in text


def test_the_page_is_the_same_from_what_was_saved(tmp_path):
    sweep = made.realistic(tmp_path, count=5)
    write_record(sweep)
    assert page.render_markdown(read_record(tmp_path)) == page.render_markdown(sweep)


def test_test_metrics_come_with_their_spread(realistic):
    sweep, text = realistic
    values = [100 * test["ndcg@10"] for test in sweep.tests["lora"]]
    spread = f"{statistics.fmean(values):.2f} \N{PLUS-MINUS SIGN} {statistics.stdev(values):.2f}"
    assert f"{spread} (3)" in text
    assert spread in page.render_markdown(sweep)
    table = tables.make_method_table(sweep)
    assert [row[table.head.index("trained parameters")] for row in table.rows] == [
        "4.40M",
        "74.0k",
        "16.0k",
    ]
    assert all(len(row) == len(table.head) for row in table.rows)


# --- status


def test_the_line_says_what_ended_and_what_is_best(tmp_path):
    values = {"optimizer.lr": 3e-4, "tuning.rank": 8}
    trials = [
        made.trial("lora", 1, 0.103, values=values),
        made.trial("lora", 2, 0.02, state="pruned"),
        made.trial("lora", 3, 0.0981),
    ]
    sweep = made.sweep(tmp_path, trials, methods=("full", "lora"), planned=40)
    clock = time.strftime("%H:%M", time.localtime(made.BEGAN))
    # 77 of 80 trials are left, of a minute each, for two workers
    assert status.format_progress(sweep, trials[2], 2, made.BEGAN) == (
        f"{clock} trial 3 of 80 | lora #3 complete ndcg@10 9.81 | best lora #1 10.30 "
        "(optimizer.lr 3e-4, tuning.rank 8) | 1 pruned, 0 failed | about 38 min left"
    )
    assert "lora #2 pruned after 20 steps at ndcg@10 2.00" in status.format_progress(
        sweep, trials[1], 2, 0
    )


def test_a_lost_trial_and_its_repetition_count_once(tmp_path):
    lost = made.trial("lora", 0, None, state="failed", reason="killed")
    again = made.trial("lora", 1, 0.1, retry_of=0)
    sweep = made.sweep(tmp_path, [lost, again], planned=2)
    line = status.format_progress(sweep, again, 1, made.BEGAN)
    assert "trial 1 of 2 " in line
    assert "0 failed, 1 repeated" in line
    assert line.endswith("about 60 s left")
    assert tables.make_method_table(sweep).rows[0][2:5] == ["1", "0", "0"]


def test_time_left_goes_by_method_and_takes_off_what_runs(tmp_path):
    now = made.BEGAN + 1000
    trials = [
        made.trial("full", 0, 0.1, seconds=100.0),
        made.trial("full", 1, None, state="running", began=now - 30),
        made.trial("lora", 0, 0.1, seconds=10.0),
        made.trial("lora", 1, 0.1, seconds=30.0),
        made.trial("lora", 2, None, state="failed", seconds=9000.0),
    ]
    sweep = made.sweep(tmp_path, trials, planned=4)
    assert status.estimate_method_seconds(sweep, now) == {"full": 70 + 2 * 100, "lora": 20}
    assert status.estimate_seconds_left(sweep, 2, now) == pytest.approx(145)
    hours = made.sweep(tmp_path, trials, planned=None, budget="2 hours")
    assert status.estimate_seconds_left(hours, 2, now) is None
    assert "left" not in status.format_progress(hours, trials[0], 2, now)


def test_the_table_of_the_status_shows_each_method(realistic, capsys):
    status.print_status(realistic[0], now=made.BEGAN + 4320)
    text = capsys.readouterr().out
    assert "20 of 21" in text
    assert "running for 20 s: lora #21" in text
    assert "note: One shared Sobol design" in text

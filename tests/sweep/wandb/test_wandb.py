"""A sweep at Weights & Biases, offline: killed trials, the closing run, workspace and report."""

import json
import statistics
import subprocess
import sys
from dataclasses import replace

import pytest

from recsys.boards import specification, workspaces
from recsys.boards.offline_run import read_logged_rows, read_logged_run, replay
from recsys.config.compose import compose, format_config, make_node
from recsys.errors import ConfigError
from recsys.runs.state import RunState
from recsys.runs.validation_log import ValidationLog
from recsys.sweep.report.importance import compute_importances
from recsys.sweep.wandb import close, hooks, summary
from recsys.sweep.wandb.summary import compute_summary_id, make_summary, make_tables
from recsys.tracking.csv_log import CsvLog
from recsys.tracking.wandb_files import list_files
from recsys.tracking.wandb_log import WandbLog
from tests.sweep import made

LOST = [(step, {"train/loss": 1 / step, "lr/head": 1e-3}) for step in range(10, 60, 10)]


def words(method, number, lr, mode="offline"):
    return [
        f"tuning={method}",
        f"optimizer.lr={lr}",
        f"tracking.wandb={mode}",
        "tracking.project=shop",
        "tracking.group=made-0001",
        f"tracking.tags=[method={method},sweep=made,trial={number}]",
        f"tracking.name='{method} #{number}'",
        "tracking.kind=trial",
        f"tracking.labels={{method: {method}, searched: {{optimizer: {{lr: {lr}}}}}}}",
    ]


def begin(folder, asked, name):
    """A run's folder, as a trial has it once it has begun."""
    run = compose(asked)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(format_config(run))
    RunState("f" * 64, wandb=name).write(folder)
    return run


def open_log(folder, run, name):
    """Its run, as `recsys.fit.run` opens it."""
    return WandbLog(folder, name, make_node(run))


def leave_rows(folder, rows):
    log = CsvLog(folder / "log" / "metrics.csv")
    for step, row in rows:
        log.log_metrics(row, step)
    log.save()


def values(run, *names):
    """(step, value, ...) of the rows that have all of some keys."""
    return [
        (row["_step"], *(row[name] for name in names))
        for row in run.history
        if all(name in row for name in names)
    ]


def test_a_trial_that_was_killed_before_it_wrote_anything_is_logged_again(tmp_path):
    folder = tmp_path / "run"
    begin(folder, words("lora", 3, 0.01), "aaaa0003")
    leave_rows(folder, [(0, {"val/ndcg@10": 0.25, "seconds": 0.0}), *LOST])
    lines = ValidationLog(folder / "validations.jsonl")
    lines.add(0, 0.0, 0.25, 0.0)
    lines.add(60, 2.0, 0.5, 7.0)  # later than the last time the log was written
    reason = "the run was ended by signal 9 (kill -9)"
    assert hooks.close_trial(folder, "failed", reason) == ""
    run = read_logged_run(folder)
    assert (run.id, run.project, run.group, run.exit) == ("aaaa0003", "shop", "made-0001", 1)
    assert (run.name, run.kind) == ("lora #3", "trial")
    assert {"tuning=lora", "method=lora", "sweep=made", "trial=3"} <= set(run.tags)
    assert run.config["optimizer.lr"] == 0.01
    assert values(run, "train/loss") == [(step, row["train/loss"]) for step, row in LOST]
    assert values(run, "val/ndcg@10", "seconds") == [(0, 0.25, 0.0), (60, 0.5, 7.0)]
    assert run.summary["trial/state"] == "failed"
    assert run.summary["trial/reason"] == reason
    assert run.summary["val/ndcg@10"] == 0.5
    before = list_files(folder, "aaaa0003")
    assert close.main([str(folder), "failed", "again"]) == 0
    assert list_files(folder, "aaaa0003") == before  # it has been told already


KILLED = """
import os, sys, time
from pathlib import Path
import wandb
from recsys.tracking.wandb_run import WandbRunInfo, open_run
from recsys.config.yaml_file import read_mapping
folder = Path(sys.argv[1])
config = read_mapping(folder / "config.yaml")
run = open_run(folder, "aaaa0004", True, WandbRunInfo.from_config(config, folder), config)
for step in range(10, 41, 10):
    run.log({"train/loss": 1 / step, "long": "x" * 40_000}, step=step)
while len(next(folder.glob("wandb/*/*.wandb")).read_bytes()) < 60_000:
    time.sleep(0.05)
os._exit(9)
"""


def test_of_a_trial_that_was_killed_only_what_is_lost_is_logged_again(tmp_path):
    folder = tmp_path / "run"
    begin(folder, words("lora", 4, 0.01), "aaaa0004")
    leave_rows(folder, LOST)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert killed.returncode == 9
    (first,) = list_files(folder, "aaaa0004")
    before = replay([first])
    assert before.exit is None
    assert 0 < len(before.history) < len(LOST)
    assert close.main([str(folder), "failed", "killed"]) == 0
    paths = list_files(folder, "aaaa0004")
    assert paths[0] == first
    assert len(paths) == 2
    merged = replay(paths)
    assert values(merged, "train/loss") == [(step, row["train/loss"]) for step, row in LOST]
    assert merged.exit == 1
    assert set(before.tags) == set(merged.tags)
    assert before.config == merged.config
    assert merged.summary["trial/state"] == "failed"


def test_a_trial_without_a_run_is_left_alone_and_a_damaged_one_is_told(tmp_path):
    folder = tmp_path / "run"
    begin(folder, words("lora", 1, 0.01, mode="off"), "aaaa0001")
    assert close.main([str(folder), "failed", "why"]) == 0
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("wandb: 'off'", "wandb: offline"))
    (folder / "start.json").unlink()
    assert close.main([str(folder), "failed", "why"]) == 0
    assert not (folder / "wandb").exists()
    (folder / "start.json").write_text("{")
    told = hooks.close_trial(folder, "failed", "why")
    assert told.startswith(f"{folder}: its run at Weights & Biases could not be ended (")
    assert "start.json is damaged" in told
    assert "\n" not in told


def test_rows_come_from_the_log_and_later_validations_from_their_lines(tmp_path):
    leave_rows(tmp_path, [(0, {"val/mrr": 0.1, "seconds": 0.0}), (5, {"train/loss": 1.0})])
    lines = ValidationLog(tmp_path / "validations.jsonl")
    lines.add(0, 0.0, 0.9, 9.0)
    lines.add(5, 1.0, 0.2, 3.0)
    with lines.path.open("a") as file:
        file.write('{"step": 9, "epo')
    assert read_logged_rows(tmp_path, "val/mrr") == [
        (0, {"val/mrr": 0.1, "seconds": 0.0}),
        (5, {"train/loss": 1.0, "val/mrr": 0.2, "seconds": 3.0}),
    ]


def table_of(run, path, name):
    node = json.loads((path.parent / "files" / run.summary[name]["path"]).read_text())
    return [dict(zip(node["columns"], row, strict=True)) for row in node["data"]]


@pytest.fixture(scope="module")
def closing(tmp_path_factory):
    """A sweep whose closing run was logged twice, and its file."""
    folder = tmp_path_factory.mktemp("sweeps") / "made-0001"
    folder.mkdir()
    (folder / "report.html").write_text("<p>old</p>")
    early = made.realistic(folder, count=6, tested=False)
    summary.log_summary_run(early, "shop", "made-0001", "offline")
    (folder / "report.html").write_text("<p>the page</p>")
    sweep = made.realistic(folder, count=20)
    summary.log_summary_run(sweep, "shop", "made-0001", "offline")
    (path,) = list_files(folder, compute_summary_id(folder))
    return sweep, path, replay([path])


def test_the_closing_run_says_what_the_sweep_holds(closing):
    sweep, path, run = closing
    assert (run.id, run.group) == (compute_summary_id(sweep.folder), "made-0001")
    assert (run.name, run.kind) == (f"sweep {sweep.name}: summary", "sweep-summary")
    assert (run.project, run.exit, run.tags) == ("shop", 0, (f"sweep={sweep.name}",))
    rows = table_of(run, path, "trials")
    assert len(rows) == len(sweep.trials)
    for row, trial in zip(rows, sweep.trials, strict=True):
        assert (row["method"], row["trial"]) == (trial.method, trial.number)
        assert (row["state"], row["reason"]) == (trial.state, trial.reason)
        for name, value in trial.values.items():
            assert row[name] == value
        for name, value in trial.figures.items():
            assert row[name] == value
        value = trial.objectives[0] if trial.objectives else None
        assert row["validation ndcg@10"] == value
        assert (row["seconds"], row["epochs"]) == (trial.seconds, trial.epochs)
    best = table_of(run, path, "best trials")
    wanted = [
        (m, sweep.find_best(m).number, sweep.find_best(m).objectives[0]) for m in sweep.methods
    ]
    assert [(r["method"], r["trial"], r["validation ndcg@10"]) for r in best] == wanted


def test_the_closing_run_tells_means_over_seeds_states_and_importances(closing):
    sweep, path, run = closing
    for row in table_of(run, path, "closing tests"):
        seeds = [test[row["metric"]] for test in sweep.tests[row["method"]]]
        assert row["mean"] == pytest.approx(statistics.fmean(seeds), abs=1e-15)
        assert row["standard deviation"] == pytest.approx(statistics.stdev(seeds), abs=1e-15)
        assert run.summary[f"closing/{row['method']}/{row['metric']}/mean"] == row["mean"]
    states = {t.state: 0 for t in sweep.trials}
    for trial in sweep.trials:
        states[trial.state] += 1
    assert {k: run.summary[f"states/{k}"] for k in states} == states
    told = {
        (row["method"], row["axis"]): row["importance"]
        for row in (table_of(run, path, "importances") if "importances" in run.summary else [])
    }
    wanted = {
        (method, axis): share
        for method in sweep.methods
        for axis, share in (compute_importances(sweep, method) or {}).items()
    }
    assert told == pytest.approx(wanted)
    assert make_summary(sweep).items() <= run.summary.items()


def test_the_closing_run_has_pictures_charts_and_the_latest_page(closing):
    sweep, path, run = closing
    kinds = {
        name: v["_type"] for name, v in run.summary.items() if isinstance(v, dict) and "_type" in v
    }
    assert kinds["report"] == "html-file"
    page = (path.parent / "files" / run.summary["report"]["path"]).read_text()
    assert "the page" in page
    assert kinds["pictures/sensitivity"] == "plotly-file"
    assert any(name.startswith("charts/optimizer.lr") for name in run.summary)
    assert any(name.startswith("charts/best so far") for name in run.summary)
    assert set(make_tables(sweep)) <= kinds.keys()


def test_importances_are_told_where_there_are_trials_enough(tmp_path):
    sweep = made.realistic(tmp_path, count=20, two=True)
    names = [method for method in sweep.methods if compute_importances(sweep, method)]
    assert names
    head, rows = make_tables(sweep)["importances"]
    assert head == ["method", "axis", "importance"]
    for method in names:
        shares = [share for name, _, share in rows if name == method]
        assert sum(shares) == pytest.approx(1)


def test_the_baselines_stand_beside_the_methods(tmp_path):
    floors = {"popularity": {"ndcg@10": 0.05, "undefined/ndcg@10": 0.0}}
    sweep = replace(made.realistic(tmp_path, count=2), floors=floors)
    told = make_summary(sweep)
    assert told["baseline/popularity/ndcg@10"] == 0.05
    assert not [key for key in told if "undefined/" in key]
    head, rows = make_tables(sweep)["closing tests"]
    (row,) = [dict(zip(head, row, strict=True)) for row in rows if row[0] == "popularity"]
    assert (row["metric"], row["mean"], row["runs"]) == ("ndcg@10", 0.05, None)


def test_no_word_of_the_command_reaches_the_closing_run(tmp_path, monkeypatch):
    words = ["sweep=smoke", "storage=postgresql://me:geheim-4711@host/db"]
    monkeypatch.setattr("sys.argv", ["sweep", *words])
    monkeypatch.setenv("PGPASSWORD", "geheim-4711")
    summary.log_summary_run(made.realistic(tmp_path, count=2), "shop", "made-0001", "offline")
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in found)
    assert [path for path in found if b"geheim" in path.read_bytes()] == []
    assert sys.argv[1:] == words


def test_nothing_is_logged_where_tracking_is_off(tmp_path):
    hooks.log_summary(made.realistic(tmp_path, count=2), "shop", "group", "off")
    assert not list(tmp_path.iterdir())


LRS = {"lora": (1e-4, 1e-2), "full": (1e-4, 1e-2)}


@pytest.fixture(scope="module")
def logged_sweep(tmp_path_factory):
    """A sweep of two methods and five trials: four logged, one of them pruned; one left nothing."""
    folder = tmp_path_factory.mktemp("logged") / "made-0001"
    folder.mkdir()
    trials = []
    for method, rates in LRS.items():
        for number, lr in enumerate(rates):
            place, name = folder / "trials" / f"{method}-{number}", f"bbbb{method[:3]}{number}"
            run = begin(place, words(method, number, lr), name)
            log = open_log(place, run, name)
            for step, row in LOST:
                log.log_metrics({**row, "val/ndcg@10": 0.1 + step / 1000}, step)
            pruned = (method, number) == ("full", 1)
            if pruned:
                log.run.summary.update({"trial/state": "pruned", "trial/reason": "why"})
            else:
                log.run.summary.update({"validation/best": 0.15, "cost/train_seconds": 3.0})
            log.close(1 if pruned else 0)
            trials.append(
                made.trial(
                    *(method, number, 0.15),
                    state="pruned" if pruned else "complete",
                    values={"optimizer.lr": lr, "size": number},
                    runs=(f"trials/{method}-{number}",),
                )
            )
    lost = made.trial("lora", 9, None, state="failed", runs=("trials/lora-9",))
    size = made.SearchAxis("size", "int", False, 0, 1, (), ("lora", "full"))
    tests = {"lora": ({"ndcg@10": 0.1}, {"ndcg@10": 0.3})}
    sweep = made.sweep(folder, [*trials, lost], axes=(made.LR, size), tests=tests)
    (folder / "report.html").write_text("<p>page</p>")
    hooks.log_summary(sweep, "shop", "made-0001", "offline")
    return sweep


@pytest.fixture(scope="module")
def specified(logged_sweep):
    found = specification.read_board(logged_sweep.folder)
    assert found == hooks.make_board(logged_sweep)
    return found


def test_every_key_of_a_sweep_exists_in_its_runs(logged_sweep, specified):
    places = [logged_sweep.folder / run for t in logged_sweep.trials for run in t.runs]
    runs = [read_logged_run(place) for place in places if (place / "start.json").is_file()]
    runs.append(replay(list_files(logged_sweep.folder, compute_summary_id(logged_sweep.folder))))
    specification.check_board(specified, runs)
    panels = [panel for section in specified.sections for panel in section.panels]
    kinds = {panel.kind for panel in panels}
    assert kinds == {"parallel", "scatter", "importance", "line", "table", "media", "bar"}
    (parallel,) = [panel for panel in panels if panel.kind == "parallel"]
    assert [(key.source, key.name, key.log) for key in parallel.keys] == [
        ("config", "method", False),
        ("config", "searched.optimizer.lr", True),
        ("summary", "validation/best", False),
    ]
    lines = [key.name for panel in panels if panel.kind == "line" for key in panel.keys]
    assert lines == ["val/ndcg@10", "train/loss", "lr/head"]
    named = {each.name: each for each in specified.runs}
    assert named["lora"].ids == ("bbbblor0", "bbbblor1")
    assert named["full: trials"].ids == ("bbbbful0", "bbbbful1")
    assert (specified.project, specified.workspace.group) == ("shop", "made-0001")
    tables = {key.name for panel in panels if panel.kind == "table" for key in panel.keys}
    assert {"trials", "best trials", "closing tests"} <= tables
    text = specified.sections[0].text
    assert "No label at Weights & Biases" in text
    assert ": size;" in text
    assert "1 of the trials' runs left nothing" in text


def test_the_trials_of_a_sweep_logged_what_its_record_says(logged_sweep):
    for trial in logged_sweep.trials:
        for name in trial.runs if trial.number != 9 else ():
            run = read_logged_run(logged_sweep.folder / name)
            assert run.config["optimizer.lr"] == trial.values["optimizer.lr"]
            assert f"method={trial.method}" in run.tags
            state = run.summary.get("trial/state", "complete")
            assert (state, run.exit) == (trial.state, 0 if trial.state == "complete" else 1)


def test_workspace_and_report_of_a_sweep_are_built_without_a_connection(specified):
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.reports.v2 import internal as reports
    from wandb_workspaces.workspaces import internal

    model = workspaces.make_workspace(specified, "team")._to_model()
    text = model.model_dump_json(by_alias=True, exclude_none=True)
    again = ws.Workspace._from_model(internal.View.model_validate_json(text))
    assert again._to_model().model_dump_json(by_alias=True, exclude_none=True) == text
    assert '"value":"made-0001"' in text
    assert "config:searched.value.optimizer.lr" in text
    node = json.loads(
        workspaces.make_report(specified, "team")
        ._to_model()
        .model_dump_json(by_alias=True, exclude_none=True)
    )
    node["spec"] = json.dumps(node["spec"])
    report = wr.Report._from_model(reports.ReportViewspec.model_validate(node))
    grids = [block for block in report.blocks if isinstance(block, wr.PanelGrid)]
    shown = [section for section in specified.sections if section.panels]
    assert [len(g.panels) for g in grids] == [len(s.panels) for s in shown]
    curves = grids[1]
    assert [(r.name, r.groupby) for r in curves.runsets] == [
        ("lora", ["run.Group"]),
        ("full", ["run.Group"]),
    ]


def test_a_sweep_that_logged_nothing_cannot_be_specified(tmp_path):
    with pytest.raises(ConfigError, match=r"no trial was logged to Weights & Biases; run the"):
        hooks.make_board(made.realistic(tmp_path, count=2))

"""The driver: what it starts, prunes, repeats and keeps, however it ends itself."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsys.errors import ConfigError
from recsys.runtime.files import SWEEP
from recsys.sweep import __main__ as command
from recsys.sweep import parsing, record
from recsys.sweep.report.formatting import list_ended
from recsys.sweep.running.driver import SweepDriver
from recsys.sweep.running.trial import _is_disk_full
from recsys.sweep.space import make_plans

HERE = Path(__file__).parents[1]

SPACE = """
experiment: lora_two_tower
with: {trainer.epochs: 3}
methods:
  lora: {tuning: lora}
  frozen: {tuning: frozen}
space:
  optimizer.lr: {low: 1e-5, high: 1e-1, log: true, instead: {frozen: optimizer.head_lr}}
  tuning.rank: {choices: [2, 4], when: {tuning: lora}}
sampler: sobol
budget: {trials: 3}
final_seeds: 2
"""

OUTSIDE = """
import sys
from recsys.sweep import parsing
from recsys.sweep.running.driver import SweepDriver
from recsys.sweep.space import make_plans
found = parsing.read_definition(sys.argv[1:])
found.folder.mkdir(parents=True, exist_ok=True)
driver = SweepDriver(found, make_plans(found), lambda text: print(text, flush=True), "pretend")
sys.exit(driver.run())
"""


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Writes a sweep and how its runs behave; gives the words of its command."""
    monkeypatch.setenv("PRETEND", str(tmp_path / "pretend.json"))
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{HERE.parent.parent}")
    (tmp_path / "outside.py").write_text(OUTSIDE)

    def written(space=SPACE, behaviour=None):
        (tmp_path / "made.yaml").write_text(space)
        (tmp_path / "pretend.json").write_text(json.dumps(behaviour or {}))
        return [
            f"sweep={tmp_path / 'made.yaml'}",
            f"output={tmp_path / 'runs'}",
            "tracking.wandb=off",
            "prepared=false",
        ]

    return written


def drive(words):
    """Runs a sweep in this process; its record, exit code and lines."""
    found = parsing.read_definition(words)
    found.folder.mkdir(parents=True, exist_ok=True)
    lines = []
    code = SweepDriver(found, make_plans(found), lines.append, "pretend").run()
    return record.read_record(found.folder), code, lines


def calls(tmp_path):
    path = tmp_path / "pretend.calls"
    return [json.loads(line) for line in path.read_text().splitlines()]


def begin(words, tmp_path):
    """Starts a driver of its own."""
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "outside.py"), *words],
        stdout=(tmp_path / "driver.log").open("a"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def until(found, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (value := found()) is not None:
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may go while it is looked at
        return False


def test_every_method_has_its_budget_the_best_is_closed_with_new_seeds_and_only_then_tested(
    play, tmp_path
):
    sweep, code, lines = drive(play())
    assert code == 0
    assert {(t.method, t.state) for t in sweep.trials} == {
        ("lora", "complete"),
        ("frozen", "complete"),
    }
    assert [len(sweep.select_trials(method)) for method in ("lora", "frozen")] == [3, 3]
    # The same points for both, whatever else a method searches.
    rates = [[t.values["optimizer.lr"] for t in sweep.select_trials(m)] for m in ("lora", "frozen")]
    assert rates[0] == rates[1]
    assert all("tuning.rank" in t.values for t in sweep.select_trials("lora"))
    assert all("tuning.rank" not in t.values for t in sweep.select_trials("frozen"))
    made = [dict(word.partition("=")[::2] for word in call["argv"]) for call in calls(tmp_path)]
    trials, finals = made[:6], made[6:]
    assert all(words["evaluation.test"] == "false" and words["seed"] == "0" for words in trials)
    assert all("evaluation.test" not in words for words in finals)
    assert [words["seed"] for words in finals] == ["1", "2", "1", "2"]
    assert all(
        words["trainer.max_steps"] == words["optimizer.schedule_steps"] == "30"
        and words["checkpoint.pick"] == "last"
        for words in finals
    )
    best = sweep.find_best("lora")
    assert finals[0]["optimizer.lr"] == str(best.values["optimizer.lr"])
    assert {method: len(tests) for method, tests in sweep.tests.items()} == {"lora": 2, "frozen": 2}
    # Parameters are kept of each method's best trial only.
    kept = {path.parts[-4] for path in (sweep.folder / "trials").rglob("best.safetensors")}
    wanted = {f"{sweep.find_best(method).index:04d}" for method in ("lora", "frozen")}
    assert kept == wanted
    assert (sweep.folder / "report.html").is_file()
    assert any("trial 6 of 6" in line for line in lines)


def test_failures_are_marked_and_the_sweep_goes_on(play, tmp_path):
    space = SPACE.replace("trials: 3", "trials: 6").replace("final_seeds: 2", "final_seeds: 0")
    behaviour = {"0000": "nan", "0001": "memory", "0002": "killed once", "0003": "killed"}
    sweep, code, _ = drive([*play(space, behaviour), "methods=lora"])
    assert code == 0
    by_index = {}
    for trial in sweep.trials:
        by_index.setdefault(trial.index, []).append(trial)
    states = {index: [t.state for t in found] for index, found in by_index.items()}
    assert states == {
        0: ["failed"],
        1: ["failed"],
        2: ["failed", "complete"],  # killed: once more, from where it was
        3: ["failed", "failed"],  # and not for ever
        4: ["complete"],
        5: ["complete"],
    }
    assert "not finite" in by_index[0][0].reason
    assert "out of memory" in by_index[1][0].reason
    assert "signal 9" in by_index[3][1].reason
    first, again = by_index[2]
    assert again.retry_of == first.number
    assert again.values == first.values
    assert again.runs == first.runs
    resumed = [call for call in calls(tmp_path) if call["argv"][0].startswith("resume=")]
    assert resumed
    assert all(call["kept"] for call in resumed)  # the state that the lost attempt saved


def test_a_budget_of_epochs_ends_where_no_trial_comes_to_one(play, tmp_path):
    space = SPACE.replace("{trials: 3}", "{epochs: 3}")
    behaviour = {f"{k:04d}": "early" for k in range(9)}
    sweep, code, _ = drive([*play(space, behaviour), "methods=lora"])
    assert code == 1
    assert [t.state for t in sweep.trials] == ["failed"] * 3


def test_a_method_without_a_complete_trial_is_an_error(play, tmp_path, capsys):
    behaviour = {f"{k:04d}": "nan" for k in range(3)}
    _, code, _ = drive([*play(behaviour=behaviour), "methods=lora", "final_seeds=0"])
    assert code == 1
    said = capsys.readouterr().err
    assert (
        "error: no trial of lora is complete (3 trials, mostly: the loss is not finite at" in said
    )


def test_a_full_disk_stops_the_sweep_and_costs_no_trial_its_place(play, tmp_path, capsys):
    words = [*play(behaviour={"0001": "full"}), "methods=lora", "final_seeds=0"]
    for _ in range(3):  # it stays full: the sweep says so each time, and uses nothing up
        sweep, code, _ = drive(words)
        assert code == 5
        assert "error: x could not be written because the disk is full; the same command goes" in (
            capsys.readouterr().err
        )
        assert [t.index for t in sweep.select_trials("lora", "complete")] == [0]
    (tmp_path / "pretend.json").write_text("{}")
    sweep, code, _ = drive(words)
    assert code == 0
    assert sorted(t.index for t in sweep.select_trials("lora", "complete")) == [0, 1, 2]
    assert all("disk is full" in t.reason for t in sweep.select_trials("lora", "failed"))
    # The best of as many trials as asked for, none of them given up.
    assert len(list_ended(sweep, "lora")) == 3


@pytest.mark.parametrize("words", ["No space left on device", "Disk quota exceeded"])
def test_a_run_without_room_for_its_error_is_no_failure_of_its_values(play, tmp_path, words):
    place = tmp_path / "place"
    place.mkdir()
    assert _is_disk_full(f"OSError: [Errno 28] {words}", place)
    assert not _is_disk_full("tuning.layers is 9, and the model has 2.", place)


def test_the_lock_of_a_killed_driver_goes(play, tmp_path):
    words = [*play(behaviour={"0000": "slow"}), "methods=lora", "final_seeds=0"]
    folder = parsing.read_definition(words).folder
    process = begin(words, tmp_path)
    until(lambda: next(folder.glob("trials/lora/0000/*/pids"), None))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list((folder / "drivers").glob("*.lock"))
    (tmp_path / "pretend.json").write_text("{}")
    assert drive(words)[1] == 0
    assert not list((folder / "drivers").glob("*.lock"))


def test_a_trial_that_its_last_other_driver_lost_is_not_left_behind(play, tmp_path):
    words = [*play(behaviour={"0000": "slow"}), "methods=lora", "final_seeds=0"]
    found = parsing.read_definition(words)
    process = begin(words, tmp_path)
    until(lambda: next(found.folder.glob("trials/lora/0000/*/pids"), None))

    def say(line):
        if "trial 1 of 3" in line:  # long before the next look for such trials
            (tmp_path / "pretend.json").write_text("{}")
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    assert SweepDriver(found, make_plans(found), say, "pretend").run() == 0
    sweep = record.read_record(found.folder)
    assert sorted(t.index for t in sweep.select_trials("lora", "complete")) == [0, 1, 2]


def test_a_configuration_that_every_run_refuses_ends_the_sweep_with_its_sentence(play):
    behaviour = {f"{k:04d}": "refused" for k in range(3)}
    with pytest.raises(ConfigError, match=r"tuning.layers is 9"):
        drive([*play(behaviour=behaviour), "methods=lora"])


def test_a_pruned_trial_frees_its_process_and_its_children(play, tmp_path):
    space = SPACE.replace("sobol", "random").replace("trials: 3", "trials: 5")
    space += "pruner: {name: median, startup: 3, warmup: 0}\n"
    words = [*play(space, {"0003": "slow"}), "methods=lora", "final_seeds=0", "seed=3"]
    sweep, code, _ = drive(words)
    assert code == 0
    (pruned,) = [t for t in sweep.trials if t.index == 3]
    assert pruned.state == "pruned"
    pids = [int(pid) for pid in (sweep.folder / pruned.runs[0] / "pids").read_text().split()]
    assert not any(alive(pid) for pid in pids)
    assert (
        json.loads((sweep.folder / pruned.runs[0] / "ended.json").read_text())["state"] == "pruned"
    )


@pytest.mark.slow
def test_a_driver_that_is_killed_is_followed_by_one_that_ends_the_same(play, tmp_path):
    space = SPACE.replace("sobol", "tpe").replace("trials: 3", "trials: 4")
    whole, _, _ = drive([*play(space), "methods=lora", "final_seeds=0"])
    words = [*play(space, {"0001": "slow"}), "methods=lora", "final_seeds=0"]
    words[1] = f"output={tmp_path / 'again'}"
    folder = parsing.read_definition(words).folder
    process = begin(words, tmp_path)
    run = until(lambda: next(folder.glob("trials/lora/0001/*/pids"), None))
    pids = [int(pid) for pid in run.read_text().split()]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: None if any(alive(pid) for pid in pids) else True, 20)
    assert (run.parent / "saved").is_file()  # the run had time to save its state
    (tmp_path / "pretend.json").write_text("{}")
    sweep, code, lines = drive(words)
    assert code == 0
    assert any("lost with its driver" in line for line in lines)
    # The lost trial is repeated, goes on in its folder, and the suggestions are those of before.
    complete = sorted((t for t in sweep.trials if t.state == "complete"), key=lambda t: t.index)
    assert [t.values for t in complete] == [t.values for t in whole.trials]
    assert [t.objectives for t in complete] == [t.objectives for t in whole.trials]
    assert len(list(folder.glob("trials/lora/0001/*/config.yaml"))) == 1


@pytest.mark.slow
def test_the_same_command_with_more_trials_goes_on(play, tmp_path):
    words = [*play(), "methods=lora", "final_seeds=1"]
    before, _, _ = drive([*words, "trials=2"])
    after, _, _ = drive([*words, "trials=4"])
    assert before.folder == after.folder
    assert [t.values for t in after.trials][:2] == [t.values for t in before.trials]
    assert len(after.trials) == 4
    again, _, _ = drive([*words, "trials=4"])
    assert len(again.trials) == 4
    trained = [call for call in calls(tmp_path) if "/trials/" in call["folder"]]
    assert len(trained) == 4
    whole, _, _ = drive([*words, "trials=4", f"output={tmp_path / 'whole'}"])
    assert [t.values for t in whole.trials] == [t.values for t in after.trials]


@pytest.mark.slow
def test_a_sweep_that_is_done_writes_its_damaged_record_anew_and_runs_nothing(play, tmp_path):
    words = [*play(), "methods=lora", "final_seeds=1", "trials=1"]
    before, _, _ = drive(words)
    (before.folder / SWEEP).write_text("{")
    (before.folder / "report.html").unlink()
    count = len(calls(tmp_path))
    after, code, _ = drive(words)
    assert code == 0
    assert after == before
    assert (before.folder / "report.html").is_file()
    assert len(calls(tmp_path)) == count


def test_a_result_of_other_values_is_not_taken_for_a_trials(play, tmp_path):
    words = [*play(), "methods=lora", "final_seeds=0", "trials=1"]
    before, _, _ = drive(words)
    place = before.folder / "trials" / "lora" / "0000"
    (before.folder / "journal.log").unlink()
    drive(words)
    assert len(calls(tmp_path)) == 1  # the same values: what was trained stands
    (before.folder / "journal.log").unlink()
    (place / "values.json").write_text('{"optimizer.lr": "1"}\n')
    after, _, _ = drive(words)
    assert len(calls(tmp_path)) == 2
    assert after.trials[0].runs != before.trials[0].runs
    assert len(list(place.parent.glob("0000-until-*/*/result.json"))) == 1


@pytest.mark.slow
def test_two_drivers_share_a_study_and_no_trial_runs_twice(play, tmp_path):
    space = SPACE.replace("trials: 3", "trials: 8")
    words = [*play(space), "methods=lora", "final_seeds=1", "workers=2"]
    drivers = [begin(words, tmp_path) for _ in range(2)]
    codes = [driver.wait(120) for driver in drivers]
    assert codes == [0, 0], (tmp_path / "driver.log").read_text()
    sweep = record.read_record(parsing.read_definition(words).folder)
    assert sorted(t.index for t in sweep.trials) == list(range(8))
    folders = [call["folder"] for call in calls(tmp_path)]
    assert len(folders) == len(set(folders)) == 9  # and the closing run once


def test_ctrl_c_lets_the_runs_save_and_the_same_command_goes_on(play, tmp_path):
    words = [*play(behaviour={"0000": "slow"}), "methods=lora", "final_seeds=0"]
    folder = parsing.read_definition(words).folder
    process = begin(words, tmp_path)
    run = until(lambda: next(folder.glob("trials/lora/0000/*/pids"), None))
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert (run.parent / "saved").is_file()
    assert "the same command goes on" in (tmp_path / "driver.log").read_text()
    (tmp_path / "pretend.json").write_text("{}")
    sweep, code, _ = drive(words)
    assert code == 0
    done = [t for t in sweep.trials if t.state == "complete"]
    assert sorted(t.index for t in done) == [0, 1, 2]
    assert {t.reason for t in sweep.trials if t.state == "failed"} == {"stopped by the user"}


@pytest.mark.slow
def test_several_seeds_a_trial_and_the_mean_of_them(play):
    space = SPACE + "seeds: 2\npruner: wilcoxon\n"
    sweep, _, _ = drive([*play(space), "methods=lora", "final_seeds=1"])
    assert all(len(t.runs) == 2 and t.epochs == 6 for t in sweep.trials)
    assert Path(sweep.finals["lora"][0]).parts[3] == "seed-2"  # none that a trial had


@pytest.mark.slow
def test_two_objectives(play):
    space = SPACE.replace("sampler: sobol", "sampler: tpe")
    space += "objectives: {validation: maximize, cost.train_seconds: minimize}\n"
    sweep, code, _ = drive([*play(space), "methods=lora"])
    assert code == 0
    assert {t.objectives[1] for t in sweep.trials} == {1.5}


def test_a_sweep_goes_on_by_its_folder_and_refuses_what_would_change_its_trials(
    play, tmp_path, monkeypatch, capsys
):
    words = [*play(), "methods=lora", "final_seeds=0", "trials=1"]
    monkeypatch.setattr(
        "recsys.sweep.running.driver.SweepDriver.run", lambda self: self.definition.budget.trials
    )
    assert command.main(words) == 1
    folder = parsing.read_definition(words).folder
    assert command.main([f"resume={folder}", "trials=7"]) == 7
    assert command.main(["resume=last", f"output={tmp_path / 'runs'}"]) == 7
    moved = folder.rename(tmp_path / folder.name)
    assert command.main([f"resume={moved}"]) == 7
    moved.rename(folder)
    assert command.main([f"resume={folder}", "optimizer.clip=2"]) == 2
    assert "optimizer.clip would change the trials" in capsys.readouterr().err
    file = tmp_path / "made.yaml"
    file.write_text(file.read_text().replace("1e-1", "1e-2"))
    assert command.main([f"resume={folder}", "trials=7"]) == 2
    said = capsys.readouterr().err
    assert f"error: {file} was edited since {folder} began" in said
    assert f"{folder / 'sweep.yaml'} is the file as it was: put it back" in said
    file.write_text((folder / "sweep.yaml").read_text())
    assert command.main([f"resume={folder}", "trials=7"]) == 7
    capsys.readouterr()
    kept = (folder / "command.json").read_text()
    for damaged in ("{", "5", "[" * 100_000):
        (folder / "command.json").write_text(damaged)
        assert command.main([f"resume={folder}"]) == 2
        assert "command.json is damaged" in capsys.readouterr().err
    (folder / "command.json").write_text(kept)
    (folder / "journal.log").write_text("")
    assert command.main([f"resume={folder}", "storage=sqlite://"]) == 2
    assert "in its journal" in capsys.readouterr().err
    (folder / "database.txt").write_text("")
    assert command.main([f"resume={folder}"]) == 2
    assert "in a database" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert command.main([*words, f"output={tmp_path / 'file'}"]) == 2
    assert "cannot be made" in capsys.readouterr().err

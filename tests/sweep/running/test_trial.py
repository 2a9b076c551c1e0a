"""A trial by itself: what it starts, waits for and tells."""

import fcntl
import json
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState

from recsys.config.compose import compose
from recsys.errors import DataError
from recsys.runs.validation_log import ValidationLog
from recsys.sweep import parsing
from recsys.sweep.running import finals
from recsys.sweep.running.leases import TrialLeases
from recsys.sweep.running.storage import open_storage
from recsys.sweep.running.studies import SweepStudies
from recsys.sweep.running.trial import RunningTrial, TrialOutcome
from recsys.sweep.space import make_plans

SPACE = """
experiment: lora_two_tower
space: {optimizer.lr: {low: 1e-5, high: 1e-1, log: true}}
sampler: random
budget: {trials: 2}
"""
VALUES = {"optimizer.lr": 0.01}


class Child:
    """A run that has just ended."""

    def poll(self):
        return 0

    def terminate(self, grace):
        """It has ended before."""


@pytest.fixture
def made(tmp_path):
    """A trial, and the words of the runs that it has started."""

    def make(*words):
        (tmp_path / "made.yaml").write_text(SPACE)
        definition = parsing.read_definition(
            [f"sweep={tmp_path / 'made.yaml'}", f"output={tmp_path}", *words]
        )
        (plan,) = make_plans(definition).values()
        started = []

        def launch(plan, words, log):
            started.append(list(words))
            return Child()

        place = definition.folder / "trials" / "all" / "0000"
        return RunningTrial(definition, plan, VALUES, place, 0, launch), started

    return make


def leave_run(home, epochs=None, told=()):
    run = home / "run"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    lines = ValidationLog(run / "validations.jsonl")
    for k, value in enumerate(told):
        lines.add(k, k, value, 1.0)
    if epochs is not None:
        result = {
            "validation": {"best": 0.5, "epochs": epochs, "metrics": {}},
            "cost": {},
            "train": {"loss": 1.0, "distance": {}},
        }
        (run / "result.json").write_text(json.dumps(result))
    return run


def test_a_run_that_is_still_saving_its_state_is_waited_for(made):
    running, started = made()
    run = leave_run(running.place)
    with (run / "config.yaml").open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert running.poll() is None
        assert not started
    running.poll()
    assert started[0] == [f"resume={run}"]


def test_a_trial_that_is_stopped_between_its_seeds_starts_no_further_one(made):
    running, started = made("seeds=2")
    leave_run(running.place / "seed-0", epochs=3)
    running.stop()
    outcome = running.poll()
    assert (outcome.state, outcome.again, outcome.epochs) == ("failed", True, 3)
    assert not started


def test_the_closing_run_of_a_trial_that_never_trained_is_one_that_composes(made, tmp_path):
    made()
    words = [f"sweep={tmp_path / 'made.yaml'}", "trainer.max_steps=0", "trainer.patience=2"]
    definition = parsing.read_definition(words)
    figures = {"validation.step": 0.0, "validation.planned_steps": 0.0}
    best = SimpleNamespace(method="all", number=0, values=VALUES, figures=figures)
    driver = SimpleNamespace(
        definition=definition, plans=make_plans(definition), folder=definition.folder
    )
    for seed, found in finals._list_runs(driver, best):
        run = compose(found)
        assert (run.trainer.max_steps, run.trainer.patience, run.seed) == (0, None, seed)
        assert run.evaluation.test


def test_validations_that_a_run_takes_back_are_not_told_twice(made):
    running, _ = made()
    run = leave_run(running.place, told=[0.1, 0.2, 0.3])
    running._read_reports()
    assert running.take_new_reports() == [(0, 0.1), (1, 0.2), (2, 0.3)]
    path = run / "validations.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    told = []
    for count in (2, 3):
        path.write_text("".join(lines[:count]))
        running._read_reports()
        told += running.take_new_reports()
    assert told == []


def test_what_a_driver_that_was_taken_for_dead_tells_is_left_out(made, tmp_path):
    running, _ = made()
    definition = parsing.read_definition([f"sweep={tmp_path / 'made.yaml'}", f"output={tmp_path}"])
    opened = open_storage(definition.folder, None)
    with TrialLeases(opened) as mine:
        studies = SweepStudies(definition, make_plans(definition), opened, mine)
        trial, _ = studies.ask("all")
        assert studies.report(trial, 0, 0.1)
        opened.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        assert not studies.report(trial, 1, 0.2)
        outcome = TrialOutcome("complete", objectives=(0.2,))
        assert studies.tell("all", trial, running, outcome) is False
        assert [t.state for t in studies.make_record().trials] == ["failed"]


@pytest.mark.parametrize("content", ["{", "{}", '{"validation": 1}', "[1]", '{"cost": null}'])
def test_a_damaged_result_is_told_with_what_to_remove(made, content):
    running, _ = made()
    run = leave_run(running.place, epochs=1.0)
    (run / "result.json").write_text(content)
    with pytest.raises(DataError, match=rf"result.json is damaged; remove {run} and run the"):
        running.poll()

"""The end of a sweep: the best trial of each method once more, with other seeds, and tested.

A closing run trains exactly as many steps as the trial's best validation says, on the schedule that
the trial had, and keeps what stands then: no validation of its own decides anything. Its seeds are
none that a trial had. Only here is the test part read.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from recsys.errors import RecsysError
from recsys.runs.folder import is_busy
from recsys.runs.result_file import BEFORE
from recsys.runtime.files import write_atomic
from recsys.sweep import record, terminal
from recsys.sweep.record import SweepRecord, TrialRecord
from recsys.sweep.report import page, sentences
from recsys.sweep.running.launcher_client import StartedTrial
from recsys.sweep.running.trial import (
    GRACE,
    LOG,
    compute_means,
    find_last_error,
    find_run,
    make_tracking_words,
    read_result,
)
from recsys.tracking.wandb_run import find_unsent_reason

if TYPE_CHECKING:
    from recsys.sweep.definition import SweepDefinition
    from recsys.sweep.running.signals import SignalRecorder
    from recsys.sweep.running.studies import SweepStudies
    from recsys.sweep.space import SearchPlan

FINAL = "final"
COMPARISON = "comparison"


class RunStarter(Protocol):
    """What closing a sweep needs of its driver.

    Attributes:
        definition: Of the sweep.
        folder: Of the sweep.
        studies: All trials.
    """

    definition: SweepDefinition
    folder: Path
    studies: SweepStudies

    @property
    def plans(self) -> Mapping[str, SearchPlan]:
        """What each method searches."""

    def say(self, text: str) -> None:
        """Prints a sentence."""

    def start_run(self, plan: SearchPlan, words: Sequence[str], log: Path) -> StartedTrial:
        """Starts a run of these words."""


@dataclass
class _FinalRun:
    """A closing run."""

    method: str
    seed: int
    words: list[str]
    home: Path
    child: StartedTrial | None = None


def finish_sweep(driver: RunStarter, signals: SignalRecorder) -> int:
    """Closing runs, comparison, page and the summary at Weights & Biases.

    Args:
        driver: Whose sweep has used its budget.
        signals: What may stop it.

    Returns:
        The exit code.

    Raises:
        RecsysError: A closing run failed.
    """
    definition, folder = driver.definition, driver.folder
    sweep = driver.studies.make_record()
    jobs = [
        _FinalRun(
            method, seed, words, folder / FINAL / method / f"{best.index:04d}" / f"seed-{seed}"
        )
        for method in sweep.methods
        if (best := sweep.find_best(method)) is not None
        for seed, words in _list_runs(driver, best)
    ]
    failed = _run_missing(driver, jobs, signals)
    if signals.received:
        return 128 + signals.received
    sweep = _gather_results(sweep, jobs)
    warned = [
        why for job in jobs if (run := find_run(job.home)) and (why := find_unsent_reason(run))
    ]
    for why in warned:
        driver.say(f"warning: {why}")
    sweep = replace(sweep, notes=(*sweep.notes, *failed, *warned))
    record.write_record(sweep)
    compared = _compare_methods(driver, sweep) if any(sweep.tests.values()) else []
    driver.say(f"page: {page.write_page(sweep)}")
    _log_summary(driver, sweep)
    terminal.print_summary(sweep, compared, definition.details)
    failed += sentences.describe_incomplete(sweep)
    for why in failed:
        print(f"error: {why}", file=sys.stderr)
    if not definition.final_seeds:
        driver.say("final_seeds=0: nothing was tested.")
    return 1 if failed else 0


def _list_runs(driver: RunStarter, best: TrialRecord) -> list[tuple[int, list[str]]]:
    """The seeds and words of a method's closing runs."""
    definition, plan = driver.definition, driver.plans[best.method]
    steps, planned = best.figures["validation.step"], best.figures["validation.planned_steps"]
    words = [
        *plan.make_trial_words(best.values),
        f"trainer.max_steps={round(steps)}",
        # None were planned where nothing trains; a schedule has one at least.
        f"optimizer.schedule_steps={max(1, round(planned))}",
        "checkpoint.pick=last",
        "trainer.patience=null",
    ]
    first = definition.seed + definition.seeds
    found = []
    for seed in range(first, first + definition.final_seeds):
        name = f"{best.method} best, seed {seed}"
        more = {"closes": best.number}
        own = make_tracking_words(definition, plan, name, "closing", best.values, more)
        found.append((seed, [*words, *own, f"seed={seed}"]))
    return found


def _run_missing(driver: RunStarter, jobs: list[_FinalRun], signals: SignalRecorder) -> list[str]:
    """Runs what is missing, side by side; sentences on what failed."""
    definition, failed = driver.definition, list[str]()
    waiting, running = [job for job in jobs if _find_result(job) is None], list[_FinalRun]()
    while (waiting or running) and not signals.received:
        while waiting and len(running) < definition.workers:
            run = find_run(waiting[0].home)
            if run is not None and is_busy(run):
                break  # a driver was killed, and its run still has the time to save its state
            job = waiting.pop(0)
            job.home.mkdir(parents=True, exist_ok=True)
            words = [*job.words, f"output={job.home}"] if run is None else [f"resume={run}"]
            job.child = driver.start_run(driver.plans[job.method], words, job.home / LOG)
            running.append(job)
        for job in list(running):
            if job.child is None or job.child.poll() is None:
                continue
            running.remove(job)
            if _find_result(job) is None:
                failed.append(
                    f"the closing run of {job.method} with seed {job.seed} failed: "
                    f"{find_last_error(job.home / LOG)} (log: {job.home / LOG})"
                )
            else:
                left = len(waiting) + len(running)
                runs = "closing run" if left == 1 else "closing runs"
                driver.say(f"tested {job.method}, seed {job.seed}; {left} {runs} left")
        time.sleep(0.1)
    for job in running:
        if job.child is not None:
            job.child.terminate(GRACE)
            job.child.wait(GRACE + 10)
    return failed


def _find_result(job: _FinalRun) -> Mapping[str, object] | None:
    run = find_run(job.home)
    return None if run is None else read_result(run)


def _gather_results(sweep: SweepRecord, jobs: list[_FinalRun]) -> SweepRecord:
    """The sweep with its closing runs."""
    runs: dict[str, tuple[str, ...]] = {}
    tests: dict[str, tuple[Mapping[str, float], ...]] = {}
    floors: list[Mapping[str, Mapping[str, float]]] = []
    for job in jobs:
        run = find_run(job.home)
        result = None if run is None else read_result(run)
        if run is None or result is None:
            continue
        runs[job.method] = (*runs.get(job.method, ()), str(run.relative_to(sweep.folder)))
        tests[job.method] = (*tests.get(job.method, ()), _select_finite(result["test"]))
        floors.append({name: _select_finite(of) for name, of in result["floors"].items()})
    return replace(sweep, finals=runs, tests=tests, floors=_average_baselines(floors))


def _select_finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that have a value: that of cold items has none where none is cold."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _average_baselines(
    floors: Sequence[Mapping[str, Mapping[str, float]]],
) -> dict[str, dict[str, float]]:
    """The baselines that all closing runs measured, the mean of each metric over them.

    What a method's own start is, as before training, belongs to that method and is none.
    """
    if not floors:
        return {}
    found = {}
    for name in floors[0]:
        if name != BEFORE and all(name in of for of in floors):
            found[name] = compute_means([of[name] for of in floors])
    return found


def carry_over_finals(found: SweepRecord, before: SweepRecord) -> SweepRecord:
    """A new record with the closing runs of the one before, as long as the best trials stand.

    Args:
        found: Without closing runs.
        before: What the folder had.
    """
    for method, runs in before.finals.items():
        best = found.find_best(method)
        if best is None or any(Path(run).parts[2] != f"{best.index:04d}" for run in runs):
            return found
    return replace(found, finals=before.finals, tests=before.tests, floors=before.floors)


def _compare_methods(driver: RunStarter, sweep: SweepRecord) -> list[str]:
    """The comparison of the closing runs, and what it says; a sentence where there can be none."""
    names = sweep.folder / FINAL / "names.json"
    content = {m: [str(sweep.folder / run) for run in runs] for m, runs in sweep.finals.items()}
    write_atomic(names, json.dumps(content, indent=1) + "\n")
    output = sweep.folder / COMPARISON
    command = [sys.executable, "-m", "recsys.compare", f"names={names}", f"output={output}"]
    with (sweep.folder / FINAL / "compare.txt").open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        driver.say(f"compare: {find_last_error(sweep.folder / FINAL / 'compare.txt')}")
        return []
    driver.say(f"comparison: {output / 'report.html'}")
    content = json.loads((output / "comparison.json").read_text(encoding="utf-8"))
    return [str(sentence) for sentence in content["sentences"]]


def _log_summary(driver: RunStarter, sweep: SweepRecord) -> None:
    """The summary run at Weights & Biases, unless that is off."""
    from recsys.sweep.wandb import hooks
    from recsys.tracking.wandb_log import choose_wandb_mode

    tracking = next(iter(driver.plans.values())).run.tracking
    mode = choose_wandb_mode(tracking.wandb)
    if mode == "off":
        return
    try:
        hooks.log_summary(sweep, tracking.project, tracking.group or sweep.folder.name, mode)
    except RecsysError as error:
        driver.say(f"the summary run was not sent: {error}")

"""Several seeds of one experiment: runs one after the other, which go on where they stopped.

Every seed is a command of its own, so that nothing of one run reaches the next. The plan lies in
the folder that holds the runs; what a seed has left there says how far it came.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.config.compose import RunConfig, compose, get_choice_name, read_config
from recsys.config.shipped import make_absolute
from recsys.errors import ConfigError
from recsys.fit.parent import tie_child
from recsys.runs.folder import find_last_run, is_busy, lock_folder, make_folder
from recsys.runs.jobs import find_job_folder, note_job
from recsys.runs.result_file import read_result
from recsys.runtime.files import CONFIG, RESULT, SEEDS
from recsys.runtime.launching import slurm
from recsys.runtime.signals import HeldSignals
from recsys.words import drop_words, find_value, parse_count, split_words

MOST = 10_000
"""More seeds are a slip of the hand."""


@dataclass(frozen=True)
class SeedPlan:
    """What a folder of seeds is to hold.

    Attributes:
        folder: Where the runs lie.
        words: The words of the command, without seed, seeds and output.
        seeds: The seeds, in order.
    """

    folder: Path
    words: tuple[str, ...]
    seeds: tuple[int, ...]

    @staticmethod
    def read(folder: Path) -> SeedPlan:
        """The plan of a folder.

        Raises:
            ConfigError: It is damaged.
        """
        path = folder / SEEDS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return SeedPlan(
                folder, tuple(map(str, content["words"])), tuple(map(int, content["seeds"]))
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise ConfigError(f"{path} is missing or damaged; start a new command.") from None

    def find_runs(self) -> dict[int, Path]:
        """The run of each seed that has begun: the finished one, else the newest."""
        found: dict[int, Path] = {}
        for path in sorted(self.folder.glob(f"*/{CONFIG}"), key=lambda p: p.stat().st_mtime):
            before = found.get(seed := read_config(path).seed)
            if before is None or not is_finished(before):
                found[seed] = path.parent
        return found


def is_finished(run: Path) -> bool:
    """Whether a run has its result."""
    return (run / RESULT).is_file()


def find_last_unfinished(output: str) -> Path:
    """The newest folder of seeds or run in a folder that has something left to do.

    Raises:
        ConfigError: There is none.
    """
    plans = {path.parent: path for path in Path(output).glob(f"*/{SEEDS}")}
    left = [p for p in plans if not all(map(is_finished, _list_runs(SeedPlan.read(p))))]
    if not left:
        return find_last_run(output, complete=False)
    newest = max(left, key=lambda p: (plans[p].stat().st_mtime, p.name))
    try:
        run = find_last_run(output, complete=False)
    except ConfigError:
        return newest
    later = (run / CONFIG).stat().st_mtime > plans[newest].stat().st_mtime
    return run if later else newest


def _list_runs(plan: SeedPlan) -> list[Path]:
    """The run of each seed; one that has not begun is a folder that is not there."""
    runs = plan.find_runs()
    return [runs.get(seed, plan.folder / f"seed-{seed}") for seed in plan.seeds]


def make_plan(words: Sequence[str]) -> SeedPlan:
    """A new folder with its plan, after the whole command was checked.

    Raises:
        ConfigError: A word is wrong, or the number of seeds is none.
        DataError: The folder cannot be made.
    """
    count = split_words(words)["seeds"]
    number = parse_count(count, least=1, most=MOST)
    if number is None:
        raise ConfigError(f"seeds is '{count}'; set it to a whole number from 1 to {MOST}.")
    kept = [make_absolute(word) for word in drop_words(words, ("seeds", "seed", "output"))]
    run = compose(drop_words(words, ["seeds"]))
    # All of them are checked now: the last one would be refused after the first has trained.
    compose([*kept, f"seed={run.seed + number - 1}"])
    name = run.experiment or get_choice_name(run.architecture)
    seeds = tuple(range(run.seed, run.seed + number))
    content = json.dumps({"words": kept, "seeds": seeds}, indent=2) + "\n"
    if (earlier := find_job_folder(run.output, content)) is not None:
        return SeedPlan.read(earlier)  # of a start of this job before
    for begun in _find_unfinished(run.output, tuple(kept), seeds):
        print(
            f"note: {begun} began with the same words and is not finished; to go on with it, stop "
            f"this and give: python -m recsys.fit resume={begun}",
            file=sys.stderr,
        )
    folder = make_folder(run.output, f"{name}-seeds", content, SEEDS)
    note_job(folder, content)
    return SeedPlan(folder, tuple(kept), seeds)


def _find_unfinished(output: str, words: tuple[str, ...], seeds: tuple[int, ...]) -> list[Path]:
    """Folders of the same words and seeds that have something left to do."""
    found = []
    for path in sorted(Path(output).glob(f"*/{SEEDS}")):
        with suppress(ConfigError):  # a damaged one is told when it is asked for
            plan = SeedPlan.read(path.parent)
            same = (plan.words, plan.seeds) == (words, seeds)
            if same and not all(map(is_finished, _list_runs(plan))):
                found.append(plan.folder)
    return found


def run_seeds(plan: SeedPlan) -> int:
    """Runs what is missing and prints the mean over the seeds.

    Returns:
        The exit code: that of the first run that did not end well, else 0.

    Raises:
        ConfigError: Another process runs these seeds.
    """
    again = f"go on with: python -m recsys.fit resume={plan.folder}"
    with lock_folder(plan.folder, SEEDS), _ChildRunner() as child:
        print(f"seeds: {plan.folder}", flush=True)
        for seed in plan.seeds:
            run = plan.find_runs().get(seed)
            if run is not None and is_finished(run):
                continue
            if run is not None and is_busy(run):
                raise ConfigError(f"{run}: the run is still running; wait for its end.")
            words = [*plan.words, f"seed={seed}", f"output={plan.folder}"]
            if find_value(words, "tracking.group") is None:
                words.append(f"tracking.group={plan.folder.name}")
            code = child.run(words if run is None else [f"resume={run}"])
            if code:
                print(f"seed {seed} ended with code {code}; {again}", file=sys.stderr)
                return code
    _show(plan)
    return 0


def _show(plan: SeedPlan) -> None:
    """Prints mean and standard deviation over the seeds, in percent."""
    from recsys.runs import display

    runs = plan.find_runs()
    found = [read_result(runs[seed]) for seed in plan.seeds]
    run = read_config(runs[plan.seeds[0]] / CONFIG)
    part = (lambda each: each["test"]) if run.evaluation.test else _get_validation
    tests: list[Mapping[str, float]] = [part(result) for result in found]
    display.print_spread(tests, run.evaluation, _is_seedless(run, tests))
    if not run.evaluation.test:
        return
    print(f"compare: python -m recsys.compare '{plan.folder}/*'")


def _get_validation(result: Mapping[str, Any]) -> Mapping[str, float]:
    found: Mapping[str, float] = result["validation"]["metrics"]
    return found


def _is_seedless(run: RunConfig, tests: Sequence[Mapping[str, float]]) -> bool:
    """Whether runs are without any chance: a baseline, or an encoder as it is."""
    if not run.architecture.trains:
        return True
    first, *others = tests
    same = all(json.dumps(first) == json.dumps(other) for other in others)
    return run.trainer.max_steps == 0 and same  # a head that begins at random has its seed


class _ChildRunner(HeldSignals):
    """Runs commands one after the other and passes signals on.

    A run is in a session of its own: a terminal would give it the same signal a second time, and
    a second one means to leave at once.
    """

    def __init__(self) -> None:
        # What has a job saved and queued again is the affair of the run.
        super().__init__((signal.SIGUSR1,) if slurm.find_job() else ())
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, words: Sequence[str]) -> int:
        """The exit code of one command; 128 + signal where one ended it or came in between."""
        if not self.received:
            command = [sys.executable, "-m", "recsys.fit", *words]
            with tie_child() as (env, descriptor):
                self._process = subprocess.Popen(
                    command, start_new_session=True, env=env, pass_fds=(descriptor,)
                )
                code = self._process.wait()
            self._process = None
            if not self.received:
                return code if code >= 0 else 128 - code
        return 128 + self.received

    def react(self, signum: int, before: int) -> None:
        """Passes a signal on to the run."""
        if self._process is not None:
            self._process.send_signal(signum)

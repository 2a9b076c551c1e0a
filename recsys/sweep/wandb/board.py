"""The specification of a sweep's workspace and report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from recsys.boards import specification as board
from recsys.boards.specification import Board, Key, Panel, Pick, Runs, Section
from recsys.boards.offline_run import Logged, load, replay
from recsys.compare.report.wandb_report import curves
from recsys.errors import ConfigError, RecsysError
from recsys.sweep.report import page
from recsys.sweep.record import Axis, Objective, Sweep
from recsys.sweep.report.sensitivity import ordered
from recsys.sweep.report.formatting import short, sign
from recsys.sweep.running.trial import searched_key
from recsys.sweep.wandb.summary import STATES, summary_id
from recsys.tracking.wandb_files import files

CLOSING = "closing run"
TESTED = "best trials, tested"


def specification(sweep: Sweep) -> Board:
    """The workspace and the report of a sweep; figures and configuration only.

    Args:
        sweep: As it stands; its closing run is shown where it has been logged before.

    Raises:
        ConfigError: No trial was logged to Weights & Biases.
    """
    found, missing = _trials(sweep)
    closing = files(sweep.folder, summary_id(sweep.folder))
    trials = [run for runs in found.values() for run in runs.values()]
    if not trials:
        raise ConfigError(
            f"{sweep.folder}: no trial was logged to Weights & Biases; run the sweep with "
            "tracking.wandb=offline."
        )
    tested = _logged([sweep.folder / run for runs in sweep.finals.values() for run in runs])
    logged = [*trials, *tested, *([replay(closing)] if closing else [])]
    # One group holds them all, so that grouping by it joins the runs of a method.
    runs = [
        Runs(method, group=own[0].group, ids=tuple(run.id for run in own), by=("group",))
        for method, by_folder in found.items()
        if (own := list(by_folder.values()))
    ]
    apart = [Runs(f"{each.name}: trials", each.group, ids=each.ids) for each in runs]
    last = [Runs(CLOSING, ids=(summary_id(sweep.folder),))] if closing else []
    lasts = tuple(each.name for each in last)
    tests = [Runs(TESTED, ids=tuple(run.id for run in tested))] if tested else []
    goals = tuple(_goal(objective, trials) for objective in sweep.objectives)
    scores = tuple(goal for goal in goals if goal is not None)
    made = Board(
        title=f"sweep {sweep.name}: {sweep.folder.name}",
        project=board.only_project({k: v for by in found.values() for k, v in by.items()}),
        entity="",
        workspace=Runs("runs of the sweep", group=trials[0].group),
        runs=(*runs, *apart, *tests, *last),
        columns=board.known(
            (
                METHOD,
                *(_axis(axis) for axis in ordered(sweep)),
                *scores,
                Key("summary", "cost/train_seconds"),
            ),
            logged,
        ),
        sections=tuple(
            section
            for section in (
                Section("Findings", _text(sweep, missing, trials)),
                _space(sweep, scores, apart, trials),
                _tested(sweep, tested),
                Section("Learning curves", "", tuple(r.name for r in runs), _curves(trials)),
                Section("Cost", "", tuple(r.name for r in apart), _cost(scores, trials)),
                Section("Trials, tables and pictures", "", lasts, _closing(logged[-1]))
                if last
                else Section("Trials, tables and pictures"),
            )
            if section.text or section.panels
        ),
    )
    board.check(made, logged)
    return made


def _trials(sweep: Sweep) -> tuple[dict[str, dict[Path, Logged]], int]:
    """What the runs of each method's trials logged, and how many left nothing."""
    found: dict[str, dict[Path, Logged]] = {method: {} for method in sweep.methods}
    missing = 0
    for trial in sweep.trials:
        for name in trial.runs:
            folder = sweep.folder / name
            try:
                found[trial.method][folder] = load(folder)
            except RecsysError:  # killed before it wrote anything, or just begun
                missing += 1
    return found, missing


def _logged(folders: Sequence[Path]) -> list[Logged]:
    """What runs logged; those that left nothing are passed over."""
    found = []
    for folder in folders:
        with suppress(RecsysError):
            found.append(load(folder))
    return found


def _tested(sweep: Sweep, runs: Sequence[Logged]) -> Section:
    """The closing runs' test metric beside the baselines on the same cases, by method."""
    metric = short(sweep.objectives[0])
    keys = board.known(
        (
            Key("summary", f"test/{metric}"),
            *(Key("summary", f"baseline/{name}/{metric}") for name in sweep.floors),
        ),
        runs,
    )
    title = "Tested, beside the baselines"
    if not keys:
        return Section(title)
    panel = Panel("bar", f"test {metric} by method, beside the baselines", keys, METHOD.name)
    return Section(title, "", (TESTED,), (panel,))


def _goal(objective: Objective, trials: Sequence[Logged]) -> Key | None:
    """The key of an objective in the summary of a run."""
    name = "validation.best" if objective.name == "validation" else objective.name
    key = Key("summary", name.replace(".", "/", 1), title=objective.label)
    return next(iter(board.known((key,), trials)), None)


METHOD = Key("config", "method")


def _axis(axis: Axis) -> Key:
    """The label of a searched value, which all methods' trials have by the same name."""
    return Key("config", f"searched.{searched_key(axis.name)}", axis.log, axis.label)


def _text(sweep: Sweep, missing: int, trials: Sequence[Logged]) -> str:
    """What the sweep found, as Markdown."""
    lines = page.markdown(sweep).splitlines()[1:]  # the board has the title
    lines.append("")
    if missing:
        lines.append(f"- {missing} of the trials' runs left nothing at Weights & Biases.")
    shared = [a.name for a in sweep.axes if not board.known((_axis(a),), trials)]
    if shared:
        lines.append(
            "- No label at Weights & Biases, so not among the axes of these panels: "
            f"{', '.join(shared)}; the closing run's tables have it."
        )
    return "\n".join(lines).strip()


def _space(
    sweep: Sweep, scores: Sequence[Key], apart: Sequence[Runs], trials: Sequence[Logged]
) -> Section:
    """The objective over each axis, all axes together, and what decides it."""
    axes = board.known((_axis(axis) for axis in ordered(sweep)), trials)
    title = "Which method, which values"
    if not scores or not axes:
        return Section(title)
    goal, told = scores[0], board.known((METHOD,), trials)
    pick: Pick = "max" if sign(sweep.objectives[0]) > 0 else "min"
    panels = []
    if told:
        panels.append(Panel("bar", f"best {goal.title} by method", (goal,), METHOD.name, pick))
    panels.append(Panel("parallel", "method, values and objective", (*told, *axes, *scores)))
    panels += [Panel("scatter", f"{goal.title} over {key.title}", (key, goal)) for key in axes]
    panels.append(Panel("importance", f"importance for {goal.title}", (goal,)))
    return Section(title, "", tuple(each.name for each in apart), tuple(panels))


def _curves(trials: Sequence[Logged]) -> tuple[Panel, ...]:
    monitors = dict.fromkeys(f"val/{run.config['evaluation.monitor']}" for run in trials)
    return curves(monitors, trials)


def _cost(scores: Sequence[Key], trials: Sequence[Logged]) -> tuple[Panel, ...]:
    """The objective against the seconds of training."""
    seconds = board.known((Key("summary", "cost/train_seconds"),), trials)
    pairs = [(seconds[0], goal) for goal in scores if seconds and goal not in seconds]
    return tuple(Panel("scatter", f"{y.title} against {x.name}", (x, y)) for x, y in pairs)


def _closing(run: Logged) -> tuple[Panel, ...]:
    """Tables, pictures and counts of the closing run."""
    panels = []
    for name, value in run.summary.items():
        kind = value.get("_type") if isinstance(value, dict) else None
        if kind == "table-file" and not name.startswith("charts/"):
            panels.append(Panel("table", name, (Key("summary", name),)))
        elif kind in ("plotly-file", "html-file"):
            panels.append(Panel("media", name.rpartition("/")[2], (Key("summary", name),)))
    states = tuple(Key("summary", f"states/{state}") for state in STATES)
    return (
        Panel("bar", "trials by state", states),
        *sorted(panels, key=lambda p: p.kind != "table"),
    )

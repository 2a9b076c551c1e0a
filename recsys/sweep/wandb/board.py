"""The specification of a sweep's workspace and report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from recsys.boards import specification as board
from recsys.boards.offline_run import LoggedRun, read_logged_run, replay
from recsys.boards.specification import BoardSpec, LoggedKey, PanelSpec, Pick, RunSet, SectionSpec
from recsys.compare.report.wandb_report import curves
from recsys.errors import ConfigError, RecsysError
from recsys.sweep.record import SearchAxis, SweepObjective, SweepRecord
from recsys.sweep.report import page
from recsys.sweep.report.formatting import format_short_label, get_sign
from recsys.sweep.report.sensitivity import sort_axes
from recsys.sweep.running.trial import format_searched_key
from recsys.sweep.wandb.summary import STATES, compute_summary_id
from recsys.tracking.wandb_files import list_files

CLOSING = "closing run"
TESTED = "best trials, tested"


def make_board(sweep: SweepRecord) -> BoardSpec:
    """The workspace and the report of a sweep; figures and configuration only.

    Args:
        sweep: As it stands; its closing run is shown where it has been logged before.

    Raises:
        ConfigError: No trial was logged to Weights & Biases.
    """
    found, missing = _read_trials(sweep)
    closing = list_files(sweep.folder, compute_summary_id(sweep.folder))
    trials = [run for runs in found.values() for run in runs.values()]
    if not trials:
        raise ConfigError(
            f"{sweep.folder}: no trial was logged to Weights & Biases; run the sweep with "
            "tracking.wandb=offline."
        )
    tested = _read_runs([sweep.folder / run for runs in sweep.finals.values() for run in runs])
    logged = [*trials, *tested, *([replay(closing)] if closing else [])]
    # One group holds them all, so that grouping by it joins the runs of a method.
    runs = [
        RunSet(method, group=own[0].group, ids=tuple(run.id for run in own), by=("group",))
        for method, by_folder in found.items()
        if (own := list(by_folder.values()))
    ]
    apart = [RunSet(f"{each.name}: trials", each.group, ids=each.ids) for each in runs]
    last = [RunSet(CLOSING, ids=(compute_summary_id(sweep.folder),))] if closing else []
    tests = [RunSet(TESTED, ids=tuple(run.id for run in tested))] if tested else []
    goals = tuple(_find_objective_key(objective, trials) for objective in sweep.objectives)
    scores = tuple(goal for goal in goals if goal is not None)
    names = tuple(each.name for each in runs)
    sections = (
        SectionSpec("Findings", _render_findings(sweep, missing, trials)),
        _make_search_section(sweep, scores, apart, trials),
        _make_test_section(sweep, tested),
        SectionSpec("Learning curves", "", names, _make_curve_panels(trials)),
        SectionSpec("Cost", "", tuple(r.name for r in apart), _make_cost_panels(scores, trials)),
        SectionSpec("Trials, tables and pictures", "", (CLOSING,), _make_closing_panels(logged[-1]))
        if last
        else SectionSpec("Trials, tables and pictures"),
    )
    made = BoardSpec(
        title=f"sweep {sweep.name}: {sweep.folder.name}",
        project=board.find_project({k: v for by in found.values() for k, v in by.items()}),
        entity="",
        workspace=RunSet("runs of the sweep", group=trials[0].group),
        runs=(*runs, *apart, *tests, *last),
        columns=board.select_known_keys(
            (
                METHOD,
                *(_make_axis_key(axis) for axis in sort_axes(sweep)),
                *scores,
                LoggedKey("summary", "cost/train_seconds"),
            ),
            logged,
        ),
        sections=tuple(section for section in sections if section.text or section.panels),
    )
    board.check_board(made, logged)
    return made


def _read_trials(sweep: SweepRecord) -> tuple[dict[str, dict[Path, LoggedRun]], int]:
    """What the runs of each method's trials logged, and how many left nothing."""
    found: dict[str, dict[Path, LoggedRun]] = {method: {} for method in sweep.methods}
    missing = 0
    for trial in sweep.trials:
        for name in trial.runs:
            folder = sweep.folder / name
            try:
                found[trial.method][folder] = read_logged_run(folder)
            except RecsysError:  # killed before it wrote anything, or just begun
                missing += 1
    return found, missing


def _read_runs(folders: Sequence[Path]) -> list[LoggedRun]:
    """What runs logged; those that left nothing are passed over."""
    found = []
    for folder in folders:
        with suppress(RecsysError):
            found.append(read_logged_run(folder))
    return found


def _make_test_section(sweep: SweepRecord, runs: Sequence[LoggedRun]) -> SectionSpec:
    """The closing runs' test metric beside the baselines on the same cases, by method."""
    metric = format_short_label(sweep.objectives[0])
    keys = board.select_known_keys(
        (
            LoggedKey("summary", f"test/{metric}"),
            *(LoggedKey("summary", f"baseline/{name}/{metric}") for name in sweep.floors),
        ),
        runs,
    )
    title = "Tested, beside the baselines"
    if not keys:
        return SectionSpec(title)
    panel = PanelSpec("bar", f"test {metric} by method, beside the baselines", keys, METHOD.name)
    return SectionSpec(title, "", (TESTED,), (panel,))


def _find_objective_key(objective: SweepObjective, trials: Sequence[LoggedRun]) -> LoggedKey | None:
    """The key of an objective in the summary of a run."""
    name = "validation.best" if objective.name == "validation" else objective.name
    key = LoggedKey("summary", name.replace(".", "/", 1), title=objective.label)
    return next(iter(board.select_known_keys((key,), trials)), None)


METHOD = LoggedKey("config", "method")


def _make_axis_key(axis: SearchAxis) -> LoggedKey:
    """The label of a searched value, which all methods' trials have by the same name."""
    return LoggedKey("config", f"searched.{format_searched_key(axis.name)}", axis.log, axis.label)


def _render_findings(sweep: SweepRecord, missing: int, trials: Sequence[LoggedRun]) -> str:
    """What the sweep found, as Markdown."""
    lines = page.render_markdown(sweep).splitlines()[1:]  # the board has the title
    lines.append("")
    if missing:
        lines.append(f"- {missing} of the trials' runs left nothing at Weights & Biases.")
    shared = [
        a.name for a in sweep.axes if not board.select_known_keys((_make_axis_key(a),), trials)
    ]
    if shared:
        lines.append(
            "- No label at Weights & Biases, so not among the axes of these panels: "
            f"{', '.join(shared)}; the closing run's tables have it."
        )
    return "\n".join(lines).strip()


def _make_search_section(
    sweep: SweepRecord,
    scores: Sequence[LoggedKey],
    apart: Sequence[RunSet],
    trials: Sequence[LoggedRun],
) -> SectionSpec:
    """The objective over each axis, all axes together, and what decides it."""
    axes = board.select_known_keys((_make_axis_key(axis) for axis in sort_axes(sweep)), trials)
    title = "Which method, which values"
    if not scores or not axes:
        return SectionSpec(title)
    goal, told = scores[0], board.select_known_keys((METHOD,), trials)
    pick: Pick = "max" if get_sign(sweep.objectives[0]) > 0 else "min"
    panels = []
    if told:
        panels.append(PanelSpec("bar", f"best {goal.title} by method", (goal,), METHOD.name, pick))
    panels.append(PanelSpec("parallel", "method, values and objective", (*told, *axes, *scores)))
    panels += [PanelSpec("scatter", f"{goal.title} over {key.title}", (key, goal)) for key in axes]
    panels.append(PanelSpec("importance", f"importance for {goal.title}", (goal,)))
    return SectionSpec(title, "", tuple(each.name for each in apart), tuple(panels))


def _make_curve_panels(trials: Sequence[LoggedRun]) -> tuple[PanelSpec, ...]:
    monitors = dict.fromkeys(f"val/{run.config['evaluation.monitor']}" for run in trials)
    return curves(monitors, trials)


def _make_cost_panels(
    scores: Sequence[LoggedKey], trials: Sequence[LoggedRun]
) -> tuple[PanelSpec, ...]:
    """The objective against the seconds of training."""
    seconds = board.select_known_keys((LoggedKey("summary", "cost/train_seconds"),), trials)
    pairs = [(seconds[0], goal) for goal in scores if seconds and goal not in seconds]
    return tuple(PanelSpec("scatter", f"{y.title} against {x.name}", (x, y)) for x, y in pairs)


def _make_closing_panels(run: LoggedRun) -> tuple[PanelSpec, ...]:
    """Tables, pictures and counts of the closing run."""
    panels = []
    for name, value in run.summary.items():
        kind = value.get("_type") if isinstance(value, dict) else None
        if kind == "table-file" and not name.startswith("charts/"):
            panels.append(PanelSpec("table", name, (LoggedKey("summary", name),)))
        elif kind in ("plotly-file", "html-file"):
            panels.append(
                PanelSpec("media", name.rpartition("/")[2], (LoggedKey("summary", name),))
            )
    states = tuple(LoggedKey("summary", f"states/{state}") for state in STATES)
    return (
        PanelSpec("bar", "trials by state", states),
        *sorted(panels, key=lambda p: p.kind != "table"),
    )

"""How much each axis decides whether a trial is among the best of its method: PED-ANOVA.

Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces" (IJCAI 2023). Shares sum to one also where no axis does anything, so that each axis is
held against what it reaches when the objectives are dealt to the trials at random.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

from recsys.compare.report.style import LIGHT
from recsys.sweep.record import SweepRecord
from recsys.sweep.report import optuna_study
from recsys.sweep.report.drawing import SweepPlot, get_colour, style_figure

if TYPE_CHECKING:
    import optuna

Direction = Literal["maximize", "minimize"]

BEST = 0.25
"""Share of the complete trials that counts as the best ones."""
LEAST = 20
"""Complete trials below which a quarter holds fewer than five, too few for a density."""
EACH = 10
"""Complete trials for each axis, as Loeppky et al. (Technometrics 2009) ask of an experiment."""
SHUFFLES = 59
"""How often objectives are dealt anew to find what chance gives."""
LEVEL = 0.05
"""Probability with which an axis that does nothing is said to matter."""


def count_needed_trials(sweep: SweepRecord, method: str) -> int:
    """Complete trials from which on importances are told."""
    return max(LEAST, EACH * len(optuna_study.list_varied_axes(sweep, method)))


def has_enough_trials(sweep: SweepRecord, method: str) -> bool:
    """Whether there are trials enough, and two axes at least that were varied."""
    enough = len(sweep.select_trials(method, "complete")) >= count_needed_trials(sweep, method)
    return enough and len(optuna_study.list_varied_axes(sweep, method)) > 1


def compute_importances(sweep: SweepRecord, method: str) -> dict[str, float] | None:
    """The share of each axis, the largest first, summing to one.

    None below max(20, 10 an axis) complete trials, and where fewer than two axes were varied.
    """
    if not has_enough_trials(sweep, method):
        return None
    found = _compute_divergences(_list_complete(sweep, method), sweep.objectives[0].direction)
    total = sum(found.values())
    # All are zero where the best trials are spread as all trials are.
    return {name: each / total if total else 1 / len(found) for name, each in found.items()}


def compute_significance(sweep: SweepRecord, method: str) -> dict[str, bool] | None:
    """Whether each axis matters more than in 19 of 20 sweeps in which none does.

    A permutation test of its own for each axis, by a fixed seed. None where `compute_importances`
    is.
    """
    if not has_enough_trials(sweep, method):
        return None
    trials, direction = _list_complete(sweep, method), sweep.objectives[0].direction
    found = _compute_divergences(trials, direction)
    values = [trial.value for trial in trials]
    deal, by_chance = random.Random(0), dict.fromkeys(found, 0)
    for _ in range(SHUFFLES):
        deal.shuffle(values)
        for trial, value in zip(trials, values, strict=True):
            trial.value = value
        for name, each in _compute_divergences(trials, direction).items():
            by_chance[name] += each >= found[name]
    # The observed order is one of the orders: Phipson and Smyth (2010).
    return {name: (count + 1) / (SHUFFLES + 1) <= LEVEL for name, count in by_chance.items()}


def _list_complete(sweep: SweepRecord, method: str) -> list[optuna.trial.FrozenTrial]:
    """Copies of a method's complete trials."""
    found = optuna_study.make_study(sweep, method).get_trials()
    return [trial for trial in found if trial.state.name == "COMPLETE"]


def _compute_divergences(
    trials: list[optuna.trial.FrozenTrial], direction: Direction
) -> dict[str, float]:
    """How far the best trials' values of each axis differ from those of all, not normalised."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with optuna_study.silence_optuna():
        study = optuna.create_study(direction=direction)
        study.add_trials(trials)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST)
        return get_param_importances(study, evaluator=evaluator, normalize=False)


def explain_missing(sweep: SweepRecord, method: str) -> str:
    """Why importances are not shown, in a sentence; empty where they are."""
    axes = len(optuna_study.list_varied_axes(sweep, method))
    if axes < 2:
        return f"{method}: importance is not shown, since fewer than two axes were varied."
    if not has_enough_trials(sweep, method):
        return (
            f"{method}: importance is not shown with "
            f"{len(sweep.select_trials(method, 'complete'))} complete "
            f"trials; it needs {count_needed_trials(sweep, method)} ({EACH} for each of {axes} "
            "axes, and at "
            f"least {LEAST}), below which chance decides which axis leads."
        )
    return ""


def draw_importance(sweep: SweepRecord, method: str) -> SweepPlot | None:
    """The shares as bars; those that chance may have made are hollow."""
    import plotly.graph_objects as go

    found, beyond = compute_importances(sweep, method), compute_significance(sweep, method)
    if found is None or beyond is None:
        return None
    shares, own = list(found.items())[::-1], get_colour(sweep, method)
    figure = go.Figure(
        go.Bar(
            x=[100 * share for _, share in shares],
            y=[name for name, _ in shares],
            orientation="h",
            marker={
                "color": [own if beyond[name] else LIGHT["page"] for name, _ in shares],
                "line": {"color": own, "width": 1.5},
            },
            text=[f"{100 * share:.0f}" for _, share in shares],
            textposition="outside",
            hovertemplate="%{y}: %{x:.1f} percent<extra></extra>",
        )
    )
    style_figure(figure, 30 * len(shares) + 20)
    figure.update_xaxes(title_text="share, percent", range=[0, 108])
    caption = (
        "PED-ANOVA: how much each axis decides whether a trial is in the best quarter of "
        f"{len(sweep.select_trials(method, 'complete'))} complete trials. Shares sum to 100 also "
        "where no "
        "axis matters. Filled: more than in 19 of 20 sweeps whose objectives are dealt to the "
        "trials at random; hollow: chance may have made it."
    )
    return SweepPlot(f"importance-{method}", f"{method}: importance", caption, figure)

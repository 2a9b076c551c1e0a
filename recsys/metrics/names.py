"""Names of metrics, without what counts them: a wrong one is told before torch is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from recsys.config.schema import EvaluationOptions
from recsys.errors import ConfigError, nearest

Ranking = Literal["catalog", "candidates", "labels", "impressions", "sampled"]

BALANCED = "balanced"
"""Stands before the mean of a metric's warm and cold means."""

REPEATED = "repeated"
"""Stands before the mean over the cases that are counted apart, as their users had their items."""

FEWEST = 30
"""Cases of which a mean decides: one over fewer cold (or warm) ones is left out of that mean."""

_MONITORED = (BALANCED, "warm", "cold")

_CUT_METRICS = ("hr", "recall", "ndcg", "map")


def describe_balance(cold: int, warm: int) -> tuple[str, str]:
    """Which cases have no part in a mean of both kinds, and which ones it is of, as words.

    Args:
        cold: Cold cases, and
        warm: warm ones; fewer than `FEWEST` of either, at least.
    """
    cases = cold + warm
    if cold < FEWEST and warm < FEWEST:
        each = f"{cold} of {cases:,} validation cases are cold and {warm} warm"
        return f"{each}, both fewer than {FEWEST}", "all together"
    name, few, rest = ("cold", cold, "warm") if cold < FEWEST else ("warm", warm, "cold")
    return (
        f"{few} of {cases:,} validation cases are {name}, fewer than {FEWEST}",
        f"{rest} ones alone",
    )


def list_metric_names(ks: Sequence[int], auc: bool = True) -> tuple[str, ...]:
    """The names of the metrics at these cut-offs, in a fixed order.

    Args:
        ks: Cut-offs.
        auc: Whether `auc` is among them; `compute_from_counts` has it only where it is given sizes.

    Raises:
        ConfigError: A cut-off is not a positive whole number, or is there twice.
    """
    cuts = _check_cutoffs(ks)
    names = [f"{metric}@{k}" for metric in _CUT_METRICS for k in cuts]
    return (*names, "mrr", "mrr_all", *(("auc",) if auc else ()))


def list_cutoffs(options: EvaluationOptions) -> tuple[int, ...]:
    """Cut-offs of the metrics; impressions always have those of MIND."""
    given = (5, 10) if options.protocol == "impressions" else ()
    return (*given, *(k for k in options.k if k not in given))


def list_metrics(ranking: Ranking, ks: tuple[int, ...], label: str = "") -> tuple[str, ...]:
    """Metrics of a protocol; AUC needs a list, the catalog has ranks only."""
    return tuple(f"{label}{name}" for name in list_metric_names(ks, auc=ranking != "catalog"))


def check_monitor(options: EvaluationOptions) -> None:
    """Refuses a metric that the protocol does not have as what decides.

    Raises:
        ConfigError: There is no such metric; the sentence names the nearest one.
    """
    names = list_metrics(options.protocol, list_cutoffs(options), options.label)
    known = [*names, *(f"{part}/{name}" for part in _MONITORED for name in names)]
    if options.monitor not in known:
        raise ConfigError(
            f"evaluation.monitor: '{options.monitor}' is not a metric."
            f"{nearest(options.monitor, known)}"
        )


def _check_cutoffs(ks: Sequence[int]) -> tuple[int, ...]:
    """The cut-offs, each a positive whole number and there once."""
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ConfigError(f"Metric cut-off {k!r} is not a whole number of 1 or more; mend ks.")
    if len(set(ks)) != len(ks):
        raise ConfigError(f"Metric cut-offs {list(ks)} hold a number twice; keep each once in ks.")
    return tuple(ks)

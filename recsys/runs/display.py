"""Results as tables in the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recsys.config.schema import EvaluationOptions
from recsys.metrics.names import REPEATED, list_cutoffs

if TYPE_CHECKING:
    from rich.table import Table

SPREAD = ("mean", "standard deviation", "lowest", "highest")
"""Columns of the table of several seeds."""


def list_columns(options: EvaluationOptions) -> list[str]:
    """Metrics of the closing table: those at the monitor's cut-off, and the monitor, by slice.

    Args:
        options: The protocol, which decides whether there is an AUC, the cut-offs, the monitor.
    """
    metric = options.metric
    k = metric.partition("@")[2] or str(options.k[0])
    names = [f"hr@{k}", f"ndcg@{k}", "mrr"]
    if options.protocol != "catalog":
        names.append("auc")
    if options.protocol == "impressions":  # what MIND's tables hold
        names = ["auc", "mrr_all", "ndcg@5", "ndcg@10"]
    names = [f"{options.label}{name}" for name in names]
    if metric not in names:
        names.append(metric)
    parts = [f"warm/{metric}", f"cold/{metric}"]
    if options.repeated == "apart" and options.protocol == "catalog":
        parts.append(f"{REPEATED}/{metric}")
    return [*names, *parts, *([] if options.monitor in (metric, *parts) else [options.monitor])]


def format_title(options: EvaluationOptions) -> str:
    """What was ranked, above the closing table."""
    listed = f"candidate lists of {options.candidates}"
    if options.candidates_from is not None:
        listed = f"the best {options.candidates} of {options.candidates_from}"
    ranked = {
        "catalog": "among all items",
        "candidates": f"among {listed}",
        "labels": "among the user's own labelled events",
        "impressions": "among what an impression showed",
        "sampled": f"among {options.sampled_negatives} random items, not all",
    }
    hits = f"; a hit is an item of the same {options.hit_by}" if options.hit_by else ""
    if f"{REPEATED}/" in " ".join(list_columns(options)):
        hits += f"; items that the user had before apart, as {REPEATED}/METRIC"
    part = "test" if options.test else "validation"
    named = f", each {options.label}METRIC" if options.label else ""
    return f"{part}, in percent{named}; {options.protocol}: {ranked[options.protocol]}{hits}"


def format_head(name: str, options: EvaluationOptions) -> str:
    """A metric's name in a table whose title says the label once: cut off, heads would be alike."""
    return name.replace(options.label, "") if options.label else name


def list_shown(options: EvaluationOptions) -> list[str]:
    """Metrics of the closing table: as `list_columns`, with every cut-off that was asked for."""
    names = list_columns(options)
    cut = [f"{options.label}{name}@{k}" for k in list_cutoffs(options) for name in ("hr", "ndcg")]
    if any(name.startswith(f"{REPEATED}/") for name in names):
        cut += [f"{REPEATED}/{options.label}hr@{k}" for k in list_cutoffs(options)]
    rest = [name for name in names if name not in cut]
    if options.protocol == "impressions":  # AUC comes first there
        return [*rest[:2], *cut, *rest[2:]]
    return [*cut, *rest]


def print_results(table: Mapping[str, Mapping[str, float]], options: EvaluationOptions) -> None:
    """Prints the closing table: this run beside its floors or its start, in percent.

    A row a metric: there may be many cut-offs, and the names of methods are few.
    """
    from rich.console import Console

    console, names = Console(), list_shown(options)
    # Lists have six methods beside each other in the 80 columns of a log.
    room = console.width - max(len(format_head(name, options)) for name in names)
    out = _make_plain_table()
    out.add_column("", no_wrap=True)
    for row in table:
        name = break_name(row, room // max(len(table), 1) - 1)
        out.add_column(name, justify="right", overflow="fold")
    for name in names:
        values = [metrics[name] for metrics in table.values()]
        cells = ("-" if value != value else f"{100 * value:.2f}" for value in values)
        out.add_row(format_head(name, options), *cells)
    print(f"\n{format_title(options)}")  # above a narrow table it would be broken
    console.print(out)


def break_name(name: str, most: int) -> str:
    """A method's name in lines of some letters, broken behind `_` and never within a word.

    Args:
        name: Of a column.
        most: Letters of a line; a longer word has a line of its own.
    """
    lines = [""]
    for part in re.findall(r"[^_]*_+|[^_]+", name):
        if lines[-1] and len(lines[-1]) + len(part) > most:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _make_plain_table() -> Table:
    """A table of the terminal without lines beside its columns, as all tables of a run are."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


def print_beyond(measures: Mapping[str, object], options: EvaluationOptions) -> None:
    """Prints this run's measures beyond accuracy, under the closing table.

    Args:
        measures: As `result.json` holds them.
        options: Their cut-offs; shown is that of the monitor.
    """
    k = options.metric.partition("@")[2] or str(options.k[0])
    shown = [
        f"{name.removesuffix(f'@{k}')} {value:.4g}"
        for name, value in measures.items()
        if name.endswith(f"@{k}") and isinstance(value, float)
    ]
    print(f"beyond accuracy, at {k}: {', '.join(shown)}")


def print_spread(
    tests: Sequence[Mapping[str, float]], options: EvaluationOptions, seedless: bool = False
) -> None:
    """Prints the metrics of several seeds: mean and standard deviation, in percent.

    Args:
        tests: Metrics of each seed.
        options: Their protocol.
        seedless: Whether no seed has a part in them, so that there is no spread to speak of.
    """
    from rich.console import Console

    heads = ["", "value"] if seedless else ["", *SPREAD]
    seeds = "no seeds: deterministic" if seedless else f"{len(tests)} seeds"
    out = _make_plain_table()
    for name in heads:
        out.add_column(name, justify="right" if name else "left")
    for name in list_shown(options):
        values = np.array([100 * test[name] for test in tests])
        spread = f"{values.std(ddof=1):.2f}" if len(values) > 1 else "-"
        cells = [f"{values.mean():.2f}", spread, f"{values.min():.2f}", f"{values.max():.2f}"]
        told = ("-" if cell == "nan" else cell for cell in cells[: len(heads) - 1])
        out.add_row(format_head(name, options), *told)
    print(f"\n{format_title(options)}; {seeds}")
    Console().print(out)

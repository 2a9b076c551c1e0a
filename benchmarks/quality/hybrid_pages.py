"""Pages of `hybrids.py`: one a table, and one over all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hybrid_rows import METRIC, SETS_OF_HYBRIDS

from recsys.compare.measures.cost import format_plain
from recsys.metrics.names import FEWEST

HERE = Path(__file__).resolve().parent
PAGES = HERE / "hybrids"
BUILT = "method_kept_cpu_seconds"
"""Cost of a method with all runs that it builds on and all that is kept between runs."""


def write_summary() -> None:
    """Writes hybrids.md: its head, and a table of all sets that are measured."""
    lines = (HERE / "hybrids-head.md").read_text().splitlines()
    (HERE / "hybrids.md").write_text("\n".join([*lines, "", *summarize()]) + "\n")


def summarize() -> Iterator[str]:
    """The lines of the table over all sets: nDCG@10 of all cases, that of cold ones in brackets.

    Where fewer than `FEWEST` are cold, their mean says nothing and is not shown.
    """
    paths = {name: PAGES / f"{name}.json" for name in SETS_OF_HYBRIDS}
    sets = {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}
    yield "| | " + " | ".join(f"[{name}](hybrids/{name}.md)" for name in sets) + " |"
    yield "| ---" + " | ---:" * len(sets) + " |"
    cases = (f"{content['cases']:,} ({content['cold']:,})" for content in sets.values())
    yield f"| test cases (cold) | {' | '.join(cases)} |"
    best = {name: max(map(_get_mean, content["rows"].values())) for name, content in sets.items()}
    for method in dict.fromkeys(row for content in sets.values() for row in content["rows"]):
        cells = (
            _format_cell(content["rows"].get(method), best[name], content["cold"] >= FEWEST)
            for name, content in sets.items()
        )
        yield f"| {method} | {' | '.join(cells)} |"


def _get_mean(row: Mapping[str, Any]) -> float:
    return float(row["test"][METRIC][0])


def _format_cell(row: Mapping[str, Any] | None, best: float, cold: bool) -> str:
    if row is None:
        return ""
    mean = _get_mean(row)
    all_cases = format_spread(*row["test"][METRIC])
    shown = f"**{all_cases}**" if mean == best else all_cases
    return f"{shown} ({100 * row['test'][f'cold/{METRIC}'][0]:.2f})" if cold else shown


def render(content: dict[str, Any]) -> Iterator[str]:
    """The lines of a page.

    Args:
        content: What `write` keeps as JSON.
    """
    yield (
        f"Test, in percent, whole catalog: {content['cases']:,} cases, {content['cold']:,} of them "
        "cold. Mean ± standard deviation over seeds."
    )
    yield ""
    heads = ["method", "seeds", *content["shown"], "warm", "cold", "method, CPU s"]
    heads.append("with all it builds on")
    yield f"| {' | '.join(heads)} |"
    yield f"| ---{' | ---:' * (len(heads) - 1)} |"
    for name, row in content["rows"].items():
        test, cost = row["test"], row["cost"]
        shown = [test[name] for name in (*content["shown"], f"warm/{METRIC}", f"cold/{METRIC}")]
        cells = [format_spread(*figure) for figure in shown]
        cells += [_format_cost(cost, "method_cpu_seconds"), _format_cost(cost, BUILT)]
        yield f"| {name} | {len(row['seeds'])} | {' | '.join(cells)} |"
    yield ""
    yield (
        f"Differences of nDCG@10 in percent points, as planned; p after Holm over the "
        f"{len(content['contrasts'])} of this table."
    )
    yield ""
    yield "| method | against | difference (95 %) | p | can be shown | warm | cold |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for each in content["contrasts"]:
        interval = f"{100 * each['low']:+.2f} to {100 * each['high']:+.2f}"
        parts = [100 * each[part] if each[part] is not None else None for part in ("warm", "cold")]
        yield (
            f"| {each['row']} | {each['against']} | {100 * each['difference']:+.2f} ({interval}) | "
            f"{each['p']:.3f} | {100 * each['smallest']:.2f} | "
            f"{' | '.join('-' if part is None else f'{part:+.2f}' for part in parts)} |"
        )


def format_spread(mean: float, deviation: float | None) -> str:
    """Mean and deviation over seeds in percent, where there is either."""
    if mean != mean:
        return "-"
    return f"{100 * mean:.2f}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")


def _format_cost(cost: Mapping[str, float | None], key: str) -> str:
    value = cost.get(key)
    return "-" if value is None else format_plain(value)

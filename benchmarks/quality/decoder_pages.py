"""Pages of `decoders.py`: one a table, and one that links them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from decoder_rows import CITED, TABLES, name_shots
from hybrid_pages import format_spread

from recsys.compare.measures.cost import format_plain

HERE = Path(__file__).resolve().parent
PAGES = HERE / "decoders"
COSTS = {
    "training_tokens": "training tokens",
    "training_cpu_seconds": "training, CPU s",
    "built_cpu_seconds": "with all it builds on",
    "tokens": "tokens a query",
    "cpu_seconds": "CPU s a query",
    "milliseconds": "ms a query",
    "peak_mb": "peak MB",
}


def write_summary() -> None:
    """Writes decoders.md: its head, and a link to each page that is there."""
    lines = (HERE / "decoders-head.md").read_text().splitlines()
    links = [
        f"- [{name}](decoders/{name}.md)" for name in TABLES if (PAGES / f"{name}.md").is_file()
    ]
    (HERE / "decoders.md").write_text("\n".join([*lines, "", *links]) + "\n")


def render(content: dict[str, Any]) -> Iterator[str]:
    """The lines of a page.

    Args:
        content: What `decoders.write` keeps as JSON.
    """
    yield from _render_likes(content) if content["labelled"] else _render_ranking(content)


def _render_likes(content: dict[str, Any]) -> Iterator[str]:
    yield (
        f"AUC in percent over {content['rows_tested']:,} test rows of {content['users']} users, "
        f"{100 * content['liked']:.1f} % liked: over all rows, and the mean of the AUC of each "
        "user (with likes and others among its rows). 95 % intervals of users that are drawn "
        "anew, means over seeds."
    )
    if content["users"] < 30:
        yield ""
        yield (
            f"{content['users']} users are few: such intervals are too narrow, and no figure over "
            "all rows tells apart who likes much from what is liked."
        )
    yield ""
    yield from _make_head("method", "seeds", "AUC, all rows", "AUC, by user", *COSTS.values())
    for name, shots in CITED.items() if content["users"] == 16 else ():
        for rows, value in shots.items():
            cells = ["", f"{value:.1f}", "", *[""] * len(COSTS)]
            yield f"| {name_shots(name, rows)} | {' | '.join(cells)} |"
    for name, row in content["rows"].items():
        cells = [str(row["seeds"] or ""), *(_format_interval(x) for x in row["auc"].values())]
        yield f"| {name} | {' | '.join([*cells, *_list_costs(row.get('cost', {}))])} |"
    yield ""
    yield (
        "Differences in percent points, as planned; users drawn anew for both at once; not "
        "corrected."
    )
    yield ""
    yield from _make_head("method", "against", "all rows", "by user")
    for each in content["contrasts"]:
        cells = [_format_interval(each[part], "+") for part in ("pooled", "by user")]
        yield f"| {each['row']} | {each['against']} | {' | '.join(cells)} |"


def _render_ranking(content: dict[str, Any]) -> Iterator[str]:
    yield (
        f"Test, in percent: the best {content['proposed']} of the first row are ranked anew in "
        f"{content['cases']:,} cases, {content['cold']:,} of them cold. The target is never put "
        f"in: {100 * content['recall']:.2f} % of the lists have it, which is the most that any "
        "order reaches. The first row, over the whole catalog, is the order of the lists. Mean ± "
        "standard deviation over seeds."
    )
    yield ""
    names = list(next(iter(content["rows"].values()))["test"])
    yield from _make_head("method", "seeds", *names, *COSTS.values())
    for name, row in content["rows"].items():
        cells = [str(row["seeds"]), *(format_spread(*x) for x in row["test"].values())]
        yield f"| {name} | {' | '.join([*cells, *_list_costs(row['cost'])])} |"
    yield ""
    yield (
        "Differences of nDCG@10 in percent points, as planned; p after Holm over the "
        f"{len(content['contrasts'])} of this table."
    )
    yield ""
    yield from _make_head("method", "against", "difference (95 %)", "p", "can be shown")
    for each in content["contrasts"]:
        shown = _format_interval([each[part] for part in ("difference", "low", "high")], "+")
        cells = [each["row"], each["against"], shown, f"{each['p']:.3f}"]
        cells.append(f"{100 * each['smallest']:.2f}")
        yield f"| {' | '.join(cells)} |"


def _make_head(*names: str) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield f"| ---{' | ---:' * (len(names) - 1)} |"


def _format_interval(figure: list[float], sign: str = "") -> str:
    value, low, high = (f"{100 * each:{sign}.1f}" for each in figure)
    return f"{value} ({low} to {high})"


def _list_costs(cost: Mapping[str, float | None]) -> list[str]:
    values = [cost.get(key) for key in COSTS]
    return ["" if value is None else format_plain(value) for value in values]

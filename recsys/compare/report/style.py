"""The colours and rules that every page of ours shares, light and dark."""

from __future__ import annotations

from recsys import printable

LIGHT = {
    "page": "#fcfcfb",
    "ink": "#1b1b19",
    "soft": "#5f5e58",
    "rule": "#d9d8d2",
    "grid": "#e9e8e3",
    "band": "#eceae2",
    "c0": "#2a78d6",
    "c1": "#d8571f",
    "c2": "#148f62",
    "c3": "#b07a00",
    "c4": "#c94f86",
    "c5": "#4a3aa7",
    "c6": "#0a7f93",
    "c7": "#a33b2f",
}
DARK = {
    "page": "#1a1a19",
    "ink": "#f1f0ec",
    "soft": "#b3b1a8",
    "rule": "#45443f",
    "grid": "#31302d",
    "band": "#2b2a26",
    "c0": "#5b9bea",
    "c1": "#ee7c49",
    "c2": "#33b585",
    "c3": "#d9a22b",
    "c4": "#e783b0",
    "c5": "#a093f0",
    "c6": "#43b7cc",
    "c7": "#e07f73",
}


def _format_variables(colours: dict[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in colours.items())


STYLE = (
    f":root{{color-scheme:light dark;{_format_variables(LIGHT)}}}\n"
    f"@media(prefers-color-scheme:dark){{:root{{{_format_variables(DARK)}}}}}"
    """
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:76rem;background:var(--page);
color:var(--ink);font:16px/1.5 system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .5rem}
h2{font-size:1.15rem;margin:2.5rem 0 .75rem;padding-top:.75rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.5rem 0 .25rem}
.note,.held{color:var(--soft);font-size:.875rem}
.says li{margin:.4rem 0}
.scroll{overflow-x:auto;margin:1rem 0 .5rem}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding-bottom:.4rem}
caption span{display:inline-block;position:sticky;left:0;max-width:calc(100vw - 2.5rem)}
h1,.verdict,.says li,.note{overflow-wrap:anywhere}
th,td{padding:.3rem .75rem .3rem 0;text-align:right;vertical-align:top;white-space:nowrap}
th{border-bottom:1px solid var(--ink);font-weight:600;vertical-align:bottom}
td{border-bottom:1px solid var(--grid)}
td.word,th.word{text-align:left;white-space:normal;min-width:7rem}
tr.rule td{border-top:2px solid var(--soft)}
figure{margin:1rem 0 1.5rem;overflow-x:auto}
figcaption{color:var(--soft);font-size:.875rem;margin-top:.25rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;font-size:.875rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media print{body{max-width:none}figure{break-inside:avoid}}
"""
)


def render_opening(heading: str, rules: str) -> list[str]:
    """The first lines of a page, up to its heading.

    Args:
        heading: Title of the page, as plain text.
        rules: CSS of this page alone.
    """
    safe = printable.escape_html(heading)
    return [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{safe}</title><style>{STYLE}{rules}</style></head><body>",
        f"<h1>{safe}</h1>",
    ]


def render_definitions(rows: list[tuple[str, str]]) -> list[str]:
    """The lines of a list of names and what they stand for."""
    lines = [
        f"<dt>{printable.escape_html(name)}</dt><dd>{printable.escape_html(value)}</dd>"
        for name, value in rows
    ]
    return ["<dl>", *lines, "</dl>"]

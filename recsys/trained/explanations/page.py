"""An explanation as one HTML page that loads nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from recsys.printable import escape_html
from recsys.runtime.files import write_atomic
from recsys.trained.explanations.parts import METHODS, ExplainedScore, HistoryPart
from recsys.trained.explanations.words.lines import write_error
from recsys.trained.explanations.words.page import STYLE, render_readings, render_row, render_table

_STYLE = f"""
.why {{ --text: #1b1f24; --paper: #fff; --quiet: #57606a; --line: #d0d7de; --for: #2f7d4f;
  --against: #b35900; --for-shade: 47, 125, 79; --against-shade: 214, 117, 10;
  font: 16px/1.45 system-ui, sans-serif; color: var(--text);
  background: var(--paper); max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem;
  overflow-wrap: anywhere; color-scheme: light }}
@media (prefers-color-scheme: dark) {{ .why {{ --text: #e6edf3; --paper: #0d1117;
  --quiet: #9198a1; --line: #3d444d; --for: #4ba36f; --against: #d9822b;
  --for-shade: 63, 160, 101; --against-shade: 200, 110, 20; color-scheme: dark }}
  body:has(> .why) {{ background: #0d1117 }} }}
body:has(> .why) {{ margin: 0 }}
.why h1 {{ font-size: 1.35rem; margin: 0 0 .25rem }}
.why h2 {{ font-size: 1rem; margin: 1.5rem 0 .5rem }}
.why p {{ margin: .25rem 0 }} .why .note {{ color: var(--quiet); font-size: .875rem }}
.why table {{ border-collapse: collapse; width: 100% }}
.why td, .why th {{ padding: .2rem .5rem; text-align: left; vertical-align: top;
  font-weight: normal }}
.why thead th {{ border-bottom: 1px solid var(--line); color: var(--quiet); font-size: .875rem }}
.why .number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
.why .bar {{ width: 30%; min-width: 3rem }}
.why .bar div {{ height: .9rem; margin-top: .3rem }}
.why .bar .for {{ background: var(--for) }} .why .bar .against {{ background: var(--against) }}
{STYLE}"""


def write_page(explanation: ExplainedScore, path: Path) -> None:
    """Writes the page, whole or not at all.

    Args:
        explanation: What it says.
        path: Of the file.
    """
    write_atomic(path, render_page(explanation))


def render_page(explanation: ExplainedScore) -> str:
    """The whole page; every text in it is escaped."""
    title = escape_html(f"Why {explanation.title}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title></head>\n<body>{render_body(explanation)}</body></html>\n"
    )


def render_body(explanation: ExplainedScore) -> str:
    """What a page or a notebook shows, with its own style."""
    rank = "" if explanation.rank is None else f", rank {explanation.rank}"
    because = explanation.because
    parts = [
        f"<h1>{escape_html(explanation.title)}</h1>",
        f"<p>{escape_html(because[:1].upper() + because[1:])}</p>" if because else "",
        f'<p class="note">Item {escape_html(explanation.item)} for '
        f"{escape_html(explanation.query)}: score {explanation.score:.4f}{rank}. "
        f"{escape_html(_describe_method(explanation))}</p>",
        _render_history(explanation.history),
        _render_rest(explanation.rest),
        render_readings(explanation.readings),
    ]
    return f'<style>{_STYLE}</style><div class="why">{"".join(parts)}</div>'


def _describe_method(explanation: ExplainedScore) -> str:
    """How the parts were computed, as a sentence."""
    method = METHODS[explanation.method]
    at = f", which scores {explanation.baseline:.4f}" if explanation.baseline else ""
    return f"{method[0].upper()}{method[1:]}{at}{write_error(explanation.error)}."


def _render_history(history: tuple[HistoryPart, ...]) -> str:
    """A table with a bar for each item of the history."""
    if not history:
        return ""
    largest = max(abs(part.share) for part in history) or 1.0
    rows = [render_row(_name_item(part), part.value, part.share, largest) for part in history]
    return (
        f"<h2>What the history adds</h2>{render_table('Item', rows)}"
        '<p class="note">Green speaks for the item, orange against it.</p>'
    )


def _name_item(part: HistoryPart) -> str:
    """An item's text, escaped, and whether it was disliked."""
    note = '<span class="note">disliked:</span> ' if part.disliked else ""
    return f"{note}{escape_html(part.title)}"


def _render_rest(rest: dict[str, float]) -> str:
    """What belongs to no item of the history."""
    rows = "".join(
        f'<tr><td>{escape_html(name)}</td><td class="number">{value:+.4f}</td></tr>'
        for name, value in rest.items()
    )
    return f"<h2>What else adds</h2><table><tbody>{rows}</tbody></table>" if rows else ""

"""`report.html` of a sweep: one page that needs nothing else, and a summary as Markdown."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from recsys.compare.report import style, table
from recsys.errors import DataError
from recsys.runtime.files import write_atomic
from recsys.sweep.record import SweepRecord
from recsys.sweep.report import figures, importance, optuna_plots, sentences, tables
from recsys.sweep.report.drawing import SweepPlot
from recsys.sweep.report.formatting import format_parameter

FILE = "report.html"
COMPARISON = "comparison/report.html"

RULES = """
.plot{min-width:34rem}
.verdict{font-size:1.15rem;font-weight:600}
.command{white-space:pre-wrap;overflow-wrap:anywhere;user-select:all}
th{white-space:normal}
.methods td.word+td.word,.sortable td.word+td.word+td.word{min-width:16rem}
.warn li{margin:.4rem 0}
details{margin:.75rem 0;border-top:1px solid var(--grid);padding-top:.5rem}
summary{cursor:pointer;font-weight:600}
.sortable th{cursor:pointer}
.sortable th[aria-sort=ascending]::after{content:" \\25b4"}
.sortable th[aria-sort=descending]::after{content:" \\25be"}
"""

SCRIPT = """
(function(){
const dark=matchMedia("(prefers-color-scheme: dark)");
const swap=SWAP;
const colours=new RegExp(Object.keys(swap).join("|"),"gi");
function draw(box){
  let text=document.getElementById(box.dataset.figure).textContent;
  if(dark.matches&&!box.dataset.light)text=text.replace(colours,found=>swap[found.toLowerCase()]);
  const figure=JSON.parse(text);
  Plotly.react(box,figure.data,figure.layout,{displaylogo:false,responsive:true});
  box.dataset.drawn="yes";
}
const boxes=[...document.querySelectorAll(".plot")];
const seen=new IntersectionObserver(function(entries){
  for(const entry of entries)
    if(entry.isIntersecting){seen.unobserve(entry.target);draw(entry.target);}
},{rootMargin:"600px"});
boxes.forEach(box=>seen.observe(box));
dark.addEventListener("change",()=>boxes.filter(box=>box.dataset.drawn).forEach(draw));
addEventListener("beforeprint",function(){
  document.querySelectorAll("details").forEach(each=>each.open=true);
  boxes.filter(box=>!box.dataset.drawn).forEach(draw);
});
function sort(head){
  const row=head.parentNode,body=head.closest("table").tBodies[0];
  const at=[...row.cells].indexOf(head),up=head.getAttribute("aria-sort")!=="ascending";
  [...row.cells].forEach(cell=>cell.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort",up?"ascending":"descending");
  const text=tr=>tr.cells[at].textContent;
  const order=function(a,b){
    const x=text(a),y=text(b),p=parseFloat(x),q=parseFloat(y);
    if(isNaN(p)!==isNaN(q))return isNaN(p)?1:-1;
    return (up?1:-1)*(isNaN(p)?x.localeCompare(y):p-q);
  };
  [...body.rows].sort(order).forEach(tr=>body.append(tr));
}
document.querySelectorAll(".sortable th").forEach(function(head){
  head.tabIndex=0;
  head.addEventListener("click",()=>sort(head));
  head.addEventListener("keydown",event=>{if(event.key==="Enter")sort(head);});
});
})();
"""


def write_page(sweep: SweepRecord) -> Path:
    """Writes `report.html` into the sweep's folder, whole or not at all.

    Args:
        sweep: As it stands; it need not be at its end.

    Returns:
        The page.

    Raises:
        DataError: The disk is full, or the folder cannot be written to.
    """
    path = sweep.folder / FILE
    try:
        write_atomic(path, render_page(sweep))
    except OSError as error:
        raise DataError(f"{path}: the page cannot be written ({error.strerror}).") from None
    return path


def format_title(sweep: SweepRecord) -> str:
    """Of the page."""
    return f"Sweep {sweep.name}: {sweep.objectives[0].label}"


def render_page(sweep: SweepRecord) -> str:
    """The page as text."""
    lines = [
        *style.render_opening(format_title(sweep), RULES),
        f'<p class="verdict">{html.escape(sentences.describe_verdict(sweep))}</p>',
        *(_render_sentences([sentences.describe_best(sweep)]) if sweep.tests else []),
        *table.render_html(tables.make_brief_table(sweep)),
        *_render_commands(sweep),
        *(f'<p class="note">{html.escape(note)}</p>' for note in sweep.notes),
        *_render_comparison_link(sweep),
        '<div class="methods">',
        *table.render_html(tables.make_method_table(sweep)),
        "</div>",
        *(table.render_html(found) if (found := tables.make_test_table(sweep)) else []),
        *_render_answers(sweep),
        *(line for each in figures.draw_plots(sweep) for line in _render_section(each)),
        *_render_importance(sweep),
        *_render_study_plots(sweep),
        "<h2>Trials</h2>",
        *(table.render_html(failures) if (failures := tables.make_failure_table(sweep)) else []),
        '<div class="sortable">',
        *table.render_html(tables.make_trial_table(sweep)),
        "</div>",
        *_render_shared_config(sweep),
        *_render_scripts(),
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def _render_sentences(found: Sequence[str], kind: str = "says") -> list[str]:
    """Sentences as a list; nothing where there are none."""
    lines = [f"<li>{html.escape(sentence)}</li>" for sentence in found]
    return [f'<ul class="{kind}">', *lines, "</ul>"] if lines else []


def _render_commands(sweep: SweepRecord) -> list[str]:
    """What trains each method's best trial again, to be copied; the leader's is open."""
    top, lines = sentences.find_leader(sweep), []
    for method, command in sweep.commands.items():
        shown = " open" if method == top else ""
        lines += [
            f"<details{shown}><summary>Train the best of {html.escape(method)} again</summary>",
            f'<pre class="command">{html.escape(command)}</pre></details>',
        ]
    return lines


def _render_answers(sweep: SweepRecord) -> list[str]:
    """An answer to each question in plain sentences, and the table that they are read from."""
    asked = {
        "Which learning rate?": sentences.describe_choices(sweep, "learning rate"),
        "Which regularisation?": sentences.describe_choices(sweep, "regularisation"),
        "Which other choices?": sentences.describe_choices(sweep, "other"),
        "How sensitive to the learning rate?": sentences.describe_sensitivity(sweep),
    }
    lines = []
    for question, answers in asked.items():
        if answers:
            lines += [f"<h3>{question}</h3>", *_render_sentences(answers)]
    warnings = sentences.describe_edges(sweep)
    if warnings:
        lines += [
            "<h3>Best values at the end of the searched range</h3>",
            *_render_sentences(warnings, "warn"),
        ]
    near = tables.make_sensitivity_table(sweep)
    return ["<h2>Answers</h2>", *lines, *(table.render_html(near) if near else [])] if lines else []


def _render_plot(picture: SweepPlot) -> list[str]:
    """A picture with its data, drawn when it comes into view."""
    # In a script element only "<" could end it or open a comment.
    data = picture.figure.to_json().replace("<", "\\u003c")
    name = html.escape(f"figure-{picture.name}")
    kept = 'data-light="yes" ' if picture.light else ""
    return [
        f'<figure><div class="plot" data-figure="{name}" {kept}role="img" '
        f'aria-label="{html.escape(picture.title)}" '
        f'style="min-height:{picture.figure.layout.height:.0f}px"></div>',
        f'<script type="application/json" id="{name}">{data}</script>',
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>",
    ]


def _render_section(picture: SweepPlot, level: int = 2) -> list[str]:
    return [f"<h{level}>{html.escape(picture.title)}</h{level}>", *_render_plot(picture)]


def _render_importance(sweep: SweepRecord) -> list[str]:
    """The importance of each axis by method, or why it is not shown."""
    lines = []
    for method in sweep.methods:
        found = importance.draw_importance(sweep, method)
        if found is not None:
            lines += _render_section(found, level=3)
        else:
            lines.append(
                f'<p class="note">{html.escape(importance.explain_missing(sweep, method))}</p>'
            )
    return ["<h2>Importance of the axes</h2>", *lines]


def _render_study_plots(sweep: SweepRecord) -> list[str]:
    """Optuna's pictures, folded by method; the first one is open."""
    lines = []
    first = " open"
    for method in sweep.methods:
        reason = optuna_plots.explain_missing(sweep, method)
        if reason:
            lines.append(f'<p class="note">{html.escape(reason)}</p>')
            continue
        lines.append(f"<details{first}><summary>{html.escape(method)}</summary>")
        for each in optuna_plots.draw_study_plots(sweep, method):
            lines += _render_section(each, level=3)
        lines.append("</details>")
        first = ""
    return ["<h2>Each method by itself</h2>", *lines]


def _render_comparison_link(sweep: SweepRecord) -> list[str]:
    """A link to the closing comparison, where it was made."""
    if not (sweep.folder / COMPARISON).is_file():
        return []
    return [f'<p><a href="{COMPARISON}">The comparison of the closing runs</a></p>']


def _render_shared_config(sweep: SweepRecord) -> list[str]:
    if not sweep.common:
        return []
    rows = [(name, format_parameter(value)) for name, value in sweep.common.items()]
    return [
        "<details><summary>What all trials share</summary>",
        *style.render_definitions(rows),
        "</details>",
    ]


def _render_scripts() -> list[str]:
    """Plotly's own script, once, and ours."""
    from plotly.offline import get_plotlyjs

    swap = {style.LIGHT[name].lower(): style.DARK[name] for name in style.LIGHT}
    library = get_plotlyjs().replace("</script", "<\\/script")
    own = SCRIPT.replace("SWAP", json.dumps(swap))
    return [f"<script>{library}</script>", f"<script>{own}</script>"]


def render_markdown(sweep: SweepRecord) -> str:
    """A summary for a terminal or a page of benchmarks."""
    lines = [f"# {format_title(sweep)}", "", f"**{sentences.describe_verdict(sweep)}**", ""]
    lines += [sentences.describe_best(sweep), ""] if sweep.tests else []
    lines += table.render_markdown(tables.make_brief_table(sweep))
    lines += [line for note in sweep.notes for line in (f"Note: {note}", "")]
    lines += table.render_markdown(tables.make_method_table(sweep))
    for found in (tables.make_test_table(sweep), tables.make_sensitivity_table(sweep)):
        lines += table.render_markdown(found) if found else []
    for method, command in sweep.commands.items():
        lines += [f"To train the best of {method} again:", "", "```", command, "```", ""]
    said = [*sentences.describe_sensitivity(sweep), *sentences.describe_edges(sweep)]
    lines += [f"- {sentence}" for sentence in said]
    failures = tables.make_failure_table(sweep)
    lines += ["", *table.render_markdown(failures)] if failures else []
    return "\n".join(lines).rstrip() + "\n"

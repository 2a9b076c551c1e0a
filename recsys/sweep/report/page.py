"""`report.html` of a sweep: one page that needs nothing else, and a summary as Markdown."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from recsys.compare.report import style, table
from recsys.errors import DataError
from recsys.runtime.files import write_atomic
from recsys.sweep.record import Sweep
from recsys.sweep.report import figures, importance, optuna_plots, sentences, tables
from recsys.sweep.report.drawing import Picture
from recsys.sweep.report.formatting import parameter

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


def write(sweep: Sweep) -> Path:
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
        write_atomic(path, page(sweep))
    except OSError as error:
        raise DataError(f"{path}: the page cannot be written ({error.strerror}).") from None
    return path


def title(sweep: Sweep) -> str:
    """Of the page."""
    return f"Sweep {sweep.name}: {sweep.objectives[0].label}"


def page(sweep: Sweep) -> str:
    """The page as text."""
    lines = [
        *style.opening(title(sweep), RULES),
        f'<p class="verdict">{html.escape(sentences.verdict(sweep))}</p>',
        *(_says([sentences.headline(sweep)]) if sweep.tests else []),
        *table.page(tables.brief(sweep)),
        *_commands(sweep),
        *(f'<p class="note">{html.escape(note)}</p>' for note in sweep.notes),
        *_comparison(sweep),
        '<div class="methods">',
        *table.page(tables.methods(sweep)),
        "</div>",
        *(table.page(found) if (found := tables.tests(sweep)) else []),
        *_questions(sweep),
        *(line for each in figures.pictures(sweep) for line in _section(each)),
        *_importance(sweep),
        *_own(sweep),
        "<h2>Trials</h2>",
        *(table.page(failures) if (failures := tables.failed(sweep)) else []),
        '<div class="sortable">',
        *table.page(tables.trials(sweep)),
        "</div>",
        *_common(sweep),
        *_scripts(),
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def _says(found: Sequence[str], kind: str = "says") -> list[str]:
    """Sentences as a list; nothing where there are none."""
    lines = [f"<li>{html.escape(sentence)}</li>" for sentence in found]
    return [f'<ul class="{kind}">', *lines, "</ul>"] if lines else []


def _commands(sweep: Sweep) -> list[str]:
    """What trains each method's best trial again, to be copied; the leader's is open."""
    top, lines = sentences.leader(sweep), []
    for method, command in sweep.commands.items():
        shown = " open" if method == top else ""
        lines += [
            f"<details{shown}><summary>Train the best of {html.escape(method)} again</summary>",
            f'<pre class="command">{html.escape(command)}</pre></details>',
        ]
    return lines


def _questions(sweep: Sweep) -> list[str]:
    """An answer to each question in plain sentences, and the table that they are read from."""
    asked = {
        "Which learning rate?": sentences.chosen(sweep, "learning rate"),
        "Which regularisation?": sentences.chosen(sweep, "regularisation"),
        "Which other choices?": sentences.chosen(sweep, "other"),
        "How sensitive to the learning rate?": sentences.sensitive(sweep),
    }
    lines = []
    for question, answers in asked.items():
        if answers:
            lines += [f"<h3>{question}</h3>", *_says(answers)]
    warnings = sentences.edges(sweep)
    if warnings:
        lines += ["<h3>Best values at the end of the searched range</h3>", *_says(warnings, "warn")]
    near = tables.near(sweep)
    return ["<h2>Answers</h2>", *lines, *(table.page(near) if near else [])] if lines else []


def _plot(picture: Picture) -> list[str]:
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


def _section(picture: Picture, level: int = 2) -> list[str]:
    return [f"<h{level}>{html.escape(picture.title)}</h{level}>", *_plot(picture)]


def _importance(sweep: Sweep) -> list[str]:
    """The importance of each axis by method, or why it is not shown."""
    lines = []
    for method in sweep.methods:
        found = importance.picture(sweep, method)
        if found is not None:
            lines += _section(found, level=3)
        else:
            lines.append(f'<p class="note">{html.escape(importance.why_not(sweep, method))}</p>')
    return ["<h2>Importance of the axes</h2>", *lines]


def _own(sweep: Sweep) -> list[str]:
    """Optuna's pictures, folded by method; the first one is open."""
    lines = []
    first = " open"
    for method in sweep.methods:
        reason = optuna_plots.why_not(sweep, method)
        if reason:
            lines.append(f'<p class="note">{html.escape(reason)}</p>')
            continue
        lines.append(f"<details{first}><summary>{html.escape(method)}</summary>")
        for each in optuna_plots.pictures(sweep, method):
            lines += _section(each, level=3)
        lines.append("</details>")
        first = ""
    return ["<h2>Each method by itself</h2>", *lines]


def _comparison(sweep: Sweep) -> list[str]:
    """A link to the closing comparison, where it was made."""
    if not (sweep.folder / COMPARISON).is_file():
        return []
    return [f'<p><a href="{COMPARISON}">The comparison of the closing runs</a></p>']


def _common(sweep: Sweep) -> list[str]:
    if not sweep.common:
        return []
    rows = [(name, parameter(value)) for name, value in sweep.common.items()]
    return [
        "<details><summary>What all trials share</summary>",
        *style.described(rows),
        "</details>",
    ]


def _scripts() -> list[str]:
    """Plotly's own script, once, and ours."""
    from plotly.offline import get_plotlyjs

    swap = {style.LIGHT[name].lower(): style.DARK[name] for name in style.LIGHT}
    library = get_plotlyjs().replace("</script", "<\\/script")
    own = SCRIPT.replace("SWAP", json.dumps(swap))
    return [f"<script>{library}</script>", f"<script>{own}</script>"]


def markdown(sweep: Sweep) -> str:
    """A summary for a terminal or a page of benchmarks."""
    lines = [f"# {title(sweep)}", "", f"**{sentences.verdict(sweep)}**", ""]
    lines += [sentences.headline(sweep), ""] if sweep.tests else []
    lines += table.markdown(tables.brief(sweep))
    lines += [line for note in sweep.notes for line in (f"Note: {note}", "")]
    lines += table.markdown(tables.methods(sweep))
    for found in (tables.tests(sweep), tables.near(sweep)):
        lines += table.markdown(found) if found else []
    for method, command in sweep.commands.items():
        lines += [f"To train the best of {method} again:", "", "```", command, "```", ""]
    said = [*sentences.sensitive(sweep), *sentences.edges(sweep)]
    lines += [f"- {sentence}" for sentence in said]
    failures = tables.failed(sweep)
    lines += ["", *table.markdown(failures)] if failures else []
    return "\n".join(lines).rstrip() + "\n"

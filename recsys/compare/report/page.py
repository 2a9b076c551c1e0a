"""The report as Markdown, LaTeX and one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from recsys import printable
from recsys.compare.outcome import Comparison
from recsys.compare.report import plots, style, table, tables

RULES = """
.verdict{font-weight:600;font-size:1.0625rem}
figure>svg{width:100%;min-width:34rem;height:auto;display:block}
svg text{font-size:12px;fill:var(--ink)}
svg .tick{fill:var(--soft);font-variant-numeric:tabular-nums}
svg .title{fill:var(--soft)}
svg .name,svg .tick{paint-order:stroke;stroke:var(--page);stroke-width:3px;stroke-linejoin:round}
svg .value{font-variant-numeric:tabular-nums}
svg .front-name{font-weight:700}
.grid,.between{stroke:var(--grid)}
.zero{stroke:var(--ink);stroke-width:1.25}
.margin{fill:var(--band)}
.front{fill:none;stroke:var(--soft);stroke-width:1.5;stroke-dasharray:5 4}
.floor{stroke:var(--soft);stroke-width:1;stroke-dasharray:1 3}
.lead{stroke:var(--soft);stroke-width:.75}
.whisker{stroke:var(--c);stroke-width:2;opacity:.55}
.curve{fill:none;stroke:var(--c);stroke-width:1.75;stroke-linejoin:round}
.mark{fill:var(--c);stroke:var(--page);stroke-width:1}
.s0{--c:var(--c0)}.s1{--c:var(--c1)}.s2{--c:var(--c2)}.s3{--c:var(--c3)}
.s4{--c:var(--c4)}.s5{--c:var(--c5)}.s6{--c:var(--c6)}.s7{--c:var(--c7)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;padding:0;margin:.5rem 0;
font-size:.875rem}
.legend svg{vertical-align:-2px;margin-right:.35rem}
"""


def format_title(comparison: Comparison) -> str:
    """Of the report."""
    count = sum(not row.floor for row in comparison.rows)
    return f"{count} methods by {comparison.question.metric}"


def list_settings(comparison: Comparison) -> list[tuple[str, str]]:
    """What all runs have in common, and how the runs were compared."""
    question = comparison.question
    rows = [(name, str(value)) for name, value in comparison.held.items()]
    rows += [
        ("baseline", question.baseline),
        ("family", f"{question.family} ({len(comparison.differences)} contrasts)"),
        ("level", f"{100 * question.level:g} %"),
        ("margin", "none" if question.margin is None else f"{question.margin:g} points"),
    ]
    return rows


def make_members_table(comparison: Comparison) -> table.TextTable:
    """Which runs each method is made of."""
    return table.TextTable(
        "Runs",
        ["method", "seed", "folder"],
        [
            [row.label, str(seed), run]
            for row in comparison.rows
            for seed, run in zip(row.seeds, row.runs, strict=True)
        ],
        words=3,
    )


def render_markdown(comparison: Comparison) -> str:
    """`report.md`."""
    safe = printable.escape_markdown
    lines = [f"# {safe(format_title(comparison))}", ""]
    lines += [f"**{safe(comparison.verdict)}**", ""] if comparison.verdict else []
    lines += [f"- {safe(sentence)}" for sentence in comparison.sentences]
    lines += ["", *(f"Note: {safe(note)}\n" for note in comparison.notes)]
    lines += ["## Quality and cost", ""]
    for each in (
        tables.make_quality_table(comparison),
        tables.make_cost_table(comparison),
        *_make_beyond_tables(comparison),
    ):
        lines += table.render_markdown(each)
    if comparison.differences:
        lines += [
            "## Differences",
            "",
            *table.render_markdown(tables.make_differences_table(comparison)),
        ]
    if comparison.parts:
        lines += ["## Slices", ""]
        for each in tables.make_slice_tables(comparison):
            lines += table.render_markdown(each)
    if comparison.users:
        lines += ["## Users", "", *table.render_markdown(tables.make_users_table(comparison))]
        for each in tables.make_example_tables(comparison):
            lines += table.render_markdown(each)
    lines += ["## What was held equal", ""]
    lines += [f"- {safe(name)}: {safe(value)}" for name, value in list_settings(comparison)]
    return (
        "\n".join([*lines, "", *table.render_markdown(make_members_table(comparison))]).rstrip()
        + "\n"
    )


def render_latex(comparison: Comparison) -> str:
    """`table.tex`: quality, differences, cost, measures and slices, to be included by a document.

    What stands in it of users is left out, with the examples.
    """
    found = [tables.make_quality_table(comparison)]
    if comparison.differences:
        found.append(tables.make_differences_table(comparison))
    found += [
        tables.make_cost_table(comparison),
        *_make_beyond_tables(comparison),
        *tables.make_slice_tables(comparison),
    ]
    lines = [line for each in found for line in table.render_latex(each)]
    return "\n".join([r"% needs \usepackage{booktabs} and \usepackage{graphicx}", *lines])


def _make_beyond_tables(comparison: Comparison) -> list[table.TextTable]:
    """The measures beyond accuracy, where any run looked at them."""
    found = tables.make_beyond_table(comparison)
    return [] if found is None else [found]


def render_html(comparison: Comparison) -> str:
    """`report.html`."""
    lines = [
        *style.render_opening(format_title(comparison), RULES),
        *(
            [f'<p class="verdict">{printable.escape_html(comparison.verdict)}</p>']
            if comparison.verdict
            else []
        ),
        '<ul class="says">',
        *(f"<li>{printable.escape_html(sentence)}</li>" for sentence in comparison.sentences),
        "</ul>",
        *(f'<p class="note">{printable.escape_html(note)}</p>' for note in comparison.notes),
        "<h2>Quality</h2>",
        *table.render_html(tables.make_quality_table(comparison)),
        *_render_differences(comparison),
        "<h2>Cost</h2>",
        *_render_figure(
            plots.draw_pareto(comparison),
            "Mean with interval over seeds and users. The dashed line joins the Pareto front, in "
            "bold: no other method is both better and cheaper, without what is kept between runs. "
            "Dotted: floors, of which only means are known.",
        ),
        *table.render_html(tables.make_cost_table(comparison)),
        *(line for each in _make_beyond_tables(comparison) for line in table.render_html(each)),
        *_render_curves(comparison),
        *_render_slices(comparison),
        *_render_users(comparison),
        "<h2>What was held equal</h2>",
        *style.render_definitions(list_settings(comparison)),
        *table.render_html(make_members_table(comparison)),
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def _render_figure(svg: str, caption: str) -> Sequence[str]:
    if not svg:
        return []
    return [f"<figure>{svg}<figcaption>{printable.escape_html(caption)}</figcaption></figure>"]


def _render_differences(comparison: Comparison) -> list[str]:
    if not comparison.differences:
        return []
    caption = "Difference of the means with interval over seeds and users, not corrected."
    if comparison.question.margin is not None:
        caption += f" Shaded: differences within the margin of {comparison.question.margin:g}."
    return [
        "<h2>Differences</h2>",
        *_render_figure(plots.draw_forest(comparison), caption),
        *table.render_html(tables.make_differences_table(comparison)),
    ]


def _render_curves(comparison: Comparison) -> list[str]:
    drawn = plots.draw_curves(comparison)
    if not drawn:
        return []
    caption = "A line is a run, a dot a validation. Names stand at the height of the mean end."
    return ["<h2>Learning curves</h2>", *_render_figure(drawn, caption)]


def _render_slices(comparison: Comparison) -> list[str]:
    if not comparison.parts:
        return []
    lines = ["<h2>Slices</h2>", plots.render_legend(comparison)]
    for drawn, each in zip(
        plots.draw_slices(comparison), tables.make_slice_tables(comparison), strict=True
    ):
        lines += _render_figure(drawn, "Mean with interval over seeds and users; not corrected.")
        lines += table.render_html(each)
    return lines


def _render_users(comparison: Comparison) -> list[str]:
    if not comparison.users:
        return []
    lines = ["<h2>Users</h2>", *table.render_html(tables.make_users_table(comparison))]
    for each in tables.make_example_tables(comparison):
        lines += table.render_html(each)
    return lines

"""A specification as the objects of wandb-workspaces, without a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.boards.specification import BoardSpec, LoggedKey, PanelSpec, RunSet, SectionSpec
from recsys.errors import ConfigError

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.expr import Config, Metric
    from wandb_workspaces.reports.v2.interface import Block as ReportBlock
    from wandb_workspaces.reports.v2.interface import Panel as ReportPanel

TITLE = 128
"""Longest title of a report."""

MOST = 100
"""Most lines of a plot."""


def check_package() -> None:
    """Refuses to go on without the package.

    Raises:
        ConfigError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.workspaces  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError(
            "workspaces and reports need the package wandb-workspaces; run "
            "pip install 'recsys[reports]'."
        ) from None


def format_filter(runs: RunSet) -> str:
    """The filter of some runs, in the language of the package.

    The package takes each `=`, `<` and `>` for an operator, also within quotes, where it makes
    `tuning=lora` `tuning==lora`: they are written as escapes, which it reads later.
    """

    def quote(text: str) -> str:
        return repr(text).translate({ord(sign): rf"\x{ord(sign):02x}" for sign in "=<>"})

    def format_list(texts: tuple[str, ...]) -> str:
        return f"[{', '.join(map(quote, texts))}]"

    parts = []
    if runs.group:
        parts.append(f"Metric('Group') == {quote(runs.group)}")
    if runs.tags:
        parts.append(f"Metric('Tags') in {format_list(runs.tags)}")
    if runs.ids:
        parts.append(f"Metric('ID') in {format_list(runs.ids)}")
    return " and ".join(parts)


def make_workspace(board: BoardSpec, entity: str) -> ws.Workspace:
    """The workspace of a specification.

    Args:
        board: What it shows.
        entity: Who owns it.

    Raises:
        ConfigError: wandb-workspaces is not installed.
    """
    check_package()
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    sections = []
    for each in board.sections:
        text = [wr.MarkdownPanel(markdown=each.text)] if each.text else []
        panels = [*text, *(_make_panel(panel) for panel in each.panels)]
        sections.append(ws.Section(name=each.title, panels=panels, is_open=True))
    return ws.Workspace(
        entity=entity,
        project=board.project,
        name=board.title,
        sections=sections,
        settings=ws.WorkspaceSettings(max_runs=MOST),
        runset_settings=ws.RunsetSettings(
            filters=format_filter(board.workspace),
            groupby=[_make_grouping(name) for name in board.workspace.by],
            pinned_columns=[_format_column(key) for key in board.columns],
        ),
        auto_generate_panels=False,
    )


def _make_grouping(name: str) -> Config | Metric:
    """A key by which runs are drawn together in a workspace."""
    import wandb_workspaces.workspaces as ws

    return ws.Metric("Group") if name == "group" else ws.Config(name)


def _format_column(key: LoggedKey) -> str:
    """A column of the table of runs."""
    if key.source == "config":
        first, _, rest = key.name.partition(".")
        return f"config:{first}.value{'.' + rest if rest else ''}"
    return f"summary:{key.name}"


def make_report(board: BoardSpec, entity: str) -> wr.Report:
    """The report of a specification.

    Its runs name no project of their own: they are those of the report's. So it can be made and
    read without a connection.

    Args:
        board: What it shows.
        entity: Who owns it; without one, the package would ask for it.

    Raises:
        ConfigError: wandb-workspaces is not installed.
    """
    check_package()
    import wandb_workspaces.reports.v2 as wr

    blocks: list[ReportBlock] = []
    for each in board.sections:
        blocks.append(wr.H2(text=each.title))
        if each.text:
            blocks.append(wr.MarkdownBlock(text=each.text))
        if each.panels:
            blocks.append(_make_panel_grid(board, each))
    return wr.Report(
        entity=entity,
        project=board.project,
        title=board.title[:TITLE],
        description="Made by recsys from a specification; change it there.",
        blocks=blocks,
        width="fluid",
    )


def _make_panel_grid(board: BoardSpec, section: SectionSpec) -> wr.PanelGrid:
    """The panels of a section over its runs."""
    import wandb_workspaces.reports.v2 as wr

    named = {each.name: each for each in board.runs}
    columns = [_format_column(key) for key in board.columns]
    runsets = [
        wr.Runset(
            name=name,
            filters=format_filter(named[name]),
            groupby=[f"{'run' if by == 'group' else 'config'}.{by}" for by in named[name].by],
            pinned_columns=columns,
        )
        for name in section.runs
    ]
    panels = [_make_panel(panel) for panel in section.panels]
    for at, panel in enumerate(panels):  # two side by side
        panel.layout = wr.Layout(x=12 * (at % 2), y=8 * (at // 2), w=12, h=8)
    return wr.PanelGrid(runsets=runsets, panels=panels)


def _make_panel(panel: PanelSpec) -> ReportPanel:
    """A panel of the package."""
    import wandb_workspaces.reports.v2 as wr

    names = [key.name for key in panel.keys]
    if panel.kind == "line":
        return wr.LinePlot(
            title=panel.title, x="Step", y=list(names), max_runs_to_show=MOST, title_x="step"
        )
    if panel.kind == "bar":
        return wr.BarPlot(
            title=panel.title,
            metrics=list(names),
            groupby=wr.Config(panel.by) if panel.by else None,
            groupby_aggfunc=panel.pick if panel.by else None,
            max_runs_to_show=MOST,
            max_bars_to_show=MOST,
        )
    if panel.kind == "scatter":
        x, y = panel.keys
        return wr.ScatterPlot(
            title=panel.title,
            x=_make_last_value(x),
            y=_make_last_value(y),
            log_x=x.log or None,
            log_y=y.log or None,
        )
    if panel.kind == "parallel":
        columns = [
            wr.ParallelCoordinatesPlotColumn(
                metric=_make_last_value(key),
                display_name=key.title or key.name,
                log=key.log or None,
            )
            for key in panel.keys
        ]
        return wr.ParallelCoordinatesPlot(title=panel.title, columns=columns)
    if panel.kind == "importance":
        return wr.ParameterImportancePlot(with_respect_to=names[0])
    if panel.kind == "comparer":
        return wr.RunComparer(diff_only="split")
    if panel.kind == "table":
        return wr.WeavePanelSummaryTable(table_name=names[0])
    return wr.MediaBrowser(title=panel.title, media_keys=names)


def _make_last_value(key: LoggedKey) -> wr.Config | wr.SummaryMetric:
    """A value of which a run has one."""
    import wandb_workspaces.reports.v2 as wr

    return wr.Config(key.name) if key.source == "config" else wr.SummaryMetric(key.name)

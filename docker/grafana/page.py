"""A dashboard: what both have in common, rows of panels, and the JSON."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from docker.grafana.panels import PROMETHEUS
from docker.grafana.promql import of_chosen_model
from docker.grafana.style import BAD

OPERATION_UID, ADAPTIVITY_UID = "aig-operation", "aig-adaptivity"


def page(uid: str, title: str, description: str, other: tuple[str, str, str]) -> builders.Dashboard:
    """An empty dashboard. `other` is the dashboard it links to: uid, title, and what is found there."""
    other_uid, other_title, tooltip = other
    link = builders.DashboardLink(other_title).type(dashboard.DashboardLinkType.LINK).url(f"/d/{other_uid}")
    firing = builders.AnnotationQuery().name("Firing alerts").datasource(PROMETHEUS).enable(True).icon_color(BAD)
    return (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["convnet-aig"])
        .link(link.tooltip(tooltip).icon("dashboard").keep_time(True))
        .annotation(firing.expr('ALERTS{alertstate="firing"}'))
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .readonly()
    )


def add_choice_of_model(board: builders.Dashboard) -> None:
    """Let one of the models be chosen, of which all panels tell then."""
    choice = builders.QueryVariable("model").label("Model").datasource(PROMETHEUS)
    choice.query("label_values(aig_model_info, model)").refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
    board.with_variable(choice)


def add_row(board: builders.Dashboard, title: str | None, panels: Sequence[Builder[dashboard.Panel]]) -> None:
    """Put panels below what is there, under a heading if there is a title, left to right and line by line."""
    if title is not None:
        board.with_row(builders.Row(title))
    for panel in panels:
        board.with_panel(panel)


def rendered(board: builders.Dashboard) -> str:
    """The dashboard as JSON; the same code always gives the same text."""
    built = board.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
        for target in getattr(panel, "targets", None) or []:  # a heading has none
            if built.templating and built.templating.list_val:
                target.expr = of_chosen_model(target.expr)
    return JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False).encode(built) + "\n"

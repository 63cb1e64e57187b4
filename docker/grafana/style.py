"""Colours and thresholds: each means one thing, on both dashboards."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

# The palette of Okabe and Ito, which people with any colour vision can tell apart, says what something is.
EXECUTED, ALWAYS_EXECUTED, SKIPPED, EXPECTED = "#56b4e9", "#0072b2", "#e69f00", "#999999"
DECODE, QUEUE, INFERENCE = "#009e73", "#cc79a7", "#0072b2"
NEUTRAL = "#8ab8ff"

# Grafana's own colours, which suit the light theme and the dark one, say how something is.
GOOD, WARNING, BAD = "green", "yellow", "red"
QUANTILES = {0.5: "light-purple", 0.95: "semi-dark-purple", 0.99: "dark-purple"}


def thresholds(warning: float | None = None, bad: float | None = None) -> builders.ThresholdsConfig:
    """Good below `warning`, bad from `bad` on, in the panel's unit. With neither, everything is good."""
    steps = [dashboard.Threshold(value=None, color=GOOD)]
    steps += [
        dashboard.Threshold(value=value, color=colour)
        for value, colour in ((warning, WARNING), (bad, BAD))
        if value is not None
    ]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def fixed(colour: str) -> builders.FieldColor:
    """One colour, whatever the value."""
    return builders.FieldColor().mode(dashboard.FieldColorModeId.FIXED).fixed_color(colour)


def by_threshold() -> builders.FieldColor:
    """The colour of the threshold that the value has reached."""
    return builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)


def by_name() -> builders.FieldColor:
    """A colour of its own for every series, the same one each time."""
    return builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)


def text_for(texts: dict[str, tuple[str, str]]) -> dashboard.ValueMap:
    """Values shown as a text in a colour: {value: (text, colour)}."""
    return dashboard.ValueMap(
        options={
            value: dashboard.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (text, colour)) in enumerate(texts.items())
        }
    )


def idle_text() -> dashboard.SpecialValueMap:
    """A quotient of nothing by nothing is no mistake: nobody has asked."""
    return dashboard.SpecialValueMap(
        options=dashboard.DashboardSpecialValueMapOptions(
            match=dashboard.SpecialValueMatch.NULL_AND_NAN,
            result=dashboard.ValueMappingResult(text="idle", color="text"),
        )
    )

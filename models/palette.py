"""The colours of every picture: the palette of Okabe and Ito, which people with any colour vision can tell apart."""

from __future__ import annotations

from matplotlib.axes import Axes

BLUE, DEEP_BLUE, VERMILION, GREEN = "#56b4e9", "#0072b2", "#d55e00", "#009e73"
GREY, PALE_GREY = "#595959", "#b0b0b0"


def remove_frame(axes: Axes) -> None:
    """Leave out the box around a picture: the marks say where it ends."""
    axes.spines[:].set_visible(False)

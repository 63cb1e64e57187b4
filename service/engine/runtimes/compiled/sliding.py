"""A window that slides from one layout to another, as a convolution or a pooling."""

from __future__ import annotations

from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.layout import Layout
from service.engine.runtimes.compiled.pooling import MaxPool
from service.engine.runtimes.portable_graph import UnknownGraph
from service.engine.runtimes.window import Window


def convolution_over(
    window: Window,
    source: Layout,
    target: Layout,
    relu: bool = False,
    residual: Layout | None = None,
    pools: bool = False,
) -> Convolution:
    """The convolution from one layout to another.

    Raises:
        UnknownGraph: it would read or write where no features are.
    """
    _check(window, source, target)
    return Convolution(window.kernel, window.stride, window.padding, source, target, relu, residual, pools)


def max_pool_over(window: Window, source: Layout, target: Layout) -> MaxPool:
    """The pooling from one layout to another.

    Raises:
        UnknownGraph: as for `convolution_over`.
    """
    _check(window, source, target)
    return MaxPool(window.kernel, window.stride, window.padding, source, target)


def _check(window: Window, source: Layout, target: Layout) -> None:
    if window.padding > source.padding or target.width != window.over(source.width):
        raise UnknownGraph(f"a filter of {window.kernel} x {window.kernel} reaches beyond its input")

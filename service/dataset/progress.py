"""How far it is: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

# How often it is told, in seconds.
_BAR_S, _LINE_S = 0.25, 10.0


class Progress:
    """Told on an event loop.

    Args:
        done: how many images are done, those of earlier runs included.
        share: the part of the whole input that is done; asked where nobody knows how many images there are.
        stream: where it is told; the standard error by default.
    """

    def __init__(self, done: Callable[[], int], share: Callable[[], float], stream: TextIO | None = None) -> None:
        self._done, self._share, self._stream = done, share, stream or sys.stderr
        self._before, self._started = done(), time.monotonic()
        self._known: int | None = None
        self._bar: tqdm[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def told(self, images: int | None) -> Iterator[None]:
        """Tell it meanwhile; of how many images in all, where that is known."""
        self._known = images
        on_terminal = self._stream.isatty()
        if on_terminal:
            self._bar = tqdm(initial=self._before, unit=" images", file=self._stream, dynamic_ncols=True)
        self._tell_again(_BAR_S if on_terminal else _LINE_S)
        try:
            yield
        finally:
            if self._timer:
                self._timer.cancel()
            if self._bar is not None:
                self._tell_bar(self._bar)
                self._bar.close()

    def line(self) -> str:
        """Images, images a second, and how long it will take still."""
        images, elapsed_s = self._done(), time.monotonic() - self._started
        rate = (images - self._before) / elapsed_s if elapsed_s else 0.0
        told = f"{images:,} images, {rate:,.0f} a second"
        if (total := self._total) and rate:
            told += f", {images / total:.0%} done, {tqdm.format_interval((total - images) / rate)} left"
        return told

    @property
    def _total(self) -> int:
        """How many images there are likely to be in all; 0 where that is not known."""
        if self._known is not None:
            return self._known
        images, share = self._done(), self._share()
        return max(images, round(images / share)) if share else 0

    def _tell_again(self, after_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(after_s, self._tell, after_s)

    def _tell(self, every_s: float) -> None:
        if self._bar is not None:
            self._tell_bar(self._bar)
        else:
            print(self.line(), file=self._stream, flush=True)
        self._tell_again(every_s)

    def _tell_bar(self, bar: tqdm[None]) -> None:
        bar.total = self._total or None
        bar.update(self._done() - bar.n)
        bar.refresh()

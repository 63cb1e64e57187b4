"""The yardstick of a server: the same work without one, decoding and inference in this process's threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Thread

import numpy as np

from artifact.preprocessing import Float32Array
from service.engine.runtimes.base import Runtime
from service.images.decoding import ImageDecoder


class InProcess:
    """Classifies image files with a runtime, as a server does, on as many threads.

    Args:
        runtime: opened for the model.
        files: to classify in turn.
    """

    def __init__(self, runtime: Runtime, files: Sequence[bytes]) -> None:
        self._runtime = runtime
        self._files = files
        self._decoder = ImageDecoder(runtime.manifest.preprocessing, max_bytes=10**8, max_pixels=50_000_000)
        self._offset = np.zeros(1, np.float32)

    def images_per_s(self, threads: int, seconds: float) -> float:
        """Images classified by all threads together, per second."""
        rates = [0.0] * threads

        def work(number: int) -> None:
            count, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < seconds:
                self._classify(number + count * threads)
                count += 1
            rates[number] = count / elapsed  # each by its own clock: the last to end would count for all

        workers = [Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(rates)

    def median_ms(self, seconds: float) -> float:
        """Median time of one image on one thread, in milliseconds."""
        give_up = time.perf_counter() + seconds
        taken: list[float] = []
        while time.perf_counter() < give_up:
            started = time.perf_counter()
            self._classify(len(taken))
            taken.append(time.perf_counter() - started)
        return 1000 * float(np.median(taken))

    def prediction(self, index: int) -> int:
        """The class with the highest logit for one of the files."""
        return int(self._classify(index).argmax())

    def _classify(self, index: int) -> Float32Array:
        image = self._decoder.decode(self._files[index % len(self._files)])
        logits, _ = self._runtime.run(image[None], self._offset)
        scores: Float32Array = logits[0]
        return scores

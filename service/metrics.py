"""Every Prometheus metric: names, labels and buckets stand here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock

import numpy as np
import numpy.typing as npt
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from artifact.manifest import Manifest
from service.engine.worker import Answer

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SHARES = tuple(share / 20 for share in range(1, 20))
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class _BlockCounts(Collector):
    """How often each block ran: one addition of an array for an image, where a counter for each block takes dozens."""

    def __init__(self, manifest: Manifest) -> None:
        self._labels = [(block.name, str(block.stage)) for block in manifest.blocks]
        self._gated = [block.gated for block in manifest.blocks]
        self._executed = np.zeros(len(self._labels), np.int64)
        self._images = 0
        self._lock = Lock()

    def count(self, executed: npt.NDArray[np.bool_]) -> None:
        """Count an image with the blocks that ran for it, (B,)."""
        with self._lock:
            self._executed += executed
            self._images += 1

    def collect(self) -> Iterator[Metric]:
        """The two metrics of every block."""
        with self._lock:
            executed, images = self._executed.tolist(), self._images
        ran = CounterMetricFamily("aig_block_executed", "Images for which a block ran.", labels=["block", "stage"])
        decided = CounterMetricFamily(
            "aig_block_gated", "Images for which a gate decided about a block.", labels=["block", "stage"]
        )
        for labels, count, gated in zip(self._labels, executed, self._gated, strict=True):
            ran.add_metric(labels, count)
            if gated:
                decided.add_metric(labels, images)
        yield ran
        yield decided


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, manifest: Manifest) -> None:
        # It would add a second series beside every counter, which nobody plots. (The library has no annotation.)
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._manifest = manifest
        self.requests = Counter(
            "aig_requests", "Requests by route and outcome.", ["route", "outcome"], registry=registry
        )
        self.request_seconds = Histogram(
            "aig_request_seconds",
            "From a request's head to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter("aig_images", "Images by outcome.", ["outcome"], registry=registry)
        self.decode_seconds = Histogram(
            "aig_decode_seconds", "Decoding and preprocessing of an image.", buckets=_SECONDS, registry=registry
        )
        self.queue_seconds = Histogram(
            "aig_queue_seconds", "Wait of an image for a worker.", buckets=_SECONDS, registry=registry
        )
        self.inference_seconds = Histogram(
            "aig_inference_seconds", "Run of the batch an image was in.", buckets=_SECONDS, registry=registry
        )
        self._blocks = _BlockCounts(manifest)
        registry.register(self._blocks)
        self.skip_ratio = Histogram(
            "aig_skip_ratio",
            "Share of the blocks skipped for an image.",
            buckets=(0.0, *_SHARES, 1.0),
            registry=registry,
        )
        self.macs = Histogram(
            "aig_macs",
            "Multiply-accumulates spent on an image.",
            buckets=[round(share * manifest.total_macs) for share in (*_SHARES, 1.0)],
            registry=registry,
        )
        self.batch_size = Histogram("aig_batch_size", "Images run together.", buckets=_BATCH_SIZES, registry=registry)
        self.worker_restarts = Counter(
            "aig_worker_restarts", "Workers that were lost and started again.", ["reason"], registry=registry
        )
        for reason in ("died", "stuck"):
            self.worker_restarts.labels(reason)
        self.queue_depth = Gauge("aig_queue_depth", "Images waiting for a worker.", registry=registry)
        self.ready = Gauge("aig_ready", "1 while the service takes requests.", registry=registry)
        self.model_info = Gauge(
            "aig_model_info", "The model that is served.", ["name", "version", "total_macs"], registry=registry
        )
        self.model_info.labels(manifest.name, manifest.version, str(manifest.total_macs)).set(1)
        self._images_ok = self.images.labels("ok")

    def count_answer(self, answer: Answer) -> None:
        """Count an image that was classified."""
        self._images_ok.inc()
        self.decode_seconds.observe(answer.decode_s)
        self.queue_seconds.observe(answer.queue_s)
        self.inference_seconds.observe(answer.inference_s)
        self._blocks.count(answer.executed)
        blocks = len(answer.executed)
        # Not one minus the mean, whose rounding would put a share at a bucket's bound into the next bucket.
        self.skip_ratio.observe((blocks - int(np.count_nonzero(answer.executed))) / blocks)
        self.macs.observe(answer.macs)

    def count_failed_image(self, outcome: str) -> None:
        """Count an image that got an error; `outcome` is the error's type."""
        self.images.labels(outcome).inc()

    def count_lost_worker(self, reason: str) -> None:
        """Count a worker that was lost; `reason` is "died" or "stuck"."""
        self.worker_restarts.labels(reason).inc()

    def count_request(self, route: str, outcome: str, seconds: float) -> None:
        """Count a request that was answered, or whose client left."""
        self.requests.labels(route, outcome).inc()
        self.request_seconds.labels(route).observe(seconds)

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)

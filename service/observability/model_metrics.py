"""The Prometheus metrics of one model: of its images, its blocks and its queue. Names, labels and buckets are here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import add
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from artifact.manifest import Manifest
from service.engine.job import Answer

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of the buckets of every histogram of times, in seconds."""
_SHARES = tuple(share / 20 for share in range(1, 20))
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class _ExecutionCounts(Collector):
    """What ran, by block, by class and by number of blocks.

    An image is a few additions, where a counter for each block would take dozens.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        blocks, classes = len(manifest.blocks), len(manifest.labels)
        self._lock = Lock()
        self._executed = [0] * blocks
        self._saved_macs = 0
        self._class_images = [0] * classes
        self._class_executed = [0] * classes
        self._images = [0] * (blocks + 1)  # by the number of blocks executed, as the next
        self._inference_s = [0.0] * (blocks + 1)

    def count(self, answer: Answer, executed: int) -> None:
        """Count an image for which so many blocks ran."""
        predicted = answer.logits.index(max(answer.logits))
        saved = self._manifest.ungated_macs - answer.macs
        with self._lock:
            self._executed = list(map(add, self._executed, answer.executed))
            # Gates may cost more than they saved; a counter never goes down.
            self._saved_macs += max(0, saved)
            self._class_images[predicted] += 1
            self._class_executed[predicted] += executed
            self._images[executed] += 1
            self._inference_s[executed] += answer.inference_s

    def collect(self) -> Iterator[Metric]:
        """The metrics, all of one moment."""
        with self._lock:
            executed, saved = self._executed, self._saved_macs
            class_images, class_executed = self._class_images.copy(), self._class_executed.copy()
            images, inference_s = self._images.copy(), self._inference_s.copy()
        yield from self._by_block(executed, sum(images))
        yield CounterMetricFamily(
            "aig_macs_saved", "Multiply-accumulates not spent, against the same network without gates.", value=saved
        )
        yield from self._by_class(class_images, class_executed)
        yield self._by_number(images, inference_s)

    def _by_block(self, executed: list[int], images: int) -> Iterator[Metric]:
        labels = ["block", "stage"]
        ran = CounterMetricFamily("aig_block_executed", "Images for which a block ran.", labels=labels)
        decided = CounterMetricFamily(
            "aig_block_gated", "Images for which a gate decided about a block.", labels=labels
        )
        for block, count in zip(self._manifest.blocks, executed, strict=True):
            ran.add_metric([block.name, str(block.stage)], count)
            if block.gated:
                decided.add_metric([block.name, str(block.stage)], images)
        yield ran
        yield decided

    def _by_class(self, images: list[int], executed: list[int]) -> Iterator[Metric]:
        predicted = CounterMetricFamily("aig_class_images", "Images by the class predicted.", labels=["label"])
        ran = CounterMetricFamily(
            "aig_class_blocks_executed", "Blocks that ran, by the class predicted.", labels=["label"]
        )
        for label, count, blocks in zip(self._manifest.labels, images, executed, strict=True):
            predicted.add_metric([label], count)
            ran.add_metric([label], blocks)
        yield predicted
        yield ran

    def _by_number(self, images: list[int], inference_s: list[float]) -> Metric:
        summary = SummaryMetricFamily(
            "aig_executed_blocks_inference_seconds",
            "Run of the batch an image was in, by the number of blocks that ran for the image.",
            labels=["blocks"],
        )
        fewest = sum(not block.gated and block.within is None for block in self._manifest.blocks)
        for blocks in range(fewest, len(images)):
            summary.add_metric([str(blocks)], images[blocks], inference_s[blocks])
        return summary


class ModelMetrics:
    """The metrics of one model, in a registry of their own; `Metrics` adds which model it is to each.

    Args:
        manifest: of the model.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.registry = registry = CollectorRegistry()
        self.images = Counter("aig_images", "Images by outcome.", ["outcome"], registry=registry)
        self.decode_seconds = Histogram(
            "aig_decode_seconds", "Decoding and preprocessing of an image.", registry=registry, buckets=SECONDS
        )
        self.queue_seconds = Histogram(
            "aig_queue_seconds", "Wait of an image for a worker.", registry=registry, buckets=SECONDS
        )
        self.inference_seconds = Histogram(
            "aig_inference_seconds", "Run of the batch an image was in.", registry=registry, buckets=SECONDS
        )
        self._executions = _ExecutionCounts(manifest)
        registry.register(self._executions)
        self.skip_ratio = Histogram(
            "aig_skip_ratio",
            "Share of the blocks skipped for an image.",
            registry=registry,
            buckets=(0.0, *_SHARES, 1.0),
        )
        self.macs = Histogram(
            "aig_macs",
            "Multiply-accumulates spent on an image.",
            registry=registry,
            buckets=[round(share * manifest.total_macs) for share in (*_SHARES, 1.0)],
        )
        self.batch_size = Histogram("aig_batch_size", "Images run together.", registry=registry, buckets=_BATCH_SIZES)
        self.queue_depth = Gauge("aig_queue_depth", "Images waiting for a worker.", registry=registry)
        self.queue_capacity = Gauge("aig_queue_capacity", "Most images that may wait for a worker.", registry=registry)
        self.budget_limit = Gauge(
            "aig_budget_limit",
            "Largest share of the multiply-accumulates that images had in the last second; below 1 under overload.",
            registry=registry,
        )
        self.objective_seconds = Gauge(
            "aig_objective_seconds",
            "Time within which an answer is worth most; what takes longer is refused.",
            registry=registry,
        )
        self.degraded_images = Counter(
            "aig_degraded_images", "Images answered with less compute than was asked for.", registry=registry
        )
        self.rechecked_images = Counter(
            "aig_rechecked_images",
            "Images answered with less compute and run again in full, by whether the class was the same.",
            ["same"],
            registry=registry,
        )
        for same in ("true", "false"):
            self.rechecked_images.labels(same)
        self.ready = Gauge("aig_model_ready", "1 while images of a model are taken.", registry=registry)
        self._describe_model(manifest)
        # Made once each: to look a label up takes longer than to count.
        self._image_counters: dict[str, Counter] = {"ok": self.images.labels("ok")}

    def _describe_model(self, manifest: Manifest) -> None:
        """The metrics that stay as they are: what is served, and what the export found it to execute."""
        facts = {
            "total_macs": str(manifest.total_macs),
            "ungated_macs": str(manifest.ungated_macs),
            "blocks": str(len(manifest.blocks)),
        }
        Gauge("aig_model_info", "A model that is served.", [*facts], registry=self.registry).labels(**facts).set(1)
        if manifest.profile is None or manifest.expected_macs is None:
            return
        expected = Gauge(
            "aig_block_expected_execution_rate",
            "Execution rate of a gated block at export.",
            ["block", "stage"],
            registry=self.registry,
        )
        for block, rate in zip(manifest.blocks, manifest.profile.rates, strict=True):
            if block.gated:
                expected.labels(block.name, str(block.stage)).set(rate)
        Gauge(
            "aig_expected_macs", "Multiply-accumulates spent on an image at export, mean.", registry=self.registry
        ).set(manifest.expected_macs)

    def start_at_zero(self, outcomes: Sequence[str]) -> None:
        """Show the counters of outcomes before the first of them: a rate does not see a counter's first value."""
        for outcome in outcomes:
            self.images.labels(outcome)

    def count_recheck(self, *, same: bool) -> None:
        """Count an image that was run again in full."""
        self.rechecked_images.labels(str(same).lower()).inc()

    def count_answer(self, answer: Answer) -> None:
        """Count an image that was classified."""
        self._image_counters["ok"].inc()
        self.decode_seconds.observe(answer.decode_s)
        self.queue_seconds.observe(answer.queue_s)
        self.inference_seconds.observe(answer.inference_s)
        blocks, executed = len(answer.executed), sum(answer.executed)
        self._executions.count(answer, executed)
        # Not one minus the mean, whose rounding would put a share at a bucket's bound into the next bucket.
        self.skip_ratio.observe((blocks - executed) / blocks)
        self.macs.observe(answer.macs)

    def count_failed_image(self, outcome: str) -> None:
        """Count an image that got an error; `outcome` is the error's type."""
        counter = self._image_counters.get(outcome)
        if counter is None:
            counter = self._image_counters[outcome] = self.images.labels(outcome)
        counter.inc()

"""Memory and processor time of the service's processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class ProcessMetrics(Collector):
    """Two metrics of every process, where the system tells them (on Linux).

    Args:
        pids: the processes there are now, by name.
    """

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        memory = GaugeMetricFamily("aig_resident_memory_bytes", "Resident memory of a process.", labels=["process"])
        time = CounterMetricFamily("aig_cpu_seconds", "Processor time of a process.", labels=["process"])
        for name, pid in self._pids().items():
            told = _told(pid)
            if "process_resident_memory_bytes" in told:
                memory.add_metric([name], told["process_resident_memory_bytes"])
                time.add_metric([name], told["process_cpu_seconds_total"])
        yield memory
        yield time


def _told(pid: int) -> dict[str, float]:
    """What the library tells of one process; nothing where that has ended."""
    # A registry that nobody reads: by default the collector would enter itself into the library's global one.
    collector = ProcessCollector(pid=lambda: pid, registry=CollectorRegistry(auto_describe=False))
    return {sample.name: sample.value for family in collector.collect() for sample in family.samples}

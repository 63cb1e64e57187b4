"""The metrics of the GPUs that run models, each under its number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.observability.device_readings import Quantity, Reading

_MEANINGS: dict[Quantity, str] = {
    "utilisation_ratio": "Share of the last moments in which a GPU ran anything, 0 to 1.",
    "memory_used_bytes": "Memory of a GPU that is taken, by whatever program.",
    "memory_total_bytes": "Memory of a GPU.",
    "temperature_celsius": "Temperature of a GPU, in degrees Celsius.",
    "power_watts": "Power that a GPU draws.",
    "power_limit_watts": "Power that a GPU may draw.",
}


class DeviceMetrics(Collector):
    """What a device does not tell is left out.

    Args:
        latest: readings of every device, by its number; None of one of which there is none.
    """

    def __init__(self, latest: Callable[[], Mapping[int, Reading | None]]) -> None:
        self._latest = latest

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        told = {str(number): reading for number, reading in self._latest().items()}
        readable = GaugeMetricFamily(
            "aig_device_readable", "1 while NVML tells something of a GPU, 0 while it does not.", labels=["device"]
        )
        info = GaugeMetricFamily(
            "aig_device_info", "1, with the name and UUID of a GPU.", labels=["device", "name", "uuid"]
        )
        for device, reading in told.items():
            readable.add_metric([device], 1 if reading else 0)
            if reading:
                info.add_metric([device, reading.name, reading.uuid], 1)
        yield from (readable, info)
        for quantity, meaning in _MEANINGS.items():
            family = GaugeMetricFamily(f"aig_device_{quantity}", meaning, labels=["device"])
            for device, reading in told.items():
                if reading and quantity in reading.quantities:
                    family.add_metric([device], reading.quantities[quantity])
            yield family

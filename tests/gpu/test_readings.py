"""What NVML tells of a real GPU."""

from __future__ import annotations

from service.engine.devices.process import cuda_name
from service.observability.device_readings import DeviceReadings


def test_gpu_is_read_by_its_number_and_by_its_uuid() -> None:
    by_number = DeviceReadings({0: cuda_name(0)})
    by_number.read()
    reading = by_number.latest()[0]
    assert reading is not None
    told = reading.quantities
    assert 0 < told["memory_used_bytes"] <= told["memory_total_bytes"]
    assert 0 <= told.get("utilisation_ratio", 0) <= 1  # MIG has none of these
    assert 0 < told.get("temperature_celsius", 1) < 120
    assert 0 < told.get("power_watts", 1) < 1.5 * told.get("power_limit_watts", 2000)
    by_uuid = DeviceReadings({0: reading.uuid})
    by_uuid.read()
    again = by_uuid.latest()[0]
    assert again is not None
    assert (again.name, again.uuid) == (reading.name, reading.uuid)

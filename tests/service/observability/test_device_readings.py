"""Readings of GPUs, of an NVML that fails, hangs, or does not tell everything."""

from __future__ import annotations

import logging

import pytest

from service.observability.device_readings import DeviceReadings, Reading
from tests.runtimes import PATIENCE_S, wait_until
from tests.service.clock import Clock
from tests.service.observability.fake_nvml import FakeGpu, FakeNvml

FIRST, SECOND = FakeGpu("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"), FakeGpu("GPU-1b2a9c00-5555-4106-c12f-20bd9faed9f6")
INSTANCE = FakeGpu("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f")
OF_ONE_FIELD = {
    "nvmlDeviceGetUtilizationRates": {"utilisation_ratio"},
    "nvmlDeviceGetMemoryInfo": {"memory_used_bytes", "memory_total_bytes"},
    "nvmlDeviceGetTemperature": {"temperature_celsius"},
    "nvmlDeviceGetPowerUsage": {"power_watts"},
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_watts"},
}
OF_A_DEVICE = ("nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName", "nvmlDeviceGetUUID")


@pytest.fixture
def nvml() -> FakeNvml:
    return FakeNvml([FIRST, SECOND], [INSTANCE])


def _read(nvml: FakeNvml, name: str = "0") -> Reading | None:
    readings = DeviceReadings({0: name}, lambda: nvml.module)
    readings.read()
    return readings.latest()[0]


def test_reading_is_in_the_units_of_its_names(nvml: FakeNvml) -> None:
    reading = _read(nvml)
    assert reading == Reading(
        "NVIDIA Fake",
        FIRST.uuid,
        {
            "utilisation_ratio": 0.5,
            "memory_used_bytes": 4 << 30,
            "memory_total_bytes": 8 << 30,
            "temperature_celsius": 60,
            "power_watts": 250.5,
            "power_limit_watts": 300,
        },
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0", FIRST),
        ("1", SECOND),
        (SECOND.uuid, SECOND),
        ("GPU-1b2a9c00", SECOND),
        ("GPU-8", FIRST),
        (INSTANCE.uuid, INSTANCE),
    ],
)
def test_device_is_found_by_whatever_cuda_calls_it(nvml: FakeNvml, name: str, expected: FakeGpu) -> None:
    reading = _read(nvml, name)
    assert reading is not None
    assert reading.uuid == expected.uuid


@pytest.mark.parametrize("name", ["2", "-1", "GPU-77", "MIG-77"])
def test_device_that_there_is_not_is_not_read(nvml: FakeNvml, name: str) -> None:
    assert _read(nvml, name) is None


@pytest.mark.parametrize("function", OF_ONE_FIELD)
def test_quantity_that_a_device_does_not_tell_is_left_out_and_others_stay(nvml: FakeNvml, function: str) -> None:
    whole = _read(nvml)
    nvml.failing = {function}
    rest = _read(nvml)
    assert whole is not None
    assert rest is not None
    assert whole.quantities.keys() - rest.quantities.keys() == OF_ONE_FIELD[function]
    assert rest.quantities.items() <= whole.quantities.items()


def test_device_that_tells_no_quantity_does_not_answer(nvml: FakeNvml) -> None:
    nvml.failing = {*OF_ONE_FIELD}
    assert _read(nvml) is None


@pytest.mark.parametrize("function", OF_A_DEVICE)
def test_what_fails_is_told_once_and_read_again_when_it_works(
    nvml: FakeNvml, function: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    readings = DeviceReadings({3: "1"}, lambda: nvml.module)
    nvml.failing = {function, "nvmlShutdown"}
    for _ in range(3):
        readings.read()
    assert readings.latest() == {3: None}
    (warning,) = [record.message for record in caplog.records]
    assert f"{function} fails" in warning
    nvml.failing = set()
    readings.read()
    assert readings.latest()[3] is not None
    assert caplog.records[-1].message == "NVML answers again"
    readings.read()
    assert len(caplog.records) == 2


def test_device_that_is_lost_takes_no_other_along(nvml: FakeNvml) -> None:
    nvml.broken = {FIRST.uuid}
    readings = DeviceReadings({0: "0", 1: "1", 2: SECOND.uuid}, lambda: nvml.module)
    readings.read()
    latest = readings.latest()
    assert latest[0] is None
    assert latest[1] is not None
    assert latest[1] == latest[2]


def test_library_stays_initialised_while_it_answers(nvml: FakeNvml) -> None:
    readings = DeviceReadings({0: "0"}, lambda: nvml.module)
    for _ in range(3):
        readings.read()
    assert nvml.called.count("nvmlInit") == 1
    assert "nvmlShutdown" not in nvml.called


def test_package_that_is_missing_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def missing() -> None:
        raise ImportError("pip install it")

    readings = DeviceReadings({0: "0"}, missing)
    readings.read()
    assert readings.latest() == {0: None}
    assert "pip install it" in caplog.text


def test_readings_expire(nvml: FakeNvml) -> None:
    clock = Clock()
    readings = DeviceReadings({0: "0"}, lambda: nvml.module, clock)
    assert readings.latest() == {0: None}
    readings.read()
    clock.now += 10
    assert readings.latest()[0] is not None
    clock.now += 1
    assert readings.latest() == {0: None}


def test_library_that_hangs_holds_nobody_up(nvml: FakeNvml) -> None:
    clock = Clock()
    readings = DeviceReadings({0: "0"}, lambda: nvml.module, clock)
    with readings.kept_fresh(pause_s=0):
        wait_until(lambda: readings.latest()[0] is not None)
        nvml.may_answer.clear()
        assert nvml.hanging.wait(PATIENCE_S)
        clock.now += 11
        assert readings.latest() == {0: None}
    # Neither was it waited for in the end.
    nvml.may_answer.set()
    wait_until(lambda: nvml.called[-1] == "nvmlShutdown")


def test_nvidias_module_has_what_is_asked_of_it(nvml: FakeNvml) -> None:
    pynvml = pytest.importorskip("pynvml", reason="not run: nvidia-ml-py is not installed")
    missing = [name for name in vars(nvml.module) if not hasattr(pynvml, name)]
    assert missing == []
    assert pynvml.NVML_TEMPERATURE_GPU == nvml.module.NVML_TEMPERATURE_GPU
    assert issubclass(pynvml.NVMLError, Exception)

from __future__ import annotations

import logging

import pytest

from service.engine import nvidia_driver
from service.engine.errors import RuntimeUnavailable


def test_device_that_is_wanted_is_settled_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia_driver, "present", lambda: True)
    assert [nvidia_driver.settled_device(wanted) for wanted in ("auto", "cpu", "cuda")] == ["auto", "cpu", "cuda"]


@pytest.mark.parametrize("expected", [True, False])
def test_without_a_driver_the_cpu_serves_and_who_expects_a_gpu_is_told_once(
    expected: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nvidia_driver, "present", lambda: False)
    monkeypatch.setattr(nvidia_driver, "made_for_gpus", lambda: expected)
    assert [nvidia_driver.settled_device(wanted) for wanted in ("auto", "cpu")] == ["cpu", "cpu"]
    for wanted in ("auto", "cpu"):
        nvidia_driver.warn_of_its_lack(wanted)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == expected
    assert not told or "shows no NVIDIA driver" in told[0]


def test_gpu_that_is_asked_for_by_name_is_refused_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia_driver, "present", lambda: False)
    with pytest.raises(RuntimeUnavailable, match=r"shows no NVIDIA driver .*; --device auto serves with the CPU"):
        nvidia_driver.settled_device("cuda")

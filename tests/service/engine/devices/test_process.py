"""What the process of a device is told about which device it has."""

from __future__ import annotations

import pytest

from service.engine.devices.process import cuda_name


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("3,1", ["3", "1", "-1"]),
        (" 3, GPU-8932f937 ", ["3", "GPU-8932f937", "-1"]),
        ("MIG-c6d4f1ef", ["MIG-c6d4f1ef", "-1", "-1"]),
        ("0,-1,2", ["0", "-1", "-1"]),
        ("", ["-1", "-1", "-1"]),
    ],
)
def test_device_is_one_of_those_that_may_be_seen(visible: str, names: list[str]) -> None:
    assert [cuda_name(number, {"CUDA_VISIBLE_DEVICES": visible}) for number in range(3)] == names


def test_device_is_called_by_its_number_where_all_may_be_seen() -> None:
    assert [cuda_name(number, {}) for number in range(3)] == ["0", "1", "2"]

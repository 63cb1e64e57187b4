"""Whether this machine has a driver for NVIDIA's GPUs, which is seen without loading anything."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from service.engine.errors import RuntimeUnavailable

_Device = Literal["auto", "cpu", "cuda"]

_log = logging.getLogger(__name__)

# What the driver shows to programs, natively and in Windows' Linux.
_SHOWN = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def present() -> bool:
    """Whether there is one; whether a device can be used is seen when it is opened."""
    return any(path.exists() for path in _SHOWN)


def made_for_gpus() -> bool:
    """Whether the ONNX Runtime that is installed is one for GPUs."""
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return True


def settled_device(wanted: _Device) -> _Device:
    """`wanted`; but the CPU where "auto" can find no GPU.

    Raises:
        RuntimeUnavailable: "cuda" is wanted, and there is no driver.
    """
    if wanted == "cpu" or present():
        return wanted
    if wanted == "cuda":
        raise RuntimeUnavailable(
            "no GPU can be used: this machine shows no NVIDIA driver (in a container: start it with its GPUs); "
            "--device auto serves with the CPU"
        )
    return "cpu"


def warn_of_its_lack(wanted: _Device) -> None:
    """Tell where a GPU can be expected, since packages for one are installed, and the CPU serves."""
    if settled_device(wanted) != wanted and made_for_gpus():
        _log.warning("the CPU serves: packages for a GPU are installed, but this machine shows no NVIDIA driver")

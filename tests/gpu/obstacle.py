"""Why nothing can be run on a GPU here."""

from __future__ import annotations

from functools import cache

import triton

from service.engine.errors import RuntimeUnavailable


@cache
def obstacle() -> str | None:
    """What is missing; None where a device can be used."""
    try:
        from service.engine.runtimes.cuda.device import CudaDevice

        CudaDevice(0)
    except RuntimeUnavailable as error:
        return str(error)
    if triton.knobs.runtime.interpret:
        return "Triton interprets kernels in this process; make test-gpu has them compiled"
    return None

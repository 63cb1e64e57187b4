"""The process of a device that fails when it is told to; otherwise it is `service.images.device_main`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from service.engine.devices.talk import Opening
from service.engine.runtimes.base import Model, Runtime
from service.engine.runtimes.cuda.cubins import kept_cubins
from service.engine.runtimes.machine_cache import machine_cache
from service.images.device_main import main
from tests.gpu.trapping import TRAP, open_trapping


def open_model(asked: Opening) -> Runtime:
    """In fp16."""
    cache = machine_cache(Path(asked.folder), asked.manifest, Path(asked.cache) if asked.cache else None)
    model = Model(Path(asked.folder), asked.manifest, cache)
    return open_trapping(model, "fp16", partial(kept_cubins, cache=cache), Path(os.environ[TRAP]))


if __name__ == "__main__":
    main(open_model)

"""What the process runs that owns a GPU: it opens the workers' models there and runs what they want run.

The service starts it: python -m service.images.device_main SOCKET LOG, both file descriptors.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import orjson

from service.engine.devices.owner import DeviceOwner
from service.engine.devices.talk import Opening
from service.engine.errors import RuntimeUnavailable
from service.engine.operating_system import end_with_parent, forbid_new_privileges
from service.engine.runtimes.base import Runtime
from service.engine.runtimes.selection import open_runtime
from service.observability.logs import logged
from service.settings import Settings

_log = logging.getLogger(__name__)

_FAILED = 1
_MOST_SETTINGS = 65_536


def main(open_on_device: Callable[[Opening], Runtime]) -> None:
    """Serve every worker whose connection comes through the socket, until the service closes that.

    Args:
        open_on_device: opens a model.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever stops the service lets it finish what it accepted
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()
    forbid_new_privileges()
    with ExitStack() as stack:
        control = stack.enter_context(socket.socket(fileno=int(sys.argv[1])))
        log = stack.enter_context(os.fdopen(int(sys.argv[2]), "w", encoding="utf-8", errors="backslashreplace"))
        settings = Settings(**orjson.loads(control.recv(_MOST_SETTINGS)))
        stack.enter_context(logged(settings.log_format, settings.log_level, log))
        owner = DeviceOwner(open_on_device, lost=lambda: os._exit(_FAILED))
        while True:
            _, connections, _, _ = socket.recv_fds(control, 1, 1)
            if not connections:  # the service has closed it, or is gone
                os._exit(0)  # whatever runs: nobody waits for it
            for connection in connections:
                Thread(target=owner.serve, args=(socket.socket(fileno=connection),), daemon=True).start()


def _open(asked: Opening) -> Runtime:
    cache = Path(asked.cache) if asked.cache else None
    try:
        return open_runtime(Path(asked.folder), asked.runtime, "cuda", asked.precision, cache)
    except RuntimeUnavailable as error:
        _log.warning("%s is not run on the GPU: %s", asked.manifest.name, error)
        raise


if __name__ == "__main__":
    main(_open)

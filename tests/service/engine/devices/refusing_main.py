"""The process of a device on which nothing runs."""

from __future__ import annotations

from service.engine.devices.talk import Opening
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Runtime
from service.images.device_main import main


def refuse(_: Opening) -> Runtime:
    """Raises RuntimeUnavailable."""
    raise RuntimeUnavailable("there is no device")


if __name__ == "__main__":
    main(refuse)

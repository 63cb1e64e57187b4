"""What a worker and the process of a device say to each other, in frames over a socket."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydantic import TypeAdapter

from artifact.manifest import Manifest
from service.engine.ipc.handshake import Refusal
from service.engine.runtimes.base import Precision, RuntimeDescription, RuntimeName


@dataclass(frozen=True)
class Opening:
    """A model that a worker wants run on the device. The memory that both share comes with it.

    Attributes:
        folder: of the artifact.
        manifest: that the worker has read there.
        runtime, precision, cache: as the settings of these names say.
        rows: most images in one request.
    """

    folder: str
    manifest: Manifest
    runtime: RuntimeName
    precision: Precision
    cache: str | None
    rows: int


OPENING: TypeAdapter[Opening] = TypeAdapter(Opening)
OPENED: TypeAdapter[RuntimeDescription | Refusal] = TypeAdapter(RuntimeDescription | Refusal)
# Of the models that this worker has opened, in order, which one; how many images; whether they are pixels. They lie in
# the memory of that model, where the answers will be.
RUN = struct.Struct("!II?")
# Images that ran together, these included; 0 where they could not be run, and a message follows.
RAN = struct.Struct("!I")

"""The process of a device, as the service sees it: started when a worker needs it, and again when it has ended."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import weakref
from collections.abc import Callable, Mapping
from itertools import takewhile
from threading import Lock

import orjson

from service.engine.child_process import start_module
from service.engine.errors import RuntimeUnavailable

_log = logging.getLogger(__name__)

_VISIBLE = "CUDA_VISIBLE_DEVICES"
# CUDA numbers devices by speed, unless told to number them as NVML and nvidia-smi do.
_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
_NO_DEVICE = "-1"


def cuda_name(number: int, environment: Mapping[str, str] = os.environ) -> str:
    """What CUDA calls a device: a number in the order of the PCI bus, a UUID, or how one begins.

    Args:
        number: of the device, among those that this process may see.
        environment: of this process, which may name these.
    """
    if _VISIBLE not in environment:
        return str(number)
    names = (name.strip() for name in environment[_VISIBLE].split(","))
    seen = [*takewhile(lambda name: name not in ("", _NO_DEVICE), names)]
    return seen[number] if number < len(seen) else _NO_DEVICE


class DeviceProcess:
    """Ends with the last reference to it. Safe to use from several threads.

    Args:
        module: calls `DeviceOwner.serve`; its arguments are the file descriptors of a socket and of the log.
        number: of the device, among those that this process may see.
        options: for the module, JSON.
    """

    def __init__(self, module: str, number: int, options: Mapping[str, object]) -> None:
        self._module, self.number, self._options = module, number, options
        self._turn = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._end: Callable[[], object] = lambda: None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        process = self._process
        return process.pid if process else None

    def connect(self) -> socket.socket:
        """A new connection to the process, for one worker.

        Raises:
            RuntimeUnavailable: the system does not let it start.
        """
        with self._turn:
            here, there = socket.socketpair()
            with there:
                try:
                    if not self._hands_over(there):  # there is none, or it has just ended
                        self._start()
                        self._hands_over(there)
                except OSError as error:
                    here.close()
                    raise RuntimeUnavailable(
                        f"the process of device {self.number} cannot be started: {error}"
                    ) from error
            return here

    def close(self) -> None:
        """End the process."""
        with self._turn:
            self._end()

    def _hands_over(self, connection: socket.socket) -> bool:
        """Whether there is a process that took a worker's connection."""
        if self._socket is None or self._process is None or self._process.poll() is not None:
            return False
        try:
            socket.send_fds(self._socket, [b"w"], [connection.fileno()])
        except OSError:
            return False
        return True

    def _start(self) -> None:
        if process := self._process:
            _log.error(
                "the process %d of device %d has ended, exit status %s", process.pid, self.number, process.poll()
            )
        self._end()
        # Whose messages stay apart: with each of them but the first comes a connection.
        self._socket, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            who, environment = f"process of device {self.number}", _ORDER | {_VISIBLE: cuda_name(self.number)}
            self._process = start_module(self._module, [there.fileno()], who, environment)
        self._end = weakref.finalize(self, _end, self._socket, self._process)
        self._socket.send(orjson.dumps(self._options))


def _end(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    process.kill()
    process.wait()

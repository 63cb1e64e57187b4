"""Every way the engine can fail: a request, or to begin with."""

from __future__ import annotations


class EngineError(RuntimeError):
    """Base of the engine's errors."""


class Overloaded(EngineError):  # noqa: N818 (a state, told as one)
    """The queue is full.

    Attributes:
        retry_after_s: when there will probably be room again, in seconds.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("the server has as much work queued as it accepts")
        self.retry_after_s = retry_after_s


class DeadlineExceeded(EngineError):  # noqa: N818
    """The request was not answered before its deadline."""

    def __init__(self) -> None:
        super().__init__("the request was not answered within its deadline")


class InferenceFailed(EngineError):  # noqa: N818
    """The runtime raised on this request; its cause is the runtime's exception."""

    def __init__(self) -> None:
        super().__init__("the model could not be run on this image")


class InvalidTensor(EngineError):  # noqa: N818
    """What was sent as the network's input is none; the message says why."""


class WorkerLost(EngineError):  # noqa: N818
    """The process that ran the request is gone.

    Attributes:
        reason: "died", or "stuck" where it had to be ended because it gave no answer.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("the process that ran this image was lost")
        self.reason = reason


class EngineStopped(EngineError):  # noqa: N818
    """The engine is stopping, or was never started, and takes no requests."""

    def __init__(self) -> None:
        super().__init__("the server is stopping")


class NoWorker(EngineError):  # noqa: N818
    """No worker is alive, and the last try to start one failed.

    Attributes:
        retry_after_s: when the next try will have been made, in seconds.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("the server has no process that could run an image, and is trying to start one")
        self.retry_after_s = retry_after_s


class RuntimeUnavailable(EngineError):  # noqa: N818
    """A runtime or device is not there, cannot open the model, or gives other answers; the message says why."""


class DeviceLost(EngineError):  # noqa: N818
    """A GPU does not do what it should any more; only another process can use it again."""


class DeviceOutOfMemory(EngineError):  # noqa: N818
    """A GPU has less memory left than was asked for."""


def device_error(error: Exception) -> EngineError:
    """What a library's error on a GPU means: too little memory for this batch, or a device that is lost.

    After nearly every other error CUDA fails all that this process asks of it (CUDA Runtime API, "Sticky errors").
    """
    told = str(error)
    lacks_memory = any(word in told.lower() for word in ("out of memory", "failed to allocate memory"))
    return DeviceOutOfMemory(told) if lacks_memory else DeviceLost(told)

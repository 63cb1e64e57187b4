"""The process of a device, in threads of this one: what it says to workers, and how it bears them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from artifact.agreement import LogitsAndMargins
from artifact.manifest import ArtifactError, Manifest
from artifact.preprocessing import Float32Array
from service.engine.devices.client import DeviceClient, RemoteRuntime
from service.engine.devices.memory import shared_memory
from service.engine.devices.owner import DeviceOwner
from service.engine.devices.talk import OPENING, RUN, Opening
from service.engine.errors import DeviceLost, DeviceOutOfMemory, InferenceFailed, RuntimeUnavailable
from service.engine.ipc.frames import framed
from service.engine.runtimes.base import DeviceRuntime, Runtime
from tests.runtimes import wait_until
from tests.service.engine.runtimes.artifacts import Exported, exported_shape


class FakeDevice:
    """A runtime on a device whose answers are the portable graph's; it runs when it may.

    Attributes:
        batches: numbers of images of each batch that ran.
        pinned: how many memories are.
    """

    name, device, precision = "a fake", "cuda", "fp32"
    runs_batches = True
    candidates = ()
    largest = 8

    def __init__(self, exported: Exported) -> None:
        self.manifest = exported.manifest
        self._portable = exported.portable
        self.batches: list[int] = []
        self.may_run = Event()
        self.may_run.set()
        self.failure: Callable[[Float32Array], Exception | None] = lambda _: None
        self.pinned = 0
        self.closed = False

    def run(self, images: npt.NDArray[Any], gate_offset: Float32Array) -> LogitsAndMargins:
        parts = [slice(first, first + self.largest) for first in range(0, len(images), self.largest)]
        logits, margins = zip(*(self.run_parts([images[part]], gate_offset[part]) for part in parts), strict=True)
        return np.concatenate(logits), np.concatenate(margins)

    def run_parts(self, parts: list[npt.NDArray[Any]], gate_offset: Float32Array) -> LogitsAndMargins:
        self.may_run.wait()
        images = np.concatenate(parts)
        self.batches.append(len(images))
        if images.dtype == np.uint8:
            images = self.manifest.preprocessing.normalise(images)
        if error := self.failure(images):
            raise error
        return self._portable.run(images, gate_offset)

    def pin(self, memory: npt.NDArray[np.uint8]) -> None:  # noqa: ARG002
        self.pinned += 1

    def unpin(self, memory: npt.NDArray[np.uint8]) -> None:  # noqa: ARG002
        self.pinned -= 1

    def close(self) -> None:
        self.closed = True


class Desk:
    """An owner whose workers are threads.

    Attributes:
        lost: set once the device has failed.
    """

    def __init__(self, open_runtime: Callable[[Opening], Runtime]) -> None:
        self.lost = Event()
        self.opened = 0

        def counted(asked: Opening) -> Runtime:
            self.opened += 1
            return open_runtime(asked)

        self._owner = DeviceOwner(counted, self.lost.set)
        self._sockets: list[socket.socket] = []

    def connect(self) -> socket.socket:
        here, there = socket.socketpair()
        Thread(target=self._owner.serve, args=(there,), daemon=True).start()
        self._sockets.append(here)
        return here

    def close(self) -> None:
        for each in self._sockets:
            each.close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), "all gated")


@pytest.fixture
def device(exported: Exported) -> FakeDevice:
    return FakeDevice(exported)


@pytest.fixture
def desk(device: FakeDevice) -> Iterator[Desk]:
    desk = Desk(lambda _: device)
    yield desk
    device.may_run.set()
    desk.close()


def _open(desk: Desk, exported: Exported) -> RemoteRuntime:
    return DeviceClient(desk.connect()).open(exported.folder, "auto", "fp32", None)


def _inputs(exported: Exported, count: int, seed: int = 0) -> Float32Array:
    side = exported.manifest.input_size
    return np.random.default_rng(seed).normal(size=(count, 3, side, side)).astype(np.float32)


def test_fake_is_a_runtime_on_a_device(device: FakeDevice) -> None:
    assert isinstance(device, DeviceRuntime)


def test_worker_gets_the_answers_to_its_images(desk: Desk, exported: Exported) -> None:
    runtime = _open(desk, exported)
    images, offsets = _inputs(exported, 5), np.array([0, 1, -1, 1e4, -1e4], np.float32)
    logits, margins = runtime.run(images, offsets)
    expected_logits, expected_margins = exported.portable.run(images, offsets)
    np.testing.assert_array_equal(logits, expected_logits)
    np.testing.assert_array_equal(margins, expected_margins)
    assert (runtime.name, runtime.device, runtime.precision) == ("a fake", "cuda", "fp32")


def test_pixels_are_images_too(desk: Desk, exported: Exported) -> None:
    side = exported.manifest.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    logits, _ = _open(desk, exported).run(pixels, np.zeros(3, np.float32))
    normalised = exported.manifest.preprocessing.normalise(pixels)
    np.testing.assert_array_equal(logits, exported.portable.run(normalised, np.zeros(3, np.float32))[0])


def test_more_images_than_a_request_holds_come_in_several(desk: Desk, device: FakeDevice, exported: Exported) -> None:
    images, offsets = _inputs(exported, 70), np.zeros(70, np.float32)
    logits, _ = _open(desk, exported).run(images, offsets)
    assert max(device.batches) == device.largest  # of a request too, since the device has no memory for more
    np.testing.assert_allclose(logits, exported.portable.run(images, offsets)[0], rtol=1e-5, atol=1e-5)


def test_what_workers_want_meanwhile_runs_together(desk: Desk, device: FakeDevice, exported: Exported) -> None:
    device.may_run.clear()
    runtimes = [_open(desk, exported) for _ in range(6)]
    answers: dict[int, LogitsAndMargins] = {}

    def ask(number: int) -> None:
        answers[number] = runtimes[number].run(_inputs(exported, 2, number), np.zeros(2, np.float32))

    threads = [Thread(target=ask, args=(number,)) for number in range(6)]
    threads[0].start()
    wait_until(lambda: desk._owner._on_their_way == [2])
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: sum(request.rows for request in desk._owner._waiting) + sum(desk._owner._on_their_way) == 12)
    device.may_run.set()
    for thread in threads:
        thread.join()
    # The first went alone, then what had come by then, then all others.
    assert 2 in device.batches
    assert (len(device.batches), sum(device.batches)) == (3, 12)
    for number in range(6):
        expected, _ = exported.portable.run(_inputs(exported, 2, number), np.zeros(2, np.float32))
        np.testing.assert_allclose(answers[number][0], expected, rtol=1e-5, atol=1e-5)


def test_model_is_opened_once_and_leaves_the_device_with_its_last_worker(
    desk: Desk, device: FakeDevice, exported: Exported
) -> None:
    connections = [desk.connect() for _ in range(3)]
    for connection in connections:
        DeviceClient(connection).open(exported.folder, "auto", "fp32", None)
    assert (desk.opened, device.pinned) == (1, 3)
    for connection in connections[:2]:
        connection.close()
    wait_until(lambda: device.pinned == 1)
    assert not device.closed
    connections[2].close()
    wait_until(lambda: device.closed)
    assert device.pinned == 0


@pytest.mark.parametrize("error", [RuntimeUnavailable("it has no memory"), ArtifactError("it is damaged")])
def test_model_that_cannot_be_opened_is_refused_and_the_next_is_opened(
    error: Exception, device: FakeDevice, exported: Exported
) -> None:
    tries: list[Opening] = []

    def open_runtime(asked: Opening) -> Runtime:
        tries.append(asked)
        if len(tries) == 1:
            raise error
        return device

    desk = Desk(open_runtime)
    client = DeviceClient(desk.connect())
    with pytest.raises(type(error), match=str(error)):
        client.open(exported.folder, "auto", "fp32", None)
    assert client.open(exported.folder, "auto", "fp32", None).name == "a fake"
    desk.close()


def test_model_that_is_another_by_now_is_refused(device: FakeDevice, exported: Exported) -> None:
    device.manifest = exported.manifest.model_copy(update={"version": "2"})
    desk = Desk(lambda _: device)
    with pytest.raises(ArtifactError, match="has changed"):
        _open(desk, exported)
    desk.close()


def test_failure_is_its_own_request_s_alone(desk: Desk, device: FakeDevice, exported: Exported) -> None:
    device.may_run.clear()
    device.failure = lambda images: ValueError("a bad image") if images.max() > 100 else None
    good, bad, first = (_open(desk, exported) for _ in range(3))
    outcomes: dict[str, Any] = {}

    def ask(name: str, runtime: RemoteRuntime, images: Float32Array) -> None:
        try:
            outcomes[name] = runtime.run(images, np.zeros(len(images), np.float32))
        except InferenceFailed as error:
            outcomes[name] = error

    threads = [
        Thread(target=ask, args=("first", first, _inputs(exported, 1))),
        Thread(target=ask, args=("good", good, _inputs(exported, 1))),
        Thread(target=ask, args=("bad", bad, _inputs(exported, 1) * 1000)),
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(desk._owner._waiting) + sum(desk._owner._on_their_way) == 3)
    device.may_run.set()
    for thread in threads:
        thread.join()
    assert isinstance(outcomes["bad"], InferenceFailed)
    assert "a bad image" in str(outcomes["bad"].__cause__)
    for name in ("first", "good"):
        np.testing.assert_array_equal(
            outcomes[name][0], exported.portable.run(_inputs(exported, 1), np.zeros(1, np.float32))[0]
        )


def test_device_that_fails_while_a_model_is_opened_ends_its_process(device: FakeDevice, exported: Exported) -> None:
    def pin(_: npt.NDArray[np.uint8]) -> None:
        raise DeviceLost("cuMemHostRegister: CUDA_ERROR_ILLEGAL_ADDRESS")

    device.pin = pin  # type: ignore[method-assign]
    desk = Desk(lambda _: device)
    with pytest.raises(DeviceLost):
        DeviceClient(desk.connect()).open(exported.folder, "auto", "fp32", None)
    assert desk.lost.wait(10)
    desk.close()


def test_device_that_fails_ends_its_process(desk: Desk, device: FakeDevice, exported: Exported) -> None:
    device.failure = lambda _: DeviceLost("cuGraphLaunch: CUDA_ERROR_ILLEGAL_ADDRESS")
    connection = desk.connect()
    runtime = DeviceClient(connection).open(exported.folder, "auto", "fp32", None)
    failures: list[Exception] = []

    def ask() -> None:
        try:
            runtime.run(_inputs(exported, 1), np.zeros(1, np.float32))
        except DeviceLost as error:
            failures.append(error)

    thread = Thread(target=ask)
    thread.start()
    assert desk.lost.wait(10)
    connection.shutdown(socket.SHUT_RDWR)  # as the end of the process would
    thread.join()
    assert len(failures) == 1


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(lambda _: framed(RUN.pack(0, 1, True)), id="a model that was not opened"),
        pytest.param(lambda _: framed(b"{}"), id="nonsense"),
        pytest.param(lambda _: framed(b"x" * (1 << 23)), id="far too much"),
        pytest.param(
            lambda manifest: framed(OPENING.dump_json(Opening("/nowhere", manifest, "auto", "fp32", None, 32))),
            id="no memory",
        ),
    ],
)
def test_worker_that_is_not_itself_is_not_listened_to(
    desk: Desk, exported: Exported, sent: Callable[[Manifest], bytes]
) -> None:
    stranger = desk.connect()
    runtime = _open(desk, exported)
    stranger.settimeout(10)
    try:
        stranger.sendall(sent(exported.manifest))
        assert stranger.recv(1) == b""
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert len(runtime.run(_inputs(exported, 1), np.zeros(1, np.float32))[0]) == 1


@pytest.mark.parametrize("rows", [0, 33, 1 << 31])
def test_rows_that_are_not_there_are_not_read(desk: Desk, exported: Exported, rows: int) -> None:
    connection = desk.connect()
    DeviceClient(connection).open(exported.folder, "auto", "fp32", None)
    connection.settimeout(10)
    connection.sendall(framed(RUN.pack(0, rows, False)))
    assert connection.recv(1) == b""


def test_memory_that_is_too_small_is_refused(desk: Desk, exported: Exported) -> None:
    connection = desk.connect()
    memory = shared_memory(exported.manifest, 1)
    told = framed(OPENING.dump_json(Opening(str(exported.folder), exported.manifest, "auto", "fp32", None, 32)))
    socket.send_fds(connection, [told], [memory])
    os.close(memory)
    connection.settimeout(10)
    assert connection.recv(1) == b""


def test_descriptors_do_not_pile_up(desk: Desk, exported: Exported, device: FakeDevice) -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = files()
    for _ in range(5):
        connection = desk.connect()
        DeviceClient(connection).open(exported.folder, "auto", "fp32", None)
        connection.close()
    wait_until(lambda: device.pinned == 0)
    wait_until(lambda: files() <= before + 1)


class SmallMemory:
    """A library's runtime on a GPU on which so many images fit, and no more."""

    name, device, precision = "a library", "cuda", "fp32"
    runs_batches = True
    candidates = ()

    def __init__(self, exported: Exported, fitting: int) -> None:
        self.manifest, self._portable, self._fitting = exported.manifest, exported.portable, fitting
        self.batches: list[int] = []

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        self.batches.append(len(images))
        if len(images) > self._fitting:
            raise DeviceOutOfMemory("CUDA out of memory")
        return self._portable.run(images, gate_offset)


def test_batch_that_does_not_fit_is_run_in_halves_and_so_are_those_after_it(
    exported: Exported, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = SmallMemory(exported, 3)
    desk = Desk(lambda _: runtime)
    remote = _open(desk, exported)
    images, offsets = _inputs(exported, 8), np.linspace(-1, 1, 8, dtype=np.float32)
    logits, _ = remote.run(images, offsets)
    np.testing.assert_allclose(logits, exported.portable.run(images, offsets)[0], rtol=1e-5, atol=1e-5)
    assert runtime.batches == [8, 4, 2, 2, 4, 2, 2]
    assert "batches are of 2 images at most from now on" in caplog.text
    desk.close()


def test_image_that_does_not_fit_alone_is_failed(exported: Exported) -> None:
    desk = Desk(lambda _: SmallMemory(exported, 0))
    with pytest.raises(InferenceFailed) as caught:
        _open(desk, exported).run(_inputs(exported, 2), np.zeros(2, np.float32))
    assert "out of memory" in str(caught.value.__cause__)
    desk.close()

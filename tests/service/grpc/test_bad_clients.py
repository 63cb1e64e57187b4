"""Clients that take no answers, end no messages, or send what nobody asked for: they harm nobody but themselves."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.grpc import open_inference_pb2 as messages
from service.grpc import server as grpc_server
from service.grpc.reading import Reading
from tests.runtimes import PATIENCE_S, EchoRuntime, wait_until
from tests.service.grpc.calling import SERVICE, Grpc, grpc_serving
from tests.service.grpc.raw_http2 import RawClient
from tests.service.grpc.test_calls import _asked

CODE = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING
_WATCH, _CHECK = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check"
_REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def _refusal(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    return error.code()


def _watches(stub: health_pb2_grpc.HealthStub) -> bool:
    """Whether one more is let in."""
    try:
        return next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)).status == SERVING
    except grpc.RpcError:
        return False


def _assert_works(echo: Grpc) -> None:
    assert echo.call("ServerLive", messages.ServerLiveRequest()).live
    assert health_pb2_grpc.HealthStub(echo.channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status == SERVING
    assert echo.infer(_asked()).outputs


def test_watcher_that_reads_nothing_freezes_neither_the_health_nor_the_end(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime, drain_seconds=2) as echo, RawClient(echo.port, window=0) as client:
        client.call(_WATCH)
        _assert_works(echo)
        watch = health_pb2_grpc.HealthStub(echo.channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert next(watch).status == SERVING
        began = time.monotonic()
        echo.server.stop()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        echo.server.thread.join(PATIENCE_S)
        assert time.monotonic() - began < 13  # ten of which are for answers that are on their way


def test_answers_that_are_not_taken_keep_nobody_out(echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "_LONGEST_WRITE_S", 0.2)
    with grpc_serving(echo_runtime, queue_size=4, drain_seconds=2) as echo, ExitStack() as stack:
        clients = [stack.enter_context(RawClient(echo.port, window=0)) for _ in range(2)]
        for client in clients:
            for _ in range(20):
                client.call(f"/{SERVICE}/ServerLive")
                client.call(f"/{SERVICE}/ServerMetadata")
        _assert_works(echo)


def test_streams_that_take_no_answers_are_ended(echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "_LONGEST_WRITE_S", 0.2)
    with grpc_serving(echo_runtime) as echo, RawClient(echo.port, window=0) as client:
        for _ in range(32):
            client.call(f"/{SERVICE}/ModelStreamInfer", _asked().SerializeToString())
        wait_until(lambda: echo.server.requests("ok", f"/{SERVICE}/ModelStreamInfer") == 32)
        wait_until(lambda: echo.refused_stream() is None)


@pytest.mark.parametrize("path", [_CHECK, _WATCH, _REFLECT])
def test_large_messages_to_side_services_are_refused_unread(echo_runtime: EchoRuntime, path: str) -> None:
    with grpc_serving(echo_runtime) as echo:
        call = echo.channel.stream_stream(path)  # of bytes
        message = health_pb2.HealthCheckRequest(service="x" * 2000).SerializeToString()
        assert _refusal(lambda: list(call(iter([message]), timeout=PATIENCE_S))) == CODE.INVALID_ARGUMENT
        assert _refusal(lambda: list(call(iter([b"\xff"]), timeout=PATIENCE_S))) == CODE.INVALID_ARGUMENT


def test_unfinished_messages_to_the_health_service_keep_no_other_address_from_it(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime) as echo, RawClient(echo.port, window=65_535, source="127.0.0.2") as client:
        for _ in range(30):
            client.call(_CHECK, b"\n", size=30_000_000)
        _assert_works(echo)


def test_compressed_messages_are_refused(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime) as echo:
        code, _, _ = echo.refused("ModelInfer", _asked(), compression=grpc.Compression.Gzip)
        assert code == CODE.UNIMPLEMENTED
        _assert_works(echo)


def test_one_address_may_watch_the_health_so_many_times(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime) as echo:
        stub = health_pb2_grpc.HealthStub(echo.channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S) for _ in range(16)]
        assert all(next(watch).status == SERVING for watch in watches)
        one_more = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert _refusal(lambda: next(one_more)) == CODE.RESOURCE_EXHAUSTED
        watches[0].cancel()
        wait_until(lambda: _watches(stub))


def test_health_of_a_service_that_there_is_not_is_unknown(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime) as echo:
        stub = health_pb2_grpc.HealthStub(echo.channel)
        request = health_pb2.HealthCheckRequest(service="nobody")
        assert _refusal(lambda: stub.Check(request, timeout=PATIENCE_S)) == CODE.NOT_FOUND


def test_reflection_answers_several_questions(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime) as echo:
        ask = reflection_pb2_grpc.ServerReflectionStub(echo.channel).ServerReflectionInfo
        questions = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        services, file = ask(iter(questions), timeout=PATIENCE_S)
        assert SERVICE in {each.name for each in services.list_services_response.service}
        assert file.file_descriptor_response.file_descriptor_proto


def test_nothing_that_clients_send_is_logged(
    echo_runtime: EchoRuntime, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with grpc_serving(echo_runtime) as echo, RawClient(echo.port, window=0) as client:
        caplog.set_level(logging.INFO)
        client.call(f"/{SERVICE}/ServerLive", authorization=b"Bearer my-secret-\xfc")
        client.call(_CHECK, b"\xff\xff")
        client.call(f"/{SERVICE}/ModelInfer", b"\xff\xff")
        _assert_works(echo)
    captured = capfd.readouterr()
    assert "my-secret" not in caplog.text + captured.out + captured.err
    assert "Traceback" not in caplog.text + captured.err


class _Context:
    """A call whose message comes when it is told to."""

    def __init__(self) -> None:
        self.comes = asyncio.Event()

    async def read(self) -> bytes:
        await self.comes.wait()
        return b"message"


def test_next_turn_is_that_of_the_address_that_has_had_the_fewest() -> None:
    async def run() -> None:
        reading = Reading(4)
        order: list[str] = []

        async def ask(address: str, context: Any) -> None:
            await reading.message(context, address)
            order.append(address)

        calls = [_Context() for _ in range(9)]
        strangers = ["10.0.0.1"] * 4 + ["10.0.0.2"] * 4
        tasks = [asyncio.create_task(ask(each, call)) for each, call in zip(strangers, calls, strict=False)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        honest = asyncio.create_task(ask("10.0.0.3", calls[8]))
        calls[8].comes.set()
        await asyncio.sleep(0.01)
        assert order == []  # two of each address come, which are all that may
        calls[0].comes.set()
        await asyncio.wait_for(honest, 1)
        assert order == ["10.0.0.1", "10.0.0.3"]
        for call in calls:
            call.comes.set()
        await asyncio.gather(*tasks)
        assert sorted(order) == sorted([*strangers, "10.0.0.3"])
        assert (reading._free, reading._lines) == (4, {})

    asyncio.run(run())


def test_turns_that_are_given_up_go_to_others() -> None:
    async def run() -> None:
        reading = Reading(2)
        calls = [_Context() for _ in range(6)]
        tasks = [
            asyncio.create_task(reading.message(call, f"10.0.0.{number}"))  # type: ignore[arg-type]
            for number, call in enumerate(calls)
        ]
        await asyncio.sleep(0.01)
        for task in (tasks[0], tasks[2], tasks[3]):
            task.cancel()
        for call in calls:
            call.comes.set()
        assert await asyncio.gather(*(tasks[number] for number in (1, 4, 5))) == [b"message"] * 3
        await asyncio.sleep(0)
        assert reading._free == 2

    asyncio.run(run())

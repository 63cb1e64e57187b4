"""How calls begin and end: who may, how long, what becomes of them when a client or the server leaves."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic_settings import SettingsError

from service.access.keys import ApiKey, Keyring
from service.app import Service, create_app
from service.grpc import open_inference_pb2 as messages
from service.grpc import reading
from service.http.listening import taken_port
from service.observability.tracing import Tracing
from service.settings import Settings
from tests.budgets import BUDGETS, limit_all
from tests.image_files import solid
from tests.runtimes import PATIENCE_S, EchoRuntime, wait_until
from tests.service.grpc.calling import SERVICE, arrays, asking, files, free_port, grpc_serving, numbers
from tests.service.inference import echo_images, raw_files
from tests.service.server import pool

CODE = grpc.StatusCode
INFER = f"/{SERVICE}/ModelInfer"
STREAM = f"/{SERVICE}/ModelStreamInfer"


def _asked(value: float = 0.5, **fields: Any) -> messages.ModelInferRequest:
    images = echo_images(value)
    return asking(images.tobytes(), inputs=[numbers(images)], **fields)


class Requests:
    """What a stream sends, told while it is open."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[messages.ModelInferRequest | None] = SimpleQueue()

    def send(self, *sent: messages.ModelInferRequest | None) -> None:
        for each in sent:
            self._queue.put(each)

    def __iter__(self) -> Iterator[messages.ModelInferRequest]:
        return iter(self._queue.get, None)


def test_deadline_of_the_call_is_that_of_its_images(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime) as echo:
        echo_runtime.hold()
        assert echo.refused("ModelInfer", _asked(), timeout=2.0)[0] == CODE.DEADLINE_EXCEEDED
        # The client gives up at the same time, and its word of that may come first.
        ends = ("deadline_exceeded", "client_gone")
        wait_until(lambda: sum(echo.server.requests(end, INFER) for end in ends) == 1)
        assert echo.server.context.memory.held == 0
        metadata = [("x-request-timeout-ms", "50")]
        code, words, _ = echo.refused("ModelInfer", _asked(), metadata=metadata)
        assert (code, words) == (CODE.DEADLINE_EXCEEDED, "image 0: the request was not answered within its deadline")
        metadata = [("x-request-timeout-ms", "soon")]
        assert echo.refused("ModelInfer", _asked(), metadata=metadata)[0] == CODE.INVALID_ARGUMENT
        echo_runtime.release()


def test_client_that_cancels_is_waited_for_no_longer(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime) as echo:
        echo_runtime.hold()
        running = echo.method("ModelInfer").future(_asked(1.0))
        echo_runtime.wait_until_running()
        waiting = echo.method("ModelInfer").future(_asked(2.0))
        wait_until(lambda: echo.server.context.engine.queue_depth == 1)
        waiting.cancel()
        wait_until(lambda: echo.server.requests("client_gone", INFER) == 1)
        assert echo.server.context.memory.held == 48  # of the other
        echo_runtime.release()
        assert arrays(running.result(PATIENCE_S))["logits"] == [[1.0, 0, 0]]
        assert 2.0 not in echo_runtime.seen


def test_full_queue_is_told_with_the_time_to_come_back(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime, queue_size=2) as echo:
        echo_runtime.hold()
        first = echo.method("ModelInfer").future(_asked())
        echo_runtime.wait_until_running()
        with echo.server.context.memory.share() as held:
            held.take(echo.server.context.memory.capacity - 50)
            code, words, metadata = echo.refused("ModelInfer", _asked())
        assert (code, int(metadata["retry-after"])) == (CODE.RESOURCE_EXHAUSTED, 1), words
        echo_runtime.release()
        first.result(PATIENCE_S)


def test_keys_are_asked_for_and_charged(echo_runtime: EchoRuntime) -> None:
    digest = hashlib.sha256(b"mine").hexdigest()
    key = ApiKey.model_validate({"name": "mine", "sha256": digest, "images_per_second": 0.001, "burst_images": 3})
    with grpc_serving(echo_runtime, Keyring([key])) as echo:
        assert echo.call("ServerLive", messages.ServerLiveRequest()).live
        assert echo.call("ServerReady", messages.ServerReadyRequest()).ready
        for name, message in (("ModelInfer", _asked()), ("ServerMetadata", messages.ServerMetadataRequest())):
            assert echo.refused(name, message)[0] == CODE.UNAUTHENTICATED
        wrong = [("authorization", "Bearer other")]
        assert echo.refused("ModelInfer", _asked(), metadata=wrong)[0] == CODE.UNAUTHENTICATED
        for metadata in ([("authorization", "Bearer mine")], [("x-api-key", "mine")]):
            assert echo.infer(_asked(), metadata=metadata).outputs
        two = asking(raw_files(solid(1), solid(2)), inputs=[files(2)])
        code, words, told = echo.refused("ModelInfer", two, metadata=[("x-api-key", "mine")])
        assert (code, "images a second" in words, "retry-after" in told) == (CODE.RESOURCE_EXHAUSTED, True, True)
        unknown = messages.ModelMetadataRequest(name="nobody")
        assert echo.refused("ModelMetadata", unknown, metadata=[("x-api-key", "mine")])[0] == CODE.NOT_FOUND
        counted = echo.server.context.metrics.render().decode()
        for outcome, count in (("ok", 2), ("rate_limited", 1), ("unknown_model", 1)):
            assert f'aig_key_requests_total{{key="mine",outcome="{outcome}"}} {count}.0' in counted


def test_who_has_no_key_is_refused_before_the_message_comes(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime, Keyring([])) as echo:
        for name in ("ModelInfer", "ModelStreamInfer"):
            call = echo.channel.stream_stream(f"/{SERVICE}/{name}")(iter(Requests()), timeout=PATIENCE_S)
            with pytest.raises(grpc.RpcError) as raised:
                next(call)
            assert raised.value.code() == CODE.UNAUTHENTICATED  # type: ignore[attr-defined]
            wait_until(lambda name=name: echo.server.requests("unauthorized", f"/{SERVICE}/{name}") == 1)  # type: ignore[misc]


def test_message_that_does_not_come_is_given_up(echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_S", 0.2)
    with grpc_serving(echo_runtime, max_pending_bytes=1) as echo:  # two messages at a time, one of an address
        waiting = [echo.channel.stream_stream(f"/{SERVICE}/ModelInfer")(iter(Requests())) for _ in range(5)]
        for call in waiting:
            with pytest.raises(grpc.RpcError) as raised:
                next(call)
            assert raised.value.code() == CODE.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
        monkeypatch.setattr(reading, "LONGEST_S", PATIENCE_S)
        assert echo.call("ServerReady", messages.ServerReadyRequest()).ready


def test_who_only_watches_or_waits_keeps_nobody_out(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime, queue_size=2) as echo:
        watches = [health_pb2_grpc.HealthStub(echo.channel).Watch(health_pb2.HealthCheckRequest()) for _ in range(10)]
        assert all(next(watch) for watch in watches)
        idle = [Requests() for _ in range(32)]
        streams = [echo.method("ModelStreamInfer")(iter(requests)) for requests in idle]
        wait_until(lambda: echo.refused_stream() == CODE.RESOURCE_EXHAUSTED)
        assert arrays(echo.infer(_asked()))["logits"] == [[0.5, 0, 0]]
        for requests in idle:
            requests.send(None)
        assert [list(stream) for stream in streams] == [[]] * 32


def test_stream_answers_every_request_in_order_and_errors_among_them(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime) as echo:
        sent = [_asked(1.0, id="a"), _asked(2.0, id="b", model_name="nobody"), _asked(3.0, id="c")]
        first, second, third = echo.method("ModelStreamInfer")(iter(sent), timeout=PATIENCE_S)
        assert [arrays(each.infer_response)["logits"][0][0] for each in (first, third)] == [1.0, 3.0]
        assert [each.infer_response.id for each in (first, third)] == ["a", "c"]
        assert (first.error_message, third.error_message) == ("", "")
        assert "no model 'nobody'" in second.error_message
        assert (echo.server.requests("ok", STREAM), echo.server.requests("unknown_model", STREAM)) == (2, 1)


def test_stream_that_is_cancelled_leaves_nothing_behind(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime) as echo:
        echo_runtime.hold()
        requests = Requests()
        stream = echo.method("ModelStreamInfer")(iter(requests))
        requests.send(_asked())
        echo_runtime.wait_until_running()
        stream.cancel()
        requests.send(None)
        wait_until(lambda: echo.server.requests("client_gone", STREAM) == 1)
        assert echo.server.context.memory.held == 0
        echo_runtime.release()


def test_stopping_server_answers_what_runs_and_ends_streams_at_once(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime, drain_seconds=20) as echo:
        requests = Requests()
        stream = echo.method("ModelStreamInfer")(iter(requests))
        requests.send(_asked())
        assert arrays(next(stream).infer_response)["logits"] == [[0.5, 0, 0]]
        watch = health_pb2_grpc.HealthStub(echo.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        echo_runtime.hold()
        running = echo.method("ModelInfer").future(_asked(7.0))
        echo_runtime.wait_until_running()
        began = time.monotonic()
        echo.server.stop()
        with pytest.raises(grpc.RpcError) as raised:
            next(stream)
        assert raised.value.code() == CODE.UNAVAILABLE  # type: ignore[attr-defined]
        requests.send(None)
        echo_runtime.release()
        assert arrays(running.result(PATIENCE_S))["logits"] == [[7.0, 0, 0]]
        echo.server.thread.join(PATIENCE_S)
        assert time.monotonic() - began < 15


def _app(runtime: EchoRuntime, port: int) -> Service:
    settings = Settings(workers=1, max_batch=1, max_wait_ms=0, objective_ms=1e6, grpc_port=port)
    return create_app(settings, pool(runtime, settings))


def test_port_that_is_taken_keeps_the_server_from_starting(echo_runtime: EchoRuntime) -> None:
    async def begin() -> None:
        async with app.running():
            pass

    with taken_port(["127.0.0.1"], 0) as (listener,):
        listener.listen()
        app = _app(echo_runtime, listener.getsockname()[1])
        with pytest.raises(SettingsError, match="cannot listen on port"):
            asyncio.run(begin())


def test_packages_that_are_missing_are_told_with_what_installs_them(
    echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("calls", "methods", "server"):
        monkeypatch.delitem(sys.modules, f"service.grpc.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(SettingsError, match=r"gRPC needs packages of its own, pip install '\.\[grpc\]'"):
        _app(echo_runtime, free_port())
    assert _app(echo_runtime, 0)


def test_calls_have_lines_in_the_access_log(echo_runtime: EchoRuntime, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with grpc_serving(echo_runtime, access_log="on") as echo:
        echo.infer(_asked(), metadata=[("x-request-id", "mine")])
        echo.refused("ModelInfer", _asked(model_name="nobody"))
    lines = [record for record in caplog.records if record.name == "service.observability.access_log"]
    assert [record.getMessage() for record in lines] == [f"POST {INFER} 200", f"POST {INFER} 404"]


def test_calls_have_spans_in_the_trace_of_their_client(echo_runtime: EchoRuntime) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    tracing = Tracing(provider)
    with grpc_serving(echo_runtime, tracing=tracing) as echo:
        echo.infer(_asked(), metadata=[("traceparent", f"00-{trace}-00f067aa0ba902b7-01")])
        wait_until(lambda: len(exporter.get_finished_spans()) == 4)
    *stages, span = exporter.get_finished_spans()
    assert [each.name for each in (*stages, span)] == ["queue", "decode", "inference", f"POST {INFER}"]
    assert {f"{each.context.trace_id:032x}" for each in (*stages, span)} == {trace}


def test_degraded_answers_say_so(echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    echo_runtime.manifest = echo_runtime.manifest.model_copy(update={"budgets": BUDGETS})
    with grpc_serving(echo_runtime, least_budget=0.4) as echo:
        assert not echo.infer(_asked()).parameters
        limit_all(monkeypatch, 0.5)
        assert echo.infer(_asked()).parameters["degraded"].bool_param
        never = {"degrade": messages.InferParameter(string_param="never")}
        assert not echo.infer(_asked(parameters=never)).parameters

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from service.__main__ import main
from service.engine.runtimes.onnx import OnnxRuntime
from service.observability.logs import JsonFormatter
from service.observability.tracing import Tracing, otlp_provider
from tests.image_files import solid
from tests.runtimes import PATIENCE_S, EchoRuntime
from tests.service.server import Server, serving

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STAGES = ["queue", "decode", "inference"]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def server(runtime: OnnxRuntime, provider: TracerProvider) -> Iterator[Server]:
    with serving(runtime, tracing=Tracing(provider), max_bytes=8000) as server:
        yield server


def _spans(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The one server span, and its children in the order they were made."""
    *children, server_span = exporter.get_finished_spans()
    assert server_span.kind == SpanKind.SERVER
    assert all(child.parent == server_span.context for child in children)
    return server_span, children


def _ms(span: ReadableSpan) -> float:
    return (span.end_time - span.start_time) / 1e6


def test_image_has_a_span_after_the_http_conventions(
    server: Server, exporter: InMemorySpanExporter, pictures: list[bytes]
) -> None:
    response = server.post("/classify?top_k=1&api_key=s3cret", content=pictures[0])
    assert response.status_code == 422
    exporter.clear()
    response = server.post("/classify", content=pictures[0], headers={"X-Request-ID": "id-1"})
    answer = response.json()
    span, children = _spans(exporter)
    assert (span.name, span.parent, span.status.status_code) == ("POST /classify", None, StatusCode.UNSET)
    work = {
        "aig.model.name": "small",
        "aig.model.version": "1",
        "aig.blocks.executed": answer["layers"]["executed"],
        "aig.blocks.total": answer["layers"]["total"],
        "aig.macs": answer["compute"]["macs"],
        "aig.macs.ratio": answer["compute"]["ratio"],
    }
    assert dict(span.attributes) == work | {
        "http.request.method": "POST",
        "http.route": "/classify",
        "http.response.status_code": 200,
        "http.request.body.size": len(pictures[0]),
        "url.scheme": "http",
        "url.path": "/classify",
        "network.protocol.version": "1.1",
        "aig.request_id": "id-1",
        "aig.outcome": "ok",
        "aig.image.outcomes": ("ok",),
    }
    assert [child.name for child in children] == STAGES
    assert dict(children[2].attributes) == work | {"aig.image.index": 0, "aig.batch_size": 1}


def test_stages_follow_one_another_within_the_request_and_last_as_long_as_the_answer_says(
    server: Server, exporter: InMemorySpanExporter, pictures: list[bytes]
) -> None:
    timing = server.classify(pictures[0]).json()["timing_ms"]
    span, children = _spans(exporter)
    assert [_ms(child) for child in children] == pytest.approx([timing[child.name] for child in children], abs=0.001)
    assert _ms(span) >= timing["total"]
    ends = [span.start_time, *(child.end_time for child in children)]
    starts = [*(child.start_time for child in children), span.end_time]
    assert all(start >= end for end, start in zip(ends, starts, strict=True))


def test_batch_has_stages_for_every_image_that_was_classified(
    server: Server, exporter: InMemorySpanExporter, pictures: list[bytes]
) -> None:
    results = server.classify_batch([pictures[0], b"no image", pictures[1]]).json()["results"]
    span, children = _spans(exporter)
    assert span.attributes["aig.image.outcomes"] == ("ok", "not_an_image", "ok")
    assert [(child.name, child.attributes["aig.image.index"]) for child in children] == [
        (name, index) for index in (0, 2) for name in STAGES
    ]
    executed = [results[index]["answer"]["layers"]["executed"] for index in (0, 2)]
    assert [child.attributes["aig.blocks.executed"] for child in children[2::3]] == executed
    assert span.attributes["aig.blocks.executed"] == sum(executed)


def test_span_goes_on_the_trace_of_its_client(server: Server, exporter: InMemorySpanExporter) -> None:
    server.get("/healthz", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    span, _ = _spans(exporter)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT


@pytest.mark.parametrize("header", ["nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
def test_trace_that_cannot_be_is_begun_anew(
    server: Server, exporter: InMemorySpanExporter, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.get("/healthz", headers={"traceparent": header, "baggage": "s3cret, =;"})
    span, _ = _spans(exporter)
    assert span.parent is None
    assert caplog.records == []


@pytest.mark.parametrize("sampled_by", ["client", "server"])
def test_request_that_is_not_sampled_has_no_span(
    runtime: OnnxRuntime, exporter: InMemorySpanExporter, pictures: list[bytes], sampled_by: str
) -> None:
    provider = TracerProvider(shutdown_on_exit=False, **({"sampler": ALWAYS_OFF} if sampled_by == "server" else {}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"} if sampled_by == "client" else {}
    with serving(runtime, tracing=Tracing(provider)) as server:
        assert server.post("/classify", content=pictures[0], headers=headers).status_code == 200
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("method", "path", "name", "route", "status"),
    [
        ("post", "/classify", "POST /classify", "/classify", 400),
        ("get", "/classify", "GET /classify", "/classify", 405),
        ("get", "/no/such%0Apath?key=s3cret", "GET", None, 404),
        ("post", "/classify?api_key=s3cret", "POST /classify", "/classify", 422),
    ],
)
def test_mistake_of_the_client_is_no_error_of_the_server(
    server: Server, exporter: InMemorySpanExporter, method: str, path: str, name: str, route: str | None, status: int
) -> None:
    getattr(server, method)(path)
    span, children = _spans(exporter)
    assert (span.name, span.attributes.get("http.route"), children) == (name, route, [])
    assert (span.attributes["http.response.status_code"], span.status.status_code) == (status, StatusCode.UNSET)
    assert span.attributes["url.path"] == path.partition("?")[0]
    assert "error.type" not in span.attributes
    assert "s3cret" not in str(span.to_json())


def test_method_nobody_knows_is_other(server: Server, exporter: InMemorySpanExporter) -> None:
    server.request("BREW", "/classify")
    span, _ = _spans(exporter)
    assert (span.name, span.attributes["http.request.method"]) == ("HTTP /classify", "_OTHER")


def test_failed_inference_is_an_error(exporter: InMemorySpanExporter, provider: TracerProvider) -> None:
    runtime = EchoRuntime()
    with serving(runtime, tracing=Tracing(provider)) as server:
        server.classify(solid(20))
        runtime.poison = {runtime.seen[-1]}
        exporter.clear()
        assert server.classify(solid(20)).status_code == 500
    span, children = _spans(exporter)
    assert (span.status.status_code, children) == (StatusCode.ERROR, [])
    assert span.attributes["error.type"] == span.attributes["aig.outcome"] == "inference_failed"


def test_log_lines_name_the_span(
    runtime: OnnxRuntime, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    seen: list[Any] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(JsonFormatter().format(record))

    logger, handler = logging.getLogger("service.observability.access_log"), Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with serving(runtime, tracing=Tracing(provider), access_log="on") as server:
            server.get("/healthz")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    span, _ = _spans(exporter)
    assert f'"trace_id":"{span.context.trace_id:032x}"' in seen[0]
    assert f'"span_id":"{span.context.span_id:016x}"' in seen[0]


@pytest.fixture
def collector() -> Iterator[tuple[str, Queue[tuple[str, ExportTraceServiceRequest]]]]:
    """A receiver of OTLP over HTTP: its address, and what it received."""
    received: Queue[tuple[str, ExportTraceServiceRequest]] = Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.put((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        thread = Thread(target=receiver.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{receiver.server_port}", received
        receiver.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "cats"])
def test_spans_arrive_where_the_standard_variables_say(
    collector: tuple[str, Queue[tuple[str, ExportTraceServiceRequest]]],
    runtime: OnnxRuntime,
    pictures: list[bytes],
    name: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=lab")
    if name:
        monkeypatch.setenv("OTEL_SERVICE_NAME", name)
    with serving(runtime, tracing=Tracing(otlp_provider())) as server:
        server.classify(pictures[0])
    path, sent = received.get(timeout=PATIENCE_S)  # at the latest when the service stops
    assert path == "/v1/traces"
    (group,) = sent.resource_spans
    resource = {attribute.key: attribute.value.string_value for attribute in group.resource.attributes}
    assert resource["service.name"] == (name or "convnet-aig-serving")
    assert resource["deployment.environment.name"] == "lab"
    assert [span.name for span in group.scope_spans[0].spans] == [*STAGES, "POST /classify"]


def test_collector_that_is_not_there_keeps_nobody_waiting(
    runtime: OnnxRuntime, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with serving(runtime, tracing=Tracing(otlp_provider())) as server:
        assert server.classify(pictures[0]).status_code == 200
    assert any(record.name.startswith("opentelemetry") for record in caplog.records)


@pytest.mark.slow
def test_tracing_that_is_off_is_not_even_imported() -> None:
    program = """
import sys, warnings
warnings.simplefilter("ignore")
from tests.image_files import solid
from tests.runtimes import EchoRuntime
from service.app import create_app
from service.observability.opening import open_tracing
from service.settings import Settings
from tests.service.server import pool
from starlette.testclient import TestClient
# FastAPI imports OpenTelemetry's interface, but nothing that does anything.
UNWANTED = (
    "opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "service.observability.tracing", "requests"
)
settings = Settings(workers=1, max_batch=1, max_wait_ms=0)
assert settings.tracing == "off"
tracing = open_tracing(settings)
with TestClient(create_app(settings, pool(EchoRuntime(), settings), tracing=tracing)) as client:
    assert client.post("/classify", content=solid(1)).status_code == 200
print(sorted(name for name in sys.modules if name.startswith(UNWANTED)))
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("AIG_")},
    )
    assert (finished.stdout, finished.returncode) == ("[]\n", 0), finished.stderr


def test_tracing_without_its_packages_is_one_line_of_error(
    artifact: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "service.observability.tracing", None)
    assert main(["--model", str(artifact), "--runtime", "onnx", "--workers", "1", "--tracing", "otlp"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ERROR:")]
    assert "pip install '.[tracing]'" in line


@pytest.mark.parametrize(
    "headers",
    [{"traceparent": "00-" + "x" * 600}, {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "S3CRET;x," * 60}],
)
def test_nothing_that_a_client_sends_is_logged(
    server: Server, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert server.get("/healthz", headers=headers).status_code == 200
    assert caplog.records == []

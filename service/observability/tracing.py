"""Spans of every request, after OpenTelemetry's conventions for HTTP servers. Imported only where tracing is on.

FastAPI's own spans are not used: they have the query string, secrets included, end before the outcome is known, and
learn of no route that is answered without its routing, as images are.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

import logging
import time
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv.attributes import error_attributes, http_attributes, network_attributes, url_attributes
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue
from starlette.types import Scope

from artifact.manifest import Manifest
from service.engine.job import Answer
from service.observability.record import RequestRecord

_PROJECT = "convnet-aig-serving"
_METHODS = {method.value for method in http_attributes.HttpRequestMethodValues}
_NS = 1e9  # nanoseconds in a second


def otlp_provider() -> TracerProvider:
    """A provider that sends its spans over OTLP, set up by the standard environment variables.

    OTEL_EXPORTER_OTLP_ENDPOINT is where they go, OTEL_TRACES_SAMPLER which of them, OTEL_SERVICE_NAME under which name.
    """
    known = {SERVICE_NAME: _PROJECT, SERVICE_VERSION: version(_PROJECT)}
    resource = Resource.create({**known, **OTELResourceDetector().detect().attributes})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """Makes the spans.

    Args:
        provider: exports them; it is shut down with the service.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(_PROJECT, version(_PROJECT))
        # Where `traceparent` or `tracestate` is malformed, the library would log what the client has sent.
        logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)

    def begin(self, scope: Scope, record: RequestRecord) -> RequestSpan:
        """Begin the span of a request, in the trace its client names in `traceparent`."""
        # Wall-clock time is read once, or a clock that is set in between would tear the spans apart.
        epoch_ns = time.time_ns() - int(time.perf_counter() * _NS)
        carrier: dict[str, list[str]] = {}
        for header, value in scope["headers"]:
            if header != b"baggage":  # nothing here reads it, and where it is malformed the library would log it
                carrier.setdefault(header.decode("latin-1"), []).append(value.decode("latin-1"))
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        name = "HTTP" if method == "_OTHER" else method
        attributes: dict[str, AttributeValue] = {
            http_attributes.HTTP_REQUEST_METHOD: method,
            url_attributes.URL_SCHEME: scope["scheme"],
            url_attributes.URL_PATH: scope.get("raw_path", b"").decode("ascii", "backslashreplace"),
            network_attributes.NETWORK_PROTOCOL_VERSION: scope["http_version"],
            "aig.request_id": record.request_id,
        }
        span = self._tracer.start_span(
            name,
            extract(carrier),
            SpanKind.SERVER,
            attributes,
            start_time=epoch_ns + int(record.started_at * _NS),
        )
        context = span.get_span_context()
        if context.is_valid:
            record.trace_id, record.span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        return RequestSpan(self._tracer, span, name, epoch_ns)

    def close(self) -> None:
        """Send what has not been sent yet."""
        self._provider.shutdown()


class RequestSpan:
    """The span of one request.

    Args:
        tracer: makes its children.
        span: that has begun.
        method: in its name.
        epoch_ns: what is to be added to `time.perf_counter` for nanoseconds since 1970.
    """

    def __init__(self, tracer: Tracer, span: Span, method: str, epoch_ns: int) -> None:
        self._tracer = tracer
        self._span = span
        self._method = method
        self._epoch_ns = epoch_ns

    def end(self, route: str | None, record: RequestRecord, ended_at: float) -> None:
        """End the span and give it a child for each stage of each image.

        Args:
            route: its template; None where there is no such path.
            record: of the request.
            ended_at: on the clock of the record.
        """
        if not self._span.is_recording():  # left out by the sampler
            return
        for index, image in enumerate(record.images):
            if isinstance(image, Answer) and record.manifest:
                self._add_stages(index, image, record.submitted_at, record.manifest)
        if route is not None:
            self._span.update_name(f"{self._method} {route}")
            self._span.set_attribute(http_attributes.HTTP_ROUTE, route)
        self._span.set_attributes(self._outcome(record))
        if record.status is None or record.status >= 500:
            self._span.set_attribute(error_attributes.ERROR_TYPE, record.outcome)
            self._span.set_status(StatusCode.ERROR)
        self._span.end(self._at(ended_at))

    def _outcome(self, record: RequestRecord) -> dict[str, AttributeValue]:
        """Attributes that tell what became of a request."""
        attributes: dict[str, AttributeValue] = {
            "aig.outcome": record.outcome,
            "http.request.body.size": record.received_bytes,
        }
        if record.status is not None:
            attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] = record.status
        if record.images:
            attributes["aig.image.outcomes"] = [image if isinstance(image, str) else "ok" for image in record.images]
        if record.manifest:
            attributes |= _of_model(record.manifest)
        if work := record.work():
            attributes |= {
                "aig.blocks.executed": work.blocks_executed,
                "aig.blocks.total": work.blocks_total,
                "aig.macs": work.macs,
                "aig.macs.ratio": work.macs_ratio,
            }
        return attributes

    def _add_stages(self, index: int, answer: Answer, submitted_at: float, manifest: Manifest) -> None:
        """Add the spans of one image, from the times the engine measured.

        It measures how long each stage took, and one follows the other. What lies between two, the way to a worker and
        in a batch the decoding of the others, is not in the answer, so a stage may have begun later than its span says.
        """
        inference: dict[str, AttributeValue] = _of_model(manifest) | {
            "aig.blocks.executed": sum(answer.executed),
            "aig.blocks.total": len(answer.executed),
            "aig.macs": answer.macs,
            "aig.macs.ratio": answer.macs / manifest.total_macs,
            "aig.batch_size": answer.batch_size,
        }
        begun = submitted_at
        for name, seconds, attributes in (
            ("queue", answer.queue_s, {}),
            ("decode", answer.decode_s, {}),
            ("inference", answer.inference_s, inference),
        ):
            child = self._tracer.start_span(
                name,
                set_span_in_context(self._span),
                attributes={"aig.image.index": index, **attributes},
                start_time=self._at(begun),
            )
            begun += seconds
            child.end(self._at(begun))

    def _at(self, seconds: float) -> int:
        """A time on the clock of the record, in nanoseconds since 1970."""
        return self._epoch_ns + int(seconds * _NS)


def _of_model(manifest: Manifest) -> dict[str, AttributeValue]:
    return {"aig.model.name": manifest.name, "aig.model.version": manifest.version}

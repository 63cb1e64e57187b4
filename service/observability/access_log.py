"""One log line for every request: what was asked, what became of it, and what it took.

No line has anything that was sent but the request's id and method: no path, query, header, file name or content. Of an
API key it has the name.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from service.observability.record import RequestRecord, milliseconds

_log = logging.getLogger(__name__)


class AccessLog:
    """Writes the lines."""

    def write(self, method: str, route: str, record: RequestRecord, total_s: float) -> None:
        """Write the line of a request that is over.

        Args:
            method: of HTTP.
            route: its template, not the path that was sent.
            record: of the request.
            total_s: seconds from its head to the end of its answer.
        """
        if _log.isEnabledFor(logging.INFO):
            fields = self._fields(method, route, record, total_s)
            _log.info("%s %s %s", method, route, record.status or "unanswered", extra={"fields": fields})

    def _fields(self, method: str, route: str, record: RequestRecord, total_s: float) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "method": method,
            "route": route,
            "status": record.status,
            "outcome": record.outcome,
            "total_ms": milliseconds(total_s),
            "received_bytes": record.received_bytes,
        }
        if record.key:
            fields["key"] = record.key
        if record.images:
            fields["images"] = len(record.images)
            fields["image_outcomes"] = Counter(image if isinstance(image, str) else "ok" for image in record.images)
        if record.manifest:
            fields |= {"model": record.manifest.name, "model_version": record.manifest.version}
        if work := record.work():
            fields |= {
                "decode_ms": milliseconds(work.decode_s),
                "queue_ms": milliseconds(work.queue_s),
                "inference_ms": milliseconds(work.inference_s),
                "blocks_executed": work.blocks_executed,
                "blocks_total": work.blocks_total,
                "macs_ratio": round(work.macs_ratio, 4),
            }
        return fields

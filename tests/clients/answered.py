"""What the service answers, as JSON that tests can change."""

from __future__ import annotations

from typing import Any


def classification(label: str = "cat") -> dict[str, Any]:
    """The answer for one image, with `graph=none`."""
    return {
        "predictions": [{"label": label, "index": 3, "probability": 0.9}],
        "inference_graph": None,
        "layers": None,
        "compute": {
            "macs": 5,
            "total_macs": 10,
            "ratio": 0.5,
            "budget": None,
            "max_latency_ms": None,
            "gate_offset": 0,
            "degraded": False,
        },
        "model": {"name": "small", "version": "1"},
        "timing_ms": {"decode": 1.0, "queue": 0.0, "inference": 2.0, "total": 3.5},
    }


def refusal(type_: str, request_id: str = "r1") -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"type": type_, "message": "told to people", "request_id": request_id}}


def item(label_or_error: str, failed: bool = False) -> dict[str, Any]:
    """One result of a batch."""
    if failed:
        error = {"type": label_or_error, "message": "told to people"}
        return {"filename": "a.png", "answer": None, "error": error}
    return {"filename": "a.png", "answer": classification(label_or_error), "error": None}

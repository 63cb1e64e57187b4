"""How ONNX Runtime runs an artifact's graphs, in evaluation as in serving. It need not be installed to say so."""

from __future__ import annotations

from typing import Any


def configure(options: Any) -> None:
    """Set ONNX Runtime's `SessionOptions` so that each run stays on its caller's thread: there is one a core."""
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Only errors: it warns that the gate offset's default can be overridden, which is what the default is for.
    options.log_severity_level = 3

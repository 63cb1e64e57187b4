"""The contract between export and service: what an exported model is on disk. No torch, no web."""

import os

# ONNX Runtime reports its use to its makers unless it is told not to before it is imported. Whoever runs a model from
# here imports this package first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

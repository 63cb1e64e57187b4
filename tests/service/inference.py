"""Requests of the Open Inference Protocol, as its clients write them."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import orjson

from artifact.preprocessing import Float32Array
from tests.service.server import Server

HEADER = "inference-header-content-length"


def echo_images(*values: float) -> Float32Array:
    """What the network of `EchoRuntime` takes, (N, 3, 2, 2)."""
    return np.stack([np.full((3, 2, 2), value, np.float32) for value in values])


def files_input(*files: bytes, **changes: Any) -> dict[str, Any]:
    """Image files as they stand in JSON."""
    data = [base64.b64encode(file).decode() for file in files]
    return {"name": "encoded_images", "datatype": "BYTES", "shape": [len(files)], "data": data} | changes


def numbers_input(values: Any, name: str = "images", **changes: Any) -> dict[str, Any]:
    """Numbers as they stand in JSON."""
    array = np.asarray(values, np.float32)
    return {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.tolist()} | changes


def raw_files(*files: bytes) -> bytes:
    """Image files as raw bytes."""
    return b"".join(len(file).to_bytes(4, "little") + file for file in files)


def raw_input(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    """An input whose raw bytes follow."""
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def infer(server: Server, *inputs: Any, raw: bytes | None = None, **more: Any) -> httpx.Response:
    """Ask the default model; with raw bytes after the JSON where there are any."""
    headers = more.pop("headers", {})
    said = orjson.dumps({"inputs": list(inputs)} | more)
    if raw is not None:
        headers = {HEADER: str(len(said))} | headers
    path = f"/v2/models/{server.context.manifest.name}/infer"
    return server.post(path, content=said + (raw or b""), headers=headers)


def outputs_of(response: httpx.Response) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an answer in JSON."""
    assert response.status_code == 200, response.text
    return {each["name"]: np.reshape(each["data"], each["shape"]) for each in response.json()["outputs"]}

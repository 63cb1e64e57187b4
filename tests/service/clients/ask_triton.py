"""Asks a server with Triton's four clients and compares answers: python ask_triton.py HTTP GRPC MODEL IMAGE..."""

from __future__ import annotations

import asyncio
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

OUTPUTS = ("logits", "probabilities", "margins", "executed", "macs")
Answer = dict[str, np.ndarray[Any, Any]]


def inputs(library: Any, files: list[bytes]) -> list[Any]:
    files_input = library.InferInput("encoded_images", [len(files)], "BYTES")
    files_input.set_data_from_numpy(np.array(files, object))
    offsets = library.InferInput("gate_offset", [len(files)], "FP32")
    offsets.set_data_from_numpy(np.zeros(len(files), np.float32))
    return [files_input, offsets]


def arrays(result: Any) -> Answer:
    return {name: result.as_numpy(name) for name in OUTPUTS}


def require_refusal(error: InferenceServerException, said: str) -> None:
    assert said in error.message(), error


def ask(library: Any, client: Any, model: str, files: list[bytes]) -> Answer:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    metadata, server = client.get_model_metadata(model), client.get_server_metadata()
    assert (metadata["name"] if library is http_client else metadata.name) == model
    assert (server["name"] if library is http_client else server.name) == "convnet-aig-serving"
    index = client.get_model_repository_index()
    assert (index[0]["state"] if library is http_client else index.models[0].state) == "READY"
    try:
        client.infer("nobody", inputs(library, files))
    except InferenceServerException as error:
        require_refusal(error, "no model 'nobody'")
    wanted = [library.InferRequestedOutput(name) for name in OUTPUTS]
    result = client.infer(model, inputs(library, files), outputs=wanted, request_id="mine")
    said = result.get_response()
    assert (said["id"] if library is http_client else said.id) == "mine"
    bad = inputs(library, [*files[:-1], b"no image"])
    try:
        client.infer(model, bad)
    except InferenceServerException as error:
        require_refusal(error, f"image {len(files) - 1}: ")
    else:
        raise AssertionError("it was answered")
    return arrays(client.infer(model, inputs(library, files))) if library is grpc_client else arrays(result)


async def ask_asynchronously(library: Any, url: str, model: str, files: list[bytes]) -> Answer:
    async with library.InferenceServerClient(url) as client:
        assert await client.is_server_ready()
        return arrays(await client.infer(model, inputs(library, files)))


def ask_in_json(url: str, model: str, side: int, binary: bool) -> Answer:
    with http_client.InferenceServerClient(url) as client:
        images = http_client.InferInput("images", [2, 3, side, side], "FP32")
        images.set_data_from_numpy(
            np.linspace(-1, 1, 6 * side * side, dtype=np.float32).reshape(2, 3, side, side), binary
        )
        wanted = [http_client.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]
        return arrays(client.infer(model, [images], outputs=wanted))


def ask_by_stream(client: Any, model: str, files: list[bytes]) -> list[Answer]:
    told: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    client.start_stream(lambda result, error: told.put((result, error)))
    for file in files:
        client.async_stream_infer(model, inputs(grpc_client, [file]))
    client.async_stream_infer("nobody", inputs(grpc_client, files))
    answers = [told.get(timeout=30) for _ in files]
    _, error = told.get(timeout=30)
    require_refusal(error, "no model 'nobody'")
    client.stop_stream()
    assert all(error is None for _, error in answers)
    return [arrays(result) for result, _ in answers]


def require_same(first: Answer, second: Answer) -> None:
    for name, values in first.items():
        np.testing.assert_allclose(second[name], values, atol=1e-5)


def main() -> None:
    http_url, grpc_url = (f"127.0.0.1:{port}" for port in sys.argv[1:3])
    model, files = sys.argv[3], [Path(name).read_bytes() for name in sys.argv[4:]]
    with http_client.InferenceServerClient(http_url) as client:
        by_http = ask(http_client, client, model, files)
        side = client.get_model_metadata(model)["inputs"][1]["shape"][-1]
    with grpc_client.InferenceServerClient(grpc_url) as client:
        require_same(by_http, ask(grpc_client, client, model, files))
        for row, answer in enumerate(ask_by_stream(client, model, files)):
            require_same({name: values[row : row + 1] for name, values in by_http.items()}, answer)
    require_same(by_http, asyncio.run(ask_asynchronously(http_aio, http_url, model, files)))
    require_same(by_http, asyncio.run(ask_asynchronously(grpc_aio, grpc_url, model, files)))
    require_same(ask_in_json(http_url, model, side, True), ask_in_json(http_url, model, side, False))
    print("asked")


if __name__ == "__main__":
    main()

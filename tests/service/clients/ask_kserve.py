"""Asks a server with KServe's two clients, and compares their answers: python ask_kserve.py HTTP GRPC MODEL IMAGE..."""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

OUTPUTS = ("logits", "probabilities", "margins", "executed", "macs")


def request(model: str, files: list[bytes], *, binary: bool) -> InferRequest:
    images = InferInput("encoded_images", [len(files)], "BYTES")
    sent = files if binary else [base64.b64encode(file) for file in files]
    images.set_data_from_numpy(np.array(sent, object), binary_data=binary)
    return InferRequest(model, [images])


def arrays(response: Any) -> dict[str, Any]:
    return {output.name: output.as_numpy() for output in response.outputs if output.name in OUTPUTS}


async def main() -> None:
    rest, rpc = f"http://127.0.0.1:{sys.argv[1]}", f"127.0.0.1:{sys.argv[2]}"
    model, files = sys.argv[3], [Path(name).read_bytes() for name in sys.argv[4:]]
    answers = []
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=30)) as client:
        assert await client.is_server_live(rest)
        assert await client.is_server_ready(rest)
        assert await client.is_model_ready(rest, model)
        for binary in (True, False):
            answers.append(arrays(await client.infer(rest, request(model, files, binary=binary), model_name=model)))
    async with InferenceGRPCClient(rpc, timeout=30) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(model)
        answers.append(arrays(await client.infer(request(model, files, binary=True))))
    first, *others = answers
    assert set(first) == set(OUTPUTS)
    for other in others:
        for name, values in first.items():
            np.testing.assert_allclose(other[name], values, atol=1e-5)
    print("asked")


if __name__ == "__main__":
    asyncio.run(main())

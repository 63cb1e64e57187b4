from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.engine.runtimes.selection import open_runtime
from service.images.decoding import ImageDecoder
from tests.e2e.process import ServerProcess
from tests.image_files import encoded, hollow_png, photograph
from tests.runtimes import PATIENCE_S, wait_until

PNG = {"content-type": "image/png"}


def _classify(client: httpx.Client, data: bytes) -> dict[str, Any]:
    response = client.post("/classify?top_k=6", content=data, headers=PNG)
    assert response.status_code == 200, response.text
    return response.json()


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers tell the same path and, but for rounding, the same predictions."""
    paths = [(answer["inference_graph"]["edges"], answer["layers"], answer["compute"]) for answer in (one, other)]
    classes = [[guess["index"] for guess in answer["predictions"]] for answer in (one, other)]
    chances = [[guess["probability"] for guess in answer["predictions"]] for answer in (one, other)]
    return paths[0] == paths[1] and classes[0] == classes[1] and chances[0] == pytest.approx(chances[1], rel=1e-3)


def test_image_is_classified_as_the_model_does_it(server: ServerProcess, artifact: Path, pictures: list[bytes]) -> None:
    runtime = open_runtime(artifact, device="cpu")
    decoder = ImageDecoder(runtime.manifest.preprocessing, max_bytes=10**6, max_pixels=10**6)
    paths = set()
    with server.client() as client:
        for data in pictures:
            offset = np.zeros(1, np.float32)
            logits, margins = runtime.run(decoder.decode(data)[None], offset)
            answer = _classify(client, data)
            assert answer["predictions"][0]["index"] == logits[0].argmax()
            executed = [run["executed"] for run in answer["inference_graph"]["blocks"]]
            assert executed == runtime.manifest.executed(margins, offset)[0].tolist()
            paths.add(tuple(executed))
    assert len(paths) >= 5


def test_start_tells_which_model_runs_where(server: ServerProcess) -> None:
    with server.client() as client:
        runtime = client.get("/model").json()["engine"]["runtime"]  # whichever is the fastest here
    assert any(f"small 1 runs in {runtime} on " in line for line in server.lines)


def test_form_upload_gives_the_same_answer(server: ServerProcess, pictures: list[bytes]) -> None:
    with server.client() as client:
        form = client.post("/classify?top_k=6", files={"file": ("a.png", pictures[0])})
        assert _same(form.json(), _classify(client, pictures[0]))
        batch = client.post("/classify/batch?top_k=6", files=[("files", ("a.png", data)) for data in pictures[:5]])
        for item, data in zip(batch.json()["results"], pictures, strict=False):
            assert _same(item["answer"], _classify(client, data))


def test_garbage_in_between_harms_nobody_on_the_same_connection(server: ServerProcess, pictures: list[bytes]) -> None:
    jpeg = encoded(photograph(50, 40), "JPEG")
    with server.client() as client:
        before = _classify(client, pictures[0])
        for garbage, status in [
            (b"", 400),
            (b"text", 415),
            (jpeg[:-40], 422),
            (hollow_png(50_000, 50_000), 413),
            (bytes(21_000_000), 413),
        ]:
            refused = client.post("/classify", content=garbage, headers=PNG)
            assert refused.status_code == status, refused.text
            assert refused.json()["error"]["message"]
            assert _same(_classify(client, pictures[0]), before)


def test_many_clients_get_the_answers_they_get_alone(server: ServerProcess, pictures: list[bytes]) -> None:
    with server.client() as client:
        alone = [_classify(client, data) for data in pictures]

    def ask(number: int) -> list[bool]:
        order = np.random.default_rng(number).permutation(len(pictures))
        with server.client() as client:
            return [_same(_classify(client, pictures[index]), alone[index]) for index in order]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert [sum(same) for same in answers] == [20] * 8


def test_client_that_leaves_in_the_middle_of_its_body_harms_nobody(
    server: ServerProcess, pictures: list[bytes]
) -> None:
    gone = server.metric("aig_requests_total", route="/classify", outcome="client_gone")
    part = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    for kind, begun in ((b"image/png", b""), (b"multipart/form-data; boundary=edge", part)):
        head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: " + kind + b"\r\nContent-Length: 5000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
            connection.sendall(head + begun + pictures[0][:100])
    wait_until(lambda: server.metric("aig_requests_total", route="/classify", outcome="client_gone") == gone + 2)
    with server.client() as client:
        assert _classify(client, pictures[0])["predictions"]


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # a TLS greeting
        b"GARBAGE\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["TLS", "no request line", "negative length", "broken chunk"],
)
def test_what_is_not_http_harms_nobody(server: ServerProcess, pictures: list[bytes], data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):  # until the server hangs up
            pass
    with server.client() as client:
        assert _classify(client, pictures[0])["predictions"]


def test_shared_server_has_logged_no_error(server: ServerProcess) -> None:
    # The last test of this module: what the others did must not have surprised the server.
    assert [line for line in server.lines if "ERROR" in line or "Traceback" in line] == []

"""LitServe.

Its `LitServer` reference: on a CPU `workers_per_device` is the number of cores, `num_api_servers` is best left to
follow it, and `fast_queue` (ZeroMQ) is for more than 100 requests a second. Its "Batching" page: `max_batch_size` with
a short `batch_timeout`.
"""

import argparse
from typing import Annotated

import litserve
from classifier import BATCH_WAIT_MS, MAX_BATCH, WORKERS, Answer, Classifier, Float32Array
from fastapi import Body


class ClassifierAPI(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 (there is only the CPU)
        self.classifier = Classifier()

    # The annotation is the request's: LitServe hands it to FastAPI, which then passes the body on as it is.
    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> Float32Array:
        return self.classifier.decode(request)

    def batch(self, inputs: list[Float32Array]) -> list[Float32Array]:
        return inputs

    def predict(self, images: list[Float32Array]) -> list[Answer]:
        return self.classifier.run(images)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    api = ClassifierAPI(max_batch_size=MAX_BATCH, batch_timeout=BATCH_WAIT_MS / 1000, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, fast_queue=True)
    server.run("127.0.0.1", arguments.port, log_level="warning", generate_client_file=False)

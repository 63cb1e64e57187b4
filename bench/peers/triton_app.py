"""NVIDIA Triton Inference Server, through pytriton, whose package holds the server and its Python backend.

pytriton's "Binding Models" page: a list of callables makes an instance of the model for each; its "Binding
Configuration" page: `max_batch_size` and a `DynamicBatcher` with a short queue delay. Triton's "Binary Tensor Data"
page: with the header `Inference-Header-Content-Length: 0` the body is the model's one input, so the client sends a bare
JPEG; the answer comes as the one output, JSON in a string.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from classifier import BATCH_WAIT_MS, MAX_BATCH, WORKERS, Classifier
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

BytesArray = npt.NDArray[np.bytes_]


def _instance() -> Callable[..., list[BytesArray]]:
    classifier = Classifier()

    @batch
    def infer(jpeg: BytesArray) -> list[BytesArray]:  # (N, 1)
        answers = classifier.classify(jpeg[:, 0].tolist())
        return [np.array([[json.dumps(answer).encode()] for answer in answers])]

    return infer


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    config = TritonConfig(
        http_address="127.0.0.1", http_port=parser.parse_args().port, allow_grpc=False, allow_metrics=False
    )
    batcher = DynamicBatcher(max_queue_delay_microseconds=1000 * BATCH_WAIT_MS)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="classifier",
            infer_func=[_instance() for _ in range(WORKERS)],
            inputs=[Tensor(name="jpeg", dtype=np.bytes_, shape=(1,))],
            outputs=[Tensor(name="answer", dtype=np.bytes_, shape=(1,))],
            config=ModelConfig(max_batch_size=MAX_BATCH, batcher=batcher),
        )
        triton.serve()

"""MLServer.

Its "Parallel Inference" page and Seldon's "Inference" tuning page: `parallel_workers` is the number of cores. The JPEG
comes in as it is through a custom handler, which runs in those workers. Adaptive batching is off, as MLServer has it by
default: it gathers requests of the V2 protocol only, which would have clients send base64 inside JSON.
"""

import argparse
import asyncio
from typing import Annotated

from classifier import WORKERS, Answer, Classifier
from fastapi import Body
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler


class ClassifierModel(MLModel):
    async def load(self) -> bool:
        self.classifier = Classifier()
        return True

    @custom_handler(rest_path="/classify")
    async def classify(self, jpeg: Annotated[bytes, Body(media_type="image/jpeg")]) -> Answer:
        return self.classifier.classify([jpeg])[0]


async def _serve(port: int) -> None:
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,  # it cannot be turned off
        metrics_endpoint=None,
        parallel_workers=WORKERS,
        debug=False,
    )
    await MLServer(settings).start([ModelSettings(name="classifier", implementation=ClassifierModel)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(_serve(parser.parse_args().port))

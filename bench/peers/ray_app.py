"""Ray Serve.

Its "Performance Tuning" page: a core for each replica. Its "Dynamic Request Batching" page: `serve.batch` with a short
`batch_wait_timeout_s`; `max_ongoing_requests` is raised from 5, which would keep batches from filling. Its "Enable High
Throughput" page: RAY_SERVE_THROUGHPUT_OPTIMIZED and RAY_SERVE_ENABLE_HA_PROXY, set in `bench.peer_servers`; the HAProxy
that then takes the requests comes with `ray[serve]`.
"""

import argparse

import ray
from classifier import BATCH_WAIT_MS, MAX_BATCH, WORKERS, Answer, Classifier
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=2 * MAX_BATCH)
class ClassifierDeployment:
    def __init__(self) -> None:
        self.classifier = Classifier()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_MS / 1000)
    async def classify(self, jpegs: list[bytes]) -> list[Answer]:
        return self.classifier.classify(jpegs)

    async def __call__(self, request: Request) -> Answer:
        return await self.classify(await request.body())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    ray.init(num_cpus=WORKERS, include_dashboard=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": parser.parse_args().port},
        logging_config={"enable_access_log": False},
    )
    serve.run(ClassifierDeployment.bind(), route_prefix="/classify", blocking=True)

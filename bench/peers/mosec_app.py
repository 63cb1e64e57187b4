"""mosec.

Its README: `num` processes for a stage, `max_batch_size` with a `max_wait_time` below the time of a batch. The README
gives preprocessing a stage of its own to keep a GPU busy; on cores that both stages would share that only adds a hop
and a copy between processes, so decoding and inference are one stage here.
"""

from classifier import BATCH_WAIT_MS, MAX_BATCH, WORKERS, Answer, Classifier
from mosec import Server, Worker


class Inference(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = Classifier()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[Answer]:
        return self.classifier.classify(data)


if __name__ == "__main__":
    server = Server()  # reads --port and the like from the command line
    server.append_worker(Inference, num=WORKERS, max_batch_size=MAX_BATCH, max_wait_time=BATCH_WAIT_MS)
    server.run()

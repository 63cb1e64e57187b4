"""BentoML.

Its "Parallelize requests handling" page: `workers` is the number of cores. A `PIL.Image` as the only, positional-only
parameter takes the body of the request as it is. No adaptive batching: a batchable API takes arrays or lists, so the
"Adaptive batching" page puts a Service that takes one image in front of it, and in trials with 16 clients some requests
failed between the two Services (a connection closed while it was written to), without being any faster.
"""

import bentoml
from classifier import WORKERS, Answer, Classifier
from PIL.Image import Image


@bentoml.service(workers=WORKERS, logging={"access": {"enabled": False}})
class Classification:
    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api
    def classify(self, image: Image, /) -> Answer:
        return self.classifier.run([self.classifier.normalise(image)])[0]

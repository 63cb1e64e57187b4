"""Plain FastAPI on uvicorn: what one writes without a serving framework.

FastAPI's "Server Workers" page: one uvicorn process for each core (`--workers`, given in `bench.peer_servers`); its
"Concurrency and async / await" page: work that blocks goes into a `def` route, which runs in the thread pool and leaves
the event loop free. uvicorn takes uvloop and httptools by itself where they are installed. There is no batching.
"""

from typing import Annotated

from classifier import Answer, Classifier
from fastapi import Body, FastAPI

app = FastAPI()
_classifier = Classifier()


@app.post("/classify", response_model=None)
def classify(jpeg: Annotated[bytes, Body(media_type="image/jpeg")]) -> Answer:
    return _classifier.classify([jpeg])[0]

"""What a client can ask the service, as exchanges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

from convnet_aig_client.answers import BatchClassification, BatchItem, Classification
from convnet_aig_client.attempts import Attempts
from convnet_aig_client.errors import ServiceError
from convnet_aig_client.exchange import Attempt, Exchange, Reply, Request, ask, error_in, invalid_answer, read_reply
from convnet_aig_client.images import ImageFile
from convnet_aig_client.models import ListedModel, ModelDescription, ModelList
from convnet_aig_client.options import Parameters, path_of, query_of

# Errors of single images that say nothing about the image.
_PASSING = {"no_worker", "overloaded", "rate_limited", "stopping", "worker_lost"}


class Calls:
    """The requests of one client.

    Args:
        timeout_s: of a request that has none of its own.
        attempts: makes those of a request that may take so many seconds.
    """

    def __init__(self, timeout_s: float, attempts: Callable[[float], Attempts]) -> None:
        self._timeout_s = timeout_s
        self._attempts = attempts

    def classify(
        self,
        image: ImageFile,
        *,
        model: str | None = None,
        version: str | None = None,
        budget: float | None = None,
        timeout: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Exchange[Classification]:
        """Classify one image."""
        path, query = f"{path_of(model, version)}/classify", query_of(budget=budget, **parameters)
        request = Request(method="POST", path=path, query=query, content=image.data)
        return read_reply(Classification, (yield from ask(request, self._begin(timeout))))

    def classify_batch(
        self,
        images: Sequence[ImageFile],
        *,
        model: str | None = None,
        version: str | None = None,
        budget: float | Sequence[float] | None = None,
        timeout: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Exchange[list[BatchItem]]:
        """Classify several images, and send those again that only the moment was against.

        Once there are answers they are returned, whatever happens to the images that are sent again.
        """
        path, query = f"{path_of(model, version)}/classify/batch", query_of(**parameters)
        budgets = _budget_of_each(budget, len(images))
        attempts, pause_s, items = self._begin(timeout), 0.0, dict[int, BatchItem]()
        places = list(range(len(images)))
        while places:
            request = Request(
                method="POST",
                path=path,
                query=query,
                fields={"budget": [str(budgets[place]) for place in places]} if budgets else {},
                files=[("files", (images[place].name, images[place].data)) for place in places],
            )
            try:
                items |= zip(places, _items((yield from ask(request, attempts, pause_s)), len(places)), strict=True)
            except ServiceError:
                if not items:
                    raise
                break
            again = {at: error.type for at in places if (error := items[at].error) and error.type in _PASSING}
            pause = attempts.pause_after(next(iter(again.values()))) if again else None
            if pause is None:
                break
            places, pause_s = list(again), pause
        return [items[place] for place in range(len(images))]

    def models(self, timeout: float | None = None) -> Exchange[list[ListedModel]]:
        """List the models."""
        request = Request(method="GET", path="/models")
        return read_reply(ModelList, (yield from ask(request, self._begin(timeout)))).models

    def model(
        self, name: str | None = None, version: str | None = None, timeout: float | None = None
    ) -> Exchange[ModelDescription]:
        """Describe a model."""
        request = Request(method="GET", path=path_of(name, version) or "/model")
        return read_reply(ModelDescription, (yield from ask(request, self._begin(timeout))))

    def ready(self, timeout: float | None = None) -> Exchange[bool]:
        """Ask once whether the service is ready."""
        outcome = yield Attempt(Request(method="GET", path="/readyz"), 0, self._begin(timeout).remaining_s)
        if isinstance(outcome, ServiceError) or outcome.status == 503:
            return False
        if error := error_in(outcome):
            raise error
        return True

    def _begin(self, timeout: float | None) -> Attempts:
        return self._attempts(self._timeout_s if timeout is None else timeout)


def _budget_of_each(budget: float | Sequence[float] | None, count: int) -> Sequence[float]:
    if not isinstance(budget, Sequence):
        return [] if budget is None else [budget] * count
    if len(budget) != count:
        raise ValueError(f"there are {len(budget)} budgets for {count} images")
    return budget


def _items(reply: Reply, count: int) -> list[BatchItem]:
    items = read_reply(BatchClassification, reply).results
    if len(items) != count or any((item.answer is None) == (item.error is None) for item in items):
        raise invalid_answer(reply, f"it has no answer or error for each of {count} images")
    return items

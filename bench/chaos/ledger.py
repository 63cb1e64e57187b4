"""What clients saw, to be compared with what the service counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from bench.chaos.connection import Answer

# What may have become of a request whose client has left, if it was one for a sound image.
_LEFT = {"client_gone", "ok", "overloaded", "worker_lost", "deadline_exceeded"}
# Errors of an image, as opposed to those of a request; each is counted for the image as well.
_OF_IMAGES = {
    "empty_image",
    "image_too_large",
    "too_many_pixels",
    "not_an_image",
    "unsupported_image",
    "corrupt_image",
    "overloaded",
    "inference_failed",
    "worker_lost",
    "stopping",
    "deadline_exceeded",
}
# What the connection itself is told, before there is a request.
UNMATCHED = "unmatched"


@dataclass(frozen=True)
class Counted:
    """The service's counters.

    Attributes:
        requests: by route and outcome.
        images: by outcome.
        durations: requests that were timed, by route.
        decoded: images whose decoding was timed.
        losses: workers, by reason.
    """

    requests: Counter[tuple[str, str]]
    images: Counter[str]
    durations: Counter[str]
    decoded: int
    losses: Counter[str]

    @classmethod
    def of(cls, exposition: str) -> Counted:
        """Read Prometheus's text format."""
        counted = cls(Counter(), Counter(), Counter(), 0, Counter())
        decoded = 0
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                labels, count = sample.labels, int(sample.value)
                if sample.name == "aig_requests_total":
                    counted.requests[labels["route"], labels["outcome"]] += count
                elif sample.name == "aig_images_total":
                    counted.images[labels["outcome"]] += count
                elif sample.name == "aig_request_seconds_count":
                    counted.durations[labels["route"]] += count
                elif sample.name == "aig_decode_seconds_count":
                    decoded = count
                elif sample.name == "aig_worker_restarts_total":
                    counted.losses[labels["reason"]] += count
        return cls(counted.requests, counted.images, counted.durations, decoded, counted.losses)


@dataclass
class Ledger:
    """What clients saw since the service started.

    Attributes:
        requests: that were answered, by route and outcome.
        images: that were answered, by outcome.
        left: requests whose heads were sent in full by clients that then left, by route: each is counted once.
        broken: those of them whose bodies were no HTTP in the end: they may be counted as malformed.
        images_left: images of these, each of which may be counted once.
        images_doubtful: images of refused batches, which are counted alone or all, as they were refused by the head or
            after they had been read.
        losses: workers that were killed or stopped, by the reason the service is to give.
    """

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    images_left: int = 0
    images_doubtful: int = 0
    losses: Counter[str] = field(default_factory=Counter)

    def note(self, route: str, answer: Answer, images: int = 1) -> None:
        """Note an answer to so many images."""
        outcome = answer.outcome
        self.requests[route, outcome] += 1
        if route == "/classify" and (outcome == "ok" or outcome in _OF_IMAGES):
            self.images[outcome] += 1
        elif route == "/classify/batch" and outcome == "ok":
            self.images.update(_outcome_of_item(item) for item in answer.json["results"])
        elif route == "/classify/batch" and outcome in _OF_IMAGES:
            self.images[outcome] += 1
            self.images_doubtful += images - 1

    def note_left(self, route: str, images: int = 1) -> None:
        """Note a client that left."""
        self.left[route] += 1
        self.images_left += images

    def note_broken(self, route: str) -> None:
        """Note a request whose body was no HTTP in the end."""
        self.note_left(route)
        self.broken[route] += 1

    @property
    def total(self) -> int:
        """Requests that must have been counted."""
        return self.requests.total() + self.left.total()

    def problems(self, counted: Counted) -> Iterator[str]:
        """Where the service counted otherwise."""
        yield from self._request_problems(counted)
        yield from self._image_problems(counted)
        for reason in sorted(self.losses | counted.losses):
            if self.losses[reason] != counted.losses[reason]:
                yield f"{self.losses[reason]} workers {reason}, {counted.losses[reason]} counted"

    def _request_problems(self, counted: Counted) -> Iterator[str]:
        surplus: Counter[str] = Counter()
        for route, outcome in sorted(self.requests | counted.requests):
            seen, told = self.requests[route, outcome], counted.requests[route, outcome]
            most = seen + self.broken[route] if outcome == "malformed_request" else seen
            if told < seen or (told > most and outcome not in _LEFT):
                yield f"{route} {outcome}: {seen} seen, {told} counted"
            surplus[route] += told - seen
        for route in sorted(surplus | self.left):
            if surplus[route] != self.left[route]:
                yield f"{route}: {self.left[route]} clients left, {surplus[route]} of them counted"
        for route in sorted({route for route, _ in counted.requests}):
            requests = sum(count for (other, _), count in counted.requests.items() if other == route)
            if requests != counted.durations[route]:
                yield f"{route}: {requests} counted, {counted.durations[route]} timed"

    def _image_problems(self, counted: Counted) -> Iterator[str]:
        surplus = 0
        for outcome in sorted(self.images | counted.images):
            seen, told = self.images[outcome], counted.images[outcome]
            if told < seen or (told > seen and outcome not in _LEFT):
                yield f"images {outcome}: {seen} seen, {told} counted"
            surplus += max(0, told - seen)
        if surplus > self.images_left + self.images_doubtful:
            yield f"images: {surplus} counted that no client saw, {self.images_left} of clients that left"
        if counted.decoded != counted.images["ok"]:
            yield f"images: {counted.images['ok']} counted, {counted.decoded} timed"


def totals(ledgers: Iterable[Ledger]) -> Counter[str]:
    """What was seen over several scenarios, by outcome; "left" for clients that did not wait."""
    seen: Counter[str] = Counter()
    for ledger in ledgers:
        for (_, outcome), count in ledger.requests.items():
            seen[outcome] += count
        seen["(client left)"] += ledger.left.total()
    return seen


def _outcome_of_item(item: dict[str, object]) -> str:
    error = item.get("error")
    return str(error["type"]) if isinstance(error, dict) else "ok"

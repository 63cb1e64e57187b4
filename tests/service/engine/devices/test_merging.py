"""Batches of a device, decided on a virtual clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from service.engine.devices.merging import MOST_ON_THEIR_WAY, Wanted, next_batch

LARGEST = 128
# Of a device on which a batch takes as long as a launch and its images: seconds.
RUN_S, IMAGE_S, COPY_S = 0.5e-3, 25e-6, 5e-6
FULL_RATE = LARGEST / (RUN_S + LARGEST * IMAGE_S)


def wanted(*rows: int, model: object = "a", are_pixels: bool = True) -> list[Wanted]:
    return [Wanted(model, are_pixels, count, LARGEST) for count in rows]


def test_idle_device_runs_what_there_is() -> None:
    one = wanted(1)
    assert next_batch(one, []) == one
    many = wanted(1, 8, 3)
    assert next_batch(many, []) == many


def test_nothing_is_run_where_nothing_waits_or_two_batches_are_on_their_way() -> None:
    assert next_batch([], []) == []
    assert next_batch(wanted(128), [1, 1]) == []


def test_busy_device_gets_a_batch_that_is_as_large_as_the_one_it_runs() -> None:
    assert next_batch(wanted(3), [4]) == []
    assert next_batch(several := wanted(3, 1), [4]) == several


def test_full_batch_does_not_wait() -> None:
    waiting = wanted(100, 20, 20)
    assert next_batch(waiting, [128]) == waiting[:2]
    assert next_batch(waiting := wanted(128), [128]) == waiting


def test_more_than_a_batch_from_one_worker_runs_alone() -> None:
    waiting = wanted(200, 1)
    assert next_batch(waiting, [128]) == waiting[:1]


def test_models_and_kinds_do_not_mix_and_the_oldest_is_first() -> None:
    first, other, tensor, second = (
        *wanted(1),
        *wanted(1, model="b"),
        *wanted(1, are_pixels=False),
        *wanted(2),
    )
    assert next_batch([first, other, tensor, second], []) == [first, second]
    assert next_batch([other, tensor, second], []) == [other]


def test_a_model_that_is_asked_for_all_the_time_does_not_keep_another_waiting() -> None:
    waiting = [*wanted(1, model="b"), *wanted(*[8] * 40)]
    assert next_batch(waiting, []) == waiting[:1]


@dataclass(frozen=True, eq=False)
class _Image(Wanted):
    came: float


@dataclass
class _Device:
    """Copies and runs batches: two on their way, one of which runs.

    Attributes:
        waited: seconds from each image's coming to its answer.
        sizes: of the batches.
    """

    waited: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def simulate(self, arrivals: Sequence[float]) -> float:
        """Run images that come at these times; return when the last was answered."""
        waiting: list[_Image] = []
        events = [(at, number, "comes") for number, at in enumerate(arrivals)]
        batches: dict[int, list[_Image]] = {}
        heapq.heapify(events)
        free_at = now = 0.0
        while events:
            now, number, what = heapq.heappop(events)
            if what == "comes":
                waiting.append(_Image("a", True, 1, LARGEST, now))
            else:
                self.waited += [now - image.came for image in batches.pop(number)]
            while batch := next_batch(waiting, [len(each) for each in batches.values()]):
                waiting = [image for image in waiting if image not in batch]
                size = len(batch)
                free_at = max(now + size * COPY_S, free_at) + RUN_S + size * IMAGE_S
                key = len(arrivals) + len(self.sizes)
                batches[key] = batch
                self.sizes.append(size)
                heapq.heappush(events, (free_at, key, "done"))
        assert not waiting
        assert len(batches) <= MOST_ON_THEIR_WAY
        return now


def _poisson(rate: float, seconds: float) -> list[float]:
    random = np.random.default_rng(0)
    return np.cumsum(random.exponential(1 / rate, int(rate * seconds))).tolist()


def test_single_images_are_answered_in_the_time_that_one_takes() -> None:
    device = _Device()
    device.simulate([0.0, 1.0, 2.0])
    assert device.waited == pytest.approx([COPY_S + RUN_S + IMAGE_S] * 3)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_below_the_device_s_limit_answers_come_within_three_full_batches(share: float) -> None:
    device = _Device()
    device.simulate(_poisson(share * FULL_RATE, 2.0))
    assert np.quantile(device.waited, 0.99) < 3 * (RUN_S + LARGEST * IMAGE_S)


def test_a_full_device_gets_full_batches() -> None:
    device = _Device()
    arrivals = _poisson(1.5 * FULL_RATE, 1.0)
    ended = device.simulate(arrivals)
    assert len(arrivals) / ended > 0.97 * FULL_RATE
    assert np.median(device.sizes) == LARGEST


@pytest.mark.parametrize(
    "arrivals",
    [
        lambda: [0.0] * 1000,
        lambda: [0.0] * 500 + [0.5] * 500,
        lambda: np.repeat(np.arange(0, 1, 0.05), 100).tolist(),
    ],
    ids=["at once", "two bursts", "bursts"],
)
def test_bursts_are_worked_off_at_full_speed(arrivals: Callable[[], list[float]]) -> None:
    device = _Device()
    device.simulate(arrivals())
    burst = max(1000 if len(set(arrivals())) == 1 else 500 if len(set(arrivals())) == 2 else 100, LARGEST)
    assert max(device.waited) < burst / FULL_RATE * 1.2 + 2 * (RUN_S + LARGEST * IMAGE_S)


def test_batches_shrink_again_when_the_load_goes() -> None:
    device = _Device()
    quiet = [2.0 + 0.01 * number for number in range(20)]
    device.simulate([*_poisson(1.2 * FULL_RATE, 0.2), *quiet])
    assert device.sizes[-20:] == [1] * 20

from __future__ import annotations

import pytest

from service.engine.queueing.service_time import ServiceTime


def test_nothing_is_known_before_anything_ran() -> None:
    assert ServiceTime().mean_s == 0.0


def test_every_image_counts_the_same() -> None:
    service_time = ServiceTime()
    service_time.note(seconds=2.0, images=4)
    assert service_time.mean_s == 0.5
    service_time.note(seconds=1.5, images=1)
    assert service_time.mean_s == pytest.approx((0.98 * 2.0 + 1.5) / (0.98 * 4 + 1))


def test_images_that_take_long_count_for_what_they_take() -> None:
    service_time = ServiceTime()
    for _ in range(30):
        for seconds in [0.01] * 9 + [0.91]:
            service_time.note(seconds, 1)
    assert service_time.mean_s == pytest.approx(0.1, rel=0.15)


def test_what_is_long_ago_is_forgotten() -> None:
    service_time = ServiceTime()
    service_time.note(seconds=100.0, images=1)
    for _ in range(1000):
        service_time.note(seconds=0.1, images=1)
    assert service_time.mean_s == pytest.approx(0.1, rel=0.01)

from __future__ import annotations

import numpy as np
import pytest

from artifact.agreement import LogitsAndMargins, Run
from artifact.cascade import log_probabilities, run_cascade
from artifact.preprocessing import Float32Array

# Of three images the first is clear to the first network, the others are not; the second network knows the second.
SURE, TORN = [4.0, 0.0, 0.0], [1.0, 0.9, 0.0]
FIRST = np.array([SURE, TORN, TORN], np.float32)
SECOND = np.array([[9.0, 0.0, 0.0], [0.0, 5.0, 0.0], TORN], np.float32)
THIRD = np.array([[9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 6.0]], np.float32)
IMAGES = np.arange(3, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 2, 2), np.float32)


class _Known:
    """A network that knows its logits by the image, with margins that tell which gate offset it was given."""

    def __init__(self, logits: Float32Array, gates: int = 1) -> None:
        self.logits, self.gates = logits, gates
        self.asked: list[list[int]] = []

    def __call__(self, images: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
        numbers = images[:, 0, 0, 0].astype(int)
        self.asked.append(numbers.tolist())
        return self.logits[numbers], np.repeat(offsets[:, None] + 1, self.gates, axis=1)


def _run(networks: list[_Known], offsets: list[float] | None = None, gate_threshold: float = 0.0) -> LogitsAndMargins:
    runs: list[Run] = list(networks)
    gates, sure_above = [network.gates for network in networks], [1.0, 0.5][: len(networks) - 1]
    given = np.array(offsets or [0.0] * 3, np.float32)
    return run_cascade(runs, gates, sure_above, gate_threshold, IMAGES, given)


def _probabilities(logits: Float32Array) -> Float32Array:
    return np.exp(log_probabilities(logits))


def test_network_is_asked_for_the_images_that_those_before_it_are_not_sure_of() -> None:
    networks = [_Known(FIRST), _Known(SECOND), _Known(THIRD)]
    _run(networks)
    assert [network.asked for network in networks] == [[[0, 1, 2]], [[1, 2]], [[2]]]


def test_networks_that_saw_an_image_answer_with_their_mean_probability() -> None:
    logits, _ = _run([_Known(FIRST), _Known(SECOND), _Known(THIRD)])
    first, second, third = map(_probabilities, (FIRST, SECOND, THIRD))
    np.testing.assert_array_equal(logits[0], FIRST[0])
    np.testing.assert_allclose(_probabilities(logits)[1], (first + second)[1] / 2, rtol=1e-5)
    np.testing.assert_allclose(_probabilities(logits)[2], (first + second + third)[2] / 3, rtol=1e-5)
    assert logits.argmax(axis=1).tolist() == [0, 1, 2]


def test_margins_are_in_the_order_of_the_networks_and_0_where_nobody_was_asked() -> None:
    _, margins = _run([_Known(FIRST), _Known(SECOND, gates=2), _Known(THIRD, gates=0)])
    assert margins[:, 0].tolist() == [1, 1, 1]
    np.testing.assert_allclose(margins[:, 1], [1 - 4, 1 - 0.1, 1 - 0.1], rtol=1e-5)
    assert margins[:, 2:4].tolist() == [[0, 0], [1, 1], [1, 1]]
    assert margins[0, 4] == 0
    assert margins[1, 4] < 0 < margins[2, 4]


def test_nobody_but_the_first_is_asked_where_it_is_sure() -> None:
    networks = [_Known(SECOND), _Known(FIRST)]
    logits, margins = _run(networks, offsets=[-9.0] * 3)
    assert networks[1].asked == []
    np.testing.assert_array_equal(logits, SECOND)
    assert margins[:, 2].tolist() == [0, 0, 0]


def test_offset_of_each_image_opens_the_gates_before_and_in_the_next_network() -> None:
    networks = [_Known(FIRST), _Known(SECOND)]
    _, margins = _run(networks, offsets=[1e4, -1e4, 0.0])
    assert networks[1].asked == [[0, 2]]
    assert margins[:, 2].tolist() == [1e4 + 1, 0, 1]


@pytest.mark.parametrize(("threshold", "asked"), [(0.5, [[1, 2]]), (1.0, []), (-5.0, [[0, 1, 2]])])
def test_gate_before_a_network_opens_above_the_threshold(threshold: float, asked: list[list[int]]) -> None:
    networks = [_Known(FIRST), _Known(SECOND)]
    _run(networks, gate_threshold=threshold)
    assert networks[1].asked == asked


def test_answer_of_an_image_does_not_depend_on_its_batch() -> None:
    networks = [_Known(FIRST), _Known(SECOND)]
    together, _ = _run(networks)
    for row in range(3):
        runs: list[Run] = list(networks)
        alone, _ = run_cascade(runs, [1, 1], [1.0], 0.0, IMAGES[row : row + 1], np.zeros(1, np.float32))
        np.testing.assert_array_equal(alone[0], together[row])


def test_logits_that_differ_by_hundreds_stay_finite() -> None:
    wide = np.array([[500.0, 499.9, -500.0]] * 3, np.float32)
    logits, _ = _run([_Known(wide), _Known(-wide), _Known(wide)])
    assert np.isfinite(logits).all()


def test_batch_of_no_images_is_nothing() -> None:
    runs: list[Run] = [_Known(FIRST), _Known(SECOND)]
    logits, margins = run_cascade(runs, [1, 1], [1.0], 0.0, IMAGES[:0], np.zeros(0, np.float32))
    assert (logits.shape, margins.shape) == ((0, 3), (0, 3))

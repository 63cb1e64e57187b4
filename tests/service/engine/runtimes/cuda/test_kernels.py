"""Each kernel alone in Triton's interpreter, against PyTorch: random lists of open images, none and all."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from service.engine.runtimes.cuda import kernels

_IMAGES = 5
_LISTS = {"some": [3, 0, 4], "none": [], "all": [4, 2, 0, 1, 3], "one": [2]}
_WINDOWS = {"3x3": (3, 1, 1), "3x3, stride 2": (3, 2, 1), "1x1": (1, 1, 0), "1x1, stride 2": (1, 2, 0)}
# Products of bf16 the interpreter takes from their bits, which are no numbers.
_TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2}


def _normal(*shape: int, kind: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(kind)


def _ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


class _Case:
    """A convolution of a few images: what a kernel is given, and what PyTorch gives.

    Args:
        window: kernel, stride and padding.
        kind: of features and weights.
        channels: of the source.
    """

    def __init__(self, window: tuple[int, int, int], kind: torch.dtype = torch.float32, channels: int = 16) -> None:
        self.kernel, self.stride, self.padding = window
        self.side, self.channels, self.out_channels = 6, channels, 32
        self.out = (self.side + 2 * self.padding - self.kernel) // self.stride + 1
        self.source = _normal(_IMAGES, self.side, self.side, channels, kind=kind)
        self.weight = _normal(self.kernel**2 * channels, self.out_channels, kind=kind, seed=1) / 8
        self.bias = _normal(self.out_channels, seed=2)
        self.target = _normal(_IMAGES, self.out, self.out, self.out_channels, kind=kind, seed=3)

    def expected(self) -> torch.Tensor:
        """(N, out, out, K) of all images, without what is added and ReLU."""
        weight = self.weight.float().reshape(self.kernel, self.kernel, self.channels, self.out_channels)
        images = self.source.float().permute(0, 3, 1, 2)
        convolved = F.conv2d(images, weight.permute(3, 2, 0, 1), self.bias, self.stride, self.padding)
        return convolved.permute(0, 2, 3, 1)

    def run(self, listed: list[int], is_open: torch.Tensor | None = None, **constants: int) -> torch.Tensor:
        """What is in the target then."""
        target, rows, columns = self.target.clone(), 16, 16
        tiles = -(-_IMAGES * self.out**2 // rows) * (self.out_channels // columns)
        shape = {"SIDE": self.side, "OUT": self.out, "C": self.channels, "K": self.out_channels}
        window = {"KERNEL": self.kernel, "STRIDE": self.stride, "PADDING": self.padding}
        kernels.convolve[(tiles,)](
            source=self.source,
            weight=self.weight,
            bias=self.bias,
            target=target,
            listed=_ints(*listed, *[-1] * (_IMAGES - len(listed))),
            count=_ints(len(listed)),
            is_open=_ints(*[0] * _IMAGES) if is_open is None else is_open,
            **shape,
            **window,
            **{"GATHERS": 1, "SCATTERS": 1, "ADDS": 0, "RELU": 0, "LISTED": 1} | constants,
            ROWS=rows,
            COLUMNS=columns,
            DEPTH=16,
        )
        return target


def _assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = _TOLERANCES[found.dtype]
    torch.testing.assert_close(found.float(), expected.float(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", _TOLERANCES, ids=str)
@pytest.mark.parametrize("listed", _LISTS.values(), ids=_LISTS.keys())
@pytest.mark.parametrize("window", _WINDOWS.values(), ids=_WINDOWS.keys())
def test_convolution_is_of_listed_images_alone_and_in_their_place(
    window: tuple[int, int, int], listed: list[int], kind: torch.dtype
) -> None:
    case = _Case(window, kind)
    found, expected = case.run(listed, ADDS=1, RELU=1), case.target.float().clone()
    expected[listed] = F.relu(expected[listed] + case.expected()[listed])
    _assert_close(found, expected)
    closed = [image for image in range(_IMAGES) if image not in listed]
    assert torch.equal(found[closed], case.target[closed])  # to the bit: nothing was written there


@pytest.mark.parametrize(("gathers", "scatters"), [*itertools.product((0, 1), repeat=2)])
def test_convolution_reads_and_writes_one_after_the_other_or_in_place(gathers: int, scatters: int) -> None:
    case, listed = _Case(_WINDOWS["3x3"]), _LISTS["some"]
    found = case.run(listed, GATHERS=gathers, SCATTERS=scatters)
    read = listed if gathers else [*range(len(listed))]
    written = listed if scatters else [*range(len(listed))]
    expected = case.target.clone()
    expected[written] = case.expected()[read]
    _assert_close(found, expected)


def test_convolution_of_a_whole_batch_is_of_as_many_images_as_there_are() -> None:
    case = _Case(_WINDOWS["3x3"])
    found = case.run([0, 1, 2], LISTED=0)  # of which only the number counts
    _assert_close(found, torch.cat([case.expected()[:3], case.target[3:]]))


@pytest.mark.parametrize("channels", [4, 16])
def test_convolution_of_few_channels_takes_several_places_of_the_window_a_step(channels: int) -> None:
    case = _Case((7, 2, 3), channels=channels)
    _assert_close(case.run(_LISTS["all"], LISTED=0), case.expected())


def test_relu_may_be_of_closed_images_alone() -> None:
    case = _Case(_WINDOWS["1x1"])
    found = case.run(_LISTS["all"], _ints(1, 0, 0, 1, 0), RELU=2, LISTED=0)
    expected = case.expected()
    expected[[1, 2, 4]] = F.relu(expected[[1, 2, 4]])
    _assert_close(found, expected)


@pytest.mark.parametrize("relu", [1, 2])
def test_what_is_no_number_stays_so(relu: int) -> None:
    case = _Case(_WINDOWS["1x1"])
    case.source[2] = float("nan")
    found = case.run(_LISTS["all"], RELU=relu, LISTED=0)
    assert found[2].isnan().all()
    assert found[[0, 1, 3, 4]].isfinite().all()


def test_convolution_of_an_image_does_not_depend_on_the_others() -> None:
    case = _Case(_WINDOWS["3x3"])
    together = case.run(_LISTS["all"])
    for image in range(_IMAGES):
        _assert_close(case.run([image])[image], together[image])


def _decide(features: torch.Tensor, offsets: list[float], images: int, threshold: float = 0.0) -> list[torch.Tensor]:
    """Margins (N, 2), of which the second is this gate's; the list, how many, and which are open."""
    _, pixels, channels = features.shape
    margins, listed, is_open = torch.full((_IMAGES, 2), -9.0), torch.full((_IMAGES,), -1), torch.full((_IMAGES,), -1)
    outputs = [margins, listed.int(), _ints(0), is_open.int()]
    names = ("margins", "listed", "count", "is_open")
    weights = _gate(channels)
    kernels.decide[(_IMAGES,)](
        features=features,
        **dict(zip(("hidden_weight", "hidden_bias", "margin_weight", "margin_bias"), weights, strict=True)),
        offsets=torch.tensor(offsets),
        header=_ints(images, 0),
        threshold=threshold,
        **dict(zip(names, outputs, strict=True)),
        position=1,
        gates=2,
        PIXELS=pixels,
        C=channels,
        HIDDEN=8,
        ROWS=16,
        CHANNELS=16,
    )
    return outputs


def _gate(channels: int) -> tuple[torch.Tensor, ...]:
    return _normal(8, channels, seed=4), _normal(8, seed=5), _normal(8, seed=6), _normal(1, seed=7)


def _margins(features: torch.Tensor) -> torch.Tensor:
    hidden_weight, hidden_bias, margin_weight, margin_bias = _gate(features.shape[2])
    return F.relu(features.float().mean(1) @ hidden_weight.T + hidden_bias) @ margin_weight + margin_bias


@pytest.mark.parametrize("kind", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("pixels", [9, 64])
def test_gate_lists_the_images_whose_margin_and_offset_are_above_the_threshold(pixels: int, kind: torch.dtype) -> None:
    features = 3 * _normal(_IMAGES, pixels, 32, kind=kind, seed=8)
    offsets = [0.0, 1e4, -1e4, 0.5, -0.5]
    margins, listed, count, is_open = _decide(features, offsets, _IMAGES, threshold=0.1)
    expected = _margins(features)
    _assert_close(margins[:, 1], expected)
    assert (margins[:, 0] == -9).all()
    opened = [image for image in range(_IMAGES) if expected[image] + offsets[image] > 0.1]
    assert 0 < len(opened) < _IMAGES
    assert sorted(listed[: int(count)].tolist()) == opened
    assert (listed[int(count) :] == -1).all()
    assert is_open.tolist() == [int(image in opened) for image in range(_IMAGES)]


@pytest.mark.parametrize(("offset", "opened"), [(1e4, _IMAGES), (-1e4, 0)])
def test_gates_that_are_forced_list_all_or_none(offset: float, opened: int) -> None:
    _, _, count, is_open = _decide(_normal(_IMAGES, 9, 32), [offset] * _IMAGES, _IMAGES)
    assert (int(count), int(is_open.sum())) == (opened, opened)


def test_margin_at_the_threshold_is_closed_and_one_that_is_no_number_too() -> None:
    features = _normal(_IMAGES, 9, 32)
    features[1] = float("nan")
    threshold = float(_decide(features, [0.0] * _IMAGES, _IMAGES)[0][0, 1])
    margins, listed, count, _ = _decide(features, [0.0] * _IMAGES, _IMAGES, threshold)
    assert margins[1, 1].isnan()
    assert not {0, 1} & set(listed[: int(count)].tolist())


def test_images_beyond_the_batch_are_neither_read_nor_written() -> None:
    features = _normal(_IMAGES, 9, 32)
    margins, _, count, is_open = _decide(features, [1e4] * _IMAGES, images=2)
    assert int(count) == 2
    assert (margins[2:] == -9).all()
    assert is_open.tolist() == [1, 1, -1, -1, -1]


@pytest.mark.parametrize("are_pixels", [True, False])
def test_images_are_normalised_or_taken_as_they_are(are_pixels: bool) -> None:
    side, means, scales = 5, torch.tensor([120.0, 110, 100, 0]), torch.tensor([0.02, 0.03, 0.04, 0])
    pixels = torch.randint(0, 256, (_IMAGES, side, side, 3), generator=torch.Generator().manual_seed(0)).byte()
    tensors = _normal(_IMAGES, 3, side, side)
    images, counts = torch.full((_IMAGES, side, side, 4), -9.0), _ints(7, 7, 7)
    kernels.load_images[(_IMAGES * 2,)](
        pixels=pixels if are_pixels else tensors.view(torch.uint8),
        tensors=tensors,
        header=_ints(3, are_pixels),
        means=means,
        scales=scales,
        images=images,
        counts=counts,
        counters=2,
        SIDE=side,
        CHANNELS=4,
        BLOCK=16,
    )
    expected = (pixels.float() - means[:3]) * scales[:3] if are_pixels else tensors.permute(0, 2, 3, 1)
    _assert_close(images[:3, ..., :3], expected[:3])
    assert (images[:3, ..., 3] == 0).all()
    assert (images[3:] == -9).all()
    assert counts.tolist() == [0, 0, 7]


def test_pool_takes_the_largest_and_keeps_what_is_no_number() -> None:
    source, target = F.relu(_normal(_IMAGES, 6, 6, 16)), torch.full((_IMAGES, 3, 3, 16), -9.0)
    source[1, 0, 0, 0] = float("nan")
    window = {"KERNEL": 3, "STRIDE": 2, "PADDING": 1}
    kernels.max_pool[(2,)](source, target, _ints(3, 0), SIDE=6, OUT=3, C=16, BLOCK=16, **window)
    expected = F.max_pool2d(source.permute(0, 3, 1, 2), 3, 2, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(target[:3], expected[:3], equal_nan=True)
    assert target[1, 0, 0, 0].isnan()
    assert (target[3:] == -9).all()


def test_features_are_averaged_and_classified() -> None:
    features, weight, bias = _normal(_IMAGES, 9, 32), _normal(10, 32, seed=1), _normal(10, seed=2)
    means, logits, header = torch.full((_IMAGES, 32), -9.0), torch.full((_IMAGES, 10), -9.0), _ints(4, 0)
    kernels.average[(_IMAGES * 2,)](features, means, header, PIXELS=9, C=32, ROWS=16, CHANNELS=16)
    kernels.classify[(_IMAGES * 2,)](means, weight, bias, logits, header, C=32, CLASSES=10, CHANNELS=16, BLOCK=8)
    _assert_close(means[:4], features.mean(1)[:4])
    _assert_close(logits[:4], (features.mean(1) @ weight.T + bias)[:4])
    assert (means[4:] == -9).all()
    assert (logits[4:] == -9).all()

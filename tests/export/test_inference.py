from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from artifact.manifest import TORCHSCRIPT_NAME
from artifact.preprocessing import Float32Array
from export.inference import GatedBlock, InferenceNetwork, UngatedBlock
from export.parity import load_torchscript
from models.resnet import AdaptiveResNet
from tests.export.forms import Exported
from tests.networks import inputs, small_network

MIXED = np.array([0.0, 1.0, -1.0, 0.3, -0.3, 1e4, -1e4, 0.0], np.float32)
OFFSETS = {
    "as trained": np.zeros(8, np.float32),
    "mixed": MIXED,
    "all open": np.full(8, 1e4, np.float32),
    "all closed": np.full(8, -1e4, np.float32),
}


def _agree(expected: tuple[Float32Array, ...], actual: tuple[Float32Array, ...], tolerance: float = 1e-4) -> None:
    for name, wanted, got in zip(("logits", "margins"), expected, actual, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("form", ["serving form", "TorchScript", "ONNX"])
@pytest.mark.parametrize("offsets", OFFSETS.values(), ids=OFFSETS)
def test_every_form_agrees_with_the_network(exported: Exported, form: str, offsets: Float32Array) -> None:
    images = inputs(exported.network, 8)
    expected = exported.eager(images, offsets)
    actual = exported.forms[form](images, offsets)
    _agree(expected, actual)
    assert np.array_equal(exported.is_open(actual[1], offsets), exported.is_open(expected[1], offsets))


@pytest.mark.parametrize("form", ["serving form", "TorchScript", "ONNX"])
def test_image_alone_gets_the_answer_it_gets_in_a_batch(exported: Exported, form: str) -> None:
    images, run = inputs(exported.network, 8), exported.forms[form]
    together = run(images, MIXED)
    alone = [run(images[row : row + 1], MIXED[row : row + 1]) for row in range(8)]
    _agree(together, tuple(np.concatenate(part) for part in zip(*alone, strict=True)))


def test_images_of_these_comparisons_find_every_gate_both_open_and_closed(exported: Exported) -> None:
    # Without this the tests above could pass on gates that always say the same.
    _, margins = exported.eager(inputs(exported.network, 8), MIXED)
    opened = exported.is_open(margins, MIXED)
    assert opened.shape == (8, len(exported.network.gated_blocks))
    assert (opened.any(axis=0) & ~opened.all(axis=0)).all()
    assert np.abs(margins + MIXED[:, None]).min(initial=1) > 1e-3


def test_skipping_shows_in_the_logits(exported: Exported) -> None:
    images = inputs(exported.network, 8)
    difference = exported.eager(images, OFFSETS["all open"])[0] - exported.eager(images, OFFSETS["all closed"])[0]
    assert (np.abs(difference).max() > 0.1) == bool(exported.network.gated_blocks)


@pytest.mark.parametrize("form", ["serving form", "TorchScript", "ONNX"])
@pytest.mark.parametrize("gate_threshold", [0.7, -0.7])
def test_every_form_honours_the_gate_threshold(
    tmp_path_factory: pytest.TempPathFactory, form: str, gate_threshold: float
) -> None:
    exported = Exported(small_network(), tmp_path_factory.mktemp("threshold"), gate_threshold)
    images = inputs(exported.network, 8)
    expected = exported.eager(images, MIXED)
    _agree(expected, exported.forms[form](images, MIXED))
    # The threshold must have changed some path, or the comparison would hold without it.
    at_zero = exported.eager(images, MIXED + np.float32(gate_threshold))
    assert np.abs(at_zero[0] - expected[0]).max() > 1e-2


@pytest.mark.parametrize("offsets", OFFSETS.values(), ids=OFFSETS)
def test_residual_branch_sees_the_images_with_an_open_gate_and_no_others(
    exported: Exported, offsets: Float32Array
) -> None:
    seen: Counter[int] = Counter()
    blocks = list(exported.serving.blocks)
    handles = [
        block.residual.register_forward_hook(lambda _, args, __, number=number: seen.update({number: len(args[0])}))
        for number, block in enumerate(blocks)
    ]
    _, margins = exported.forms["serving form"](inputs(exported.network, 8), offsets)
    for handle in handles:
        handle.remove()
    gates = iter(exported.is_open(margins, offsets).sum(axis=0).tolist())
    assert [seen[n] for n in range(len(blocks))] == [next(gates) if isinstance(b, GatedBlock) else 8 for b in blocks]


def test_offset_left_out_is_zero(exported: Exported) -> None:
    images = inputs(exported.network, 4)
    for form, module in (
        ("serving form", exported.serving),
        ("TorchScript", load_torchscript(exported.folder / TORCHSCRIPT_NAME)),
    ):
        with torch.inference_mode():
            without = [part.numpy() for part in module(torch.from_numpy(images))]
        _agree(exported.forms[form](images, np.zeros(4, np.float32)), tuple(without))


def test_only_gated_blocks_get_a_gate(network: AdaptiveResNet) -> None:
    forms = [type(block) for block in InferenceNetwork(network).blocks]
    assert forms == [UngatedBlock, *[GatedBlock] * 4]


def test_serving_form_leaves_the_network_as_it_is(images: Float32Array) -> None:
    network = small_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    InferenceNetwork(network)(torch.from_numpy(images))
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_serving_form_has_no_batch_norm(exported: Exported) -> None:
    names = {type(module).__name__ for module in exported.serving.modules()}
    assert not {"BatchNorm1d", "BatchNorm2d"} & names


def test_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        InferenceNetwork(small_network().train())

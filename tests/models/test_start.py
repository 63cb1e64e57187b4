from __future__ import annotations

import re

import pytest
import torch

from models.checkpoint import CheckpointError
from models.config import numbered_labels
from models.resnet import AdaptiveResNet
from models.start import Start, warm_start
from tests.models.conftest import MakeConfig, MakeNetwork
from tests.networks import checkpoint_of

_CLASSIFIER, _GATE = "classifier.", ".gate."


def _started(network: AdaptiveResNet, source: AdaptiveResNet, fresh_gates: bool = False) -> tuple[Start, set[str]]:
    """How the network was started, and which of its weights are the source's."""
    start = warm_start(network, checkpoint_of(source), fresh_gates)
    theirs = source.state_dict()
    own = {name: tensor for name, tensor in network.state_dict().items() if name in theirs}
    return start, {name for name in own if torch.equal(own[name], theirs[name])}


@pytest.fixture
def network(make_config: MakeConfig) -> AdaptiveResNet:
    """What is to start."""
    return AdaptiveResNet(make_config())


def test_plain_network_is_taken_and_gates_stay_fresh(network: AdaptiveResNet, make_network: MakeNetwork) -> None:
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items() if _GATE in name}
    plain = make_network(target_rates=(1.0, 1.0, 1.0))
    start, taken = _started(network, plain)
    assert taken == plain.state_dict().keys()
    assert start == Start(len(taken), ("3 gates",), ())
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in fresh.items())


@pytest.mark.parametrize("fresh_gates", [True, False])
def test_gates_are_kept_unless_fresh_ones_are_asked_for(
    network: AdaptiveResNet, make_network: MakeNetwork, fresh_gates: bool
) -> None:
    source = make_network(target_rates=(0.5, 1.0, 0.5))
    start, taken = _started(network, source, fresh_gates)
    weights = [name for name in source.state_dict() if _GATE in name and name.endswith("fc1.weight")]
    assert len(weights) == 2
    assert taken.isdisjoint(weights) if fresh_gates else taken.issuperset(weights)
    assert (start.fresh, start.left) == ((("3 gates",), ("2 gates",)) if fresh_gates else (("1 gate",), ()))


def test_gates_that_the_network_has_no_place_for_are_left(make_config: MakeConfig, make_network: MakeNetwork) -> None:
    start, _ = _started(AdaptiveResNet(make_config(target_rates=(1.0, 0.5, 1.0))), make_network())
    assert (start.fresh, start.left) == ((), ("2 gates",))


@pytest.mark.parametrize(
    ("theirs", "kept"),
    [
        (("dark", "light"), True),
        (numbered_labels(2), True),
        (("light", "dark"), False),
        (numbered_labels(5), False),
        (tuple("abcde"), False),
    ],
)
def test_classifier_is_of_the_same_classes_or_new(
    network: AdaptiveResNet, make_network: MakeNetwork, theirs: tuple[str, ...], kept: bool
) -> None:
    fresh = network.classifier.weight.detach().clone()
    start, taken = _started(network, make_network(labels=theirs))
    assert ("classifier.weight" in taken) is kept
    if not kept:
        assert torch.equal(network.classifier.weight, fresh)
        assert start.fresh == ("the classifier (2 classes)",)
        assert str(start).endswith(f"left over: the classifier ({len(theirs)} classes)")


def test_network_of_another_shape_is_refused_by_name(network: AdaptiveResNet, make_network: MakeNetwork) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for changes, problem in (
        ({"stage_widths": (4, 8, 32)}, "residual.0.weight is (32, 8, 3, 3), not (16, 8, 3, 3)"),
        ({"stage_blocks": (1, 1), "stage_widths": (4, 8)}, "it has blocks.stage3_block1.residual.0.weight, "),
        ({"stage_blocks": (1, 1, 2)}, "it has no blocks.stage3_block2.residual.0.weight, "),
        ({"gate_hidden": 8}, "blocks.stage1_block1.gate.fc1.weight is (8, 4), not (16, 4)"),
    ):
        source = make_network(**changes, **{"target_rates": (0.5,) * sum(changes.get("stage_blocks", (1, 1, 1)))})
        with pytest.raises(CheckpointError, match=re.escape(problem)):
            warm_start(network, checkpoint_of(source))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())

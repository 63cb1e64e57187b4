from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from models.evaluation import Evaluation, evaluate
from models.macs import count_macs
from models.resnet import AdaptiveResNet
from tests.guesses import guessed
from tests.models.conftest import MakeDataset, MakeNetwork


@pytest.fixture
def evaluation() -> Evaluation:
    """Four images of two of three classes on a network whose first block has no gate."""
    return Evaluation(
        labels=("cat", "dog", "eel"),
        block_names=("stage1_block1", "stage1_block2", "stage2_block1"),
        classes=np.array([0, 0, 1, 1]),
        guesses=guessed(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1])),
        executed=np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0]], bool),
        margins=np.array([[-1, -1], [1, -1], [1, 1], [-1, -1]], np.float32),
        mac_share=np.array([0.4, 0.6, 1.0, 0.4]),
    )


def test_accuracy_is_the_share_of_correct_answers(evaluation: Evaluation) -> None:
    assert evaluation.accuracy == 0.75
    np.testing.assert_array_equal(evaluation.scores.recall, [0.5, 1.0, np.nan])


def test_rates_and_compute_are_told_by_class(evaluation: Evaluation) -> None:
    np.testing.assert_array_equal(evaluation.class_rates, [[1, 0.5, 0], [1, 0.5, 0.5], [np.nan] * 3])
    np.testing.assert_allclose(evaluation.class_mac_shares, [0.5, 0.7, np.nan])


def test_summary_is_what_a_machine_can_read(evaluation: Evaluation) -> None:
    summary = json.loads(json.dumps(evaluation.summary(), allow_nan=False))
    assert summary["images"] == 4
    assert summary["accuracy"] == 0.75
    assert summary["accuracy_interval"] == pytest.approx([0.3006, 0.9544], abs=1e-4)  # Wilson's, of 3 in 4
    assert summary["top_5_accuracy"] is None
    assert summary["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert summary["mean_confidence"] == pytest.approx(0.9)
    assert summary["expected_calibration_error"] == pytest.approx(0.15)
    assert summary["confusions"] == [{"class": "cat", "predicted": "dog", "images": 1}]
    assert summary["mac_share"] == pytest.approx(0.6)
    assert summary["executed_share"] == pytest.approx(7 / 12)
    assert summary["distinct_paths"] == 3
    assert summary["execution_rates"] == {"stage1_block1": 1.0, "stage1_block2": 0.5, "stage2_block1": 0.25}
    assert summary["classes"]["dog"] == {
        "images": 2,
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "f1": pytest.approx(0.8),
        "mac_share": 0.7,
        "execution_rates": {"stage1_block1": 1.0, "stage1_block2": 0.5, "stage2_block1": 0.5},
    }
    assert summary["classes"]["eel"] == {"images": 0}


def test_network_is_run_over_every_image(network: AdaptiveResNet, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(np.array([8, 3, 40]))
    result = evaluate(network, dataset)
    output = network(next(iter(dataset.ordered(3))).images)
    assert result.labels == ("dark", "light")
    assert result.classes.tolist() == [0, 1, 0]
    assert result.guesses.predicted.tolist() == output.logits.argmax(1).tolist()
    assert np.array_equal(result.executed, output.open.numpy() > 0)
    assert np.array_equal(result.margins, output.margins.detach().numpy())


def test_result_does_not_depend_on_the_batch_size(network: AdaptiveResNet, make_dataset: MakeDataset) -> None:
    first, second = (evaluate(network, make_dataset(), batch_size) for batch_size in (60, 7))
    assert np.array_equal(first.guesses.predicted, second.guesses.predicted)
    assert np.array_equal(first.executed, second.executed)
    np.testing.assert_allclose(first.margins, second.margins, rtol=1e-4, atol=1e-5)


def test_mac_share_counts_the_blocks_that_ran_and_all_gates(network: AdaptiveResNet, make_dataset: MakeDataset) -> None:
    macs = count_macs(network.config)
    residual = [block.residual for block in macs.blocks.values()]
    shares = {offset: evaluate(network, make_dataset(), gate_offset=offset).mac_share for offset in (-1e9, 0.0, 1e9)}
    np.testing.assert_allclose(shares[1e9], macs.total / macs.ungated)
    np.testing.assert_allclose(shares[-1e9], (macs.total - sum(residual)) / macs.ungated)
    executed = evaluate(network, make_dataset()).executed
    for row, share in zip(executed, shares[0.0], strict=True):
        skipped = sum(cost for ran, cost in zip(row, residual, strict=True) if not ran)
        assert share == pytest.approx((macs.total - skipped) / macs.ungated)
    assert len(np.unique(shares[0.0])) > 1


def test_gate_offset_buys_compute(network: AdaptiveResNet, make_dataset: MakeDataset) -> None:
    shares = [evaluate(network, make_dataset(), gate_offset=offset).mac_share.mean() for offset in (-5, -1, 0, 1, 5)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


def test_blocks_without_a_gate_count_as_executed(make_network: MakeNetwork, make_dataset: MakeDataset) -> None:
    mixed = evaluate(make_network(target_rates=(1.0, 0.5, 1.0)), make_dataset(), gate_offset=-1e9)
    assert mixed.executed.all(axis=0).tolist() == [True, False, True]
    plain = evaluate(make_network(target_rates=(1.0, 1.0, 1.0)), make_dataset())
    assert plain.executed.all()
    assert plain.margins.shape == (60, 0)
    assert (plain.mac_share == 1).all()


@pytest.mark.parametrize("training", [True, False])
def test_network_is_left_in_the_mode_it_was_in(
    network: AdaptiveResNet, make_dataset: MakeDataset, training: bool
) -> None:
    network.train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    evaluate(network, make_dataset())
    assert network.training is training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_progress_is_told_after_every_batch(network: AdaptiveResNet, make_dataset: MakeDataset) -> None:
    done: list[int] = []
    evaluate(network, make_dataset(), batch_size=25, progress=done.append)
    assert done == [25, 25, 10]

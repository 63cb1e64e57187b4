from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from models import trainer as trainer_module
from models.budgets import Budgets
from models.checkpoint import load
from models.evaluation import evaluate
from models.loss import feature_distance
from models.processes import Processes
from models.resnet import AdaptiveResNet
from models.structure import Structure
from models.teacher import Teacher
from models.trainer import BEST_NAME, CHECKPOINT_NAME, Trainer
from tests.models.conftest import MakeConfig, MakeTrainer, metrics, same_tensors

pytestmark = pytest.mark.slow


def _weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return load(trainer.out / CHECKPOINT_NAME).weights


def test_training_learns_and_leaves_its_figures(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(epochs=8)
    trainer.run()
    rows = metrics(trainer.out)
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, 9)]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert float(rows[-1]["train_accuracy"]) > 0.75
    assert 0 < float(rows[-1]["validation_mac_share"]) < 1.1
    assert list(trainer.out.glob("events.out.tfevents.*"))


def test_images_are_small_first_and_whole_at_the_end(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(epochs=4, smallest_image=0.5)
    seen: list[int] = []
    forward = trainer.network.forward

    def noting(x: torch.Tensor, gate_offset: float = 0.0) -> object:
        if trainer.network.training:
            seen.append(x.shape[-1])
        return forward(x, gate_offset)

    monkeypatch.setattr(trainer.network, "forward", noting)
    trainer.run()
    assert (seen[0], seen[-1], len(seen)) == (8, 16, trainer.steps)
    assert seen == sorted(seen)


def test_budgets_train_gates_that_follow_the_offset(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(epochs=20, budgets=(0.4, 1.0), target_weight=20.0)
    trainer.run()
    network, structure = trainer.network.train(), Structure.of_config(trainer.network.config)
    budgets = Budgets(structure, torch.full((3,), 0.5), 0.4, 1.0)
    x = next(trainer.training.ordered(50)).images.repeat(8, 1, 1, 1)  # gates are drawn: the mean of many draws
    torch.manual_seed(1)
    spent = []
    for budget in (0.5, 0.7, 1.0):
        opened = network(x, budgets.gate_offset(torch.full((len(x),), budget))).open
        executed = structure.executed(opened.detach().numpy() > 0)
        spent.append(structure.spent_macs(executed).mean() / structure.total_macs)
    # Over 10 seeds the first is 0.557, with a standard deviation of 0.019, and the second 0.696 with 0.023.
    assert spent == pytest.approx([0.5, 0.7, 1.0], abs=0.13)
    assert spent[1] - spent[0] > 0.05


@pytest.mark.parametrize("budgets", [None, (0.45, 0.55)])
def test_gates_without_noise_close_as_their_target_falls(
    make_trainer: MakeTrainer, budgets: tuple[float, float] | None
) -> None:
    trainer = make_trainer(epochs=24, gate_noise=0.0, target_warmup=0.7, target_weight=10.0, budgets=budgets)
    trainer.run()
    opened = [row["train_open_share"] for row in trainer.history]
    assert opened[0] > 0.95
    assert opened[0] > opened[12] > opened[-1]
    assert opened[-1] == pytest.approx(0.5, abs=0.15)


def test_same_seed_gives_the_same_weights_and_figures(make_trainer: MakeTrainer) -> None:
    first, second = make_trainer("first"), make_trainer("second")
    for trainer in (first, second):
        trainer.run()
        torch.manual_seed(12345)  # whatever happened before a run must not matter
    assert same_tensors(_weights(first), _weights(second))
    assert metrics(first.out) == metrics(second.out)


def test_another_seed_gives_other_weights(make_trainer: MakeTrainer) -> None:
    first, second = make_trainer("first", epochs=1), make_trainer("second", epochs=1, seed=1)
    first.run()
    second.run()
    assert not same_tensors(_weights(first), _weights(second))


def test_too_few_images_for_one_batch_are_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match="50 training images do not fill one batch of 64"):
        make_trainer(batch_size=64)


def test_learning_rate_that_is_too_high_stops_the_run(make_trainer: MakeTrainer) -> None:
    with pytest.raises(FloatingPointError, match="lower --lr"):
        make_trainer(epochs=40, peak_lr=1e12).run()


@pytest.mark.parametrize("rate", [0.4, 0.6])
def test_gates_learn_their_target_rate_and_still_differ_between_images(make_trainer: MakeTrainer, rate: float) -> None:
    trainer = make_trainer(rate=rate, epochs=14, target_weight=4.0)
    trainer.run()
    rows = metrics(trainer.out)
    first, last = (float(rows[index]["train_open_share"]) for index in (0, -1))
    assert abs(last - rate) < abs(first - rate) / 2
    result = evaluate(trainer.network, trainer.training)
    rates = result.executed.mean(axis=0)
    assert ((rates > 0) & (rates < 1)).any()
    assert len(np.unique(result.executed, axis=0)) > 1


def test_backbone_may_stay_as_it_is(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(backbone_lr=0.0, frozen_norms=True)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.run()
    for name, tensor in _weights(trainer).items():
        head = ".gate." in name or name.startswith("classifier.")
        assert torch.equal(tensor, before[name]) is not head, name


def test_statistics_of_frozen_norms_stay(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(frozen_norms=True)
    trainer.run()
    norms = {name: each for name, each in trainer.network.named_modules() if isinstance(each, nn.BatchNorm2d)}
    assert norms
    for norm in norms.values():
        assert int(norm.num_batches_tracked) == 0
        assert not torch.equal(norm.weight, torch.ones_like(norm.weight))
    assert int(trainer.network.blocks["stage1_block1"].gate.bn.num_batches_tracked) == trainer.steps


def test_mean_of_the_weights_is_judged_and_saved(make_trainer: MakeTrainer) -> None:
    trainer, seen = make_trainer(ema_decay=0.9), []
    trainer.optimizer.register_step_post_hook(
        lambda *_: seen.append(trainer.network.classifier.weight.detach().clone())
    )
    trainer.run()
    mean = seen[0]
    for number, weight in enumerate(seen[1:], 1):
        kept = min(0.9, (1 + number) / (10 + number))
        mean = kept * mean + (1 - kept) * weight
    saved = load(trainer.out / CHECKPOINT_NAME)
    torch.testing.assert_close(saved.weights["classifier.weight"], mean)
    assert not torch.allclose(mean, seen[-1])
    accuracy = evaluate(saved.network(), trainer.validation).accuracy
    assert accuracy == trainer.history[-1]["validation_accuracy"]


def test_network_learns_from_its_teacher_alone(make_trainer: MakeTrainer) -> None:
    taught = make_trainer("teacher", epochs=8)
    taught.run()
    network = taught.network.eval()
    network.classifier.weight.data.neg_()  # so it teaches the opposite of what the labels say
    network.classifier.bias.data.neg_()
    student = make_trainer("student", epochs=8, distillation=1.0, teacher=Teacher(network, "0" * 64))
    student.run()
    assert float(metrics(taught.out)[-1]["train_accuracy"]) > 0.75
    assert float(metrics(student.out)[-1]["train_accuracy"]) < 0.4


def test_teacher_and_its_share_of_the_loss_go_together(make_trainer: MakeTrainer) -> None:
    teacher = Teacher(make_trainer().network, "0" * 64)
    for more in ({"teacher": teacher}, {"distillation": 0.5}):
        with pytest.raises(ValueError, match="a teacher needs a share of the loss"):
            make_trainer(**more)


def test_teacher_of_other_features_cannot_teach_them(make_trainer: MakeTrainer, make_config: MakeConfig) -> None:
    wide = AdaptiveResNet(make_config(stage_widths=(8, 16, 32)))
    with pytest.raises(ValueError, match="needs a teacher whose last stage is as wide"):
        make_trainer(distillation=0.5, feature_weight=1.0, teacher=Teacher(wide, "0" * 64))
    with pytest.raises(ValueError, match="needs a teacher whose last stage is as wide"):
        make_trainer(feature_weight=1.0)


def test_network_learns_to_see_what_its_teacher_sees(make_trainer: MakeTrainer) -> None:
    taught = make_trainer("teacher", epochs=8)
    taught.run()
    network = taught.network.eval()
    images = next(iter(taught.training.shuffled(8, seed=0, epoch=0))).images
    distances = []
    for weight in (0.0, 3.0):
        student = make_trainer(
            f"student-{weight}", epochs=20, distillation=0.5, feature_weight=weight, teacher=Teacher(network, "0" * 64)
        )
        student.run()
        with torch.no_grad():
            ours, theirs = (each.eval()(images).features for each in (student.network, network))
        distances.append(float(feature_distance(ours, theirs)))
    assert distances[1] < 0.8 * distances[0]


def test_best_epoch_is_kept_and_patience_ends_the_run(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, real = make_trainer(epochs=9, patience=3), Trainer._epoch_metrics
    accuracies = iter([0.5, 0.7, 0.6, 0.7, 0.6])
    weights = []

    def judged(self: Trainer) -> dict[str, float]:
        weights.append({name: tensor.clone() for name, tensor in self.network.state_dict().items()})
        return real(self) | {"validation_accuracy": next(accuracies)}

    monkeypatch.setattr(Trainer, "_epoch_metrics", judged)
    trainer.run()
    assert len(trainer.history) == 5
    assert trainer.finished
    best = load(trainer.out / BEST_NAME)
    assert same_tensors(best.weights, weights[1])
    assert best.training["history"][-1]["validation_accuracy"] == 0.7
    again = make_trainer(epochs=9, patience=3)
    again.resume(load(trainer.out / CHECKPOINT_NAME))
    assert again.finished


def test_rare_classes_count_for_more(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = trainer_module.total_loss

    def noting(*arguments: object) -> object:
        seen.append(arguments[-1])
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer_module, "total_loss", noting)
    trainer = make_trainer(epochs=1, class_weights=True, mixup=0.3)
    counts = np.bincount(trainer.training.examples.classes[trainer.training.indices])
    trainer.run()
    assert seen[0].tolist() == pytest.approx((50 / (2 * counts)).tolist())


@pytest.mark.parametrize("batch_size", [7, 2])
def test_batches_that_cannot_be_shared_evenly_are_refused(make_trainer: MakeTrainer, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"2 processes cannot share batches of {batch_size} images evenly"):
        make_trainer(batch_size=batch_size, processes=Processes(0, 2))


def test_patience_needs_held_out_images(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match="patience needs held-out images"):
        make_trainer(held_out=0, patience=2)


def test_network_without_gates_trains(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(rate=1.0)
    trainer.run()
    assert [row["train_open_share"] for row in metrics(trainer.out)] == ["1.0"] * 3
    assert [row["train_target_rate_loss"] for row in metrics(trainer.out)] == ["0.0"] * 3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_weights_of_full_precision(make_trainer: MakeTrainer, precision: str) -> None:
    trainer = make_trainer(precision=precision, epochs=8)
    trainer.run()
    assert float(metrics(trainer.out)[-1]["train_accuracy"]) > 0.75
    assert {tensor.dtype for tensor in _weights(trainer).values()} == {torch.float32, torch.int64}


def test_time_that_is_left_is_told_once(make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer("long", epochs=20, batch_size=4).run()
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("time ")]
    assert len(told) == 1
    assert re.search(r"about 0:00:\d\d an epoch of images of full size, 0:0\d:\d\d to the end of training", told[0])

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from models import trainer as trainer_module
from models.budgets import Budgets
from models.checkpoint import Checkpoint, CheckpointError, load
from models.data import Batch
from models.evaluation import evaluate
from models.examples import Examples
from models.hold_out import split
from models.processes import Processes
from models.recipe import Recipe
from models.resnet import AdaptiveResNet
from models.structure import Structure
from models.teacher import Teacher
from models.trainer import BEST_NAME, CHECKPOINT_NAME, Trainer
from tests.models.conftest import MakeConfig, MakeDataset, metrics, same_tensors

pytestmark = pytest.mark.slow

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(examples: Examples, make_config: MakeConfig, make_dataset: MakeDataset, tmp_path: Path) -> MakeTrainer:
    """A run on the 50 training examples; `out` names its folder, `rate` sets the target rate, others the recipe."""

    def make(
        out: str = "run",
        rate: float = 0.5,
        save_every: int = 500,
        init_digest: str | None = None,
        teacher: Teacher | None = None,
        processes: Processes = Processes(),  # noqa: B008 (frozen)
        **changes: object,
    ) -> Trainer:
        recipe = Recipe.model_validate({"epochs": 3, "batch_size": 8, "peak_lr": 0.1, "held_out": 10} | changes)
        torch.manual_seed(recipe.seed)
        network = AdaptiveResNet(make_config().with_target_rates(rate))
        training, validation = map(make_dataset, split(examples, recipe.held_out))
        return Trainer(
            network, recipe, training, validation, tmp_path / out, save_every, init_digest, teacher, processes
        )

    return make


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


class _Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def _kill_after(trainer: Trainer, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until `steps` steps are taken, and kill before whatever comes next."""
    shuffled = trainer.training.shuffled

    def fatal(*arguments: int) -> Iterator[Batch]:
        for batch in shuffled(*arguments):
            if trainer.step == steps:
                raise _Killed
            yield batch
        if trainer.step == steps:
            raise _Killed

    monkeypatch.setattr(trainer.training, "shuffled", fatal)
    with pytest.raises(_Killed):
        trainer.run()


@pytest.mark.parametrize("killed_at", [3, 8, 13])
def test_killed_run_resumes_in_mid_epoch_and_ends_where_it_would_have(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    whole = make_trainer("whole")
    whole.run()

    killed = make_trainer("killed", save_every=2)
    _kill_after(killed, killed_at, monkeypatch)
    resumed = make_trainer("killed", save_every=2)
    checkpoint = load(killed.out / CHECKPOINT_NAME)
    resumed.resume(checkpoint)
    assert resumed.step == killed_at - killed_at % 2
    resumed.run()
    assert resumed.step == whole.step == 18
    assert same_tensors(_weights(resumed), _weights(whole))
    momenta = [load(trainer.out / CHECKPOINT_NAME).optimizer for trainer in (resumed, whole)]
    assert same_tensors(*momenta)
    assert metrics(resumed.out) == metrics(whole.out)


def test_run_killed_before_its_last_checkpoint_has_every_row_in_the_end(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed, resumed = make_trainer("whole"), make_trainer("killed"), make_trainer("killed")
    whole.run()
    save_checkpoint = killed.save

    def fatal_save() -> None:
        if killed.step == killed.steps:
            raise _Killed
        save_checkpoint()

    monkeypatch.setattr(killed, "save", fatal_save)
    with pytest.raises(_Killed):
        killed.run()
    resumed.resume(load(killed.out / CHECKPOINT_NAME))
    resumed.run()
    assert metrics(resumed.out) == metrics(whole.out)


@pytest.mark.parametrize("epoch", [2, 3])
def test_run_killed_between_an_epochs_last_step_and_its_figures_has_every_row_in_the_end(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    whole, killed, resumed = (make_trainer(out, save_every=6) for out in ("whole", "killed", "killed"))
    whole.run()
    _kill_after(killed, epoch * killed.steps_per_epoch, monkeypatch)
    resumed.resume(load(killed.out / CHECKPOINT_NAME))
    assert resumed.step == epoch * resumed.steps_per_epoch
    resumed.run()
    assert resumed.finished
    assert metrics(resumed.out) == metrics(whole.out)
    assert same_tensors(_weights(resumed), _weights(whole))


def test_tensorboard_shows_every_epoch_of_a_resumed_run_once(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, resumed = make_trainer(), make_trainer()
    _kill_after(killed, 13, monkeypatch)
    resumed.resume(load(killed.out / CHECKPOINT_NAME))
    resumed.run()
    board = EventAccumulator(str(resumed.out)).Reload()
    shown = [(event.step, event.value) for event in board.Scalars("train_loss")]
    expected = [float(row["train_loss"]) for row in metrics(resumed.out)]
    assert shown == [(epoch, pytest.approx(loss)) for epoch, loss in enumerate(expected, 1)]


def test_finished_run_stays_as_it_is(make_trainer: MakeTrainer) -> None:
    make_trainer().run()
    again = make_trainer()
    before = (again.out / CHECKPOINT_NAME).read_bytes()
    again.resume(load(again.out / CHECKPOINT_NAME))
    again.run()
    assert (again.out / CHECKPOINT_NAME).read_bytes() == before


def test_run_with_another_recipe_is_not_resumed(make_trainer: MakeTrainer) -> None:
    make_trainer(epochs=1).run()
    other = make_trainer(epochs=1, peak_lr=0.2)
    with pytest.raises(CheckpointError, match="another recipe"):
        other.resume(load(other.out / CHECKPOINT_NAME))


def test_run_of_another_network_is_not_resumed(make_trainer: MakeTrainer) -> None:
    make_trainer(epochs=1).run()
    other = make_trainer(epochs=1, rate=0.6)
    with pytest.raises(CheckpointError, match="another network"):
        other.resume(load(other.out / CHECKPOINT_NAME))


def test_run_that_began_with_another_checkpoint_is_not_resumed(make_trainer: MakeTrainer) -> None:
    make_trainer(epochs=1, init_digest="0").run()
    for init_digest in ("1", None):
        other = make_trainer(epochs=1, init_digest=init_digest)
        with pytest.raises(CheckpointError, match="began with another --from"):
            other.resume(load(other.out / CHECKPOINT_NAME))
    same = make_trainer(epochs=1, init_digest="0")
    same.resume(load(same.out / CHECKPOINT_NAME))
    assert same.finished


def test_run_on_other_images_of_the_same_classes_is_not_resumed(make_trainer: MakeTrainer) -> None:
    first = make_trainer(epochs=1)
    first.run()
    examples = first.training.examples
    renamed = replace(examples, names=[f"other{name}" for name in examples.names])
    relabelled = replace(examples, classes=1 - examples.classes)
    for others in (renamed, relabelled):
        training = copy(first.training)
        training.examples = others
        trainer = Trainer(first.network, first.recipe, training, first.validation, first.out)
        with pytest.raises(CheckpointError, match="on other data"):
            trainer.resume(load(first.out / CHECKPOINT_NAME))


def test_checkpoint_that_does_not_tell_what_it_began_with_is_resumed(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kill_after(make_trainer(save_every=2), 3, monkeypatch)
    resumed = make_trainer(init_digest="0")
    checkpoint = load(resumed.out / CHECKPOINT_NAME)
    del checkpoint.training["origin"]
    resumed.resume(checkpoint)
    assert resumed.step == 2


def test_checkpoint_without_training_state_is_not_resumed(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    with pytest.raises(CheckpointError):
        trainer.resume(Checkpoint(trainer.network.config, trainer.network.state_dict()))


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


def test_run_with_a_mean_and_a_teacher_resumes_where_it_was(make_trainer: MakeTrainer) -> None:
    def make(name: str) -> Trainer:
        torch.manual_seed(5)
        teacher = Teacher(AdaptiveResNet(make_trainer().network.config), "0" * 64)
        return make_trainer(name, ema_decay=0.9, distillation=0.5, teacher=teacher)

    whole, killed = make("whole"), make("killed")
    whole.run()
    killed.save_every = 3
    count = itertools.count()

    def die(*_: object) -> None:
        if next(count) == 7:
            raise KeyboardInterrupt

    killed.optimizer.register_step_post_hook(die)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    resumed = make("killed")
    resumed.resume(load(resumed.out / CHECKPOINT_NAME))
    assert 0 < resumed.step < whole.steps
    resumed.run()
    assert same_tensors(load(resumed.out / CHECKPOINT_NAME).weights, load(whole.out / CHECKPOINT_NAME).weights)
    assert same_tensors(_weights(resumed), _weights(whole))


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


def test_run_with_another_teacher_is_not_resumed(make_trainer: MakeTrainer) -> None:
    network = make_trainer().network
    make_trainer(epochs=1, distillation=0.5, teacher=Teacher(network, "0" * 64)).run()
    other = make_trainer(epochs=1, distillation=0.5, teacher=Teacher(network, "1" * 64))
    with pytest.raises(CheckpointError, match="had another --teacher"):
        other.resume(load(other.out / CHECKPOINT_NAME))


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


def test_bf16_trains(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(precision="bf16", epochs=1)
    trainer.run()
    assert all(tensor.dtype != torch.bfloat16 for tensor in _weights(trainer).values())

from __future__ import annotations

import itertools
from collections.abc import Iterator
from copy import copy
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.checkpoint import Checkpoint, CheckpointError, load
from models.data import Batch
from models.resnet import AdaptiveResNet
from models.teacher import Teacher
from models.trainer import CHECKPOINT_NAME, Trainer
from tests.models.conftest import MakeTrainer, metrics, same_tensors

pytestmark = pytest.mark.slow


def _weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return load(trainer.out / CHECKPOINT_NAME).weights


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


def test_scale_of_the_loss_goes_on_where_it_was(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_trainer("whole", precision="fp16", epochs=2)
    whole.run()
    _kill_after(make_trainer("killed", save_every=2, precision="fp16", epochs=2), 9, monkeypatch)
    resumed = make_trainer("killed", precision="fp16", epochs=2)
    checkpoint = load(resumed.out / CHECKPOINT_NAME)
    assert checkpoint.training["scaler"]["scale"] >= 1
    assert checkpoint.training["scaler"]["_growth_tracker"] <= checkpoint.training["step"] == 8
    resumed.resume(checkpoint)
    resumed.run()
    assert same_tensors(_weights(resumed), _weights(whole))


def test_run_with_another_teacher_is_not_resumed(make_trainer: MakeTrainer) -> None:
    network = make_trainer().network
    make_trainer(epochs=1, distillation=0.5, teacher=Teacher(network, "0" * 64)).run()
    other = make_trainer(epochs=1, distillation=0.5, teacher=Teacher(network, "1" * 64))
    with pytest.raises(CheckpointError, match="had another --teacher"):
        other.resume(load(other.out / CHECKPOINT_NAME))

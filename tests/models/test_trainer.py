from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.budgets import Budgets
from models.checkpoint import Checkpoint, CheckpointError, load
from models.config import ModelConfig
from models.data import Batch, split
from models.evaluation import evaluate
from models.examples import Examples
from models.recipe import Recipe
from models.resnet import AdaptiveResNet
from models.structure import Structure
from models.trainer import CHECKPOINT_NAME, Trainer, warm_start
from tests.models.conftest import MakeConfig, MakeDataset, MakeNetwork, metrics, same_tensors

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
        **changes: object,
    ) -> Trainer:
        recipe = Recipe.model_validate({"epochs": 3, "batch_size": 8, "peak_lr": 0.1, "held_out": 10} | changes)
        torch.manual_seed(recipe.seed)
        network = AdaptiveResNet(make_config().with_target_rates(rate))
        training, validation = map(make_dataset, split(examples, recipe.held_out))
        return Trainer(network, recipe, training, validation, tmp_path / out, save_every, init_digest)

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
    x = next(trainer.training.ordered(50)).images
    torch.manual_seed(1)
    for budget in (0.5, 0.7, 1.0):
        opened = network(x, budgets.gate_offset(torch.full((len(x),), budget))).open
        executed = structure.executed(opened.detach().numpy() > 0)
        spent = structure.spent_macs(executed).mean() / structure.total_macs
        assert spent == pytest.approx(budget, abs=0.1)


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
        with pytest.raises(CheckpointError, match="began with another --init"):
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


def test_network_without_gates_trains(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(rate=1.0)
    trainer.run()
    assert [row["train_open_share"] for row in metrics(trainer.out)] == ["1.0"] * 3
    assert [row["train_target_rate_loss"] for row in metrics(trainer.out)] == ["0.0"] * 3


def test_bf16_trains(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(precision="bf16", epochs=1)
    trainer.run()
    assert all(tensor.dtype != torch.bfloat16 for tensor in _weights(trainer).values())


def test_warm_start_takes_a_plain_network_and_keeps_fresh_gates(
    make_network: MakeNetwork, make_config: MakeConfig
) -> None:
    plain = make_network(target_rates=(1.0, 1.0, 1.0))
    network = AdaptiveResNet(make_config())
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    warm_start(network, Checkpoint(plain.config, plain.state_dict()))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, fresh[name] if ".gate." in name else plain.state_dict()[name]), name


def test_warm_start_from_another_shape_is_refused(make_network: MakeNetwork, config: ModelConfig) -> None:
    for changes in ({"stage_widths": (4, 8, 32)}, {"stage_blocks": (1, 1), "stage_widths": (4, 8)}):
        other = make_network(**changes, target_rates=(1.0,) * len(changes.get("stage_blocks", (1, 1, 1))))
        with pytest.raises(CheckpointError, match="not of the same shape"):
            warm_start(AdaptiveResNet(config), Checkpoint(other.config, other.state_dict()))

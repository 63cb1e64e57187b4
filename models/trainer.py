"""The training loop: steps, evaluation after every epoch, logs, and checkpoints from which a run goes on exactly."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from models.budgets import Budgets
from models.checkpoint import Checkpoint, save
from models.data import Batch, Dataset
from models.evaluation import evaluate
from models.gate import Gate
from models.hold_out import HeldOut
from models.loss import balanced_weights, target_rate_loss, total_loss
from models.mixing import mixed
from models.processes import Processes
from models.recipe import Recipe, make_optimizer
from models.resnet import AdaptiveResNet
from models.running_mean import running_mean
from models.same_run import check_same_run
from models.structure import Structure
from models.teacher import Teacher

CHECKPOINT_NAME = "checkpoint.safetensors"
BEST_NAME = "best.safetensors"
METRICS_NAME = "metrics.csv"
# Data types that autocast computes in.
_LOW_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Steps after the first, which is slower, that tell how long an epoch takes.
_TIMED_STEPS = 10
# Where a checkpoint keeps the weights that are trained, if those it is of are their mean.
_TRAINED = "trained/"


@dataclass
class Totals:
    """Sums over the steps of one epoch."""

    steps: int = 0
    loss: float = 0.0
    target_rate_loss: float = 0.0
    correct: int = 0
    images: int = 0
    open_share: float = 0.0
    seconds: float = 0.0


class Trainer:
    """One run: a network, its data, its recipe, and a folder where all it learns is kept."""

    def __init__(
        self,
        network: AdaptiveResNet,
        recipe: Recipe,
        training: Dataset,
        validation: Dataset,
        out: Path,
        save_every: int = 500,
        init_digest: str | None = None,
        teacher: Teacher | None = None,
        processes: Processes = Processes(),  # noqa: B008 (frozen)
    ) -> None:
        """Prepare a run that has not taken a step.

        Args:
            out: its folder; made when the run begins.
            save_every: steps between two checkpoints; there is one after every epoch, too.
            init_digest: SHA-256 of the checkpoint whose weights the network starts from; None where they are random.
            teacher: what the network is to answer and to see like as well.
            processes: that share the run.

        Raises:
            ValueError: the training images do not fill one batch, the network cannot have the recipe's budgets, a
                teacher has no share of the loss or a share no teacher, or features of another size, or patience has no
                images to judge by.
        """
        self.network = network
        self.recipe = recipe
        self.training = training
        self.validation = validation
        self.out = out
        self.save_every = save_every
        self.device = next(network.parameters()).device
        self.optimizer = make_optimizer(network, recipe)
        self.steps_per_epoch = training.batches(recipe.batch_size)
        if not self.steps_per_epoch:
            raise ValueError(f"{len(training)} training images do not fill one batch of {recipe.batch_size}")
        if (teacher is not None) != (recipe.distillation > 0):
            raise ValueError("a teacher needs a share of the loss, and a share of the loss needs a teacher")
        if recipe.feature_weight and (teacher is None or teacher.channels != network.classifier.in_features):
            raise ValueError(
                "--feature-weight needs a teacher whose last stage is as wide as the network's; 0 needs none"
            )
        if recipe.batch_size % processes.count or recipe.batch_size < 2 * processes.count:
            raise ValueError(f"{processes.count} processes cannot share batches of {recipe.batch_size} images evenly")
        if recipe.patience and not len(validation):
            raise ValueError("patience needs held-out images, which tell whether an epoch was better")
        self.steps = recipe.epochs * self.steps_per_epoch
        self.step = 0
        self.totals = Totals()
        self.history: list[dict[str, float]] = []
        self._timed = False
        gated_rates = [rate for rate in network.config.target_rates if rate < 1]
        # A run goes on only from where it began.
        self._origin = {"init": init_digest, "data": training.examples.digest()}
        if teacher is not None:
            self._origin["teacher"] = teacher.digest
        self._teacher = teacher
        self._processes = processes
        self._parallel = processes.parallel(network)
        self._class_weights = None
        if recipe.class_weights:
            classes = torch.from_numpy(training.examples.classes[training.indices])
            self._class_weights = balanced_weights(classes, len(network.config.labels)).to(self.device)
        self._mean = None
        if recipe.ema_decay:
            self._mean = running_mean(network, recipe.ema_decay)
        self._held_out = HeldOut.of(validation.examples, validation.indices)
        self._targets = torch.tensor(gated_rates, device=self.device)
        for module in network.modules():
            if isinstance(module, Gate):
                module.noise = recipe.gate_noise
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self._budgets = None
        if recipe.budgets is not None:
            self._budgets = Budgets(Structure.of_config(network.config), self._targets, *recipe.budgets)

    @property
    def finished(self) -> bool:
        """Whether the last step is taken, or patience is at its end, and the figures of the epoch are kept."""
        return not self.totals.steps and (self.step == self.steps or self._stalled)

    @property
    def _accuracies(self) -> list[float]:
        """Of the held-out images after each epoch; none where there are no such images."""
        return [row["validation_accuracy"] for row in self.history if "validation_accuracy" in row]

    @property
    def _stalled(self) -> bool:
        """Whether no epoch was better for as long as the recipe waits."""
        patience, accuracies = self.recipe.patience, self._accuracies
        if patience is None or not accuracies:
            return False
        return len(accuracies) - 1 - int(np.argmax(accuracies)) >= patience

    @property
    def judged(self) -> AdaptiveResNet:
        """The network that is judged and saved: the mean over the steps, where one is kept."""
        return self.network if self._mean is None else cast(AdaptiveResNet, self._mean.module)

    def run(self) -> None:
        """Train from where the run stands to its end."""
        leads = self._processes.leads
        with SummaryWriter(str(self.out), purge_step=len(self.history) + 1) if leads else nullcontext() as board:
            while not self.finished:
                if self.totals.steps < self.steps_per_epoch:  # else it was killed when only the figures were missing
                    self._train_epoch()
                row = self._processes.told(self._epoch_metrics() if leads else {})
                is_best = row.get("validation_accuracy", 0.0) > max(self._accuracies, default=0.0)
                self.history.append(row)
                self.totals = Totals()
                if board is not None:
                    self._keep(row, is_best, board)

    def _keep(self, row: dict[str, float], is_best: bool, board: SummaryWriter) -> None:
        """Write and tell the figures of an epoch, and the network after it."""
        if is_best:
            save(self.out / BEST_NAME, Checkpoint(self.network.config, self.judged.state_dict(), self._told()))
        # Before the checkpoint: after a kill between the two, the resumed run writes the row again.
        _write_csv(self.out / METRICS_NAME, self.history)
        self.save()
        for name, value in row.items():
            board.add_scalar(name, value, len(self.history))
        tqdm.write(" ".join(f"{name}={value:g}" for name, value in row.items()))

    def save(self) -> None:
        """Write the checkpoint from which `resume` goes on; only the first process does."""
        if not self._processes.leads:
            return
        state = self.optimizer.state
        kept = {name: state[p]["momentum_buffer"] for name, p in self.network.named_parameters() if p in state}
        if self._mean is not None:
            kept |= {f"{_TRAINED}{name}": tensor for name, tensor in self.network.state_dict().items()}
        training = self._told() | {"totals": asdict(self.totals), "scaler": self._scaler.state_dict()}
        save(self.out / CHECKPOINT_NAME, Checkpoint(self.network.config, self.judged.state_dict(), training, kept))

    def _told(self) -> dict[str, Any]:
        """What a checkpoint tells of the run so far."""
        return {
            "recipe": self.recipe.model_dump(),
            "held_out": self._held_out.model_dump(mode="json"),
            "origin": self._origin,
            "steps_per_epoch": self.steps_per_epoch,
            "step": self.step,
            "history": self.history,
        }

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same network and recipe, which began with the same weights and data.

        Raises:
            CheckpointError: it is of another network, recipe, beginning or data set, or keeps no training state.
        """
        check_same_run(checkpoint, self.network.config, self._told())
        if self._mean is None:
            self.network.load_state_dict(checkpoint.weights)
        else:
            self._mean.module.load_state_dict(checkpoint.weights)
            self._mean.n_averaged.fill_(checkpoint.training["step"])
            trained = {name: checkpoint.optimizer[f"{_TRAINED}{name}"] for name in checkpoint.weights}
            self.network.load_state_dict(trained)
        for name, parameter in self.network.named_parameters():
            if name in checkpoint.optimizer:
                self.optimizer.state[parameter]["momentum_buffer"] = checkpoint.optimizer[name].to(self.device)
        self.step = checkpoint.training["step"]
        self.totals = Totals(**checkpoint.training["totals"])
        self._scaler.load_state_dict(checkpoint.training.get("scaler", {}))
        self.history = checkpoint.training["history"]

    def _train_epoch(self) -> None:
        """Train from the current step to the end of its epoch."""
        self.network.train()
        if self.recipe.frozen_norms:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):  # those of gates have one dimension
                    module.eval()
        epoch, first = divmod(self.step, self.steps_per_epoch)
        share = self._processes.share
        batches = self.training.shuffled(self.recipe.batch_size, self.recipe.seed, epoch, first, share)
        with tqdm(
            desc=f"epoch {epoch + 1}/{self.recipe.epochs}",
            total=self.steps_per_epoch,
            initial=first,
            unit="step",
            leave=False,
            disable=None if self._processes.leads else True,
        ) as bar:
            started = 0.0
            for taken, batch in enumerate(batches):
                self._train_step(batch)
                bar.update()
                if taken == 0:
                    started = time.perf_counter()
                elif taken == _TIMED_STEPS and not self._timed:
                    self._tell_time((time.perf_counter() - started) / _TIMED_STEPS)
                mean = 1 / self.totals.steps
                bar.set_postfix(
                    loss=f"{self.totals.loss * mean:.3f}",
                    accuracy=f"{self.totals.correct / self.totals.images:.3f}",
                    open=f"{self.totals.open_share * mean:.2f}",
                )
                if self.step % self.save_every == 0:
                    self.save()

    def _tell_time(self, seconds: float) -> None:
        """Tell how long the run takes, if a step of the images of now takes so many seconds: as long as their area."""
        self._timed = True
        side = self.network.config.input_size
        areas = [self.recipe.image_side(step, self.steps, side) ** 2 for step in range(self.steps)]
        each = seconds / areas[self.step - 1]
        epoch, left = each * side**2 * self.steps_per_epoch, each * sum(areas[self.step :])
        if self._processes.leads:
            whole, rest = (str(timedelta(seconds=round(each))) for each in (epoch, left))
            tqdm.write(f"time        about {whole} an epoch of images of full size, {rest} to the end of training")

    def _train_step(self, batch: Batch) -> None:
        started = time.perf_counter()
        # Budgets and the gates' noise depend on seed, process and step alone, so that a resumed run draws the same.
        processes = self._processes
        torch.manual_seed((((self.recipe.seed * processes.count + processes.rank) << 32) + self.step) % 2**63)
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.recipe.learning_rate(self.step, self.steps)
        images = self._at_its_size(batch.images.to(self.device, non_blocking=True))
        classes = batch.classes.to(self.device, non_blocking=True)
        images, targets = mixed(images, classes, len(self.network.config.labels), self.recipe.mixup)
        low = _LOW_PRECISIONS.get(self.recipe.precision)
        with torch.autocast(self.device.type, low, enabled=low is not None):
            fallen = self.recipe.fallen(self.step, self.steps)
            if self._budgets is None:
                output = self._parallel(images)
                compute = target_rate_loss(output.open, 1 - fallen * (1 - self._targets))
            else:
                budgets = self._budgets.draw(len(images))
                output = self._parallel(images, self._budgets.gate_offset(budgets))
                compute = self._budgets.loss(output.open, 1 - fallen * (1 - budgets))
            taught = None if self._teacher is None else self._teacher.answer(images)
        recipe = self.recipe
        loss = total_loss(
            output,
            targets,
            compute,
            recipe.target_weight,
            recipe.label_smoothing,
            taught,
            recipe.distillation,
            recipe.feature_weight,
            self._class_weights,
        )
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss.total).backward()
        if not torch.isfinite(loss.total):
            raise FloatingPointError(f"the loss is {loss.total.item()} at step {self.step}: lower --lr")
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._mean is not None:
            self._mean.update_parameters(self.network)
        self.step += 1
        self.totals.steps += 1
        self.totals.loss += loss.total.item()
        self.totals.target_rate_loss += loss.compute.item()
        self.totals.correct += int((output.logits.argmax(dim=1) == classes).sum())
        self.totals.images += len(classes)
        self.totals.open_share += output.open.mean().item() if len(self._targets) else 1.0
        self.totals.seconds += time.perf_counter() - started

    def _at_its_size(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) of the side that the recipe has for this step."""
        side = self.recipe.image_side(self.step, self.steps, images.shape[-1])
        if side == images.shape[-1]:
            return images
        return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)

    def _epoch_metrics(self) -> dict[str, float]:
        steps = self.totals.steps
        row = {
            "epoch": self.step // self.steps_per_epoch,
            "learning_rate": self.recipe.learning_rate(self.step - 1, self.steps),
            "train_loss": self.totals.loss / steps,
            "train_target_rate_loss": self.totals.target_rate_loss / steps,
            "train_accuracy": self.totals.correct / self.totals.images,
            "train_open_share": self.totals.open_share / steps,
            "train_seconds": self.totals.seconds,
        }
        if len(self.validation):
            result = evaluate(self.judged, self.validation)
            row["validation_accuracy"] = result.accuracy
            row["validation_mac_share"] = float(result.mac_share.mean())
            rates = result.executed.mean(axis=0)
            row["validation_lowest_rate"] = float(rates.min())
            row["validation_varied_blocks"] = int(((rates > 0.02) & (rates < 0.98)).sum())
        return row


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)

"""The training loop: steps, evaluation after every epoch, logs, and checkpoints from which a run goes on exactly."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from models.budgets import Budgets
from models.checkpoint import Checkpoint, CheckpointError, save
from models.data import Batch, Dataset
from models.evaluation import evaluate
from models.loss import target_rate_loss, total_loss
from models.recipe import Recipe, make_optimizer
from models.resnet import AdaptiveResNet
from models.structure import Structure

CHECKPOINT_NAME = "checkpoint.safetensors"
METRICS_NAME = "metrics.csv"


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
    ) -> None:
        """Prepare a run that has not taken a step.

        Args:
            out: its folder; made when the run begins.
            save_every: steps between two checkpoints; there is one after every epoch, too.
            init_digest: SHA-256 of the checkpoint whose weights the network starts from; None where they are random.

        Raises:
            ValueError: the training images do not fill one batch, or the network cannot have the recipe's budgets.
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
        self.steps = recipe.epochs * self.steps_per_epoch
        self.step = 0
        self.totals = Totals()
        self.history: list[dict[str, float]] = []
        gated_rates = [rate for rate in network.config.target_rates if rate < 1]
        # A run goes on only from where it began.
        self._origin = {"init": init_digest, "data": training.examples.digest()}
        self._targets = torch.tensor(gated_rates, device=self.device)
        self._budgets = None
        if recipe.budgets is not None:
            self._budgets = Budgets(Structure.of_config(network.config), self._targets, *recipe.budgets)

    @property
    def finished(self) -> bool:
        """Whether the last step is taken and the figures of its epoch are kept."""
        return self.step == self.steps and not self.totals.steps

    def run(self) -> None:
        """Train from where the run stands to its end."""
        self.out.mkdir(parents=True, exist_ok=True)
        with SummaryWriter(str(self.out), purge_step=len(self.history) + 1) as board:
            while not self.finished:
                if self.totals.steps < self.steps_per_epoch:  # else it was killed when only the figures were missing
                    self._train_epoch()
                row = self._epoch_metrics()
                self.history.append(row)
                self.totals = Totals()
                # Before the checkpoint: after a kill between the two, the resumed run writes the row again.
                _write_csv(self.out / METRICS_NAME, self.history)
                self.save()
                for name, value in row.items():
                    board.add_scalar(name, value, len(self.history))
                tqdm.write(" ".join(f"{name}={value:g}" for name, value in row.items()))

    def save(self) -> None:
        """Write the checkpoint from which `resume` goes on."""
        state = self.optimizer.state
        momentum = {name: state[p]["momentum_buffer"] for name, p in self.network.named_parameters() if p in state}
        training = {
            "recipe": self.recipe.model_dump(),
            "origin": self._origin,
            "steps_per_epoch": self.steps_per_epoch,
            "step": self.step,
            "totals": asdict(self.totals),
            "history": self.history,
        }
        checkpoint = Checkpoint(self.network.config, self.network.state_dict(), training, momentum)
        save(self.out / CHECKPOINT_NAME, checkpoint)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same network and recipe, which began with the same weights and data.

        Checkpoints of earlier versions do not tell what they began with, and are believed.

        Raises:
            CheckpointError: it is of another network, recipe, beginning or data set, or keeps no training state.
        """
        if checkpoint.config != self.network.config:
            raise CheckpointError("the checkpoint in the output folder is of another network; choose another --out")
        if _recipe_of(checkpoint) != self.recipe:
            raise CheckpointError("the run in the output folder has another recipe; choose another --out")
        origin = checkpoint.training.get("origin", self._origin)
        if origin["init"] != self._origin["init"]:
            raise CheckpointError("the run in the output folder began with another --init; choose another --out")
        if checkpoint.training.get("steps_per_epoch") != self.steps_per_epoch or origin["data"] != self._origin["data"]:
            raise CheckpointError("the run in the output folder was on other data; choose another --out")
        self.network.load_state_dict(checkpoint.weights)
        for name, parameter in self.network.named_parameters():
            if name in checkpoint.optimizer:
                self.optimizer.state[parameter]["momentum_buffer"] = checkpoint.optimizer[name].to(self.device)
        self.step = checkpoint.training["step"]
        self.totals = Totals(**checkpoint.training["totals"])
        self.history = checkpoint.training["history"]

    def _train_epoch(self) -> None:
        """Train from the current step to the end of its epoch."""
        self.network.train()
        epoch, first = divmod(self.step, self.steps_per_epoch)
        batches = self.training.shuffled(self.recipe.batch_size, self.recipe.seed, epoch, first)
        with tqdm(
            desc=f"epoch {epoch + 1}/{self.recipe.epochs}",
            total=self.steps_per_epoch,
            initial=first,
            unit="step",
            leave=False,
            disable=None,
        ) as bar:
            for batch in batches:
                self._train_step(batch)
                bar.update()
                mean = 1 / self.totals.steps
                bar.set_postfix(
                    loss=f"{self.totals.loss * mean:.3f}",
                    accuracy=f"{self.totals.correct / self.totals.images:.3f}",
                    open=f"{self.totals.open_share * mean:.2f}",
                )
                if self.step % self.save_every == 0:
                    self.save()

    def _train_step(self, batch: Batch) -> None:
        started = time.perf_counter()
        # Budgets and the gates' noise depend on the seed and the step alone, so that a resumed run draws the same.
        torch.manual_seed((self.recipe.seed << 32) + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(self.step, self.steps)
        images = self._at_its_size(batch.images.to(self.device, non_blocking=True))
        classes = batch.classes.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            if self._budgets is None:
                output = self.network(images)
                compute = target_rate_loss(output.open, self._targets)
            else:
                budgets = self._budgets.draw(len(images))
                output = self.network(images, self._budgets.gate_offset(budgets))
                compute = self._budgets.loss(output.open, budgets)
        weight = self.recipe.target_weight_at(self.step, self.steps)
        loss = total_loss(output.logits, classes, compute, weight, self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        if not torch.isfinite(loss.total):
            raise FloatingPointError(f"the loss is {loss.total.item()} at step {self.step}: lower --lr")
        self.optimizer.step()
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
            result = evaluate(self.network, self.validation)
            row["validation_accuracy"] = result.accuracy
            row["validation_mac_share"] = float(result.mac_share.mean())
            rates = result.executed.mean(axis=0)
            row["validation_lowest_rate"] = float(rates.min())
            row["validation_varied_blocks"] = int(((rates > 0.02) & (rates < 0.98)).sum())
        return row


def warm_start(network: AdaptiveResNet, checkpoint: Checkpoint) -> None:
    """Start from the weights of a network of the same shape, with or without gates; gates it lacks stay fresh.

    Raises:
        CheckpointError: a weight outside the gates is missing or of another shape.
    """
    own = network.state_dict()
    kept = {name: tensor for name, tensor in checkpoint.weights.items() if name in own}
    missing = [name for name in own if name not in kept and ".gate." not in name]
    if missing or any(own[name].shape != tensor.shape for name, tensor in kept.items()):
        raise CheckpointError(f"{checkpoint.config.name} is not of the same shape as {network.config.name}")
    network.load_state_dict(own | kept)


def _recipe_of(checkpoint: Checkpoint) -> Recipe | None:
    """Of the run that left it, with today's defaults for what its version did not have; None where it is unknown."""
    try:
        return Recipe.model_validate(checkpoint.training.get("recipe"))
    except ValidationError:
        return None


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)

"""A trained network that can be asked about images, whichever form it is kept in; here a checkpoint, in PyTorch."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from artifact.agreement import LogitsAndMargins
from artifact.preprocessing import UInt8Array
from models.checkpoint import Checkpoint
from models.hold_out import HeldOut
from models.structure import Structure


class Classifier(Protocol):
    """A network that classifies fitted pixels.

    Attributes:
        structure: of the network.
        runtime: what runs it, for people to read.
        batch_size: of the batches it runs fastest on.
        workers: how many threads may call `run` at once, each on one core.
        held_out: what its training held out; None where that is not known.
    """

    runtime: str

    @property
    def structure(self) -> Structure: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def held_out(self) -> HeldOut | None: ...

    def run(self, pixels: UInt8Array, gate_offset: float = 0.0) -> LogitsAndMargins:
        """Logits and margins of pixels (N, H, W, 3), with `gate_offset` added to every margin before the decision."""


class TrainedClassifier:
    """A checkpoint's network on a device; PyTorch shares a batch among the cores itself."""

    runtime = "PyTorch"
    workers = 1

    def __init__(self, checkpoint: Checkpoint, device: torch.device, batch_size: int = 256) -> None:
        self.structure = Structure.of_config(checkpoint.config)
        self.network = checkpoint.network().to(device)
        self.batch_size = batch_size
        self.held_out = checkpoint.held_out
        self._device = device

    def input(self, pixels: UInt8Array) -> Tensor:
        """The network's input (N, 3, H, W), on its device, for pixels (N, H, W, 3)."""
        images = torch.from_numpy(self.structure.preprocessing.normalise(pixels))
        return images.contiguous(memory_format=torch.channels_last).to(self._device)

    @torch.inference_mode()
    def run(self, pixels: UInt8Array, gate_offset: float = 0.0) -> LogitsAndMargins:
        """See `Classifier.run`."""
        output = self.network(self.input(pixels), gate_offset)
        return output.logits.cpu().numpy(), output.margins.cpu().numpy()

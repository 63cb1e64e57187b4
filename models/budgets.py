"""Training for budgets: each image of a batch has one of its own, and the gates are pulled towards it together.

The draw is the sandwich rule of slimmable networks (Yu & Huang 2019, section 3.1), told to the gates as an offset: the
largest budget, on which the quality of all others rests, has a quarter of the images, and the rest is spread evenly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from artifact.manifest import ALWAYS
from models.structure import Structure

# Share of a batch that has the largest budget.
_LARGEST = 0.25
# Groups of images of like budgets, whose mean cost is compared with their mean budget.
_GROUPS = 4
# From this share of the skippable part on, all gates are held open: the offset would be beyond all margins anyway.
_ALL = 0.98


class Budgets:
    """The compute that images may cost in training, and the loss that holds the gates to it.

    Args:
        structure: of the network that is trained.
        rates: (G,) target rates of its gated blocks; of several budgets, what they cost is at gate offset 0.
        lowest: smallest budget, as a share of the multiply-accumulates (MACs) of all blocks.
        highest: largest budget; at 1 all gates are held open for it. If it is the smallest too, all images have it, at
            gate offset 0.

    Raises:
        ValueError: the network has no gates, or cannot cost as little as that.
    """

    def __init__(self, structure: Structure, rates: Tensor, lowest: float, highest: float) -> None:
        macs = structure.skippable_macs[structure.gated]
        self._shares = torch.tensor(macs / structure.total_macs, dtype=torch.float32, device=rates.device)  # (G,)
        self._always = 1 - float(self._shares.sum())
        if not len(macs):
            raise ValueError("a network without gates has one budget only")
        if lowest <= self._always:
            raise ValueError(f"{structure.name} costs {self._always:.3f} with all gates closed: budgets must be above")
        self._range = (lowest, highest)
        self._at_rest = float(self._shares @ rates) / float(self._shares.sum())
        if lowest == highest:
            self._at_rest = (lowest - self._always) / float(self._shares.sum())

    def draw(self, images: int) -> Tensor:
        """Budgets of so many images, (N,), in random order."""
        lowest, highest = self._range
        largest = round(_LARGEST * images)
        steps = (torch.arange(images - largest) + torch.rand(images - largest)) / max(1, images - largest)
        drawn = torch.cat([torch.full((largest,), highest), lowest + (highest - lowest) * steps])
        return drawn[torch.randperm(images)].to(self._shares.device)

    def gate_offset(self, budgets: Tensor) -> Tensor:
        """What is added to the margins of images with these budgets, (N,), rising with the budget."""
        wanted = (budgets - self._always) / self._shares.sum()
        offset = torch.logit(wanted, eps=1e-3) - torch.logit(torch.tensor(self._at_rest), eps=1e-3)
        return torch.where(wanted >= _ALL, ALWAYS, offset)

    def loss(self, gates: Tensor, budgets: Tensor) -> Tensor:
        """Mean over groups of like budgets of (mean share of the MACs spent - mean budget)^2, a scalar.

        Args:
            gates: (N, G) hard decisions, 1.0 where the block ran.
            budgets: (N,) of the images.
        """
        over = self._always + gates @ self._shares - budgets  # (N,)
        return torch.stack([group.mean() ** 2 for group in over[budgets.argsort()].tensor_split(_GROUPS)]).mean()

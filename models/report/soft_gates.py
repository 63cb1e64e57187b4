"""The same network with every block executed and scaled, which tells choosing blocks from regularisation.

If the gates merely regularised the training, as dropping blocks at random does, an average over all blocks should do as
well as the blocks they choose, or better.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from artifact.preprocessing import UInt8Array
from models.answers import Images, Progress, run_over
from models.blocks import ResidualBlock
from models.classifier import TrainedClassifier
from models.resnet import AdaptiveResNet

BY_PROBABILITY = "scaled by its gate's probability for the image"
BY_RATE = "scaled by its execution rate over all images"


def scaled_logits(network: AdaptiveResNet, x: Tensor, gate_offset: float, rates: Tensor | None = None) -> Tensor:
    """Logits (N, classes) for x (N, 3, H, W) with every gated block's residual branch executed and scaled.

    Args:
        gate_offset: added to every margin.
        rates: (G,) scale of each gated block for all images, as for blocks dropped at random (Huang et al. 2016); by
            default the probability that the gate opens in training, the sigmoid of the margin, image by image.
    """
    x = network.stem(x)
    fixed = None if rates is None else iter(rates)
    for block in network.blocks.values():
        assert isinstance(block, ResidualBlock)
        scale: Tensor | float = 1.0
        if block.gate is not None:
            margin = block.gate(x).margin + gate_offset
            scale = torch.sigmoid(margin)[:, None, None, None] if fixed is None else next(fixed)
        x = F.relu(block.shortcut(x) + scale * block.residual(x))
    return network.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


def scaled_hits(
    classifier: TrainedClassifier,
    network: AdaptiveResNet,
    images: Images,
    rates: np.ndarray,
    gate_offset: float = 0.0,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """For both scales, whether each image is classified correctly, (N,).

    Args:
        network: that of the classifier.
        rates: (G,) execution rates of the gated blocks.
    """
    classes = images.classes
    scales = {BY_PROBABILITY: None, BY_RATE: torch.from_numpy(rates.astype(np.float32))}

    @torch.inference_mode()
    def work(positions: np.ndarray, pixels: UInt8Array) -> tuple[np.ndarray, ...]:
        batch = classifier.input(pixels)
        predictions = [
            scaled_logits(network, batch, gate_offset, None if scale is None else scale.to(batch.device))
            for scale in scales.values()
        ]
        return tuple(logits.argmax(dim=1).cpu().numpy() == classes[positions] for logits in predictions)

    hits = run_over(images, np.arange(len(images)), work, classifier.batch_size, progress=progress)
    return dict(zip(scales, hits, strict=True))

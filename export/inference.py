"""The serving form of the network: batch norms folded away, no noise, and a closed block truly skipped.

It is scriptable, so TorchScript is made from it as it stands, and the ONNX graph is built from its layers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from models.blocks import ResidualBlock
from models.cascade import Cascade, Network
from models.gate import Gate
from models.resnet import AdaptiveResNet


class InferenceGate(nn.Module):
    """The margin of a gate: pool, hidden layer with its batch norm folded in, and one output, execute - skip logit."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.hidden = fuse_linear_bn_eval(gate.fc1, gate.bn)
        self.margin = nn.Linear(gate.fc2.in_features, 1)
        with torch.no_grad():
            self.margin.weight.copy_(gate.fc2.weight[1:] - gate.fc2.weight[:1])
            self.margin.bias.copy_(gate.fc2.bias[1:] - gate.fc2.bias[:1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N,) margins."""
        return self.margin(F.relu(self.hidden(x.mean(dim=(2, 3))))).squeeze(1)


class UngatedBlock(nn.Module):
    """A block that always runs."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.residual = _folded(block.residual)
        self.shortcut = _folded(block.shortcut)

    def forward(self, x: Tensor, gate_offset: Tensor, margins: list[Tensor]) -> Tensor:  # noqa: ARG002 (GatedBlock's)
        """Map (N, C, H, W) to (N, C', H', W')."""
        return F.relu(self.shortcut(x) + self.residual(x))


class GatedBlock(nn.Module):
    """A block whose residual branch runs on the images with an open gate, and on no others."""

    def __init__(self, block: ResidualBlock, gate: Gate, gate_threshold: float) -> None:
        super().__init__()
        self.gate = InferenceGate(gate)
        self.residual = _folded(block.residual)
        self.shortcut = _folded(block.shortcut)
        self.gate_threshold = gate_threshold

    def forward(self, x: Tensor, gate_offset: Tensor, margins: list[Tensor]) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W'), appending the (N,) margins to `margins`."""
        margin = self.gate(x)
        margins.append(margin)
        is_open = margin + gate_offset > self.gate_threshold
        shortcut = self.shortcut(x)
        if bool(is_open.all()):
            return F.relu(shortcut + self.residual(x))
        if bool(is_open.any()):
            indices = is_open.nonzero().squeeze(1)  # (K,), 0 < K < N
            return F.relu(shortcut.index_add(0, indices, self.residual(x[indices])))
        return F.relu(shortcut)


class InferenceNetwork(nn.Module):
    """An `AdaptiveResNet` in evaluation mode, as it is served.

    Args:
        network: the trained network; it is left as it is.
        gate_threshold: a gate is open where margin + offset is above it.
    """

    def __init__(self, network: AdaptiveResNet, gate_threshold: float = 0.0) -> None:
        super().__init__()
        if network.training:
            raise ValueError("folding batch norms needs the network in evaluation mode")
        self.stem = _folded(network.stem)
        self.blocks = nn.ModuleList(_serving_form(block, gate_threshold) for block in network.blocks.values())
        self.classifier = nn.Linear(network.classifier.in_features, network.classifier.out_features)
        self.classifier.load_state_dict(network.classifier.state_dict())
        self.classes = network.classifier.out_features
        self.eval()

    def forward(self, images: Tensor, gate_offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Classify images.

        Args:
            images: (N, 3, H, W) float32.
            gate_offset: (N,) or (1,) float32, added to every margin before the decision; None means 0.

        Returns:
            logits (N, classes) and margins (N, G), G being the number of gated blocks.
        """
        if gate_offset is None:
            gate_offset = torch.zeros(1, device=images.device)
        margins: list[Tensor] = []
        x = self.stem(images)
        for block in self.blocks:
            x = block(x, gate_offset, margins)
        logits = self.classifier(x.mean(dim=(2, 3)))
        if len(margins) == 0:
            return logits, torch.zeros((images.shape[0], 0), device=images.device)
        return logits, torch.stack(margins, dim=1)


class InferenceCascade(nn.Module):
    """A `Cascade` as it is served: a network runs on the images that have come to it, and on no others.

    Args:
        cascade: the trained networks; they are left as they are.
        gate_threshold: a gate is open where margin + offset is above it.
    """

    def __init__(self, cascade: Cascade, gate_threshold: float = 0.0) -> None:
        super().__init__()
        networks = [network for network in cascade.networks if isinstance(network, AdaptiveResNet)]
        self.networks = nn.ModuleList(InferenceNetwork(network, gate_threshold) for network in networks)
        self.sure_above = [float("nan"), *cascade.config.sure_above]  # of the first nothing is asked
        self.gates = [len(network.gated_blocks) for network in networks]
        self.gate_threshold = gate_threshold
        self.classes = len(cascade.config.labels)
        self.eval()

    def forward(self, images: Tensor, gate_offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `InferenceNetwork.forward`."""
        if gate_offset is None:
            gate_offset = torch.zeros(1, device=images.device)
        offsets = gate_offset.expand(images.shape[0])
        asked = torch.arange(images.shape[0], device=images.device)  # (K,)
        logits = torch.zeros(0, device=images.device)
        margins = torch.zeros((images.shape[0], sum(self.gates) + len(self.gates) - 1), device=images.device)
        column = 0
        for number, network in enumerate(self.networks):
            gates = self.gates[number]
            if number == 0:
                logits, own = network(images, offsets)
                margins[:, :gates] = own
                column = gates
            elif len(asked) > 0:
                two_largest = logits[asked].topk(2, dim=1)[0]
                margin = self.sure_above[number] - (two_largest[:, 0] - two_largest[:, 1])
                margins[asked, column] = margin
                asked = asked[margin + offsets[asked] > self.gate_threshold]
                if len(asked) > 0:
                    more, own = network(images[asked], offsets[asked])
                    before = F.log_softmax(logits[asked], 1) + math.log(number)
                    logits[asked] = torch.logaddexp(before, F.log_softmax(more, 1)) - math.log(number + 1)
                    margins[asked, column + 1 : column + 1 + gates] = own
                column += 1 + gates
        return logits, margins


def inference_form(network: Network, gate_threshold: float = 0.0) -> InferenceNetwork | InferenceCascade:
    """A network in evaluation mode as it is served."""
    if isinstance(network, Cascade):
        return InferenceCascade(network, gate_threshold)
    return InferenceNetwork(network, gate_threshold)


def _serving_form(block: nn.Module, gate_threshold: float) -> nn.Module:
    assert isinstance(block, ResidualBlock)
    return UngatedBlock(block) if block.gate is None else GatedBlock(block, block.gate, gate_threshold)


def _folded(module: nn.Module) -> nn.Module:
    """A copy of a Sequential (or Identity) with every batch norm folded into the convolution before it."""
    if not isinstance(module, nn.Sequential):
        return nn.Identity()
    layers: list[nn.Module] = []
    for layer in module:
        if isinstance(layer, nn.BatchNorm2d):
            convolution = layers.pop()
            assert isinstance(convolution, nn.Conv2d)
            layers.append(fuse_conv_bn_eval(convolution, layer))
        elif isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU())
        else:
            layers.append(layer)
    return nn.Sequential(*layers)

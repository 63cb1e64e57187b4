"""What a network starts its training from."""

from __future__ import annotations

from dataclasses import dataclass

from models.checkpoint import Checkpoint, require_fit
from models.config import ModelConfig, numbered_labels
from models.resnet import AdaptiveResNet

_CLASSIFIER, _GATE = "classifier.", ".gate."


@dataclass(frozen=True)
class Start:
    """What became of the weights that a network started from.

    Attributes:
        taken: tensors that were taken.
        fresh: parts that were made new, for people to read.
        left: parts of the source that were left over.
    """

    taken: int
    fresh: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        fresh, left = (", ".join(parts) or "nothing" for parts in (self.fresh, self.left))
        return f"{self.taken} tensors taken; made new: {fresh}; left over: {left}"


def warm_start(network: AdaptiveResNet, source: Checkpoint, fresh_gates: bool = False) -> Start:
    """Start from the weights of a network of the same shape, with or without gates.

    All outside gates and the classifier is taken. The classifier is taken where the classes are the same, or where the
    source knows only their number and that is the same. Gates are taken where both have them.

    Args:
        network: whose weights are fresh.
        source: where to take others from.
        fresh_gates: take none of its gates.

    Raises:
        CheckpointError: a weight outside these is missing, left over or of another shape.
    """
    assert isinstance(source.config, ModelConfig)
    own, labels, theirs = network.state_dict(), network.config.labels, source.config.labels
    keeps_classifier = theirs in (labels, numbered_labels(len(labels)))

    def may_stay(name: str) -> bool:
        """Whether a weight need not be taken."""
        return _GATE in name or (name.startswith(_CLASSIFIER) and not keeps_classifier)

    wanted = {
        name: tensor
        for name, tensor in source.weights.items()
        if not may_stay(name) or (_GATE in name and name in own and not fresh_gates)
    }
    needed = {name: own[name] for name in own if name in wanted or not may_stay(name)}
    require_fit(network.config.name, needed, wanted)
    network.load_state_dict(own | wanted)
    fresh, left = [], []
    if not keeps_classifier:
        fresh.append(f"the classifier ({len(labels)} classes)")
        left.append(f"the classifier ({len(theirs)} classes)")
    for names, parts in ((own, fresh), (source.weights, left)):
        gates = {name.partition(_GATE)[0] for name in names if _GATE in name}
        taken = {name.partition(_GATE)[0] for name in wanted if _GATE in name}
        if others := len(gates - taken):
            parts.append(f"{others} gates" if others > 1 else "1 gate")
    return Start(len(wanted), tuple(fresh), tuple(left))

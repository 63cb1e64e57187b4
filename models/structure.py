"""What evaluating a network needs to know of it besides its answers: its blocks, its gates and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from artifact.gating import Gating
from artifact.manifest import Block, Manifest
from artifact.preprocessing import Preprocessing
from models.config import CascadeConfig, ModelConfig
from models.macs import count_macs
from models.resnet import block_name


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure(Gating):
    """A network of B blocks, of which some are gated.

    Attributes:
        name: of the network.
        labels: class names, in the order of the logits.
        preprocessing: from a decoded image to the network's input.
        block_names: of all B blocks, in order.
    """

    name: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    block_names: tuple[str, ...]

    @classmethod
    def of_config(cls, config: ModelConfig | CascadeConfig) -> Structure:
        """The structure of the network that `config` describes."""
        macs = count_macs(config.networks[0] if isinstance(config, CascadeConfig) else config)
        blocks = blocks_of(config)
        return cls._of(config, blocks, Gating.of_blocks(blocks, macs.stem + macs.classifier, gate_threshold=0.0))

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> Structure:
        """The structure of an exported network."""
        return cls._of(manifest, manifest.blocks, manifest.gating)

    @classmethod
    def _of(cls, told: ModelConfig | CascadeConfig | Manifest, blocks: Sequence[Block], gating: Gating) -> Structure:
        return cls(
            name=told.name,
            labels=told.labels,
            preprocessing=told.preprocessing,
            block_names=tuple(block.name for block in blocks),
            **{field.name: getattr(gating, field.name) for field in fields(Gating)},
        )


def blocks_of(config: ModelConfig | CascadeConfig) -> tuple[Block, ...]:
    """The blocks of a network in the order they run; those of a cascade with one for the beginning of each network."""
    if isinstance(config, CascadeConfig):
        return tuple(_blocks_of_cascade(config))
    macs = count_macs(config)
    stages = [stage for stage, count in enumerate(config.stage_blocks, 1) for _ in range(count)]
    return tuple(
        Block(
            name=name,
            stage=stage,
            gated=block.gate > 0,
            macs=block.residual,
            shortcut_macs=block.shortcut,
            gate_macs=block.gate,
        )
        for stage, (name, block) in zip(stages, macs.blocks.items(), strict=True)
    )


def _blocks_of_cascade(config: CascadeConfig) -> Iterator[Block]:
    stages, within = 0, None
    for number, network in enumerate(config.networks, 1):
        if number > 1:
            macs = count_macs(network)
            name = network_name(number)
            yield Block(
                name=name,
                kind="network",
                stage=stages + 1,
                gated=True,
                macs=macs.stem + macs.classifier,
                shortcut_macs=0,
                gate_macs=0,
                within=within,
            )
            within = name
        for (stage, position), block in zip(_places(network), blocks_of(network), strict=True):
            name = block_name(stages + stage, position)
            yield block.model_copy(update={"name": name, "stage": stages + stage, "within": within})
        stages += len(network.stage_blocks)


def network_name(number: int) -> str:
    """The name of a network of a cascade, from 1, and of the block that stands for its beginning."""
    return f"network{number}"


def _places(config: ModelConfig) -> Iterator[tuple[int, int]]:
    """Stage, from 1, and position in it, from 0, of each block."""
    for stage, count in enumerate(config.stage_blocks, 1):
        for position in range(count):
            yield stage, position

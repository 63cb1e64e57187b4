"""What a network is: depth, widths, gates, labels and preprocessing, with presets by name.

The paper has those of 110 layers for CIFAR-10 and of 50 and 101 for ImageNet; the others are their smaller and larger
relations.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from artifact.preprocessing import Preprocessing

BottleneckStride = Literal["3x3", "1x1"]
"""Which convolution of the first bottleneck block of a stage halves the image."""

CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_CIFAR_PREPROCESSING = Preprocessing(resize=32, crop=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
_IMAGENET_PREPROCESSING = Preprocessing(resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

# Bottleneck and basic stage depths of He et al. (2016), table 1.
_IMAGENET_STAGES: dict[int, tuple[Literal["basic", "bottleneck"], tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


class ModelConfig(BaseModel):
    """Everything needed to build the network again.

    Attributes:
        name: name of the network, and of the artifact exported from it.
        stem: "cifar" (one 3x3 convolution) or "imagenet" (7x7 convolution and max pooling, stride 4 in all).
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1 with fourfold expansion).
        stage_blocks: number of blocks in each stage.
        stage_widths: channels inside the blocks of each stage.
        target_rates: for each block in order, the execution rate training pulls its gate towards; a block whose rate
            is 1 carries no gate and always runs.
        labels: class names, in the order of the logits.
        preprocessing: from a decoded image to the input tensor.
        gate_hidden: hidden units of every gate.
        bottleneck_stride: where the first block of every stage but the first has its stride of 2, if it is a
            bottleneck: "3x3" as in torchvision, timm and the published code ("version 1.5"), or "1x1", the first
            convolution, as in He et al. (2016).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    stem: Literal["cifar", "imagenet"]
    block: Literal["basic", "bottleneck"]
    stage_blocks: tuple[int, ...]
    stage_widths: tuple[int, ...]
    target_rates: tuple[float, ...]
    labels: tuple[str, ...] = Field(min_length=2)
    preprocessing: Preprocessing
    gate_hidden: int = Field(default=16, gt=0)
    bottleneck_stride: BottleneckStride = "3x3"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.stage_blocks) != len(self.stage_widths):
            raise ValueError("stage_blocks and stage_widths differ in length")
        if len(self.target_rates) != self.block_count:
            raise ValueError(f"{len(self.target_rates)} target rates for {self.block_count} blocks")
        if not all(0 < rate <= 1 for rate in self.target_rates):
            raise ValueError("every target rate must be above 0 and at most 1")
        if self.block == "basic" and self.bottleneck_stride != "3x3":
            raise ValueError(f"{self.name} has basic blocks, whose stride is in their first convolution always")
        return self

    @property
    def block_count(self) -> int:
        return sum(self.stage_blocks)

    @property
    def gated(self) -> bool:
        """Whether any block has a gate."""
        return min(self.target_rates) < 1

    @property
    def input_size(self) -> int:
        """Height and width of the network's input, in pixels."""
        return self.preprocessing.crop

    def with_target_rates(self, rates: float | tuple[float, ...]) -> ModelConfig:
        """The same network with these target rates; one number stands for every block."""
        spread = (float(rates),) * self.block_count if isinstance(rates, int | float) else rates
        return ModelConfig.model_validate({**self.model_dump(), "target_rates": spread})

    def without_gates(self) -> ModelConfig:
        """The plain residual network of the same shape, which is the baseline for everything."""
        return self.with_target_rates(1.0).model_copy(update={"name": f"{self.name}-plain"})

    def with_labels(self, labels: tuple[str, ...]) -> ModelConfig:
        """The same network for other classes."""
        return ModelConfig.model_validate({**self.model_dump(), "labels": labels})

    def with_preprocessing(self, preprocessing: Preprocessing) -> ModelConfig:
        """The same network for images prepared otherwise."""
        return ModelConfig.model_validate({**self.model_dump(), "preprocessing": preprocessing})

    def with_image_size(self, size: int) -> ModelConfig:
        """The same network for images of so many pixels a side, resized in proportion before they are cropped."""
        own = self.preprocessing
        told = {"resize": round(size * own.resize / own.crop), "crop": size}
        return self.with_preprocessing(Preprocessing.model_validate(own.model_dump() | told))

    def with_normalisation_of(self, other: ModelConfig) -> ModelConfig:
        """The same network for colours as another takes them."""
        told = {"mean": other.preprocessing.mean, "std": other.preprocessing.std}
        return self.with_preprocessing(Preprocessing.model_validate(self.preprocessing.model_dump() | told))

    def with_bottleneck_stride(self, position: BottleneckStride) -> ModelConfig:
        """The same network with its strides elsewhere.

        Raises:
            ValueError: it has no bottleneck blocks.
        """
        return ModelConfig.model_validate({**self.model_dump(), "bottleneck_stride": position})


class CascadeConfig(BaseModel):
    """Everything needed to build a cascade again, see `models.cascade`.

    Attributes:
        name: of the cascade, and of the artifact exported from it.
        networks: in the order they run; of the same labels and preprocessing.
        sure_above: of each network but the first: how far apart the two largest logits so far have to be for an image
            not to need it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    networks: tuple[ModelConfig, ...] = Field(min_length=2)
    sure_above: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.sure_above) != len(self.networks) - 1:
            raise ValueError(f"{len(self.sure_above)} limits for the {len(self.networks) - 1} networks but the first")
        for network in self.networks[1:]:
            if network.labels != self.labels or network.preprocessing != self.preprocessing:
                raise ValueError(f"{network.name} has other labels or preprocessing than {self.networks[0].name}")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.networks[0].labels

    @property
    def preprocessing(self) -> Preprocessing:
        """From a decoded image to the input tensor."""
        return self.networks[0].preprocessing

    @property
    def input_size(self) -> int:
        """Height and width of the input, in pixels."""
        return self.preprocessing.crop


def numbered_labels(count: int) -> tuple[str, ...]:
    """Names for classes of which only the order is known."""
    return tuple(f"class {index}" for index in range(count))


def preset(name: str) -> ModelConfig:
    """Return the network called `name`.

    Raises:
        ValueError: there is no such preset; the message lists those there are.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def _cifar(depth: int) -> ModelConfig:
    """ConvNet-AIG for 32x32 images with depth 6n + 2 (He et al. 2016, section 4.2); the paper's section 4.1 has 110."""
    blocks = (depth - 2) // 6
    return ModelConfig(
        name=f"convnet-aig-{depth}-cifar10",
        stem="cifar",
        block="basic",
        stage_blocks=(blocks,) * 3,
        stage_widths=(16, 32, 64),
        target_rates=(0.7,) * (3 * blocks),
        labels=CIFAR10_LABELS,
        preprocessing=_CIFAR_PREPROCESSING,
    )


def _imagenet(depth: int) -> ModelConfig:
    """ConvNet-AIG for 224x224 images; the paper's section 4.2 has depths 50 and 101."""
    block, stages = _IMAGENET_STAGES[depth]
    return ModelConfig(
        name=f"convnet-aig-{depth}-imagenet",
        stem="imagenet",
        block=block,
        stage_blocks=stages,
        stage_widths=(64, 128, 256, 512),
        target_rates=(0.7,) * sum(stages),
        labels=numbered_labels(1000),
        preprocessing=_IMAGENET_PREPROCESSING,
    )


PRESETS = {
    config.name: config
    for config in [*map(_cifar, (8, 14, 20, 26, 32, 38, 56, 110)), *map(_imagenet, _IMAGENET_STAGES)]
}

"""What plans would take on a GPU, estimated launch by launch: a roofline, and not a measurement.

Each launch takes what launching takes, and the longest of four times:

- of all its products at the card's rate, those in tiles that are not full included;
- of all bytes that its programs load and store, from the second-level cache;
- of the bytes that it reads or writes at least once, from memory, where they are more than that cache holds;
- of its programs one after the other on each multiprocessor, which bounds launches of few programs.

Where few images are in a batch, how many of them are open at a gate is chance: times are means over that.
The launches are those of `ListPlan.launches`, with their kernels' own sizes. The plan of one program an image has one
launch; its time is that of its images' layers, one after the other, at the tiles that its kernel has.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from bench.gpu.networks import mac_ratio, random_network
from models.config import ModelConfig
from service.engine.runtimes.cuda.image_plan import IMAGE_CHANNELS, ImagePlan
from service.engine.runtimes.cuda.list_plan import IMAGE_CHANNELS as LIST_CHANNELS
from service.engine.runtimes.cuda.list_plan import ListPlan
from service.engine.runtimes.cuda.network import Convolution, Network
from service.engine.runtimes.cuda.plan import SIZES, Launch
from service.engine.runtimes.portable_graph import UnknownGraph

_SIZE = SIZES["fp16"]
# Images whose shares are whole numbers of them.
_EVEN = 100


@dataclass(frozen=True)
class Card:
    """A GPU, as far as the estimate goes. All but the first three are assumptions.

    Attributes:
        processors: multiprocessors.
        shared_bytes: most memory that the threads of a program share, in bytes.
        memory_bytes_s: from its memory, as a copy reaches it.
        flops: of products of matrices in fp16 a second, as large ones reach it, times what smaller ones reach of that.
        cache_bytes: of the second level.
        cache_bytes_s: from that, by all multiprocessors.
        processor_bytes_s: by one multiprocessor that is alone.
        launch_s: of a kernel in a graph, for what is not its work.
    """

    processors: int = 132
    shared_bytes: int = 232_448
    memory_bytes_s: float = 0.75 * 4.3e12
    flops: float = 0.6 * 780e12
    cache_bytes: float = 40e6
    cache_bytes_s: float = 5.5e12
    processor_bytes_s: float = 1.0e11
    launch_s: float = 1.3e-6


@dataclass(frozen=True)
class Work:
    """Of one launch.

    Attributes:
        programs: that have something to do.
        flops: of all of them.
        moved: bytes that they load and store.
        distinct: of these, those that are not the same as others.
    """

    programs: int
    flops: float
    moved: float
    distinct: float


def estimate(config: ModelConfig, batches: Sequence[int], shares: Sequence[float], card: Card) -> list[dict[str, Any]]:
    """A row for each batch and share of open gates: the faster plan's time, and what the faster plan takes ungated."""
    plans = _plans(config, max(batches), card)
    network, lists = plans["lists"]
    rows = []
    for batch in batches:
        ungated = min(seconds(plan, each, batch, 1.0, card, gated=False) for each, plan in plans.values())
        for share in shares:
            times = {name: seconds(plan, each, batch, share, card) for name, (each, plan) in plans.items()}
            fastest = min(times, key=lambda name: times[name])
            launches = list(lists.launches(batch))
            works = [_mean(launch, batch, share) for launch in launches]
            rows.append(
                {
                    "network": config.name,
                    "batch": batch,
                    "open": share,
                    "plan": fastest,
                    "seconds": times[fastest],
                    "seconds_by_plan": times,
                    "images_per_s": batch / times[fastest],
                    "ungated_seconds": ungated,
                    "mac_ratio": _mac_ratio(network, share),
                    "gflop_an_image": sum(work.flops for work in works) / batch / 1e9,
                    "mb_an_image": sum(work.distinct for work in works) / batch / 1e6,
                    "launches": len(launches),
                }
            )
    return rows


def seconds(
    plan: ListPlan | ImagePlan, network: Network, batch: int, share: float, card: Card, gated: bool = True
) -> float:
    """Of a batch, by a plan, where each gate is open for that share of all images, by chance.

    Lists without gates are those of the gated network without the launches of gates; the other plan has its gates.
    """
    if isinstance(plan, ImagePlan):
        return _image_seconds(plan, network, batch, share, card)
    launches = [launch for launch in plan.launches(batch) if gated or launch.kernel.function != "decide"]
    return sum(
        chance * launch_seconds(list_work(launch, batch, opened), card)
        for launch in launches
        for opened, chance in _opened(launch, batch, share)
    )


def launch_seconds(work: Work, card: Card) -> float:
    """Of one launch."""
    in_a_row = -(-work.programs // card.processors)
    one = max(
        work.flops / max(1, work.programs) / (card.flops / card.processors),
        work.moved / max(1, work.programs) / card.processor_bytes_s,
    )
    memory = work.distinct / card.memory_bytes_s if work.distinct > card.cache_bytes else 0.0
    return card.launch_s + max(work.flops / card.flops, work.moved / card.cache_bytes_s, memory, in_a_row * one)


def list_work(launch: Launch, batch: int, opened: int) -> Work:
    """What a launch of `ListPlan` has to do where so many images of the batch are open at its gate."""
    has = dict(launch.kernel.constants)
    function = launch.kernel.function
    if function == "convolve":
        images = opened if has["LISTED"] else batch
        across = has["K"] // has["COLUMNS"]
        programs = -(-images * has["OUT"] ** 2 // has["ROWS"]) * across
        depth = has["KERNEL"] ** 2 * has["C"]
        times = 2 if has["ADDS"] else 1
        tile = (has["ROWS"] + has["COLUMNS"]) * depth + times * has["ROWS"] * has["COLUMNS"]
        read = min(has["SIDE"] ** 2, has["OUT"] ** 2 * has["KERNEL"] ** 2)
        distinct = images * (read * has["C"] + times * has["OUT"] ** 2 * has["K"]) + bool(images) * depth * has["K"]
        flops = 2 * programs * has["ROWS"] * has["COLUMNS"] * depth
        return Work(programs, flops, _SIZE * programs * tile, _SIZE * distinct)
    if function == "load_images":
        values = batch * has["SIDE"] ** 2
        return _moving(launch, values * (12 + _SIZE * has["CHANNELS"]))
    if function == "max_pool":
        values = batch * has["OUT"] ** 2 * has["C"]
        distinct = _SIZE * (values + batch * has["SIDE"] ** 2 * has["C"])
        return Work(launch.programs, 0, _SIZE * values * (1 + has["KERNEL"] ** 2), distinct)
    if function in ("decide", "average"):
        return _moving(launch, _SIZE * batch * has["PIXELS"] * has["C"])
    if function == "classify":
        weights = 4 * has["CLASSES"] * has["C"]
        return Work(launch.programs, 0, batch * weights, weights)
    raise ValueError(f"nothing is known of {function}")


def _opened(launch: Launch, batch: int, share: float) -> list[tuple[int, float]]:
    """Numbers of images that may be open at a launch's gate, each with its chance."""
    if not dict(launch.kernel.constants).get("LISTED"):
        return [(batch, 1.0)]
    return [(count, comb(batch, count) * share**count * (1 - share) ** (batch - count)) for count in range(batch + 1)]


def _mean(launch: Launch, batch: int, share: float) -> Work:
    works = [(list_work(launch, batch, opened), chance) for opened, chance in _opened(launch, batch, share)]
    flops, moved, distinct = (
        sum(chance * getattr(work, name) for work, chance in works) for name in ("flops", "moved", "distinct")
    )
    return Work(launch.programs, flops, moved, distinct)


def _mac_ratio(network: Network, share: float) -> float:
    """Where that share of the images is open at each gate."""
    images = np.arange(_EVEN) < share * _EVEN
    return mac_ratio(network, np.repeat(images[:, None], network.gates, axis=1))


def _moving(launch: Launch, moved: float) -> Work:
    return Work(launch.programs, 0, moved, moved)


def _image_seconds(plan: ImagePlan, network: Network, batch: int, share: float, card: Card) -> float:
    """Programs that share a multiprocessor share its rates; alone one of them reaches no more than all would."""
    loading, running = plan.launches(batch)
    has = dict(running.kernel.constants)
    flops = moved = 0.0
    for part, convolutions in _layers(network, share):
        for each in convolutions:
            pixels = each.out_side**2
            rows, depth = min(has["ROWS"], pixels), each.window.kernel**2 * each.channels
            tiles = pixels // rows
            flops += part * 2 * tiles * rows * depth * each.out_channels
            moved += part * _SIZE * tiles * ((rows + each.out_channels) * depth + 2 * rows * each.out_channels)
    in_a_row = -(-batch // card.processors)
    one = max(flops / (card.flops / card.processors), moved / min(card.processor_bytes_s, _even(card)))
    return launch_seconds(list_work(loading, batch, batch), card) + card.launch_s + in_a_row * one


def _even(card: Card) -> float:
    return card.cache_bytes_s / card.processors


def _layers(network: Network, share: float) -> list[tuple[float, list[Convolution]]]:
    layers = [(1.0, [network.stem])]
    for block in network.blocks:
        if block.shortcut:
            layers.append((1.0, [block.shortcut]))
        layers.append((share if block.gate else 1.0, [*block.convolutions]))
    return layers


def _plans(config: ModelConfig, largest: int, card: Card) -> dict[str, tuple[Network, ListPlan | ImagePlan]]:
    network = random_network(config, LIST_CHANNELS)
    found: dict[str, tuple[Network, ListPlan | ImagePlan]] = {}
    found["lists"] = network, ListPlan(network, config.preprocessing, 0.0, "fp16", largest, card.shared_bytes)
    with suppress(UnknownGraph):
        network = random_network(config, IMAGE_CHANNELS)
        found["images"] = network, ImagePlan(network, config.preprocessing, 0.0, "fp16", largest, card.processors)
    return found

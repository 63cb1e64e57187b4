"""One training run on several processes, each with a device of its own, as `torchrun` starts them.

They take the same steps on the same weights: each computes its share of every batch, and gradients are averaged. Batch
norms see the share of their process only, and so do the target-rate loss and the distance from a teacher's features.
"""

from __future__ import annotations

import gc
import importlib
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a run; by default the only one.

    Attributes:
        rank: of this one, from 0.
        count: of all.
        here: of those on this machine.
    """

    rank: int = 0
    count: int = 1
    here: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that judges the network, writes files and tells people."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Which images of a batch are this process's."""
        return slice(self.rank, None, self.count)

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network as it is to be called in training, with the weights of the first process."""
        return network if self.count == 1 else DistributedDataParallel(network)

    def told(self, value: T) -> T:
        """What the first process has, in all of them."""
        if self.count == 1:
            return value
        told = [value]
        distributed.broadcast_object_list(told)
        return told[0]


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """Join the others where `torchrun` started this process; gives the processes and the device of this one."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(), device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    # Imported later, as `DistributedDataParallel` does, its functions have the group as a default and keep it.
    importlib.import_module("torch.distributed.nn.functional")
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Processes(distributed.get_rank(), count, int(os.environ.get("LOCAL_WORLD_SIZE", count))), device
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        # A group's threads end with the last that refers to it, which may be in a cycle of references or in the frames
        # of an error. A thread that outlives the interpreter aborts the process when it frees a tensor.
        gc.collect()
        distributed.destroy_process_group()

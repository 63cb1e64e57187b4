"""Where a network runs, and in which precision that is fast."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["bf16", "fp16", "fp32"]
"""Of the computation; weights stay in fp32."""

# First CUDA architecture that multiplies matrices of fp16 in hardware of their own.
_TENSOR_CORES = 7


def default_device() -> str:
    """ "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(name: str) -> torch.device:
    """The device of that name, such as "cpu", "cuda" or "cuda:1".

    Raises:
        ValueError: there is no such device here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"cannot use device {name!r}: {str(error).splitlines()[0]}; cpu works everywhere") from error
    return device


def fast_precision(device: torch.device) -> Precision:
    """bf16 where the device multiplies it in hardware, fp16 on GPUs that only multiply that, else fp32.

    Emulated bf16 is slower than fp32.
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability(device)[0] >= _TENSOR_CORES else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("avx512_bf16", False) else "fp32"


def use_sound_gradients(device: torch.device) -> None:
    """Before gradients are computed there: leave oneDNN out on x86 processors without AVX-512, from now on.

    There the gradients of its convolutions in torch 2.13.0 were seen to write beyond their memory, which ends the
    process (glibc: "corrupted size vs. prev_size"). Torch's own convolutions are slower, and are used instead.
    """
    able = torch.cpu.get_capabilities()
    if device.type == "cpu" and able.get("architecture") == "x86_64" and not able.get("avx512_f"):
        torch.backends.mkldnn.set_flags(False)

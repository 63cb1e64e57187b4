"""The machine: what it is, and its ceilings, which no engine can be above."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from bench.gpu.turns import Contender, in_turns
from service.engine.runtimes.cuda.device import Call, Device, Handle
from service.engine.runtimes.cuda.loading import loading_kernel
from service.engine.runtimes.cuda.plan import Kernel
from service.engine.runtimes.cuda.runtime import Compile

_PACKAGES = ("cuda-bindings", "triton", "torch", "onnxruntime-gpu", "onnxruntime", "tensorrt", "numpy")
_QUERY = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit"
_EMPTY_NODES = 1000


def described() -> dict[str, Any]:
    """What nvidia-smi says of each device, and the versions of the libraries that count."""
    try:
        said = subprocess.run(
            ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        said = [f"nvidia-smi cannot be run: {error}"]
    return {"devices": said, "queried": _QUERY, "versions": {name: _version(name) for name in _PACKAGES}}


def ceilings(device: Device, compiled: Compile, copy_bytes: int = 1 << 32, side: int = 8192) -> dict[str, float]:
    """Bytes copied a second, products of matrices in fp16, and what launches take.

    Args:
        device: to measure; what is made there goes.
        compiled: compiles kernels.
        copy_bytes: to copy at a time.
        side: of the matrices.
    """
    stream, done = device.stream(), device.event()

    def wait() -> None:
        device.mark(done, stream)
        device.wait(done)

    source, target = device.allocate(copy_bytes), device.allocate(copy_bytes)
    copying = Contender(lambda: device.copy(target, source, copy_bytes, stream), wait)
    empty = loading_kernel("fp16", side=32, channels=4, block=256)  # of no images
    function = device.load(compiled([empty], device.architecture)[empty])
    header = device.allocate(16)
    device.write(header, np.zeros(4, np.int32))
    arguments = (source, source, header, header, header, target, header, 0)
    call = Call(function, 1, arguments, tuple(kind for _, kind in empty.signature))
    one, many = device.record([call]), device.record([call] * _EMPTY_NODES)
    found = in_turns(
        {
            "copy": copying,
            "graph of one": Contender(lambda: device.run(one, stream), wait),
            "graph of many": Contender(lambda: device.run(many, stream), wait),
        }
    )
    told = {
        "copy_gb_s": 2 * copy_bytes / found["copy"].in_line / 1e9,
        "graph_launch_us": 1e6 * found["graph of one"].in_line,
        "graph_launch_and_wait_us": 1e6 * found["graph of one"].alone,
        "kernel_in_graph_us": 1e6 * found["graph of many"].in_line / _EMPTY_NODES,
    }
    told |= _own_product(device, compiled, side, stream, wait)
    device.clear()
    return told


def library_product(side: int = 8192) -> dict[str, float | str]:
    """Of PyTorch's matrix product in fp16, if it is there."""
    try:
        import torch
    except ImportError:
        return {"library_fp16_tflops": "PyTorch is not installed"}
    if not torch.cuda.is_available():
        return {"library_fp16_tflops": f"PyTorch {torch.__version__} sees no GPU"}
    left, right = (torch.randn(side, side, device="cuda", dtype=torch.float16) for _ in range(2))
    product = Contender(lambda: torch.matmul(left, right), torch.cuda.synchronize)
    empty = torch.zeros(1, device="cuda")
    launch = Contender(empty.zero_, torch.cuda.synchronize)
    found = in_turns({"product": product, "launch": launch})
    return {
        "library_fp16_tflops": 2 * side**3 / found["product"].in_line / 1e12,
        "library_launch_us": 1e6 * found["launch"].in_line,
    }


def _own_product(device: Device, compiled: Compile, side: int, stream: Handle, wait: Any) -> dict[str, float]:
    """The engine's own convolution of 1 x 1, which is a product of matrices."""
    edge = round((side / 2) ** 0.5)
    rows = 2 * edge**2
    kernel = Kernel(
        "convolve",
        (
            ("source", "*fp16"),
            ("weight", "*fp16"),
            ("bias", "*fp32"),
            ("target", "*fp16"),
            ("listed", "*i32"),
            ("count", "*i32"),
            ("is_open", "*i32"),
        ),
        tuple(
            sorted(
                {
                    **dict.fromkeys(("SIDE", "OUT"), edge),
                    **dict.fromkeys(("C", "K"), side),
                    **dict.fromkeys(("KERNEL", "STRIDE", "GATHERS", "SCATTERS"), 1),
                    **dict.fromkeys(("PADDING", "ADDS", "RELU", "LISTED"), 0),
                    "ROWS": 128,
                    "COLUMNS": min(128, side),
                    "DEPTH": min(64, side),
                }.items()
            )
        ),
        warps=8,
        stages=4,
    )
    function = device.load(compiled([kernel], device.architecture)[kernel])
    source, target = device.allocate(2 * rows * side), device.allocate(2 * rows * side)
    weight, bias, count = device.allocate(2 * side * side), device.allocate(4 * side), device.allocate(16)
    values = np.random.default_rng(0).standard_normal
    device.write(source, values(rows * side).astype(np.float16))
    device.write(weight, (values(side * side) / side**0.5).astype(np.float16))
    device.write(bias, np.zeros(side, np.float32))
    device.write(count, np.full(4, 2, np.int32))
    tiles = -(-rows // 128) * (side // min(128, side))
    arguments = (source, weight, bias, target, count, count, count)
    graph = device.record([Call(function, tiles, arguments, tuple(kind for _, kind in kernel.signature))])
    found = in_turns({"product": Contender(lambda: device.run(graph, stream), wait)})
    return {"own_fp16_tflops": 2 * rows * side**2 / found["product"].in_line / 1e12}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

"""The ungated network in libraries for GPUs: each in fp16, each in a CUDA graph where it can be.

What is not installed is left out, and said to be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from artifact.preprocessing import Float32Array
from bench.gpu.turns import Contender
from bench.gpu.ungated_graph import ungated_model
from service.engine.runtimes.cuda.network import Convolution, Network

_PROVIDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "onnxruntime": (
        "CUDAExecutionProvider",
        {"enable_cuda_graph": "1", "prefer_nhwc": "1", "cudnn_conv_algo_search": "EXHAUSTIVE"},
    ),
    "tensorrt": ("TensorrtExecutionProvider", {"trt_cuda_graph_enable": "1", "trt_fp16_enable": "1"}),
}


class Missing(Exception):  # noqa: N818
    """A library is not there; the message says which."""


def cudnn_graph(network: Network, images: Float32Array) -> Contender:
    """PyTorch with cuDNN, channels last, as one CUDA graph.

    Raises:
        Missing: PyTorch is.
    """
    torch = _torch()
    run, given = torch_network(network, images, "cuda")
    torch.backends.cudnn.benchmark = True
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(side):
        for _ in range(3):
            run(given)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        run(given)
    return Contender(graph.replay, torch.cuda.synchronize)


def torch_compiled(network: Network, images: Float32Array) -> Contender:
    """`torch.compile` with all that it tries.

    Raises:
        Missing: PyTorch is.
    """
    torch = _torch()
    run, given = torch_network(network, images, "cuda")
    compiled = torch.compile(run, mode="max-autotune")

    def once() -> None:
        with torch.inference_mode():
            compiled(given)

    for _ in range(3):
        once()
    return Contender(once, torch.cuda.synchronize)


def onnx_runtime(network: Network, images: Float32Array, kind: str) -> Contender:
    """ONNX Runtime, by itself or with TensorRT beneath.

    Raises:
        Missing: it is, or its provider.
    """
    import onnxruntime

    provider, options = _PROVIDERS[kind]
    if provider not in onnxruntime.get_available_providers():
        raise Missing(f"this ONNX Runtime has no {provider}")
    onnxruntime.preload_dlls()
    model = ungated_model(network, len(images), half=True).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=[(provider, options)])
    if session.get_providers()[0] != provider:
        raise Missing(f"{provider} cannot be used: see what ONNX Runtime says above")
    session.disable_fallback()
    shape, binding = (len(images), len(network.classifier_bias)), session.io_binding()
    given = onnxruntime.OrtValue.ortvalue_from_numpy(images.astype(np.float16), "cuda", 0)
    answers = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float16, "cuda", 0)
    binding.bind_ortvalue_input("images", given)
    binding.bind_ortvalue_output("logits", answers)
    for _ in range(3):
        session.run_with_iobinding(binding)
    # Each run waits by itself: that is how it comes.
    return Contender(lambda: session.run_with_iobinding(binding), lambda: None)


def torch_network(network: Network, images: Float32Array, device: str) -> tuple[Callable[[Any], Any], Any]:
    """The network without its gates, as a function of what is returned with it: images as PyTorch likes them best.

    In fp32 on a CPU, for its test; in fp16 elsewhere.

    Raises:
        Missing: PyTorch is.
    """
    torch = _torch(device)
    functional = torch.nn.functional
    kind = torch.float32 if device == "cpu" else torch.float16

    def there(values: Float32Array) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device, kind)

    def layer(convolution: Convolution) -> Callable[[Any], Any]:
        window, out = convolution.window, convolution.out_channels
        packed = convolution.weight.reshape(window.kernel, window.kernel, -1, out).transpose(3, 2, 0, 1)
        weight = there(packed).contiguous(memory_format=torch.channels_last)
        bias = there(convolution.bias)
        return lambda features: functional.conv2d(features, weight, bias, window.stride, window.padding)

    stem, pool = layer(network.stem), network.pool
    blocks = [
        ([layer(each) for each in block.convolutions], layer(block.shortcut) if block.shortcut else None)
        for block in network.blocks
    ]
    weight, bias = there(network.classifier_weight), there(network.classifier_bias)

    def run(features: Any) -> Any:
        features = stem(features).relu_()
        if pool:
            features = functional.max_pool2d(features, pool.kernel, pool.stride, pool.padding)
        for layers, shortcut in blocks:
            inner = features
            for each in layers[:-1]:
                inner = each(inner).relu_()
            features = (layers[-1](inner) + (shortcut(features) if shortcut else features)).relu_()
        return functional.linear(features.mean((2, 3)), weight, bias)

    missing = network.stem.channels - images.shape[1]
    padded = np.pad(images, ((0, 0), (0, missing), (0, 0), (0, 0)))
    return run, there(padded).contiguous(memory_format=torch.channels_last)


def _torch(device: str = "cuda") -> Any:
    try:
        import torch
    except ImportError as error:
        raise Missing("PyTorch is not installed") from error
    if device == "cuda" and not torch.cuda.is_available():
        raise Missing(f"PyTorch {torch.__version__} sees no GPU")
    return torch

"""A second version of a model whose answers differ, and which fails on two images: one gives NaN, one an exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from artifact.manifest import ONNX_NAME, PROBES_NAME, Manifest, file_digest, read_manifest, write_manifest
from artifact.preprocessing import Float32Array
from artifact.probes import Probes, read_probes, run_forced, write_probes
from bench.chaos.pictures import solid_png
from service.engine.runtimes.onnx import OnnxRuntime
from service.images.decoding import ImageDecoder

_COLOURS = {"nan": (255, 0, 255), "raise": (0, 255, 255)}
_FAR = 1_000_000  # beyond the end of a table of one row


def poisons(manifest: Manifest) -> dict[str, bytes]:
    """The two images by what they do: "nan" and "raise"."""
    return {what: solid_png(manifest.input_size, colour) for what, colour in _COLOURS.items()}


def write_poisoned_model(source: Path, folder: Path) -> None:
    """Write version "2" of the artifact in `source`: its logits are halved, and its poisons work."""
    folder.mkdir(parents=True)
    manifest = read_manifest(source)
    decoder = ImageDecoder(manifest.preprocessing, max_bytes=10**6, max_pixels=10**6)
    inputs = {what: decoder.decode(data) for what, data in poisons(manifest).items()}
    onnx.save(_poisoned(onnx.load(source / ONNX_NAME), inputs), folder / ONNX_NAME)
    changed = manifest.model_copy(
        update={"version": "2", "int8": None, "files": {ONNX_NAME: file_digest(folder / ONNX_NAME)}}
    )
    images, run = read_probes(source, manifest).images, OnnxRuntime(folder, changed, "cpu").run
    logits, margins = run(images, np.zeros(len(images), np.float32))
    write_probes(folder, Probes(images, logits, margins, run_forced(run, images)))
    files = changed.files | {PROBES_NAME: file_digest(folder / PROBES_NAME)}
    write_manifest(folder, changed.model_copy(update={"files": files}))


def _poisoned(model: onnx.ModelProto, inputs: dict[str, Float32Array]) -> onnx.ModelProto:
    """The graph with its logits halved, NaN where an image is one poison, and an index out of bounds for the other."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["whole_logits" if name == "logits" else name for name in node.output]
    constants: dict[str, npt.NDArray[Any]] = {
        "half": np.array(0.5, np.float32),
        "nan": np.array(np.nan, np.float32),
        "near": np.array(1e-3, np.float32),
        "all_but_batch": np.array([1, 2, 3], np.int64),
        "class_axis": np.array([1], np.int64),
        "far": np.array(_FAR, np.int64),
        "table": np.zeros(1, np.float32),
    }
    for what, image in inputs.items():
        constants[f"{what}_image"] = image[None]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    for what in inputs:
        graph.node.extend(
            [
                helper.make_node("Sub", ["images", f"{what}_image"], [f"{what}_apart"]),
                helper.make_node("Abs", [f"{what}_apart"], [f"{what}_distance"]),
                helper.make_node("ReduceMax", [f"{what}_distance", "all_but_batch"], [f"{what}_largest"], keepdims=0),
                helper.make_node("Less", [f"{what}_largest", "near"], [f"is_{what}"]),
            ]
        )
    graph.node.extend(
        [
            helper.make_node("Cast", ["is_raise"], ["raise_number"], to=TensorProto.INT64),
            helper.make_node("Mul", ["raise_number", "far"], ["row"]),
            helper.make_node("Gather", ["table", "row"], ["nothing"]),
            helper.make_node("Unsqueeze", ["nothing", "class_axis"], ["nothing_each"]),
            helper.make_node("Mul", ["whole_logits", "half"], ["half_logits"]),
            helper.make_node("Add", ["half_logits", "nothing_each"], ["some_logits"]),
            helper.make_node("Unsqueeze", ["is_nan", "class_axis"], ["is_nan_each"]),
            helper.make_node("Where", ["is_nan_each", "nan", "some_logits"], ["logits"]),
        ]
    )
    onnx.checker.check_model(model)
    return model

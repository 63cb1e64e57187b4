"""Images whose right answers are known beforehand, and whether an answer is the one to its image."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from artifact.manifest import Manifest, read_manifest
from artifact.preprocessing import Float32Array
from bench.images import probe_jpegs
from service.classify.graph import predictions
from service.engine.job import Answer
from service.engine.runtimes.onnx import OnnxRuntime
from service.images.decoding import ImageDecoder

# A gate this close to its threshold may open on one runtime and not on another. An export promises 0.001.
_LEAST_MARGIN = 0.01
# Largest difference of a probability from the right one. Of pictures with answers closer than twice that one is kept.
_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Picture:
    """An image file and its right answer.

    Attributes:
        data: the file.
        probabilities: (classes,).
        executed: (B,) which blocks run.
        macs: multiply-accumulates spent on it.
    """

    data: bytes
    probabilities: tuple[float, ...]
    executed: tuple[bool, ...]
    macs: int

    def like(self, other: Picture) -> bool:
        """Whether the answer to one could pass for the answer to the other."""
        difference = np.abs(np.subtract(self.probabilities, other.probabilities)).max()
        return self.executed == other.executed and difference <= 2 * _TOLERANCE


class Gallery:
    """Pictures that no two of have the same answer.

    Args:
        model: folder of the artifact that is served; it is run here, in its portable graph.
        files: images to choose from.
    """

    def __init__(self, model: Path, files: Iterable[bytes]) -> None:
        self.manifest = read_manifest(model)
        runtime = OnnxRuntime(model, self.manifest, "cpu")
        decoder = ImageDecoder(self.manifest.preprocessing, max_bytes=10**8, max_pixels=10**8)
        self.pictures: list[Picture] = []
        for data in files:
            picture = _answered(runtime, decoder.decode(data), data, self.manifest)
            if picture and not any(picture.like(other) for other in self.pictures):
                self.pictures.append(picture)

    def problem(self, picture: Picture, told: Any) -> str | None:
        """What is wrong with an answer, the JSON of one classification with all classes and the whole graph."""
        try:
            return self._problem(picture, told)
        except (TypeError, LookupError) as error:
            return f"not a classification: {error!r}"

    def _problem(self, picture: Picture, told: Any) -> str | None:
        if (told["model"]["name"], told["model"]["version"]) != (self.manifest.name, self.manifest.version):
            return f"answered by {told['model']}"
        if tuple(run["executed"] for run in told["inference_graph"]["blocks"]) != picture.executed:
            return "another path"
        if told["layers"]["executed"] != sum(picture.executed) or told["compute"]["macs"] != picture.macs:
            return "another cost"
        if sorted(guess["index"] for guess in told["predictions"]) != list(range(len(picture.probabilities))):
            return "not all classes"
        if told["predictions"][0]["index"] != int(np.argmax(picture.probabilities)):
            return "another class"
        for guess in told["predictions"]:
            if abs(guess["probability"] - picture.probabilities[guess["index"]]) > _TOLERANCE:
                return f"another probability of {guess['label']}"
        return None


def files_of(model: Path, folder: Path | None, most: int = 200) -> Sequence[bytes]:
    """The images in a folder, spread over all it has; the model's own probes where no folder is given."""
    if folder is None:
        return probe_jpegs(model)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // most)]]


def solid_png(side: int, colour: tuple[int, int, int]) -> bytes:
    """A PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "PNG")
    return file.getvalue()


def _answered(runtime: OnnxRuntime, image: Float32Array, data: bytes, manifest: Manifest) -> Picture | None:
    """The picture with its answer; None where a gate or the class is too close to call."""
    offset = np.zeros(1, np.float32)
    logits, margins = runtime.run(image[None], offset)
    if np.abs(margins - manifest.gate_threshold).min(initial=np.inf) < _LEAST_MARGIN:
        return None
    executed = manifest.executed(margins, offset)
    macs = int(manifest.spent_macs(executed)[0])
    scores, differences, ran = (tuple(part[0].tolist()) for part in (logits, margins, executed))
    answer = Answer(scores, differences, ran, macs, 1, 0.0, 0.0, 0.0)
    guesses = predictions(manifest.labels, answer, len(manifest.labels))
    if guesses[0].probability - guesses[1].probability < 2 * _TOLERANCE:
        return None
    probabilities = [guess.probability for guess in sorted(guesses, key=lambda guess: guess.index)]
    return Picture(data, tuple(probabilities), ran, macs)

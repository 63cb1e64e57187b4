"""What every peer computes for a request: JPEG bytes → preprocessing → ONNX Runtime → predictions and open gates.

It stands here once, so that the peers differ in nothing but the framework around it. It imports nothing of the project,
because each peer runs in an environment of its own, where the project is not installed. The preprocessing repeats
`artifact.preprocessing` for plain RGB and greyscale JPEG, without its care for EXIF, transparency and 16 bits: what the
peers leave out costs them nothing, so a comparison errs in their favour.
"""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

MODEL_VARIABLE = "AIG_BENCH_MODEL"  # names the folder of the artifact
WORKERS = 2  # processes, replicas or instances that run the model: one for each core of the machine to compare on
MAX_BATCH = 16
# One image takes the model about as long: an empty server should not wait for company longer than it then works.
BATCH_WAIT_MS = 2

Float32Array = npt.NDArray[np.float32]
Answer = dict[str, Any]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_TOP = 5


class Classifier:
    """The model of one process, safe to call from several threads at once."""

    def __init__(self) -> None:
        folder = Path(os.environ[MODEL_VARIABLE])
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        preprocessing = manifest["preprocessing"]
        self._resize: int = preprocessing["resize"]
        self._crop: int = preprocessing["crop"]
        self._resampling = _RESAMPLING[preprocessing["interpolation"]]
        self._mean = np.asarray(preprocessing["mean"], np.float32) * np.float32(255)
        self._scale = np.float32(1) / (np.asarray(preprocessing["std"], np.float32) * np.float32(255))
        self._labels: list[str] = manifest["labels"]
        self._gate_threshold: float = manifest["gate_threshold"]
        self._session = _open_session(folder / "model.onnx")

    def classify(self, jpegs: Sequence[bytes]) -> list[Answer]:
        """Decode the images, run them as one batch, and answer each, in order."""
        return self.run([self.decode(jpeg) for jpeg in jpegs])

    def decode(self, jpeg: bytes) -> Float32Array:
        """Return the network's input for one image, (3, H, W)."""
        return self.normalise(Image.open(io.BytesIO(jpeg)))

    def normalise(self, image: Image.Image) -> Float32Array:
        """Return the network's input for an image that may not be decoded yet, (3, H, W)."""
        image = image.convert("RGB")
        if image.size != (self._crop, self._crop) or self._resize != self._crop:
            image = self._fit(image)
        normalised = (np.asarray(image).astype(np.float32) - self._mean) * self._scale
        return np.moveaxis(normalised, -1, 0)

    def run(self, images: Sequence[Float32Array]) -> list[Answer]:
        """Run decoded images as one batch and answer each, in order."""
        logits, margins = self._session.run(["logits", "margins"], {"images": np.stack(images)})
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        return [self._answer(*row) for row in zip(probabilities, margins, strict=True)]

    def _fit(self, image: Image.Image) -> Image.Image:
        """Resize the shorter side and crop the centre; of a long, thin image only the middle is resized."""
        width, height = image.size
        scale = self._resize / min(width, height)
        x, y, reach = width / 2, height / 2, self._crop / scale
        box = (max(0.0, x - reach), max(0.0, y - reach), min(width, x + reach), min(height, y + reach))
        fitted = (max(self._crop, round((box[2] - box[0]) * scale)), max(self._crop, round((box[3] - box[1]) * scale)))
        image = image.resize(fitted, self._resampling, box=box)
        left, top = round((fitted[0] - self._crop) / 2), round((fitted[1] - self._crop) / 2)
        return image.crop((left, top, left + self._crop, top + self._crop))

    def _answer(self, probabilities: Float32Array, margins: Float32Array) -> Answer:
        top = np.argsort(-probabilities)[:_TOP].tolist()
        return {
            "predictions": [
                {"label": self._labels[index], "index": index, "probability": float(probabilities[index])}
                for index in top
            ],
            "executed": (margins > self._gate_threshold).tolist(),
        }


def _open_session(path: Path) -> onnxruntime.InferenceSession:
    """One thread for each run, as in the service: the workers share the cores among them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

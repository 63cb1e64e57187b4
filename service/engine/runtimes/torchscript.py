"""TorchScript: for installations that have PyTorch anyway. Nothing else in the service imports torch."""

from __future__ import annotations

from pathlib import Path

from artifact.agreement import LogitsAndMargins
from artifact.manifest import TORCHSCRIPT_NAME, Manifest, verified_file
from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable, device_error
from service.engine.runtimes.base import Candidate, Device, Model, Precision

try:
    import torch
except ImportError as error:
    raise RuntimeUnavailable("the torchscript runtime needs PyTorch, which is not installed") from error


class TorchScriptRuntime:
    """One module for all threads; each run on the CPU uses its caller's thread alone."""

    precision: Precision = "fp32"
    runs_batches = True
    candidates: tuple[Candidate, ...] = ()

    def __init__(self, folder: Path, manifest: Manifest, device: str = "auto") -> None:
        path = verified_file(folder, manifest, TORCHSCRIPT_NAME)
        cuda_present = torch.cuda.is_available()
        if device == "cuda" and not cuda_present:
            raise RuntimeUnavailable("PyTorch finds no CUDA device")
        self.manifest = manifest
        self.name = f"torch {torch.__version__}"
        self.device = "cuda" if cuda_present and device != "cpu" else "cpu"
        torch.set_num_threads(1)
        # By default convolutions on a GPU multiply in TF32, which has 10 bits where fp32 has 23.
        torch.backends.cudnn.allow_tf32 = False
        try:
            self._module = torch.jit.load(str(path), map_location=self.device).eval()
        except (RuntimeError, ValueError) as error:
            raise RuntimeUnavailable(f"PyTorch cannot open {path}: {error}") from error

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        """See `Runtime.run`."""
        try:
            with torch.inference_mode():
                inputs = (torch.from_numpy(array).to(self.device) for array in (images, gate_offset))
                logits, margins = self._module(*inputs)
                return logits.cpu().numpy(), margins.cpu().numpy()
        except RuntimeError as error:
            if self.device == "cuda":
                raise device_error(error) from error
            raise


def open_model(model: Model, device: Device, _: Precision) -> TorchScriptRuntime:
    """See `RuntimeKind.open`."""
    return TorchScriptRuntime(model.folder, model.manifest, device)

"""An artifact's ONNX files, opened only where all that is in them is in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifact.manifest import ArtifactError, Manifest, verified_file


def verified_onnx_file(folder: Path, manifest: Manifest, name: str) -> Path:
    """The path of one of the artifact's ONNX files, after checking its digest.

    In this format a tensor may be kept in another file, which the digest does not cover; the export writes none.

    Raises:
        ArtifactError: the artifact has no such file, its content is not what was exported, or it needs other files.
    """
    path = verified_file(folder, manifest, name)
    # The key under which a tensor names its file. Nearly all models are cleared by this, without the onnx package.
    if b"location" not in path.read_bytes():
        return path
    try:
        import onnx
    except ImportError as error:
        raise ArtifactError(f"{path} may need other files; to tell, the onnx package is needed") from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's on other files
        raise ArtifactError(f"{path} is no ONNX model: {error}") from error
    tensors = _messages(model, onnx.TensorProto)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in tensors):
        raise ArtifactError(f"{path} keeps tensors in other files, which its SHA-256 does not cover")
    return path


def _messages(message: Any, kind: type) -> Iterator[Any]:
    """Every message of a kind in a protocol buffer, in branches within branches too."""
    if isinstance(message, kind):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(item, kind)

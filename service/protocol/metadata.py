"""What the protocol tells of the server and of its models."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from artifact.manifest import Manifest
from service.protocol.signature import PLATFORM, TensorSpec, inputs_of, outputs_of
from service.repository.folder import version_order
from service.repository.models import Models

_PROJECT = "convnet-aig-serving"


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """Of the server; `extensions` are those of the protocol that it speaks."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """Of a model; `versions` are those that are served, the newest last."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class ModelState:
    """Of one version of a model in the repository's index.

    Attributes:
        state: "LOADING", "READY" or "UNAVAILABLE".
        reason: why it is not available.
    """

    name: str
    version: str
    state: str
    reason: str


def server_metadata() -> ServerMetadata:
    """What the server is."""
    return ServerMetadata(_PROJECT, version(_PROJECT), ("binary_tensor_data", "model_repository"))


def model_metadata(models: Models, name: str, version: str | None) -> ModelMetadata:
    """What a version of a model takes and gives; without a version the newest.

    Raises:
        ApiError: there is no such model, or no such version of it.
    """
    manifest: Manifest = models.find(name, version).manifest
    versions = {each.manifest.version for each in models if each.manifest.name == name}
    return ModelMetadata(
        name, tuple(sorted(versions, key=version_order)), PLATFORM, inputs_of(manifest), outputs_of(manifest)
    )


def index(models: Models, *, only_ready: bool) -> list[ModelState]:
    """Every version of every model that is served, is being loaded, or could not be loaded."""
    states = [_state(models, *model) for model in sorted(models.states)]
    return [each for each in states if each.state == "READY" or not only_ready]


def _state(models: Models, name: str, version: str) -> ModelState:
    served, told = models.served(name, version), models.states[name, version]
    if served is None:
        state = "UNAVAILABLE" if told.state == "failed" else told.state.upper()
        return ModelState(name, version, state, told.reason)
    problem = served.engine.problem
    return ModelState(name, version, "READY" if problem is None else "UNAVAILABLE", problem or told.reason)

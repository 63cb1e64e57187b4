"""The models that are served, by name and version, and the state of those that are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from service.classify.context import Context
from service.errors import ApiError
from service.repository.folder import version_order

State = Literal["loading", "ready", "failed"]
# When to come back for a model that is being loaded, in seconds.
_LOADING_S = "2"


@dataclass(frozen=True)
class ModelState:
    """Of a version of a model that the repository knows.

    Attributes:
        state: "failed" where it could not be loaded; a version that was served before goes on then.
        reason: why it failed.
    """

    state: State
    reason: str = ""


class Models:
    """Requests that name no model go to the default one; those that name no version, to the model's newest.

    Args:
        default: of the model that answers requests that name none.

    Attributes:
        states: of every version that is served, or was to be.
    """

    def __init__(self, default: Context) -> None:
        self.default_name = default.manifest.name
        self.states: dict[tuple[str, str], ModelState] = {}
        self._served: dict[str, dict[str, Context]] = {}
        self.serve(default)

    def __iter__(self) -> Iterator[Context]:
        """Every version of every model."""
        return iter([served for versions in self._served.values() for served in versions.values()])

    @property
    def default(self) -> Context:
        """The newest version of the default model."""
        return self._newest(self.default_name)

    def serve(self, context: Context) -> Context | None:
        """Answer requests for a version from now on; return what they were answered from so far, if anything."""
        name, version = context.manifest.name, context.manifest.version
        versions = self._served.setdefault(name, {})
        before = versions.get(version)
        versions[version] = context
        self.states[name, version] = ModelState("ready")
        return before

    def remove(self, context: Context) -> None:
        """Answer no more requests for a version."""
        name, version = context.manifest.name, context.manifest.version
        del self._served[name][version]
        if not self._served[name]:
            del self._served[name]
        self.states.pop((name, version), None)

    def served(self, name: str, version: str) -> Context | None:
        """What requests for a version are answered from; None where it is not served."""
        return self._served.get(name, {}).get(version)

    def find(self, name: str, version: str | None = None) -> Context:
        """What requests for a model are answered from.

        Raises:
            ApiError: there is no such model, or no such version of it, or it is being loaded.
        """
        versions = self._served.get(name, {})
        if version in versions:
            return versions[version]
        if version is None and versions:
            return self._newest(name)
        for (known, of_version), told in self.states.items():
            if told.state == "loading" and known == name and version in (None, of_version):
                said = f"{name} {of_version} is being loaded"
                raise ApiError(503, "model_loading", said, {"Retry-After": _LOADING_S})
        if not versions:
            raise ApiError(404, "unknown_model", f"there is no model {name[:80]!r}; /models lists those there are")
        raise ApiError(404, "unknown_model", f"there is no version {(version or '')[:80]!r} of {name}")

    def _newest(self, name: str) -> Context:
        versions = self._served[name]
        return versions[max(versions, key=version_order)]

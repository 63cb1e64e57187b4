"""The models that are served, by name and version."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request

from service.classify.context import Context
from service.errors import ApiError


class Models:
    """Requests that name no model go to the default one; those that name no version, to the model's newest.

    Args:
        default: what requests are answered from that name no model.
    """

    def __init__(self, default: Context) -> None:
        self.default = default
        self._served = {default.manifest.name: {default.manifest.version: default}}

    def __iter__(self) -> Iterator[Context]:
        """Every version of every model."""
        return (served for versions in self._served.values() for served in versions.values())

    def find(self, name: str, version: str | None = None) -> Context:
        """What requests for a model are answered from.

        Raises:
            ApiError: there is no such model, or no such version of it.
        """
        versions = self._served.get(name)
        if versions is None:
            raise ApiError(404, "unknown_model", f"there is no model {name[:80]!r}; /models lists those there are")
        if version is None:
            return versions[max(versions, key=version_order)]
        if version not in versions:
            raise ApiError(404, "unknown_model", f"there is no version {version[:80]!r} of {name}")
        return versions[version]


def version_order(version: str) -> tuple[int, str]:
    """Sorts versions: whole numbers by their size, before all of them what is none."""
    return (int(version), "") if version.isascii() and version.isdecimal() else (-1, version)


def models(request: Request) -> Models:
    """The models of the app a request came to."""
    found: Models = request.app.state.models
    return found

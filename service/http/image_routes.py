"""The paths that take images: of the default model, of a model, and of one version of it."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from fastapi import Path

_INFERENCE = re.compile(r"/v2/models/(?P<name>[^/]+)(?P<of_version>/versions/(?P<version>[^/]+))?/infer")
_PATH = re.compile(
    r"(?P<of_model>/models/(?P<name>[^/]+)(?P<of_version>/versions/(?P<version>[^/]+))?)?/classify(?P<batch>/batch)?"
)


Name = Annotated[str, Path(description="of a model that is served, see `/models`")]
Version = Annotated[str, Path(description="of the model")]


class ImageRoute(NamedTuple):
    """What a path asks for.

    Attributes:
        template: of the path, as metrics and logs have it.
        name: of the model; None for the default.
        version: of the model; None for the newest.
        takes: what a request has: an image, several, or tensors of the Open Inference Protocol.
    """

    template: str
    name: str | None
    version: str | None
    takes: Literal["image", "images", "tensors"]


def image_route(path: str) -> ImageRoute | None:
    """What a path asks for; None where it takes no images."""
    match = _PATH.fullmatch(path) or _INFERENCE.fullmatch(path)
    if match is None:
        return None
    of_version = "/versions/{version}" if match["of_version"] else ""
    if match.re is _INFERENCE:
        return ImageRoute(f"/v2/models/{{name}}{of_version}/infer", match["name"], match["version"], "tensors")
    of_model = f"/models/{{name}}{of_version}" if match["of_model"] else ""
    template = f"{of_model}/classify{match['batch'] or ''}"
    return ImageRoute(template, match["name"], match["version"], "images" if match["batch"] else "image")

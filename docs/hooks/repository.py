"""Links between the site and the rest of the repository: a page is read here and there, and its links work in both."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MODEL = "model_repository/convnet-aig-38-cifar10"
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "bench/RECORDS.md": "records.md",
    f"{_MODEL}/README.md": "model.md",
    f"{_MODEL}/compute-spread.png": "compute-spread.png",
    f"{_MODEL}/execution-rates.png": "execution-rates.png",
}
"""Files outside of docs/ that the site shows, and where."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z]+:|#|/")


def source_of(uri: str) -> str:
    """The path in the repository of a page of the site."""
    return next((path for path, place in PLACES.items() if place == uri), f"docs/{uri}")


def relinked(markdown: str, source: str, uri: str) -> str:
    """A page's text with the links that it needs on the site.

    A link to a file that the site does not have, such as source code, becomes plain text. A link to a file that is
    not there at all is left to MkDocs, which complains.

    Args:
        markdown: with links as they are right in the repository.
        source: path of the page in the repository.
        uri: path of the page on the site.
    """

    def lead(link: re.Match[str]) -> str:
        mark, text, target = link.groups()
        if _ELSEWHERE.match(target):
            return link[0]
        path, hash_, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        place = PLACES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if place is None:
            return text if (ROOT / path).exists() else link[0]
        return f"{mark}[{text}]({posixpath.relpath(place, posixpath.dirname(uri) or '.')}{hash_}{anchor})"

    return _LINK.sub(lead, markdown)

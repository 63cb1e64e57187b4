"""The hooks that mkdocs.yml names: MkDocs calls these functions by their names when it builds the site."""

from __future__ import annotations

import json

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from artifact.manifest import Manifest
from docs.hooks.http_reference import routes
from docs.hooks.repository import PLACES, ROOT, relinked, source_of
from docs.hooks.tables import errors, metrics, settings

TABLES = {"errors": errors, "metrics": metrics, "routes": routes, "settings": settings}
"""What the line `<!-- generated: NAME -->` of a page stands for."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that stand outside of docs/, and the schema of manifests."""
    for path, uri in PLACES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    schema = json.dumps(Manifest.model_json_schema(), indent=2)
    files.append(File.generated(config, "manifest.schema.json", content=schema))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 (MkDocs' names)
    """Fill in what is made of code, and lead links where the site has what they name."""
    for name, make in TABLES.items():
        marker = f"<!-- generated: {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    uri = page.file.src_uri
    return relinked(markdown, source_of(uri), uri)

"""The built site: what the code has is on it, and it loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from artifact.manifest import Manifest
from docs.hooks.tables import error_types
from service.settings import Settings
from tests.e2e.process import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Of Compose and of other programs, not of the service.
OTHER_VARIABLES = {"AIG_CPUS", "AIG_MEMORY"}


def _ids(page: Path) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))


def test_every_error_type_has_an_anchor(site: Path) -> None:
    assert error_types().keys() <= _ids(site / "errors.html")


def test_every_setting_has_an_anchor(site: Path) -> None:
    assert {name.replace("_", "-") for name in Settings.model_fields} <= _ids(site / "settings.html")


def test_site_loads_nothing_from_other_servers(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe|source)[^>]*\bsrc="?(?:https?:)?//[^>]*', text), page
        assert not re.findall(r'<link[^>]*\bhref="?(?:https?:)?//[^>]*', text), page
        assert "mermaid" not in text, f"{page}: Material would load what draws it"


def test_link_to_source_code_is_plain_text_on_the_site(site: Path) -> None:
    page = (site / "observing.html").read_text(encoding="utf-8")
    assert "<code>docker/prometheus/rules/alerts.yml</code>" in page
    assert "../docker" not in page


@pytest.mark.parametrize("link", ["[page](missing.md)", "[anchor](index.md#missing)", "[source](../missing.py)"])
def test_broken_link_fails_the_build(link: str, tmp_path: Path) -> None:
    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "other.md").write_text(link)
    (pages / "index.md").write_text("[other](other.md)")
    config = load_config(
        str(ROOT / "mkdocs.yml"), docs_dir=str(pages), site_dir=str(tmp_path / "site"), hooks=[], nav=None
    )
    with pytest.raises(Abort):
        build(config)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_variables_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= targets
    modules = re.findall(r"python -m ((?:bench|docker|export|models|service)(?:\.\w+)*)", text)
    assert all(find_spec(module) for module in modules)
    variables = {f"AIG_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bAIG_[A-Z_]+[A-Z]\b", text)) <= variables | OTHER_VARIABLES


def test_site_has_the_schema_of_manifests(site: Path) -> None:
    schema = json.loads((site / "manifest.schema.json").read_text(encoding="utf-8"))
    assert schema["properties"].keys() == Manifest.model_fields.keys()
    assert schema["properties"]["format"]["maximum"] == 1

"""A client generated from the OpenAPI document of a running service, used as it is."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from service.access.keys import ApiKey, Keyring
from tests.clients.conftest import url_of
from tests.image_files import solid
from tests.runtimes import EchoRuntime
from tests.service.http_server import RunningServer, http_serving

pytestmark = pytest.mark.slow

KEY = "the-key-of-this-test"


PATHS = (
    *(f"images.classify{batch}{by}" for batch in ("", "_batch") for by in ("", "_by_model", "_by_version")),
    *(f"models.{name}" for name in ("get_default_model", "get_model", "get_model_version", "list_models")),
    *(f"operations.{name}" for name in ("get_health", "get_metrics", "get_readiness")),
)


class Generated:
    """A client, as a package of its own.

    Attributes:
        warnings: of the generator.
        package: has the classes of clients.
        models, types: its modules of these names.
    """

    def __init__(self, server: RunningServer, folder: Path, name: str) -> None:
        (folder / "generator.yml").write_text("post_hooks: []\n")
        generator = Path(sys.executable).with_name("openapi-python-client")
        flags = ["--meta", "none", "--config", "generator.yml", "--output-path", name]
        command = [generator, "generate", "--url", f"{url_of(server)}/openapi.json", *flags]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        self.warnings = set(re.findall(r"^WARNING .*\n\n(.*)", ended.stdout + ended.stderr, re.MULTILINE))
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(folder)
            self.package, self.models, self.types = (import_module(f"{name}{of}") for of in ("", ".models", ".types"))
            self._routes = {path: import_module(f"{name}.api.{path}") for path in PATHS}

    def route(self, path: str) -> ModuleType:
        """The module of a route, by tag and operation id."""
        return self._routes[path]

    def file(self, data: bytes, name: str | None = None) -> object:
        return self.types.File(io.BytesIO(data), name)


@pytest.fixture(scope="module")
def generated(shipped: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return Generated(shipped, tmp_path_factory.mktemp("generated"), "generated_client")


def test_generator_understands_all_but_the_range_of_image_types(generated: Generated) -> None:
    assert generated.warnings == {"Unsupported content type image/*"}


def test_generated_client_classifies_an_image(generated: Generated, shipped: RunningServer, photographs: Path) -> None:
    models, cat = generated.models, (photographs / "cat.jpg").read_bytes()
    with generated.package.Client(url_of(shipped)) as client:
        for body in (generated.file(cat), models.ImageForm(file=generated.file(cat, "cat.jpg"))):
            answer = generated.route("images.classify").sync(
                client=client, body=body, budget=0.5, graph=models.GraphDetail.SUMMARY
            )
            assert isinstance(answer, models.Classification)
            assert answer.predictions[0].label == "cat"
            assert answer.compute.budget == 0.5
            assert (answer.inference_graph, answer.layers.total) == (None, 18)


def test_generated_client_classifies_a_batch_with_budgets(
    generated: Generated, shipped: RunningServer, photographs: Path
) -> None:
    files = [generated.file((photographs / name).read_bytes(), name) for name in ("cat.jpg", "ship.png")]
    form = generated.models.ImagesForm(files=[*files, generated.file(b"no image", "bad.png")], budget=[0.4, 1, 1])
    with generated.package.Client(url_of(shipped)) as client:
        (listed,) = generated.route("models.list_models").sync(client=client).models
        answer = generated.route("images.classify_batch_by_version").sync(
            name=listed.name, version=listed.version, client=client, body=form
        )
    cat, ship, bad = answer.results
    assert [each.answer.predictions[0].label for each in (cat, ship)] == ["cat", "ship"]
    assert [each.answer.compute.budget for each in (cat, ship)] == [0.4, 1]
    assert cat.answer.inference_graph.blocks[0].name
    assert (bad.answer, bad.error.type_) == (None, "not_an_image")


def test_generated_client_describes_models(generated: Generated, shipped: RunningServer) -> None:
    with generated.package.Client(url_of(shipped)) as client:
        (listed,) = generated.route("models.list_models").sync(client=client).models
        described = generated.route("models.get_model").sync(name=listed.name, client=client)
        unknown = generated.route("models.get_model").sync(name="nobody", client=client)
        readiness = generated.route("operations.get_readiness").sync(client=client)
    assert described.blocks[0].within is None
    assert len(described.labels) == listed.labels
    assert isinstance(unknown, generated.models.ErrorResponse)
    assert unknown.error.request_id
    assert readiness.status == "ready"


def test_generated_client_sends_its_key(tmp_path: Path) -> None:
    keys = Keyring([ApiKey(name="one", sha256=hashlib.sha256(KEY.encode()).hexdigest())])
    with http_serving(EchoRuntime(), keys) as server:
        made = Generated(server, tmp_path, "generated_client_with_key")
        for key, status in ((KEY, 200), ("another", 401)):
            with made.package.AuthenticatedClient(url_of(server), key) as client:
                answer = made.route("images.classify").sync_detailed(client=client, body=made.file(solid(1)))
            assert answer.status_code == status

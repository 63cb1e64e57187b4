"""A client generated from the OpenAPI document of a running service, used as it is."""

from __future__ import annotations

import hashlib
import importlib
import io
import re
import subprocess
import sys
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


class Generated:
    """The client, as a package that can be imported under a name of its own."""

    def __init__(self, server: RunningServer, folder: Path, name: str) -> None:
        (folder / "generator.yml").write_text("post_hooks: []\n")
        generator = Path(sys.executable).with_name("openapi-python-client")
        url = f"{url_of(server)}/openapi.json"
        flags = ["--meta", "none", "--config", "generator.yml", "--output-path", name]
        ended = subprocess.run(
            [generator, "generate", "--url", url, *flags], cwd=folder, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        self.warnings = set(re.findall(r"^WARNING .*\n\n(.*)", ended.stdout + ended.stderr, re.MULTILINE))
        self._name = name

    def module(self, path: str = "") -> ModuleType:
        return importlib.import_module(f"{self._name}{path}")


@pytest.fixture(scope="module")
def generated(shipped: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return _generated(shipped, tmp_path_factory.mktemp("generated"), "generated_client")


def _generated(server: RunningServer, folder: Path, name: str) -> Generated:
    sys.path.insert(0, str(folder))
    try:
        made = Generated(server, folder, name)
        for path in ("", ".models", ".types", *(f".api.{path}" for path in PATHS)):
            made.module(path)
    finally:
        sys.path.remove(str(folder))
    return made


PATHS = (
    *(f"images.classify{batch}{by}" for batch in ("", "_batch") for by in ("", "_by_model", "_by_version")),
    *(f"models.{name}" for name in ("get_default_model", "get_model", "get_model_version", "list_models")),
    *(f"operations.{name}" for name in ("get_health", "get_metrics", "get_readiness")),
)


def test_generator_understands_all_but_the_range_of_image_types(generated: Generated) -> None:
    assert generated.warnings == {"Unsupported content type image/*"}


def test_generated_client_classifies_an_image(generated: Generated, shipped: RunningServer, photographs: Path) -> None:
    types, models = generated.module(".types"), generated.module(".models")
    classify = generated.module(".api.images.classify")
    data = (photographs / "cat.jpg").read_bytes()
    with generated.module().Client(url_of(shipped)) as client:
        for body in (
            types.File(io.BytesIO(data)),
            models.ImageForm(file=types.File(io.BytesIO(data), "cat.jpg", "image/jpeg")),
        ):
            answer = classify.sync(client=client, body=body, budget=0.5, graph=models.GraphDetail.SUMMARY)
            assert isinstance(answer, models.Classification)
            assert answer.predictions[0].label == "cat"
            assert answer.compute.budget == 0.5
            assert (answer.inference_graph, answer.layers.total) == (None, 18)


def test_generated_client_classifies_a_batch_with_budgets(
    generated: Generated, shipped: RunningServer, photographs: Path
) -> None:
    types, models = generated.module(".types"), generated.module(".models")
    files = [types.File(io.BytesIO((photographs / name).read_bytes()), name) for name in ("cat.jpg", "ship.png")]
    bad = types.File(io.BytesIO(b"no image"), "bad.png")
    with generated.module().Client(url_of(shipped)) as client:
        listed = generated.module(".api.models.list_models").sync(client=client).models
        answer = generated.module(".api.images.classify_batch_by_version").sync(
            name=listed[0].name,
            version=listed[0].version,
            client=client,
            body=models.ImagesForm(files=[*files, bad], budget=[0.4, 1, 1]),
        )
    cat, ship, broken = answer.results
    assert [each.answer.predictions[0].label for each in (cat, ship)] == ["cat", "ship"]
    assert [each.answer.compute.budget for each in (cat, ship)] == [0.4, 1]
    assert cat.answer.inference_graph.blocks[0].name
    assert (broken.answer, broken.error.type_) == (None, "not_an_image")


def test_generated_client_describes_models(generated: Generated, shipped: RunningServer) -> None:
    models = generated.module(".models")
    with generated.module().Client(url_of(shipped)) as client:
        (listed,) = generated.module(".api.models.list_models").sync(client=client).models
        described = generated.module(".api.models.get_model").sync(name=listed.name, client=client)
        unknown = generated.module(".api.models.get_model").sync(name="nobody", client=client)
        ready = generated.module(".api.operations.get_readiness").sync(client=client)
    assert described.blocks[0].within is None
    assert len(described.labels) == listed.labels
    assert isinstance(unknown, models.ErrorResponse)
    assert unknown.error.request_id
    assert ready.status == "ready"


def test_generated_client_sends_its_key(tmp_path: Path) -> None:
    keys = Keyring([ApiKey(name="one", sha256=hashlib.sha256(KEY.encode()).hexdigest())])
    with http_serving(EchoRuntime(), keys) as server:
        made = _generated(server, tmp_path, "generated_client_with_key")
        classify, file = made.module(".api.images.classify"), made.module(".types").File
        for key, status in ((KEY, 200), ("another", 401)):
            with made.module().AuthenticatedClient(url_of(server), key) as client:
                answer = classify.sync_detailed(client=client, body=file(io.BytesIO(solid(1))))
            assert answer.status_code == status

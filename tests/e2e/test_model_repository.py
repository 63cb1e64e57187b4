"""Models that come and go while a real server answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests.e2e.process import ServerProcess
from tests.e2e.test_stopping import Upload
from tests.processes import children, command_line
from tests.runtimes import PATIENCE_S, wait_until

NAME = "small"


def _put(source: Path, repository: Path, name: str, version: str) -> Path:
    """Put a model into a repository as one should: in one move, when it is complete."""
    making = repository.parent / f"making-{name}-{version}"
    shutil.copytree(source, making)
    manifest = making / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"name": name, "version": version}))
    place = repository / name / version
    place.parent.mkdir(parents=True, exist_ok=True)
    making.rename(place)
    return place


@pytest.fixture
def folder(artifact: Path, tmp_path: Path) -> Path:
    """A repository with two models of one version each."""
    repository = tmp_path / "models"
    for name in (NAME, "other"):
        _put(artifact, repository, name, "1")
    return repository


@pytest.fixture
def server(folder: Path, artifact: Path) -> Iterator[ServerProcess]:
    flags = {"model-repository": folder, "default-model": NAME, "admin-socket": folder.parent / "admin.sock"}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    with ServerProcess(artifact, *words, "--workers", "2", "--max-models", "4", "--watch-models", "off") as server:
        with server.client() as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
        yield server


@pytest.fixture
def admin(server: ServerProcess, folder: Path) -> Iterator[httpx.Client]:  # noqa: ARG001 (it listens there)
    """A client that may load and unload."""
    transport = httpx.HTTPTransport(uds=str(folder.parent / "admin.sock"))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=4 * PATIENCE_S) as client:
        yield client


def _listed(client: httpx.Client) -> dict[tuple[str, str], str]:
    return {(each["name"], each["version"]): each["state"] for each in client.get("/models").json()["models"]}


def _version(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    model: dict[str, str] = answer.json()["model"]
    return f"{model['name']} {model['version']}"


def test_all_models_of_the_folder_answer_by_name(server: ServerProcess, pictures: list[bytes]) -> None:
    with server.client() as client:
        assert _listed(client) == {(NAME, "1"): "ready", ("other", "1"): "ready"}
        asked = ("/classify", "/models/other/classify", "/models/small/versions/1/classify")
        assert [_version(client.post(path, content=pictures[0])) for path in asked] == ["small 1", "other 1", "small 1"]
    for name, count in (("small", 2), ("other", 1)):
        assert f'aig_images_total{{model="{name}",outcome="ok",version="1"}} {count}.0' in _metrics(server)


def _metrics(server: ServerProcess) -> str:
    with server.client() as client:
        return client.get("/metrics").text


def test_models_come_and_go_without_a_lost_request(
    server: ServerProcess, admin: httpx.Client, folder: Path, artifact: Path, pictures: list[bytes]
) -> None:
    over = Event()

    def ask(path: str) -> Counter[str]:
        seen: Counter[str] = Counter()
        with server.client() as client:
            while not over.is_set():
                seen[_version(client.post(path, content=pictures[0]))] += 1
        return seen

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask, path) for path in ("/classify", "/models/other/classify") * 2]
        _put(artifact, folder, NAME, "2")
        assert admin.post(f"/models/{NAME}/load").status_code == 200
        assert _version(admin.post("/classify", content=pictures[0])) == "small 2"
        assert admin.post(f"/models/{NAME}/versions/1/unload").status_code == 200
        assert admin.post("/models/other/load").status_code == 200  # again, as it may have changed
        over.set()
        seen = sum((each.result(4 * PATIENCE_S) for each in asking), Counter[str]())
    assert set(seen) == {"small 1", "small 2", "other 1"}
    assert _listed(admin) == {(NAME, "2"): "ready", ("other", "1"): "ready"}
    assert 'version="1"' not in "".join(line for line in _metrics(server).splitlines() if 'model="small"' in line)


def test_upload_goes_on_to_the_version_that_it_began_with(
    server: ServerProcess, admin: httpx.Client, pictures: list[bytes]
) -> None:
    with Upload(server, pictures[0]) as upload, ThreadPoolExecutor(1) as clients:
        upload.send(20)
        _metrics(server)  # which is answered after the head was read
        loading = clients.submit(admin.post, f"/models/{NAME}/load")
        wait_until(lambda: _listed(admin)[NAME, "1"] == "loading")
        wait_until(lambda: _listed(admin)[NAME, "1"] == "ready")  # and what was served before waits
        upload.send()
        assert upload.status() == 200
        assert loading.result(PATIENCE_S).status_code == 200


def test_broken_version_never_answers_and_says_why(
    server: ServerProcess, admin: httpx.Client, folder: Path, artifact: Path, pictures: list[bytes]
) -> None:
    (_put(artifact, folder, NAME, "2") / "model.onnx").write_bytes(b"no model")
    answer = admin.post(f"/models/{NAME}/load")
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "model_failed")
    assert "damaged" in answer.json()["error"]["message"]
    assert _listed(admin)[NAME, "2"] == "failed"
    with server.client() as client:
        assert _version(client.post("/classify", content=pictures[0])) == "small 1"
    # And where it takes the place of the version that is served.
    (folder / NAME / "1" / "model.onnx").write_bytes(b"no model")
    assert admin.post(f"/models/{NAME}/versions/1/load").json()["error"]["type"] == "model_failed"
    assert _version(admin.post("/classify", content=pictures[0])) == "small 1"


def test_version_whose_files_are_gone_keeps_no_worker_from_running_the_others(
    server: ServerProcess, admin: httpx.Client, folder: Path, pictures: list[bytes]
) -> None:
    shutil.rmtree(folder / "other")
    with server.client() as client:
        assert _version(client.post("/models/other/classify", content=pictures[0])) == "other 1"
        for pid in [pid for pid in children(server.pid) if b"service.images.worker_main" in command_line(pid)]:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: _listed(admin)["other", "1"] == "failed")
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert _version(client.post("/classify", content=pictures[0])) == "small 1"


def test_workers_that_hold_a_model_which_is_gone_do_not_stay_away(
    folder: Path, artifact: Path, pictures: list[bytes]
) -> None:
    words = ("--model-repository", str(folder), "--default-model", NAME, "--workers", "1", "--watch-models", "on")
    with ServerProcess(artifact, *words) as server, server.client() as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        for name in (NAME, "other"):
            (folder / name / "1").rename(folder.parent / f"withdrawn-{name}")
        wait_until(lambda: any("some workers still hold models" in line for line in server.lines))
        (folder.parent / f"withdrawn-{NAME}").rename(folder / NAME / "1")
        for pid in [pid for pid in children(server.pid) if b"service.images.worker_main" in command_line(pid)]:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: client.post("/classify", content=pictures[0]).status_code == 200)


def test_only_the_socket_or_a_key_for_it_changes_models(server: ServerProcess, admin: httpx.Client) -> None:
    with server.client() as client:
        answer = client.post("/models/other/unload")
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "forbidden")
        assert admin.post("/models/other/unload").status_code == 200
        assert client.post("/models/other/classify", content=b"x").json()["error"]["type"] == "unknown_model"
    assert admin.post("/models/other/unload").json()["error"]["type"] == "unknown_model"
    assert admin.post(f"/models/{NAME}/unload").json()["error"]["type"] == "model_in_use"
    assert admin.post("/models/nobody/load").json()["error"]["type"] == "unknown_model"
    assert admin.post("/models/..%2F..%2Fetc/load").status_code in (404, 422)


def test_no_more_models_than_there_may_be(admin: httpx.Client, folder: Path, artifact: Path) -> None:
    for version in ("2", "3", "4"):
        _put(artifact, folder, NAME, version)
    statuses = [admin.post(f"/models/{NAME}/versions/{version}/load").status_code for version in ("2", "3", "4")]
    assert statuses == [200, 200, 422]
    assert "--max-models" in admin.get("/models").text


def test_bad_version_keeps_no_other_from_being_served(
    server: ServerProcess, admin: httpx.Client, folder: Path, artifact: Path
) -> None:
    """None of these may be read to its end, or hold up who asks meanwhile."""
    for version, spoil in enumerate((_fifo, _endless, _huge_numbers), 2):
        place = _put(artifact, folder, NAME, str(version)) / "manifest.json"
        spoil(place)
        asked = time.perf_counter()
        answer = admin.post(f"/models/{NAME}/versions/{version}/load")
        assert (answer.status_code, answer.json()["error"]["type"]) == (422, "model_failed")
        assert time.perf_counter() - asked < 5
        with server.client() as client:
            assert client.get("/healthz").status_code == 200
    assert _listed(admin)[NAME, "1"] == "ready"


def _fifo(manifest: Path) -> None:
    manifest.unlink()
    os.mkfifo(manifest)


def _endless(manifest: Path) -> None:
    manifest.unlink()
    manifest.symlink_to("/dev/zero")


def _huge_numbers(manifest: Path) -> None:
    told = json.loads(manifest.read_text())
    told["stem_macs"] += 10**30
    told["total_macs"] += 10**30
    told["ungated_macs"] += 10**30
    manifest.write_text(json.dumps(told))


def test_start_serves_no_more_than_there_may_be(folder: Path, artifact: Path) -> None:
    words = ("--model-repository", str(folder), "--default-model", NAME, "--workers", "1", "--max-models", "1")
    with ServerProcess(artifact, *words) as server, server.client() as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert _listed(client) == {(NAME, "1"): "ready", ("other", "1"): "failed"}


def test_server_stops_at_once_while_it_loads(server: ServerProcess, admin: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as clients:
        loading = clients.submit(admin.post, "/models/other/load")
        wait_until(lambda: _listed(admin)["other", "1"] == "loading")
        server.signal(signal.SIGTERM)
        assert server.exit_status() == 0
        with suppress(httpx.HTTPError):
            loading.result(PATIENCE_S)


def test_folder_that_is_watched_is_followed(folder: Path, artifact: Path, pictures: list[bytes]) -> None:
    words = ("--model-repository", str(folder), "--default-model", NAME, "--workers", "1", "--watch-models", "on")
    with ServerProcess(artifact, *words) as server, server.client() as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        _put(artifact, folder, NAME, "7")
        wait_until(lambda: _listed(client).get((NAME, "7")) == "ready")
        assert _version(client.post("/classify", content=pictures[0])) == "small 7"
        shutil.rmtree(folder / "other")
        wait_until(lambda: ("other", "1") not in _listed(client))
        assert _version(client.post("/classify", content=pictures[0])) == "small 7"
        (folder / NAME / "7").rename(folder.parent / "withdrawn")
        wait_until(lambda: (NAME, "7") not in _listed(client))
        assert _version(client.post("/classify", content=pictures[0])) == "small 1"


def test_version_for_which_there_was_no_room_is_served_when_there_is(folder: Path, artifact: Path) -> None:
    words = ("--model-repository", str(folder), "--default-model", NAME, "--workers", "1", "--watch-models", "on")
    with ServerProcess(artifact, *words, "--max-models", "2") as server, server.client() as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        _put(artifact, folder, NAME, "2")
        wait_until(lambda: _listed(client).get((NAME, "2")) == "failed")
        (folder / "other" / "1").rename(folder.parent / "withdrawn")
        wait_until(lambda: _listed(client) == {(NAME, "1"): "ready", (NAME, "2"): "ready"})

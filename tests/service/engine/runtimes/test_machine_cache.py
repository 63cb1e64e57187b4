from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from threading import Thread

import pytest

from artifact.manifest import ONNX_NAME, Manifest
from service.engine.runtimes import machine_cache as module
from service.engine.runtimes.data_caches import host_caches
from service.engine.runtimes.machine_cache import MachineCache, machine_cache
from tests.runtimes import PATIENCE_S, echo_manifest

ROOT = Path(__file__).parents[4]
CONTENT = b"a graph\nof several lines\n\x00\xff"


@pytest.fixture
def manifest() -> Manifest:
    return _manifest_with("1" * 64)


def _manifest_with(digest: str) -> Manifest:
    return echo_manifest().model_copy(update={"files": {ONNX_NAME: digest}})


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A path nobody can make a folder of, not even root."""
    path = tmp_path / "a file"
    path.write_bytes(b"")
    return path


@pytest.fixture(autouse=True)
def xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg"


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("content", [CONTENT, b"", b"\n", b"x" * 1_000_000])
def test_content_comes_back_as_it_was_written(tmp_path: Path, manifest: Manifest, content: bytes) -> None:
    MachineCache([tmp_path], manifest).write("graph", content)
    assert MachineCache([tmp_path], manifest).read("graph") == content


def test_what_was_never_written_is_not_there(tmp_path: Path, manifest: Manifest) -> None:
    cache = MachineCache([tmp_path / "nowhere"], manifest)
    assert cache.read("graph") is None
    cache.write("graph", CONTENT)
    assert cache.read("another") is None


def test_later_content_replaces_the_earlier(tmp_path: Path, manifest: Manifest) -> None:
    cache = MachineCache([tmp_path], manifest)
    cache.write("graph", CONTENT)
    cache.write("graph", b"newer")
    assert cache.read("graph") == b"newer"
    assert len(list(_files(tmp_path))) == 1


@pytest.mark.parametrize("how", ["cut off", "changed", "empty", "foreign"])
def test_damaged_file_is_as_good_as_none_and_is_told(
    tmp_path: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    cache = MachineCache([tmp_path], manifest)
    cache.write("graph", CONTENT)
    (file,) = _files(tmp_path)
    whole = file.read_bytes()
    damage = {"cut off": whole[:-1], "changed": whole[:-1] + b"\x01", "empty": b"", "foreign": CONTENT}
    file.write_bytes(damage[how])
    assert cache.read("graph") is None
    assert "is damaged" in caplog.text
    cache.write("graph", CONTENT)
    assert cache.read("graph") == CONTENT


def test_folder_in_place_of_the_file_is_as_good_as_none(tmp_path: Path, manifest: Manifest) -> None:
    cache = MachineCache([tmp_path / "first", tmp_path / "second"], manifest)
    cache.write("graph", CONTENT)
    (file,) = _files(tmp_path)
    file.unlink()
    file.mkdir()
    assert cache.read("graph") is None
    cache.write("graph", CONTENT)
    assert cache.read("graph") == CONTENT
    (file,) = _files(tmp_path)  # and nothing unfinished beside it
    assert file.is_relative_to(tmp_path / "second")


def test_first_folder_that_can_be_written_to_is_taken(tmp_path: Path, blocked: Path, manifest: Manifest) -> None:
    cache = MachineCache([blocked, tmp_path / "second", tmp_path / "third"], manifest)
    cache.write("graph", CONTENT)
    assert cache.read("graph") == CONTENT
    (file,) = _files(tmp_path / "second")
    assert file.name == "graph"
    assert not (tmp_path / "third").exists()


def test_without_a_folder_to_write_to_nothing_is_kept_and_nothing_fails(
    blocked: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for cache in (MachineCache([blocked], manifest), MachineCache([], manifest)):
        caplog.clear()
        cache.write("graph", CONTENT)
        assert cache.read("graph") is None
        assert "made again at every start" in caplog.text


def test_write_that_fails_halfway_leaves_nothing(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    cache = MachineCache([tmp_path], manifest)
    for method in ("write_bytes", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, full)
            cache.write("graph", CONTENT)
        assert list(_files(tmp_path)) == []
        assert cache.read("graph") is None


def test_another_model_library_processor_or_cache_has_files_of_its_own(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    MachineCache([tmp_path], manifest).write("graph", CONTENT)
    assert MachineCache([tmp_path], _manifest_with("2" * 64)).read("graph") is None
    for number in ({"gate_threshold": 0.5}, {"input_size": 64}):
        assert MachineCache([tmp_path], manifest.model_copy(update=number)).read("graph") is None
    versions = {name: module._version(name) for name in ("llvmlite", "onnxruntime", "onnxruntime-gpu", "openvino")}
    for changed in versions:
        with monkeypatch.context() as patch:
            patch.setattr(module, "_version", (versions | {changed: "99"}).__getitem__)
            assert MachineCache([tmp_path], manifest).read("graph") is None
    with monkeypatch.context() as patch:
        patch.setattr(module, "_processor", lambda: "a better one")
        assert MachineCache([tmp_path], manifest).read("graph") is None
    here = host_caches()
    for caches in (replace(here, l1=2 * here.l1), replace(here, l1_way=2 * here.l1_way), replace(here, l2=2 * here.l2)):
        with monkeypatch.context() as patch:
            patch.setattr(module, "host_caches", partial(replace, caches))
            assert MachineCache([tmp_path], manifest).read("graph") is None
    assert MachineCache([tmp_path], manifest).read("graph") == CONTENT


def test_library_that_goes_away_changes_what_is_kept(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(library: str) -> str:
        if library == "openvino":
            raise PackageNotFoundError(library)
        return "1"

    monkeypatch.setattr(module, "version", lambda _: "1")
    MachineCache([tmp_path], manifest).write("graph", CONTENT)
    monkeypatch.setattr(module, "version", gone)
    assert MachineCache([tmp_path], manifest).read("graph") is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("model name: A\nflags: avx2 fma\ncpu MHz: 1\n", "model name: A\nflags: avx2 fma\ncpu MHz: 2\n", True),
        ("model name: A\nflags: avx2\n", "model name: A\nflags: avx2\n\nmodel name: A\nflags: avx2\n", True),
        ("model name: A\nflags: avx2\n", "model name: A\nflags: avx512f\n", False),
        ("model name: A\nflags: avx2\n", "model name: B\nflags: avx2\n", False),
        ("CPU part: 1\nFeatures: bf16\n", "CPU part: 1\nFeatures: sve\n", False),
    ],
)
def test_processor_is_what_it_is_and_can_do(monkeypatch: pytest.MonkeyPatch, one: str, other: str, same: bool) -> None:
    told = []
    for cpuinfo in (one, other):
        monkeypatch.setattr(Path, "read_text", lambda *_, text=cpuinfo, **__: text)
        told.append(module._processor())
    assert (told[0] == told[1]) is same


def test_processor_of_another_system_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> str:
        raise FileNotFoundError("/proc/cpuinfo")

    monkeypatch.setattr(Path, "read_text", nothing)
    assert os.uname().machine in module._processor()


def test_cache_of_a_model_lies_beside_it(tmp_path: Path, manifest: Manifest, xdg: Path) -> None:
    machine_cache(tmp_path / "model", manifest).write("graph", CONTENT)
    (file,) = _files(tmp_path)
    assert file.is_relative_to(tmp_path / "model" / ".cache")
    assert not xdg.exists()


def test_cache_of_a_model_that_nobody_may_write_to_lies_among_the_users(
    blocked: Path, manifest: Manifest, xdg: Path
) -> None:
    machine_cache(blocked, manifest).write("graph", CONTENT)
    assert machine_cache(blocked, manifest).read("graph") == CONTENT
    (file,) = _files(xdg)
    assert file.is_relative_to(xdg / "convnet-aig-serving")


def test_users_cache_is_in_their_home_unless_they_say_otherwise(
    tmp_path: Path, blocked: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    machine_cache(blocked, manifest).write("graph", CONTENT)
    (file,) = _files(tmp_path / "home")
    assert file.is_relative_to(tmp_path / "home" / ".cache" / "convnet-aig-serving")


def test_user_without_a_home_has_the_cache_beside_the_model_or_none(
    tmp_path: Path, blocked: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    machine_cache(tmp_path / "model", manifest).write("graph", CONTENT)
    assert machine_cache(tmp_path / "model", manifest).read("graph") == CONTENT
    machine_cache(blocked, manifest).write("graph", CONTENT)
    assert machine_cache(blocked, manifest).read("graph") is None


def test_folder_asked_for_is_the_only_one(tmp_path: Path, blocked: Path, manifest: Manifest) -> None:
    machine_cache(tmp_path / "model", manifest, tmp_path / "asked").write("graph", CONTENT)
    (file,) = (path for path in _files(tmp_path) if path != blocked)
    assert file.is_relative_to(tmp_path / "asked")
    machine_cache(tmp_path / "model", manifest, blocked).write("graph", CONTENT)
    assert machine_cache(tmp_path / "model", manifest).read("graph") is None


def _end_in_a_trial(folder: Path, name: str = "graph") -> None:
    program = f"""
import os
import signal
import subprocess
import sys
from pathlib import Path
from service.engine.runtimes.machine_cache import MachineCache
from tests.service.engine.runtimes.test_machine_cache import _manifest_with
with MachineCache([Path({str(folder)!r})], _manifest_with("1" * 64)).trial({name!r}):
    os.abort()
"""
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=PATIENCE_S, check=False)
    assert finished.returncode == -signal.SIGABRT


def test_trial_that_ended_its_process_is_known_to_the_next_one_and_then_forgotten(
    tmp_path: Path, manifest: Manifest
) -> None:
    cache = MachineCache([tmp_path], manifest)
    cache.write("graph", CONTENT)
    _end_in_a_trial(tmp_path)
    for expected in (True, False, False):
        with cache.trial("graph") as ended:
            assert ended is expected
    assert cache.read("graph") == CONTENT


def test_trial_that_fails_without_ending_its_process_is_over(tmp_path: Path, manifest: Manifest) -> None:
    cache = MachineCache([tmp_path], manifest)
    cache.write("graph", CONTENT)
    with pytest.raises(LookupError), cache.trial("graph") as ended:
        raise LookupError
    with cache.trial("graph") as ended:
        assert not ended


def test_trial_waits_for_one_that_goes_on(tmp_path: Path, manifest: Manifest) -> None:
    cache, found = MachineCache([tmp_path], manifest), []
    cache.write("graph", CONTENT)

    def try_it() -> None:
        with MachineCache([tmp_path], manifest).trial("graph") as ended:
            found.append(ended)

    with cache.trial("graph"):
        other = Thread(target=try_it)
        other.start()
        other.join(0.05)
        assert found == []
    other.join(PATIENCE_S)
    assert found == [False]


def test_trial_of_what_is_not_kept_or_cannot_be_marked_leaves_no_mark(
    tmp_path: Path, blocked: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = MachineCache([blocked, tmp_path / "second"], manifest)
    with cache.trial("graph") as ended:
        assert not ended
    assert not (tmp_path / "second").exists()
    cache.write("graph", CONTENT)

    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    for _ in range(2):
        with cache.trial("graph") as ended:
            assert not ended

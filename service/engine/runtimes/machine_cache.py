"""Where what was made of a model for one machine is kept, so that it is made once."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

from artifact.manifest import INT8_NAME, MANIFEST_NAME, ONNX_NAME, Manifest
from service.engine.runtimes.data_caches import host_caches

_log = logging.getLogger(__name__)

# Raised with every change to what is kept, so that what an earlier version made is not used.
_FORMAT = "6"
# What the file beside something kept holds while that is tried.
_TRIED = b"tried\n"
_LIBRARIES = ("llvmlite", "onnxruntime", "onnxruntime-gpu", "openvino")


class MachineCache:
    """A folder of files that depend on the model, the libraries' versions, the processor and its caches.

    Nothing depends on it: what cannot be read is made again, and where nothing can be written nothing is kept.

    Args:
        folders: to try, in order, for one that can be written to.
        manifest: of the model.
    """

    def __init__(self, folders: Sequence[Path], manifest: Manifest) -> None:
        key = _key(manifest)
        self._parents = folders
        self._folders = [folder / key for folder in folders]

    def of(self, manifest: Manifest) -> MachineCache:
        """The cache of another model in the same place."""
        return MachineCache(self._parents, manifest)

    def read(self, name: str) -> bytes | None:
        """The content of a file, if it was kept and is whole."""
        for folder in self._folders:
            try:
                digest, _, content = (folder / name).read_bytes().partition(b"\n")
            except OSError:
                continue
            if digest == _digest(content):
                return content
            _log.warning("%s is damaged and will be made again", folder / name)
        return None

    @contextmanager
    def trial(self, name: str) -> Iterator[bool]:
        """Run what was kept for the first time in this process, in a way that is remembered if that ends the process.

        A file beside what was kept tells of the trial until it is over. It is locked meanwhile: another process waits,
        and does not take a trial that goes on for one that ended its process. Where no such file can be written,
        nothing is remembered.

        Yields:
            Whether a process was ended in a trial since the last one that was not.
        """
        with ExitStack() as stack:
            try:
                mark = stack.enter_context(self._mark(name))
                fcntl.flock(mark, fcntl.LOCK_EX)
            except OSError:
                yield False
                return
            mark.seek(0)
            ended = bool(mark.read())
            mark.write(_TRIED)
            mark.flush()
            try:
                yield ended
            finally:
                mark.truncate(0)

    def _mark(self, name: str) -> IO[bytes]:
        for folder in self._folders:
            if (folder / name).is_file():
                return (folder / f"{name}.trial").open("a+b")
        raise FileNotFoundError(name)

    def write(self, name: str, content: bytes) -> None:
        """Keep a file; other processes see it whole or not at all."""
        for folder in self._folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _write_whole(folder / name, _digest(content) + b"\n" + content)
            except OSError:
                continue
            return
        _log.info("no folder to keep %s in can be written to: it will be made again at every start", name)


def machine_cache(model: Path, manifest: Manifest, folder: Path | None = None) -> MachineCache:
    """The cache of a model: in `folder` if given, else beside the model, else among the user's caches."""
    if folder is not None:
        return MachineCache([folder], manifest)
    folders = [model / ".cache"]
    with suppress(RuntimeError):  # a user without a home, as in a container
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folders.append(caches / "convnet-aig-serving")
    return MachineCache(folders, manifest)


def _write_whole(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        unfinished = Path(file.name)
    try:
        unfinished.write_bytes(content)
        unfinished.chmod(0o644)  # temporary files are private; a service under another account may read this one
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _key(manifest: Manifest) -> str:
    names = (ONNX_NAME, INT8_NAME, *(f"{member.folder}/{MANIFEST_NAME}" for member in manifest.members))
    graphs = [manifest.files.get(name, "") for name in names]
    # What is made of a graph has the manifest's own numbers in it.
    parts = [
        _FORMAT,
        *graphs,
        repr(manifest.gate_threshold),
        str(manifest.input_size),
        _processor(),
        repr(host_caches()),
    ]
    parts += map(_version, _LIBRARIES)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


def _processor() -> str:
    """What the processor is and can do: two of one name may still differ in what a hypervisor lets through."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not on Linux
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))

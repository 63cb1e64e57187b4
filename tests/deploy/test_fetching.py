from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest

from deploy import fetch_model
from deploy.fetch_model import FetchError, fetch, main

Offer = Callable[[bytes], str]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def offer(tmp_path: Path) -> Iterator[Offer]:
    """Puts a file on a server and returns its URL."""
    (tmp_path / "offered").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "offered")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def offered(content: bytes) -> str:
        (tmp_path / "offered" / "models.tar").write_bytes(content)
        return f"http://127.0.0.1:{server.server_port}/models.tar"

    try:
        yield offered
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def _archive(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "", mode: str = "w:gz") -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(content), kind, link
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_models_are_unpacked(offer: Offer, models: Path, mode: str) -> None:
    content = _archive(("cats/1/manifest.json", b"{}"), mode=mode)

    fetch(offer(content), _digest(content).upper(), models, 1_000_000)

    assert [path.relative_to(models).as_posix() for path in models.rglob("*") if path.is_file()] == [
        "cats/1/manifest.json"
    ]


def test_nothing_is_unpacked_that_has_another_digest(offer: Offer, models: Path) -> None:
    content = _archive(("a", b"b"))

    with pytest.raises(FetchError, match=_digest(content)):
        fetch(offer(content), _digest(b""), models, 1_000_000)

    assert not list(models.iterdir())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (_archive(("../outside", b"")), "outside"),
        (_archive(("link", b""), kind=tarfile.SYMTYPE, link="/etc"), "link"),
        (_archive(("device", b""), kind=tarfile.CHRTYPE), "special file"),
        (b"no archive", "cannot be unpacked"),
        (_archive(("a", b"b" * 2_000)), "holds more than 1000 bytes"),
        (_archive(("a", b"b" * 2_000), mode="w"), "has more than 1000 bytes"),
    ],
    ids=["outside", "link", "device", "no archive", "bomb", "large"],
)
def test_what_no_model_has_is_refused(offer: Offer, models: Path, content: bytes, told: str) -> None:
    with pytest.raises(FetchError, match=told):
        fetch(offer(content), _digest(content), models, 1_000)

    assert not [path for path in models.parent.rglob("*") if path.name == "outside"]


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_archive_that_is_damaged_within_is_told(offer: Offer, models: Path, mode: str) -> None:
    whole = _archive(("a", Random(0).randbytes(100_000).hex().encode()), mode=mode)
    middle = len(whole) // 2
    damaged = [whole[:middle]]
    if mode != "w:gz":  # whose checksum comes after all that is unpacked: the model's own digests find that
        damaged.append(whole[:middle] + b"damaged" + whole[middle + 7 :])
    for content in damaged:
        with pytest.raises(FetchError, match="cannot be unpacked"):
            fetch(offer(content), _digest(content), models, 10_000_000)


def test_server_that_never_comes_to_an_end_is_given_up(
    offer: Offer, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_model, "_LONGEST_S", 0.0)
    with pytest.raises(FetchError, match="took more than 0 seconds"):
        fetch(offer(b"drop by drop"), _digest(b""), models, 1_000)


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url,
        lambda url: url.replace("none", "no ne"),
        lambda url: url.replace("//", "//name:pa55word@"),  # pragma: allowlist secret
        lambda _: "http://name:pa55word@host/none.tar",  # pragma: allowlist secret
    ],
    ids=["missing", "space", "user", "without_port"],
)
def test_errors_are_one_line_without_secrets(
    offer: Offer, models: Path, capsys: pytest.CaptureFixture[str], change: Callable[[str], str]
) -> None:
    url = change(offer(b"").replace("models.tar", "none.tar?signature=secret"))

    assert main([url, _digest(b""), str(models), "1"]) == 1

    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert "pa55word" not in told
    assert "secret" not in told


def test_only_http_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no URL"):
        fetch("http://[::1", _digest(b""), tmp_path, 1_000)
    with pytest.raises(FetchError, match="HTTP"):
        fetch(f"file://{tmp_path}", _digest(b""), tmp_path, 1_000)

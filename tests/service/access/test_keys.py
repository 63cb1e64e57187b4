from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path

import pytest

from service.__main__ import main
from service.access.keys import ApiKey, KeyFileError, Keyring, make_key, read_keys

DIGEST = hashlib.sha256(b"secret").hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()


def _file(folder: Path, text: str) -> Path:
    path = folder / "keys.toml"
    path.write_text(text)
    return path


def test_every_key_has_its_own_limits_or_those_of_all(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        f"""
        [limits]
        images_per_second = 5
        macs_per_window = 1e12
        [keys.alice]
        sha256 = "{DIGEST}"
        [keys."bob.smith"]
        sha256 = "{OTHER}"
        images_per_second = 0.5
        burst_images = 4
        requests_at_once = 2
        metrics = true
        """,
    )
    alice, bob = read_keys(path).keys
    assert alice == ApiKey(name="alice", sha256=DIGEST, images_per_second=5, macs_per_window=10**12)
    assert (bob.name, bob.images_per_second, bob.burst_images, bob.requests_at_once) == ("bob.smith", 0.5, 4, 2)
    assert (bob.metrics, bob.macs_per_window, bob.window_seconds) == (True, 10**12, 3600)


def test_key_is_found_by_what_was_hashed_and_nothing_else() -> None:
    keyring = Keyring([ApiKey(name="alice", sha256=DIGEST), ApiKey(name="bob", sha256=OTHER)])
    assert [getattr(keyring.find(key), "name", None) for key in (b"secret", b"another")] == ["alice", "bob"]
    for wrong in (b"", b"secre", b"secret ", b"Secret", DIGEST.encode(), b"\xff" * 100):
        assert keyring.find(wrong) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no key"),
        ("[keys]", "names no key"),
        ("keys = 3", r"tables \[limits\]"),
        ("[limits]\nimages_per_second = 1", "names no key"),
        ("[key.alice]", r"no others"),
        ("[keys]\nalice = 'x'", "keys.alice is no table"),
        ("[keys.alice", "is not TOML"),
        ("a=" + "[" * 100_000, "is not TOML"),
        ("[keys.alice]", "keys.alice: sha256: Field required"),
        ("[keys.alice]\nsha256 = 'aig_this-is-the-key-itself'", "keys.alice: sha256: String should match"),
        (f"[keys.'a b']\nsha256 = '{DIGEST}'", "keys.a b: name: String should match"),
        (f"[keys.a]\nsha256 = '{DIGEST}'\n[keys.b]\nsha256 = '{DIGEST}'", "under two names"),
        (f"[keys.a]\nsha256 = '{DIGEST}'\nimages_per_hour = 3", "images_per_hour: Extra inputs"),
        (f"[keys.a]\nsha256 = '{DIGEST}'\nimages_per_second = 0", "images_per_second: Input should be greater"),
        (f"[keys.a]\nsha256 = '{DIGEST}'\nimages_per_second = nan", "images_per_second: Input should be"),
        (f"[keys.a]\nsha256 = '{DIGEST}'\nmacs_per_window = inf", "macs_per_window: Input should be"),
        (f"[keys.a]\nsha256 = '{DIGEST}'\nrequests_at_once = 0", "requests_at_once: Input should be"),
        (f"[limits]\nwindow_seconds = 0\n[keys.a]\nsha256 = '{DIGEST}'", "window_seconds: Input should be"),
    ],
)
def test_file_that_cannot_be_meant_is_one_line_of_error(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(KeyFileError, match=words) as caught:
        read_keys(path)
    assert "key-itself" not in str(caught.value)
    assert main(["serve", "--api-keys", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {caught.value}"


def test_missing_file_keeps_the_service_from_starting_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--api-keys", str(tmp_path / "nowhere.toml")]) == 1
    assert "No such file or directory; make one with python -m service key NAME" in capsys.readouterr().err


def test_pipe_is_refused_as_reading_it_again_could_take_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    os.mkfifo(path)
    with pytest.raises(KeyFileError, match="is no regular file"):
        read_keys(path)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_bytes(b"\xff\xfe\0")
    with pytest.raises(KeyFileError, match="is not TOML"):
        read_keys(path)


def test_key_that_is_made_opens_what_the_table_printed_with_it_stands_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["key", "alice.smith"]) == 0
    printed = capsys.readouterr().out
    (secret,) = [line for line in printed.splitlines() if line.startswith("aig_")]
    table = printed[printed.index("[keys") :]
    assert secret not in table
    assert tomllib.loads(table)["keys"].keys() == {"alice.smith"}
    found = read_keys(_file(tmp_path, table)).find(secret.encode())
    assert found is not None
    assert found.name == "alice.smith"


def test_keys_are_long_and_no_two_are_alike() -> None:
    made = {make_key("a")[0] for _ in range(50)}
    assert len(made) == 50
    assert min(map(len, made)) >= 43  # 256 bits in base 64


def test_key_needs_a_name_that_metrics_can_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "a b\n"]) == 1
    assert "a name has" in capsys.readouterr().err

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_settings import SettingsError

from service.access.keys import ApiKey, KeyFileError
from service.frontends import division
from service.frontends.division import divided, front_end_count
from service.settings import Settings, share


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without a GPU, whose cores tests choose."""
    monkeypatch.setattr(division, "cuda_devices", lambda _: ())
    return monkeypatch


@pytest.mark.parametrize(("count", "front_ends"), [(1, 1), (2, 1), (31, 1), (32, 2), (128, 8)])
def test_cores_decide_how_many_there_are(cores: pytest.MonkeyPatch, count: int, front_ends: int) -> None:
    cores.setattr(division, "usable_cores", lambda: count)
    assert front_end_count(Settings()) == front_ends
    assert front_end_count(Settings(workers=64)) == 4
    assert front_end_count(Settings(frontends=3)) == 3


def test_one_serves_where_dividing_would_take_something_from_somebody(cores: pytest.MonkeyPatch) -> None:
    assert front_end_count(Settings(workers=64, api_keys=Path("keys.toml"))) == 1
    assert front_end_count(Settings(workers=64, queue_size=1)) == 1
    assert front_end_count(Settings(workers=64, max_bytes=500_000_000)) == 1
    cores.setattr(division, "cuda_devices", lambda _: (0,))
    assert front_end_count(Settings(workers=64)) == 1


def test_parts_are_even_and_together_what_was_divided() -> None:
    settings = Settings(workers=7, queue_size=100, max_connections_per_address=5, admin_socket=Path("a.sock"))
    parts = divided(settings, 3)
    assert [part.workers for part in parts] == [3, 2, 2]
    for name in ("queue_size", "max_connections", "max_connections_per_address", "max_pending_bytes"):
        shares = [getattr(part, name) for part in parts]
        assert sum(shares) == getattr(settings, name)
        assert max(shares) - min(shares) <= 1
    assert [part.admin_socket for part in parts] == [Path("a.sock"), None, None]
    assert all(part.deadline_ms == settings.deadline_ms for part in parts)


def test_each_has_a_worker_where_none_are_set(cores: pytest.MonkeyPatch) -> None:
    cores.setattr(division, "usable_cores", lambda: 2)
    assert [part.workers for part in divided(Settings(), 3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("settings", "flag"),
    [({"workers": 1}, "--workers 1"), ({"queue_size": 1}, "--queue-size 1"), ({"max_connections": 1}, "--max-conn")],
)
def test_what_cannot_be_divided_is_refused(settings: dict[str, object], flag: str) -> None:
    with pytest.raises(SettingsError, match=f"^{flag}.* among 2 front ends"):
        divided(Settings(**settings), 2)


def test_largest_image_must_find_room_in_each() -> None:
    with pytest.raises(SettingsError, match=r"^--max-pending-bytes must hold an image"):
        divided(Settings(max_pending_bytes=30_000_000), 2)


def test_devices_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(division, "cuda_devices", lambda settings: settings.cuda_devices)
    parts = divided(Settings(device="cuda:0,1,2", workers=4), 2)
    assert [part.device for part in parts] == ["cuda:0,2", "cuda:1"]
    with pytest.raises(SettingsError, match="need a GPU each"):
        divided(Settings(device="cuda:1", workers=4), 2)


def test_shares_are_the_total() -> None:
    assert [share(10, number, 4) for number in range(4)] == [3, 3, 2, 2]


def test_limits_of_a_key_hold_for_all_together() -> None:
    key = ApiKey(
        name="alice",
        sha256="0" * 64,
        requests_at_once=3,
        images_per_second=5,
        macs_per_window=1_000_001,
    )
    parts = [key.part(number, 2) for number in range(2)]
    assert [part.requests_at_once for part in parts] == [2, 1]
    assert [part.images_per_second for part in parts] == [2.5, 2.5]
    assert [part.burst_images for part in parts] == [3, 2]  # of one second, as by default
    assert sum(part.macs_per_window or 0 for part in parts) == 1_000_001


def test_limit_of_a_key_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(KeyFileError, match="requests_at_once of the key alice is 1, too few for 2 front ends"):
        ApiKey(name="alice", sha256="0" * 64, requests_at_once=1).part(0, 2)

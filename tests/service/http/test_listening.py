from __future__ import annotations

import socket

import pytest
from pydantic_settings import SettingsError

from service.http.listening import claimed, taken_port


@pytest.mark.parametrize(("host", "why"), [("192.0.2.1", "assign"), ("nobody.invalid", "not known")])
def test_host_that_is_another_machine_is_told(host: str, why: str) -> None:
    with pytest.raises(SettingsError, match=rf"^cannot listen on port 80 of {host}: .*{why}"), taken_port([host], 80):
        pass


def test_error_tells_what_to_do() -> None:
    with taken_port(["127.0.0.1"], 0) as (taken,):
        taken.listen()
        with (
            pytest.raises(SettingsError, match="choose another port"),
            taken_port(["127.0.0.1"], taken.getsockname()[1]),
        ):
            pass
    with pytest.raises(SettingsError, match=r"0\.0\.0\.0 stands for all"), taken_port(["192.0.2.1"], 80):
        pass


def test_every_address_of_a_host_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [*found, *found])
    with taken_port(["localhost"], 0) as taken:
        assert [listener.getsockname()[0] for listener in taken] == ["127.0.0.1", "127.0.0.2"]


def test_hosts_of_both_protocols_are_listened_on_at_one_port() -> None:
    with taken_port(["127.0.0.1", "::1"], 0) as taken:
        (first, port), (second, other, *_) = (listener.getsockname() for listener in taken)
    assert (first, second, other) == ("127.0.0.1", "::1", port)


def test_shared_port_is_taken_by_several_who_share_it_and_by_nobody_else() -> None:
    with taken_port(["127.0.0.1"], 0, shared=True) as (first,):
        port = first.getsockname()[1]
        first.listen()
        with taken_port(["127.0.0.1"], port, shared=True) as (second,):
            second.listen()
        with pytest.raises(SettingsError, match="Address already in use"), taken_port(["127.0.0.1"], port):
            pass


def test_claimed_port_cannot_be_claimed_by_others_until_it_is_given_up() -> None:
    with taken_port(["127.0.0.1", "::1"], 0) as listeners:
        with claimed(listeners), pytest.raises(SettingsError, match="already in use; stop what"), claimed(listeners):
            pass
        with claimed(listeners):
            pass

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from models.device import use_sound_gradients

OLD = {"architecture": "x86_64", "avx2": True, "avx512_f": False}


@pytest.fixture(autouse=True)
def _one_dnn() -> Iterator[None]:
    """It is used, and what is changed here is changed back."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(True)
    yield
    torch._C._set_mkldnn_enabled(before)


@pytest.mark.parametrize(
    ("device", "capabilities", "used"),
    [
        pytest.param("cpu", OLD, False, id="AVX2 and nothing newer"),
        pytest.param("cpu", OLD | {"avx512_f": True}, True, id="AVX-512"),
        pytest.param("cpu", {"architecture": "aarch64"}, True, id="another architecture"),
        pytest.param("cuda", OLD, True, id="gradients on a GPU"),
    ],
)
def test_gradients_that_are_not_sound_are_left_out(
    monkeypatch: pytest.MonkeyPatch, device: str, capabilities: dict[str, object], used: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    use_sound_gradients(torch.device(device))
    assert torch._C._get_mkldnn_enabled() is used

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.engine.runtimes.compiled.executable import Executable

KEPT = Executable(
    scratch_size=48, logits=6, margins=5, code=b"\x7fELF\nof several lines\n", weights=np.arange(7, dtype=np.float32)
)


def _assert_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="what was kept is no compiled network: "):
        Executable.from_bytes(content)


@pytest.mark.parametrize("weights", [0, 1, 7])
def test_program_comes_back_as_it_was_kept(weights: int) -> None:
    kept = replace(KEPT, weights=KEPT.weights[:weights])
    back = Executable.from_bytes(kept.to_bytes())
    assert replace(back, weights=kept.weights) == kept
    np.testing.assert_array_equal(back.weights, kept.weights)
    assert back.weights.dtype == np.float32


def test_sizes_that_are_not_those_of_the_code_are_refused() -> None:
    head, rest = KEPT.to_bytes().split(b"\n", 1)
    sizes = list(map(int, head.split()))
    assert sizes == [48, 6, 5, len(KEPT.code), 7]
    for position in range(len(sizes)):
        for size in (0, -1, sizes[position] - 1, sizes[position] + 1, 10**12):
            changed = [*sizes[:position], size, *sizes[position + 1 :]]
            _assert_refused(b" ".join(b"%d" % each for each in changed) + b"\n" + rest)
    for few_or_many in (b"", b"48", b"48 6 5 22", head + b" 1"):
        _assert_refused(few_or_many + b"\n" + rest)


def test_changed_code_is_refused() -> None:
    content = KEPT.to_bytes()
    for position in range(content.index(KEPT.code), content.index(KEPT.code) + len(KEPT.code)):
        _assert_refused(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])


def test_program_that_is_cut_off_or_goes_on_is_refused() -> None:
    content = KEPT.to_bytes()
    for length in range(len(content)):
        _assert_refused(content[:length])
    for more in (b"\n", bytes(4)):
        _assert_refused(content + more)

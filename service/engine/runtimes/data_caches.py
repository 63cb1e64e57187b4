"""The sizes of this machine's data caches, which decide how the loops of a convolution are blocked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

# As Linux tells of the first core, which is taken for all of them.
_SYSTEM = Path("/sys/devices/system/cpu/cpu0/cache")
_FILES = ("level", "type", "size", "ways_of_associativity")
_FACTORS = {"K": 1024, "M": 1024**2}


@dataclass(frozen=True)
class Caches:
    """Of one core, in bytes; the defaults are `USUAL_CACHES`.

    Attributes:
        l1: size of the first-level data cache.
        l1_way: of one of its ways: addresses that differ by a multiple of it compete for the same set.
        l2: size of the second-level cache.
    """

    l1: int = 32 * 1024
    l1_way: int = 4096
    l2: int = 512 * 1024


# What is taken where the system does not tell: few processors of these years have less, and to block for smaller caches
# than there are costs little.
USUAL_CACHES = Caches()


@cache
def host_caches(system: Path = _SYSTEM) -> Caches:
    """Those of this machine, by what Linux tells; `USUAL_CACHES` where it tells nothing.

    Args:
        system: folder with a folder for each cache.
    """
    found: dict[str, tuple[int, int]] = {}
    for folder in sorted(system.glob("index*")):
        try:
            level, kind, size, associativity = ((folder / name).read_text().strip() for name in _FILES)
            if kind in ("Data", "Unified"):
                found[level] = _bytes(size), int(associativity)
        except (OSError, ValueError, KeyError, IndexError):  # a virtual machine may have only some of it, or nonsense
            continue
    l1, ways = found.get("1", (0, 0))
    l2, _ = found.get("2", (0, 0))
    if l1 <= 0 or ways <= 0:
        l1, ways = USUAL_CACHES.l1, USUAL_CACHES.l1 // USUAL_CACHES.l1_way
    return Caches(l1, l1 // ways, l2 if l2 > l1 else max(USUAL_CACHES.l2, l1))


def _bytes(size: str) -> int:
    """A size such as 48K."""
    return int(size[:-1]) * _FACTORS[size[-1]]

"""A compiled network as it is kept on disk, and checked before any of it is run: other code could end the process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from artifact.preprocessing import Float32Array

# Of the memory for weights and for scratch that the code is called with, in bytes: that of a cache line.
ALIGNMENT = 64


@dataclass(frozen=True)
class Executable:
    """All that is needed to run a network.

    Attributes:
        scratch_size: of the scratch memory, in words.
        logits, margins: how many it gives for an image.
        code: machine code.
        weights: all of them, in one dimension.
    """

    scratch_size: int
    logits: int
    margins: int
    code: bytes
    weights: Float32Array

    def to_bytes(self) -> bytes:
        """A line of sizes, a digest of them and the code, the code, and the weights."""
        sizes = [self.scratch_size, self.logits, self.margins, len(self.code), self.weights.size]
        head = " ".join(map(str, sizes)).encode()
        return b"\n".join([head, _digest(head, self.code), self.code + self.weights.tobytes()])

    @classmethod
    def from_bytes(cls, content: bytes) -> Executable:
        """What `to_bytes` gave.

        Raises:
            ValueError: it is something else.
        """
        try:
            head, digest, rest = content.split(b"\n", 2)
            scratch_size, logits, margins, code_size, weights_size = map(int, head.split())
            code = rest[:code_size]
            weights = np.frombuffer(rest, np.float32, offset=code_size)
        except ValueError as error:
            raise ValueError(f"what was kept is no compiled network: {error}") from error
        if digest != _digest(head, code) or weights.size != weights_size:
            raise ValueError("what was kept is no compiled network: its parts do not fit together")
        return cls(scratch_size, logits, margins, code, weights)


def _digest(head: bytes, code: bytes) -> bytes:
    return hashlib.sha256(head + b"\n" + code).hexdigest().encode()

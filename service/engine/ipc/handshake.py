"""What a worker process says of its models when it has opened them, or could not open one."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter

from artifact.manifest import ArtifactError
from service.engine.errors import InferenceFailed, RuntimeUnavailable
from service.engine.runtimes.base import RuntimeDescription
from service.engine.runtimes.tuning import Tuning

_KINDS = {kind.__name__: kind for kind in (ArtifactError, RuntimeUnavailable)}


@dataclass(frozen=True)
class Opened:
    """What it says of a model for which it can take work.

    Attributes:
        runtime: how it runs it.
        tuning: how batches should form, where it was asked to measure that.
        first: whether nothing was remembered of this machine: every runtime was tried, and is still in its memory.
    """

    runtime: RuntimeDescription
    tuning: Tuning | None
    first: bool


@dataclass(frozen=True)
class Refusal:
    """What it says when it cannot; then it ends.

    Attributes:
        kind: the name of the exception.
        message: of the exception.
    """

    kind: str
    message: str

    @property
    def error(self) -> Exception:
        """The exception itself."""
        return _KINDS[self.kind](self.message) if self.kind in _KINDS else InferenceFailed()


REPLY: TypeAdapter[list[Opened] | Refusal] = TypeAdapter(list[Opened] | Refusal)

"""What a training tells of the images that it held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.hold_out import HeldOut, split
from models.sources import open_examples


def told_held_out(data: Path, count: int) -> dict[str, dict[str, Any]]:
    """Of one that held out so many images of the data."""
    examples = open_examples(data)
    return {"held_out": HeldOut.of(examples, split(examples, count)[1]).model_dump(mode="json")}

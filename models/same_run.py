"""Whether a checkpoint is of the run that is asked for, which may go on from it then."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from models.checkpoint import Checkpoint, CheckpointError
from models.config import ModelConfig
from models.recipe import Recipe


def check_same_run(checkpoint: Checkpoint, config: ModelConfig, told: dict[str, Any]) -> None:
    """Compare a checkpoint with a run of this network, of which a checkpoint would tell so much.

    Checkpoints of earlier versions do not tell what they began with, and are believed.

    Raises:
        CheckpointError: it is of another network, recipe, beginning or data set, or keeps no training state.
    """
    if checkpoint.config != config:
        raise CheckpointError("the checkpoint in the output folder is of another network; choose another --out")
    if _recipe_of(checkpoint) != Recipe.model_validate(told["recipe"]):
        raise CheckpointError("the run in the output folder has another recipe; choose another --out")
    origin = checkpoint.training.get("origin", told["origin"])
    if origin["init"] != told["origin"]["init"]:
        raise CheckpointError("the run in the output folder began with another --from; choose another --out")
    if origin.get("teacher") != told["origin"].get("teacher"):
        raise CheckpointError("the run in the output folder had another --teacher; choose another --out")
    same = {key: checkpoint.training.get(key) == told[key] for key in ("held_out", "steps_per_epoch")}
    same["held_out"] |= checkpoint.held_out is None
    if origin["data"] != told["origin"]["data"] or not all(same.values()):
        raise CheckpointError("the run in the output folder was on other data; choose another --out")


def _recipe_of(checkpoint: Checkpoint) -> Recipe | None:
    """Of the run that left it, with today's defaults for what its version did not have; None where it is unknown."""
    try:
        return Recipe.model_validate(checkpoint.training.get("recipe"))
    except ValidationError:
        return None

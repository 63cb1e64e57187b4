from __future__ import annotations

import pytest

from models.training_arguments import default_batch_size, default_epochs, recipe_of, training_arguments

_REQUIRED = ["--preset", "convnet-aig-20-cifar10", "--data", "images", "--out", "run"]


@pytest.mark.parametrize(
    ("images", "epochs", "pretrained", "batch_size"),
    [
        (1_200_000, 30, 10, 128),
        (45_000, 30, 10, 128),
        (11_250, 60, 20, 128),
        (2_432, 129, 43, 128),
        (600, 200, 67, 32),
        (100, 200, 67, 8),
        (9, 200, 67, 8),
    ],
)
def test_epochs_and_batches_follow_from_the_size_of_the_data(
    images: int, epochs: int, pretrained: int, batch_size: int
) -> None:
    assert default_epochs(images, pretrained=False) == epochs
    assert default_epochs(images, pretrained=True) == pretrained
    assert default_batch_size(images) == batch_size
    for more, expected in (([], epochs), (["--from", "weights.pth"], pretrained), (["--epochs", "5"], 5)):
        recipe = recipe_of(training_arguments([*_REQUIRED, *more]), "fp32", images, 3)
        assert (recipe.epochs, recipe.batch_size, recipe.held_out) == (expected, batch_size, 3)
    assert recipe_of(training_arguments([*_REQUIRED, "--batch-size", "6"]), "fp32", images, 0).batch_size == 6

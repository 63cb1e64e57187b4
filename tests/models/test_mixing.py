from __future__ import annotations

import torch

from models.mixing import mixed

CLASSES = torch.tensor([0, 1, 2, 2])


def test_nothing_is_mixed_without_alpha() -> None:
    images = torch.randn(4, 3, 8, 8)
    state = torch.get_rng_state()
    same, classes = mixed(images, CLASSES, 3, 0.0)
    assert same is images
    assert classes is CLASSES
    assert torch.equal(torch.get_rng_state(), state)  # what is drawn later is what it was before


def test_images_and_classes_are_mixed_in_the_same_proportion() -> None:
    torch.manual_seed(3)
    images = torch.zeros(4, 3, 8, 8)
    images[range(4), :, 0, 0] = torch.eye(4)[:, :3]  # which image it is
    images[:, 0, 1, 1] = torch.arange(4.0)
    pictures, shares = mixed(images, CLASSES, 3, 1.0)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    torch.manual_seed(3)
    share = float(torch.distributions.Beta(1.0, 1.0).sample())
    others = torch.randperm(4)
    assert 0 < share < 1
    torch.testing.assert_close(pictures, share * images + (1 - share) * images[others])
    torch.testing.assert_close(shares, share * torch.eye(3)[CLASSES] + (1 - share) * torch.eye(3)[CLASSES[others]])

from __future__ import annotations

import numpy as np
import torch

from models.answers import Images
from models.classifier import TrainedClassifier
from models.report.attack import attack, gradient_directions, moved, random_directions


def test_attack_lowers_accuracy_far_below_what_chance_does(random_classifier: TrainedClassifier, noise: Images) -> None:
    everything = np.arange(len(noise))
    aimed = attack(
        random_classifier, noise, everything, gradient_directions(random_classifier, noise), strengths=(4, 16)
    )
    blind = attack(random_classifier, noise, everything, random_directions(noise), strengths=(4, 16))
    assert aimed[0].accuracy.value == blind[0].accuracy.value == 1
    assert aimed[2].accuracy.value < aimed[1].accuracy.value < 1
    assert aimed[2].accuracy.value < blind[2].accuracy.value - 0.3


def test_attack_stays_within_its_strength_and_the_range_of_pixels(
    random_classifier: TrainedClassifier, noise: Images, rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    signs = gradient_directions(random_classifier, noise)(pixels, np.arange(20))
    assert set(np.unique(signs)) <= {-1, 0, 1}
    changed = moved(pixels, signs, 8)
    assert changed.dtype == np.uint8
    difference = changed.astype(int) - pixels
    assert np.abs(difference).max() == 8
    inner = (pixels >= 8) & (pixels <= 247)
    assert np.array_equal(difference[inner], (8 * signs)[inner])  # no overflow around 0 and 255
    assert (difference[~inner] * signs[~inner] >= 0).all()


def test_small_step_along_the_directions_raises_the_loss(random_classifier: TrainedClassifier, noise: Images) -> None:
    pixels, classes = noise.pixels(np.arange(60)), noise.classes

    def loss(of: np.ndarray) -> np.ndarray:
        logits = torch.from_numpy(random_classifier.run(of)[0])
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(classes), reduction="none").numpy()

    signs = gradient_directions(random_classifier, noise)(pixels, np.arange(60))
    assert (loss(moved(pixels, signs, 1)) > loss(pixels)).mean() > 0.8
    assert (loss(moved(pixels, -signs, 1)) < loss(pixels)).mean() > 0.8


def test_gradient_passes_the_executed_path_only(hand_built: TrainedClassifier, grey: Images) -> None:
    positions = np.arange(0, 40, 2)  # dark: of the three blocks, only the second runs
    pixels = grey.pixels(positions) + np.random.default_rng(0).integers(0, 60, (20, 16, 16, 3), dtype=np.uint8)
    pixels[..., 0] = np.minimum(pixels[..., 0] + 120, 190)  # red enough to pass the stem, too little for block 1
    assert (hand_built.run(pixels)[1][:, 0] < 0).all()
    directions = gradient_directions(hand_built, grey)
    before = directions(pixels, positions)
    assert before.any()
    with torch.no_grad():
        for name in ("stage1_block1", "stage3_block1"):
            for parameter in hand_built.network.blocks[name].residual.parameters():
                parameter.normal_()
    assert np.array_equal(directions(pixels, positions), before)
    with torch.no_grad():
        for parameter in hand_built.network.blocks["stage2_block1"].residual.parameters():
            parameter.normal_()
    assert not np.array_equal(directions(pixels, positions), before)


def test_gates_decide_anew_on_the_attacked_image(hand_built: TrainedClassifier, grey: Images) -> None:
    def brighter(pixels: np.ndarray, _: np.ndarray) -> np.ndarray:
        return np.ones(pixels.shape, int)

    levels = grey.pixels(np.arange(40))[:, 0, 0, 0].astype(int)
    gates = attack(hand_built, grey, np.arange(40), brighter, strengths=(150,))[1].changed_gates
    # Only block 1's gate looks at the image: it opens for those that end above 191 and were not there before.
    opens = (np.minimum(levels + 150, 255) > 191) & (levels <= 191)
    assert 0 < opens.sum() < 40
    assert gates.tolist() == opens.astype(int).tolist()


def test_random_directions_belong_to_the_image(noise: Images) -> None:
    directions = random_directions(noise)
    pixels = noise.pixels(np.arange(10))
    together = directions(pixels, np.arange(10))
    assert set(np.unique(together)) == {-1, 1}
    assert np.array_equal(together[3:5], directions(pixels[3:5], np.array([3, 4])))
    assert not np.array_equal(together[0], together[1])

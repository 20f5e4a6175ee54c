"""From a recipe's words to losses, weights of classes and balanced sources."""

import numpy as np
import pytest

from visionkit.data.sources.base import Source, SourceInfo
from visionkit.losses.classification import (
    SigmoidCrossentropy,
    SigmoidFocal,
    SoftmaxCrossentropy,
    SoftmaxFocal,
)
from visionkit.losses.pixels import OHEMCrossentropy, PixelCrossentropy
from visionkit.losses.regions import Dice
from visionkit.losses.sums import LossSum
from visionkit.training.build import build_loss, build_sources, class_weights
from visionkit.training.recipe import load_recipe
from visionkit.training.recipe_files import RecipeError

NAMES = ("ant", "bee", "cat")
ONE = np.array([0] * 6 + [1] * 3)
MANY = np.array([[1, 0, 0]] * 4 + [[1, 1, 0]] * 2, np.float32)


class Toy(Source):
    def __init__(self, labels):
        multi = labels.ndim == 2
        self.info = SourceInfo("classification", NAMES, len(labels), multi_label=multi)
        self._labels, self.skipped = labels, []

    def labels(self):
        return self._labels


def recipe(**train):
    return load_recipe(
        {
            "task": "classification",
            "model": {
                "backbone": "lenet5",
                "image_size": [32, 32],
                "channels": 1,
                "label_smoothing": 0.1,
            },
            "data": {"source": "digits"},
            "train": {"epochs": 1, **train},
        }
    )


def test_balanced_weights_make_every_class_count_alike():
    weights = class_weights("balanced", Toy(ONE))
    assert weights == pytest.approx([9 / (3 * 6), 9 / (3 * 3), 9 / 3])
    assert class_weights("balanced", Toy(MANY)) == pytest.approx(
        [8 / (3 * 6), 8 / (3 * 2), 8 / 3]
    )


def test_named_weights_leave_the_others_at_one():
    assert class_weights({"bee": 2.5}, Toy(ONE)) == [1.0, 2.5, 1.0]
    assert class_weights(None, Toy(ONE)) is None
    with pytest.raises(RecipeError, match=r"class in train\.class_weights.*mean 'bee'"):
        class_weights({"be": 1.0}, Toy(ONE))


@pytest.mark.parametrize(
    ("spec", "labels", "kind"),
    [
        ("crossentropy", ONE, SoftmaxCrossentropy),
        ("crossentropy", MANY, SigmoidCrossentropy),
        ({"focal": {"gamma": 1.0, "alpha": 0.5}}, ONE, SoftmaxFocal),
        ({"focal": None}, MANY, SigmoidFocal),
    ],
)
def test_the_loss_fits_the_labels(spec, labels, kind):
    loss = build_loss(recipe(loss=spec, class_weights="balanced"), Toy(labels))
    assert type(loss) is kind and loss.label_smoothing == 0.1
    assert len(loss.class_weights) == 3
    if kind is SoftmaxFocal:
        assert (loss.gamma, loss.alpha) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"focal": {"gama": 1}}, "mean 'gamma'"),
        ({"focal": {"gamma": -1}}, r"train\.loss: .*gamma"),
        ({"crossentropy": {"class_weights": [1]}}, "no option"),
    ],
)
def test_wrong_losses_are_refused(spec, message):
    with pytest.raises(RecipeError, match=message):
        build_loss(recipe(loss=spec), Toy(ONE))


class ToyMasks(Source):
    """Three masks of 60 pixels; of the classes one is nowhere."""

    def __init__(self):
        self.info = SourceInfo("semantic_segmentation", (*NAMES, "dodo"), 3)

    def mask_counts(self):
        # The last column is void, which is no pixel here.
        return np.array([[40, 10, 0, 0, 10], [50, 0, 10, 0, 0], [60, 0, 0, 0, 0]])


def segmentation(**train):
    return load_recipe(
        {
            "task": "semantic_segmentation",
            "model": {"name": "unet", "backbone": "resnet18", "image_size": [32, 32]},
            "data": {"source": "digits"},
            "train": {"epochs": 1, **train},
        }
    )


def test_balanced_masks_have_their_median_frequency():
    weights = class_weights("balanced", ToyMasks())
    frequency = [150 / 170, 10 / 50, 10 / 60]  # in the images that have the class
    assert weights == pytest.approx([*(0.2 / np.array(frequency)), 1.0])


def test_losses_of_pixels_and_their_sums():
    plain = segmentation()
    assert (plain.train.loss, plain.train.monitor) == ("crossentropy", "val_mean_iou")
    assert type(build_loss(plain, ToyMasks())) is PixelCrossentropy
    parts = ["dice", {"ohem": {"threshold": 0.5, "label_smoothing": 0.1}}]
    spec = {"sum": {"losses": parts, "weights": [1, 0.5]}}
    recipe = segmentation(loss=spec, class_weights={"bee": 3.0})
    total = build_loss(load_recipe(recipe), ToyMasks())
    assert type(total) is LossSum and total.weights == [1.0, 0.5]
    assert [type(part) for part in total.losses] == [Dice, OHEMCrossentropy]
    assert [part.class_weights for part in total.losses] == [[1.0, 3.0, 1.0, 1.0]] * 2
    hard = total.losses[1]
    parts[0] = {"dice": {"class_weights": {NAMES[0]: 0.0}}}
    total = build_loss(segmentation(loss=spec, class_weights={"bee": 3.0}), ToyMasks())
    assert total.losses[0].class_weights == [0.0, 1.0, 1.0, 1.0]
    assert total.losses[1].class_weights == [1.0, 3.0, 1.0, 1.0]
    assert (hard.threshold, hard.label_smoothing) == (0.5, 0.1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dise", r"train\.loss: found 'dise'.*mean 'dice'"),
        ({"sum": {"losses": ["dice", "focus"]}}, "found 'focus'.*mean 'focal'"),
        ({"sum": {"losses": "dice"}}, "must be a list"),
        ({"sum": {"losses": [{"dice": {"class_weights": [1]}}]}}, "must be 'balanced'"),
        ({"sum": {"losses": [{"dice": {}, "ohem": {}}]}}, "must be a list"),
        ({"sum": {"losses": ["dice"], "weights": [1, 2]}}, "one number for each"),
        ({"sum": {"losses": [{"dice": {"gamma": 1}}]}}, "loss 'dice'"),
        ("sum", "train.loss: .*losses"),
    ],
)
def test_wrong_losses_of_pixels_are_refused(spec, message):
    with pytest.raises(RecipeError, match=message):
        build_loss(segmentation(loss=spec), ToyMasks())


def test_oversampling_repeats_the_training_images_alone():
    plain = recipe()
    repeated = load_recipe(plain, ["data.oversample=true"])
    train, validation = build_sources(repeated)
    counts = train.class_counts()
    assert counts.min() == counts.max() and train.origin is not train
    before, same = build_sources(plain)
    assert len(before) < len(train) and len(same) == len(validation)

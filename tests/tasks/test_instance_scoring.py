"""Masks are scored where the truth lies, pasted as prediction pastes them."""

import numpy as np
import pytest

from visionkit.data.geometry import placements
from visionkit.data.instance_masks import InstanceMasks
from visionkit.data.rle import encode_rle
from visionkit.data.sources import build_source
from visionkit.tasks.scoring import InstanceScorer
from visionkit.types import RESIZE_MODES, Preprocessing


def perfect_answers(target):
    """The padded truth itself, as a model of 28x28 cells would answer it."""
    boxes, labels = np.array(target["boxes"]), np.array(target["labels"])
    masks = np.array(target["masks"], "float32")
    cells = masks.reshape(*labels.shape, 28, 4, 28, 4).mean(axis=(3, 5))
    return {
        "boxes": boxes,
        "labels": labels,
        "scores": (labels >= 0).astype("float32"),
        "num_detections": (labels >= 0).sum(axis=1),
        "masks": cells,
    }


@pytest.mark.parametrize("resize", ["letterbox", "center_crop"])
def test_truth_as_answer_scores_one_in_original_pixels(resize):
    from visionkit.data import make_dataset

    options = {"split": "validation", "num_scenes": 4}
    source = build_source("digits", task="instance_segmentation", **options)
    # The whole image fits the crop, else objects would be missed rightly.
    size = (128, 160) if resize == "center_crop" else (96, 160)
    preprocessing = Preprocessing(size, resize, crop_fraction=1.0)
    scorer = InstanceScorer(source.info.class_names, preprocessing, source)
    for _, target in make_dataset(source, preprocessing, 3, with_ids=True):
        scorer.update(perfect_answers(target), target)
    scores = scorer.result()
    for key in ("map", "mask_map", "boundary_map", "rq"):
        assert scores[key] == pytest.approx(1.0), key
    assert scores["sq"] > 0.97 and scores["num_examples"] == 4


class OneImage:
    """A source of one image and its objects."""

    def __init__(self, boxes, masks):
        self.columns = {
            "row_splits": np.array([0, len(boxes)]),
            "boxes": np.array(boxes, float),
            "box_labels": np.arange(len(boxes)) % 2,
            "instance_masks": np.array([encode_rle(mask) for mask in masks], object),
        }
        self.origin = self

    def objects(self):
        return self.columns

    def record_name(self, index):
        return f"one.png {index}"


SIZE = (60, 90)
IDS = {"image_id": np.array([0]), "image_size": np.array([SIZE])}


def noisy_answers(preprocessing, count=6):
    """Boxes anywhere in the input, its borders too, with masks that vary."""
    rng = np.random.default_rng(3)
    height, width = preprocessing.image_size
    low = rng.uniform(0, (width - 20, height - 20), (count, 2))
    high = np.minimum(low + rng.uniform(15, 70, (count, 2)), (width, height))
    boxes = np.hstack([low, high]).astype("float32")
    masks = rng.random((count, 7, 7)).repeat(4, 1).repeat(4, 2)
    return {
        "boxes": boxes[None],
        "masks": masks[None].astype("float32"),
        "scores": np.linspace(0.9, 0.1, count, dtype="float32")[None],
        "labels": np.zeros((1, count), "int32"),
        "num_detections": np.array([count - 1]),
    }


@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_masks_are_those_of_predict(resize):
    """What an export answers and a client pastes, string by string."""
    import tensorflow as tf

    from visionkit.inference.graph import instance_answers

    preprocessing = Preprocessing((96, 96), resize)
    source = OneImage([[0, 0, 9, 9]], [np.ones(SIZE)])
    scorer = InstanceScorer(("a", "b"), preprocessing, source)
    answers = noisy_answers(preprocessing)
    scorer.update(answers, IDS)
    prepared = {
        "placement": tf.constant(placements([SIZE], preprocessing)),
        "image_size": tf.constant([SIZE]),
        "image_valid": tf.constant([1]),
    }
    served = instance_answers(
        {key: tf.constant(value) for key, value in answers.items()},
        prepared,
        tf.constant(["a", "b"]),
    )
    masks, boxes = (np.asarray(served[key])[0, :5] for key in ("masks", "boxes"))
    expected = InstanceMasks.from_boxes(masks, boxes, SIZE)
    scored = scorer.evaluator._answers[0]
    found = InstanceMasks(scored["masks"], SIZE)
    np.testing.assert_allclose(scored["boxes"], boxes, atol=1e-4)
    assert expected.areas().sum() > 500 and len(found) == 5
    # A pixel on the edge may fall to either side of a half.
    assert (np.asarray(found) != np.asarray(expected)).mean() < 1e-3


def test_a_box_in_the_border_keeps_its_mask_in_place():
    """An ellipse at the image's edge, in a box that reaches into the padding."""
    y, x = np.mgrid[:60, :90] + 0.5
    mask = ((y - 30) / 20) ** 2 + ((x - 5) / 25) ** 2 < 1  # cut at the left
    cells = (np.arange(28) + 0.5) / 28 * 2 - 1
    answers = {
        # The whole ellipse in a frame with 40 columns of padding on either side.
        "boxes": np.array([[[20, 10, 70, 50]]], "float32"),
        "masks": (cells[:, None] ** 2 + cells**2 < 1).astype("float32")[None, None],
        "scores": np.array([[0.9]]),
        "labels": np.array([[0]]),
        "num_detections": np.array([1]),
    }
    source = OneImage([[0, 10, 30, 50]], [mask])
    scorer = InstanceScorer(("a", "b"), Preprocessing((60, 170)), source)
    scorer.update(answers, IDS)
    assert scorer.summary()["map"] == pytest.approx(1)
    assert scorer.summary()["mask_map"] == pytest.approx(1)


def test_without_a_source_the_targets_are_the_truth():
    left = np.zeros((112, 112), "uint8")
    left[:, :56] = 1
    target = {
        "boxes": np.array([[[10, 10, 38, 38], [0, 0, 0, 0]]], "float32"),
        "labels": np.array([[1, -1]], "int32"),
        "masks": np.stack([left, left])[None],
    }
    scorer = InstanceScorer(("a", "b"), Preprocessing((60, 90)))
    answers = perfect_answers(target)
    scorer.update(answers, target)
    assert scorer.summary()["mask_map"] == pytest.approx(1)
    scorer.update({**answers, "masks": 1 - answers["masks"]}, target)  # another image
    summary = scorer.summary()
    assert summary["map"] == pytest.approx(1) and 0.4 < summary["mask_map"] < 0.6


def test_true_masks_of_another_size_are_refused():
    source = OneImage([[0, 0, 9, 9]], [np.ones((60, 91))])
    scorer = InstanceScorer(("a", "b"), Preprocessing(SIZE), source)
    with pytest.raises(ValueError, match=r"one\.png 0.*\(60, 90\).*5460"):
        scorer.update(noisy_answers(scorer.preprocessing), IDS)


def test_a_recipe_follows_the_masks():
    from visionkit.training.recipe_sections import recipe_class

    raw = {
        "task": "instance_segmentation",
        "model": {"name": "mask_rcnn", "backbone": "resnet18", "image_size": [96, 96]},
        "data": {"source": "digits"},
        "train": {"epochs": 1},
    }
    recipe = recipe_class(raw).model_validate(raw)
    assert recipe.train.monitor == "val_mask_map"
    # What `fit` logs has it.
    from visionkit import MaskRCNN

    assert recipe.train.monitor.removeprefix("val_") in MaskRCNN.logged_scores

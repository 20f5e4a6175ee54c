"""Answers are scored where the truth lies, and data sets of every kind are read."""

import numpy as np
import pytest

from visionkit.data.sources import build_source
from visionkit.tasks.scoring import DetectionScorer, batches_of
from visionkit.types import RESIZE_MODES, Preprocessing


def perfect_answers(target):
    """The padded truth itself, as a detector would answer it."""
    boxes, labels = np.array(target["boxes"]), np.array(target["labels"])
    return {
        "boxes": boxes,
        "labels": labels,
        "scores": (labels >= 0).astype("float32"),
        "num_detections": (labels >= 0).sum(axis=1),
    }


@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_truth_as_answer_scores_one_in_original_pixels(resize):
    from visionkit.data import make_dataset

    source = build_source("digits", task="detection", split="validation", num_scenes=6)
    # The whole image fits the crop, else boxes would be missed rightly.
    size = (128, 160) if resize == "center_crop" else (96, 160)
    preprocessing = Preprocessing(size, resize, crop_fraction=1.0)
    scorer = DetectionScorer(source.info.class_names, preprocessing, source)
    for _, target in make_dataset(source, preprocessing, 4, with_ids=True):
        scorer.update(perfect_answers(target), target)
    assert scorer.result()["map"] == pytest.approx(1.0)


def test_without_a_source_the_targets_are_the_truth():
    target = {
        "boxes": np.array([[[0, 0, 10, 10], [0, 0, 0, 0]]], "float32"),
        "labels": np.array([[1, -1]], "int32"),
    }
    scorer = DetectionScorer(("a", "b"), Preprocessing((32, 32)))
    scorer.update(perfect_answers(target), target)
    wrong = {**perfect_answers(target), "labels": np.array([[0, -1]])}
    assert scorer.result()["map"] == pytest.approx(1.0)
    scorer.update(wrong, target)  # another image, of which the class is wrong
    assert scorer.result()["map"] < 0.6


def test_batches_of_arrays_data_sets_and_things_read_once():
    images, target = np.zeros((5, 2, 2, 3)), {"labels": np.arange(5)}
    batches = list(batches_of(images, target, batch_size=2))
    assert [len(x) for x, _ in batches] == [2, 2, 1]
    np.testing.assert_array_equal(batches[2][1]["labels"], [4])
    assert len(list(batches_of(images, target, 2, steps=1))) == 1
    assert len(list(batches_of([(images, target)] * 3))) == 3
    assert batches_of(iter([(images, target)])) is None

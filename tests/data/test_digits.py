"""The embedded digits: labels, boxes and masks say what the pixels show."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from visionkit.data.rle import decode_rle
from visionkit.data.sources import scenes
from visionkit.data.sources.digits import Digits

SIZE = (256, 320)


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)))


def test_classification_splits_are_stratified_and_share_nothing():
    train, held, everything = (
        Digits(split=split) for split in ("train", "validation", "all")
    )
    assert (len(train), len(held), len(everything)) == (1438, 359, 1797)
    share = np.bincount(held.labels()) / np.bincount(everything.labels())
    np.testing.assert_allclose(share, 0.2, atol=0.003)
    assert everything.info.class_names == tuple("0123456789")


def test_classification_record_is_a_digit_with_a_border():
    source = Digits()
    for index in range(0, 100, 7):
        record = source.record(index)
        image = pixels(record["encoded"])
        assert image.shape == (32, 32) and image.dtype == np.uint8
        assert image[4:-4, 4:-4].max() > 150
        image = image.copy()
        image[4:-4, 4:-4] = 0
        assert not image.any()
        assert record["label"] == source.labels()[index]
    assert source.record_name(5) == "digits[5]"


def test_scenes_share_no_digit_between_splits():
    used = {}
    for split in ("train", "validation"):
        source = Digits("detection", split)
        assert len(source) == {"train": 800, "validation": 200}[split]
        used[split] = {image.tobytes() for image in source._images}
    assert not used["train"] & used["validation"]


def test_a_scene_depends_on_seed_split_and_index_only():
    def scene(index, split="train", **options):
        return Digits("detection", split, **options).record(index)["encoded"]

    assert scene(3, num_scenes=5) == scene(3, num_scenes=9, seed=0)
    others = (scene(4), scene(3, seed=1), scene(3, "validation"))
    assert len({scene(3), *others}) == 4


def test_boxes_areas_and_masks_agree_in_every_scene():
    instances = Digits("instance_segmentation", "train", num_scenes=25)
    semantic = Digits("semantic_segmentation", "train", num_scenes=25)
    assert semantic.info.class_names == ("background", *"0123456789")
    for index in range(25):
        record, other = instances.record(index), semantic.record(index)
        assert record["encoded"] == other["encoded"]
        assert pixels(record["encoded"]).shape == (*SIZE, 3)
        masks = [decode_rle(counts, SIZE) for counts in record["instance_masks"]]
        assert 1 <= len(masks) == len(record["boxes"]) <= 6
        classes = np.zeros(SIZE, np.uint8)
        for mask, box, label, area in zip(
            masks, record["boxes"], record["box_labels"], record["area"], strict=True
        ):
            rows, columns = np.nonzero(mask)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == tight
            assert area == mask.sum()
            assert not classes[mask].any()  # visible masks do not overlap
            classes[mask] = label + 1
        np.testing.assert_array_equal(classes, pixels(other["mask_encoded"]))
        assert record["boxes"].dtype == record["area"].dtype == np.float32
        assert record["box_labels"].dtype == np.int32


def test_a_glyph_has_its_height_and_is_never_thin():
    digits = Digits()._images
    rng = np.random.default_rng(0)
    for index in range(0, 300, 11):
        height = rng.uniform(scenes.MIN_HEIGHT, scenes.MAX_HEIGHT)
        opacity = scenes._glyph(digits[index], rng.uniform(-20, 20), height)
        mask = opacity > 0.5
        rows = np.flatnonzero(mask.any(axis=1))
        assert abs(rows[-1] + 1 - rows[0] - height) <= 2
        assert mask.mean() > 0.2
        assert opacity.min() >= 0 and opacity.max() <= 1


def test_strokes_stand_out_from_what_is_around():
    source = Digits("instance_segmentation", "validation", num_scenes=20)
    luma = np.array([0.299, 0.587, 0.114]) / 255
    for index in range(20):
        record = source.record(index)
        image = pixels(record["encoded"]) @ luma
        masks = [decode_rle(counts, SIZE) for counts in record["instance_masks"]]
        for mask, box in zip(masks, record["boxes"].astype(int), strict=True):
            near = np.zeros(SIZE, bool)
            near[box[1] : box[3], box[0] : box[2]] = True
            near &= ~np.any(masks, axis=0)
            assert abs(image[mask].mean() - image[near].mean()) > 0.15


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="`task` must be one of classification"):
        Digits("segmentation")
    with pytest.raises(ValueError, match="`split` must be one of train, validation"):
        Digits(split="test")
    with pytest.raises(ValueError, match="`num_scenes` is for scenes"):
        Digits(num_scenes=10)
    with pytest.raises(ValueError, match="at least 1"):
        Digits("detection", num_scenes=0)
    with pytest.raises(IndexError, match="record 9 of 9"):
        Digits("detection", num_scenes=9).record(9)

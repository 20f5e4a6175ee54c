"""Windows about the pixels of drawn classes."""

import numpy as np
import pytest
import tensorflow as tf
from pictures import MemorySource, encode
from PIL import Image

from visionkit.data.class_crop import ClassCrop
from visionkit.data.geometric import start_geometry
from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.transforms import build_transforms
from visionkit.types import VOID_CLASS, Preprocessing

SIZE = (60, 90)
SPOT = (41, 17)  # the one pixel of class 2


def mask():
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 80:] = 1
    mask[SPOT] = 2
    mask[:4] = VOID_CLASS
    return mask


def sample():
    pixels = np.stack([mask()] * 3, axis=-1)
    return {
        "images": tf.constant(pixels),
        "segmentation_masks": tf.constant(mask()),
        **start_geometry(tf.constant(SIZE)),
    }


def windows(crop, count=60):
    run = tf.function(lambda seed: crop(sample(), seed))
    for index in range(count):
        out = run(tf.constant([index, 3], tf.int64))
        found = out["segmentation_masks"].numpy()
        np.testing.assert_array_equal(out["images"][..., 0], found)
        scale_y, scale_x, top, left = out["placement"].numpy()
        assert (scale_y, scale_x) == (1, 1)
        y, x = int(-top), int(-left)
        height, width = found.shape
        np.testing.assert_array_equal(found, mask()[y : y + height, x : x + width])
        yield found


def shows(crop, label):
    return np.mean([(found == label).any() for found in windows(crop)])


def test_drawn_classes_are_seen_and_the_window_has_its_size():
    size = (11, 15)
    for found in windows(ClassCrop(size=size, p=1.0)):
        assert found.shape == size
    # A third of the windows each, the lonely pixel's like the large class's.
    assert 0.15 < shows(ClassCrop(size=size, p=1.0), 2) < 0.55
    assert shows(ClassCrop(size=size, p=0.0), 2) < 0.2
    only = ClassCrop(size=size, classes=(0.0, 0.0, 1.0), p=1.0)
    for found in windows(only, 10):
        assert found[5, 7] == 2  # in the middle


def test_names_and_rare_are_weights_of_the_source():
    record = {"encoded": encode(Image.new("RGB", SIZE[::-1]))}
    record["mask_encoded"] = encode(Image.fromarray(mask()))
    source = MemorySource([record] * 2, "semantic_segmentation", 3)
    named = ClassCrop(classes=["class 2", "class 0"]).bind(source)
    assert named.classes == (1.0, 0.0, 1.0)
    counts = source.class_counts()
    rare = ClassCrop(size=(9, 9), classes="rare", p=1.0).bind(source)
    np.testing.assert_allclose(rare.classes, counts.min() / counts)
    assert shows(rare, 2) > 0.9
    with pytest.raises(ValueError, match=r"no class for `class_crop` 'clas 2'"):
        ClassCrop(classes=["clas 2"]).bind(source)
    transforms = build_transforms([{"class_crop": {"classes": "rare", "p": 1.0}}])
    dataset = make_dataset(
        source, Preprocessing((32, 32)), 2, transforms=transforms, order=Order(0)
    )
    for images, masks in dataset.take(2):
        assert images.shape == (2, 32, 32, 3) and masks.shape == (2, 32, 32)


def test_a_mask_of_void_has_a_window_anywhere():
    void = {**sample(), "segmentation_masks": tf.fill(SIZE, tf.constant(255, tf.uint8))}
    for crop in (ClassCrop(p=1.0), ClassCrop(size=(900, 10), p=1.0)):
        out = crop(void, tf.constant([1, 2], tf.int64))
        assert out["images"].shape[:2] == out["segmentation_masks"].shape
    assert out["images"].shape[0] == SIZE[0]  # at most the image's own


def test_wrong_options_are_refused():
    for options in ({"size": [4]}, {"size": [0, 4]}, {"classes": "common"}):
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be"):
            ClassCrop(**options)
    with pytest.raises(ValueError, match=r"`class_crop` is for semantic_segmentation"):
        build_transforms(["class_crop"], "detection")
    with pytest.raises(ValueError, match="has to be bound first"):
        ClassCrop(classes="rare")(sample(), tf.constant([1, 2], tf.int64))

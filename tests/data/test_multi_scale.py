"""Batches of several sizes: boxes follow their pixels, and a resume draws the same."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scenes_of_shapes import shapes_source

from visionkit.data.multi_scale import MultiScale
from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.transforms import build_transforms
from visionkit.types import Preprocessing

SIZE = (48, 64)
SIZES = [[32, 48], [48, 64], [80, 96]]
AUGMENT = ["mosaic", {"multi_scale": {"sizes": SIZES, "every": 2}}]


def batches(count, order, augment=AUGMENT):
    dataset = make_dataset(
        shapes_source("detection", 12),
        Preprocessing(SIZE),
        4,
        transforms=build_transforms(augment),
        order=order,
    )
    return dataset, list(itertools.islice(dataset.as_numpy_iterator(), count))


def test_boxes_follow_their_pixels():
    image = np.zeros((1, *SIZE, 3), np.uint8)
    image[0, 12:36, 16:40] = 200
    target = {
        "boxes": tf.constant([[[16.0, 12.0, 40.0, 36.0], [0.0, 0.0, 0.0, 0.0]]]),
        "labels": tf.constant([[1, -1]]),
    }
    resize = MultiScale(((96, 64),))
    for height, width in [*SIZES, [37, 91]]:
        images, mapped = resize(tf.constant(image), target, [height, width])
        assert images.shape == (1, height, width, 3) and images.dtype == tf.uint8
        x1, y1, x2, y2 = mapped["boxes"][0, 0].numpy()
        np.testing.assert_allclose([x1, x2], np.array([16, 40]) * width / 64, rtol=1e-6)
        np.testing.assert_allclose([y1, y2], np.array([12, 36]) * height / 48, 1e-6)
        # The bright pixels are those whose centre is in the box, half a pixel at most.
        bright = images[0, ..., 0].numpy() > 100
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(edges, [x1, y1, x2, y2], atol=0.51)
        np.testing.assert_array_equal(mapped["boxes"][0, 1], np.zeros(4))
        np.testing.assert_array_equal(mapped["labels"], target["labels"])


def test_sizes_change_every_so_many_batches_and_come_back_after_a_resume():
    dataset, whole = batches(24, Order(7))
    images, target = dataset.element_spec
    assert images.shape == (4, None, None, 3) and target["boxes"].shape[0] == 4
    sizes = [list(images.shape[1:3]) for images, _ in whole]
    assert sizes[::2] == sizes[1::2] and all(size in SIZES for size in sizes)
    assert len(set(map(tuple, sizes))) == 3
    # 12 images are 3 steps: this is step 7 of the training.
    _, rest = batches(6, Order(7, start_epoch=2, start_step=1))
    for ours, theirs in zip(whole[7:13], rest, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, ours, theirs)
    assert sizes != [list(x.shape[1:3]) for x, _ in batches(24, Order(8))[1]]


def test_what_is_mixed_is_resized_as_a_whole():
    plain = batches(3, Order(7), ["mosaic"])[1]
    resized = batches(3, Order(7))[1]
    for (images, target), (other, mapped) in zip(plain, resized, strict=True):
        scale = np.array(other.shape[1:3]) / images.shape[1:3]
        boxes = target["boxes"] * scale[[1, 0, 1, 0]]
        np.testing.assert_allclose(mapped["boxes"], boxes, rtol=1e-5)
        expected = tf.image.resize(images, other.shape[1:3]).numpy()
        np.testing.assert_allclose(other, expected, atol=0.51)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": []}, "`sizes` must be a list of"),
        ({"sizes": [[32, 0]]}, "`sizes` must be a list of"),
        ({"sizes": [32, 48]}, "`sizes` must be a list of"),
        ({"sizes": [[32, 48]], "every": 0}, "`every` must be a number of batches"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_transforms([{"multi_scale": options}])


def test_it_is_for_the_training_of_detectors_and_once():
    once = {"multi_scale": {"sizes": [[32, 48]]}}
    with pytest.raises(ValueError, match="`multi_scale` is for detection"):
        build_transforms([once], "classification")
    with pytest.raises(ValueError, match="once"):
        build_transforms([once, once])
    with pytest.raises(ValueError, match="`multi_scale` changes the batches"):
        batches(1, None, [once])

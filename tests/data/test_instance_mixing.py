"""Pasted by their pixels, objects cover what is below them, and only that."""

import numpy as np
import pytest
import tensorflow as tf

from visionkit.data.box_mixing import CopyPaste, Mosaic, copy_paste, mosaic

SIZE = (56, 112)  # boxes of whole pixels that divide the masks


def batch(objects, rows=4):
    """Images of one grey level each, with objects of (box, mask of its pixels)."""
    count = len(objects)
    images = np.stack(
        [np.full((*SIZE, 3), 50 * i + 20, np.uint8) for i in range(count)]
    )
    boxes = np.zeros((count, rows, 4), np.float32)
    labels = np.full((count, rows), -1, np.int32)
    masks = np.zeros((count, rows, 112, 112), np.uint8)
    for i, own in enumerate(objects):
        for row, ((x1, y1, x2, y2), mask) in enumerate(own):
            boxes[i, row], labels[i, row] = (x1, y1, x2, y2), 10 * i + row
            repeats = 112 // (y2 - y1), 112 // (x2 - x1)
            masks[i, row] = np.kron(mask, np.ones(repeats))
    target = {"boxes": boxes, "labels": labels, "masks": masks}
    return tf.constant(images), {k: tf.constant(v) for k, v in target.items()}


def frames(target, index):
    """{label: (H, W) bool} of the objects of an image, and {label: box}."""
    masks, boxes = {}, {}
    for key in np.flatnonzero(target["labels"][index] >= 0):
        label = int(target["labels"][index, key])
        x1, y1, x2, y2 = boxes[label] = target["boxes"][index, key].numpy()
        y, x = np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5
        i, j = (y - y1) / (y2 - y1) * 112, (x - x1) / (x2 - x1) * 112
        inside = ((i >= 0) & (i < 112))[:, None] & ((j >= 0) & (j < 112))
        cells = np.ix_(i.clip(0, 111).astype(int), j.clip(0, 111).astype(int))
        masks[label] = inside & (target["masks"][index, key].numpy()[cells] > 0)
    return masks, boxes


def ring():
    mask = np.ones((28, 28), bool)
    mask[7:21, 7:21] = False
    return mask


def test_objects_are_pasted_by_their_pixels():
    full, band = np.ones((28, 28), bool), np.zeros((28, 28), bool)
    band[:, 4:24] = True
    objects = [
        [((0, 0, 28, 28), full), ((14, 14, 42, 42), ring()), ((70, 20, 98, 48), band)],
        [((7, 7, 35, 35), ring()), ((70, 28, 98, 56), full), ((0, 28, 28, 56), full)],
    ]
    images, target = batch(objects)
    old = [frames(target, i)[0] for i in range(2)]
    chosen = tf.constant([[True, True, False, True], [False] * 4])
    images, target = tf.function(copy_paste)(images, target, chosen)
    new, boxes = frames(target, 0)
    pasted = old[1][10] | old[1][11]
    np.testing.assert_array_equal(images[0, ..., 0], np.where(pasted, 70, 20))
    np.testing.assert_array_equal(images[1, ..., 0], np.full(SIZE, 70))
    assert target["labels"][0].numpy().tolist() == [0, 1, 2, 10]  # no room for 11
    np.testing.assert_array_equal(new[10], old[1][10])
    for label in range(3):
        np.testing.assert_array_equal(new[label], old[0][label] & ~pasted)
    # What is covered at an edge leaves the box; an edge that is not stays.
    assert boxes[0].tolist() == [0, 0, 28, 28] and boxes[2].tolist() == [70, 20, 98, 28]
    assert frames(target, 1)[0].keys() == {10, 11, 12}


def test_what_is_hardly_left_is_dropped():
    full, thin = np.ones((28, 28), bool), np.zeros((28, 28), bool)
    thin[:2] = True
    objects = [
        [((28, 28, 56, 56), full), ((28, 26, 56, 54), full), ((0, 0, 28, 28), full)],
        [((28, 28, 56, 56), full), ((84, 0, 112, 28), thin)],
    ]
    images, target = batch(objects)
    _, target = copy_paste(images, target, tf.constant([[True] * 4, [False] * 4]))
    # Of the second 2 of 28 rows are left, less than a tenth.
    assert target["labels"][0].numpy().tolist() == [2, 10, 11, -1]
    assert not target["masks"][0, 3].numpy().any()
    assert target["boxes"][0, 3].numpy().tolist() == [0] * 4


def test_mosaic_cuts_masks_and_drops_what_is_not_seen():
    corner = np.zeros((28, 28), bool)
    corner[:, :7] = True
    full = np.ones((28, 28), bool)
    objects = [[((42, 14, 70, 42), corner), ((42, 14, 70, 42), full)]] * 4
    images, target = batch(objects, rows=8)
    ones = tf.ones(4)
    # At full size, of the first image the lower right quarter is seen, and so on.
    _, target = mosaic(images, target, ones > 0, ones, tf.fill((4, 2), 0.5))
    masks, boxes = frames(target, 0)
    labels = target["labels"][0].numpy().tolist()
    # The left part of an object is seen in the two images that stand on the right.
    assert labels == [1, 30, 31, 21, 10, 11, -1, -1]
    for label, mask in masks.items():
        box = boxes[label]
        y, x = np.nonzero(mask)
        tight = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        np.testing.assert_allclose(box, tight, atol=0.51)


@pytest.mark.parametrize("mixer", [Mosaic(), CopyPaste(p=1.0, share=1.0)])
def test_a_batch_of_one_and_one_without_objects(mixer):
    full = np.ones((28, 28), bool)
    for objects in ([[((0, 0, 28, 28), full)]], [[], []]):
        images, target = batch(objects)
        mixed, mapped = mixer(images, target, tf.constant([1, 2]))
        assert mixed.shape == images.shape
        assert mapped["masks"].shape == target["masks"].shape
        assert mapped["masks"].dtype == tf.uint8
        if isinstance(mixer, CopyPaste):
            for key, value in target.items():
                np.testing.assert_array_equal(mapped[key], value)

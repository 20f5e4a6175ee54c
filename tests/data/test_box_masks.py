"""Masks in their boxes are the masks of the image, by loops over points and pixels."""

import numpy as np
import pytest
import tensorflow as tf
from pictures import MemorySource, encode, picture

from visionkit.data.arrays import frame_masks
from visionkit.data.box_masks import (
    mask_extents,
    paint_masks,
    reframe_masks,
    sample_masks,
    tighten,
    uncovered,
)
from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.report import DataReport
from visionkit.data.rle import encode_rle
from visionkit.data.transforms import build_transforms
from visionkit.types import MASK_SIZE, Preprocessing

SIZE = (60, 90)


def centres(box):
    """y and x of the cells' centres, in float64."""
    share = (np.arange(MASK_SIZE) + 0.5) / MASK_SIZE
    x1, y1, x2, y2 = np.float64(box)
    return y1 + share * (y2 - y1), x1 + share * (x2 - x1)


def blobs(count, seed=0):
    coarse = np.random.default_rng(seed).random((count, 6, 9)) < 0.5
    return np.kron(coarse, np.ones((10, 10))) > 0


def boxes_in(size, count, seed=0):
    """Boxes at fractions of pixels, on which no cell's centre falls."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, size[::-1], (count, 2, 2))
    low, high = corners.min(axis=1), corners.max(axis=1)
    return np.concatenate([low, high], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    "placement", [(1, 1, 0, 0), (-1.7, 0.4, 102, 3), (0.8, -2.5, 11, 225)]
)
def test_masks_are_the_nearest_pixels_of_the_original(placement):
    masks, placement = blobs(7), np.float32(placement)
    original = boxes_in(SIZE, 7)
    scale, offset = placement[[1, 0, 1, 0]], placement[[3, 2, 3, 2]]
    ends = (original * scale + offset).reshape(-1, 2, 2)
    boxes = np.concatenate([ends.min(axis=1), ends.max(axis=1)], axis=1)
    regions = tf.constant([encode_rle(mask) for mask in masks])
    found = sample_masks(regions, tf.constant(SIZE), boxes, tf.constant(placement))
    assert found.shape == (7, MASK_SIZE, MASK_SIZE) and found.dtype == tf.uint8
    for mask, box, cells in zip(masks, boxes, found.numpy(), strict=True):
        y, x = centres(box)
        y, x = (y - placement[2]) / placement[0], (x - placement[3]) / placement[1]
        expected = mask[np.ix_(y.astype(int), x.astype(int))]
        # A centre on the edge of a pixel may round to either side.
        assert (cells != expected).mean() < 1e-3
    if placement.tolist() == [1, 1, 0, 0]:  # the way without TensorFlow
        np.testing.assert_array_equal(frame_masks(masks, boxes), found)


def test_other_frames_and_tight_ones():
    masks = np.zeros((3, MASK_SIZE, MASK_SIZE), np.uint8)
    masks[0, 28:56, 56:84] = 1
    masks[1] = np.kron(blobs(2)[1, ::10, ::10][:4, :4], np.ones((28, 28)))
    boxes = np.float32([[10, 20, 26, 52], [0, 0, 112, 112], [3, 4, 5, 6]])
    tight = np.float32([[18, 28, 22, 36], [28, 0, 84, 56], [3, 4, 5, 6]])
    np.testing.assert_allclose(mask_extents(boxes, masks)[0], tight[0])
    np.testing.assert_allclose(mask_extents(boxes, masks)[2], boxes[2])
    found = reframe_masks(masks, boxes, tight).numpy()
    assert found[0].all() and not found[2].any()
    np.testing.assert_array_equal(
        found[1], masks[1, :56, 28:84].repeat(2, axis=0).repeat(2, axis=1)
    )
    for chosen in ([True, False, True], [False] * 3):
        new_boxes, new_masks = tighten(
            tf.constant(boxes), tf.constant(masks), tf.constant(chosen)
        )
        assert new_masks[0].numpy().all() == chosen[0]
        np.testing.assert_allclose(new_boxes[0], (tight if chosen[0] else boxes)[0])
        np.testing.assert_array_equal(new_boxes[1:], boxes[1:])
        np.testing.assert_array_equal(new_masks[1:], masks[1:])


def test_painting_and_covering_by_loops():
    size, rng = (30, 40), np.random.default_rng(1)
    boxes, owners = boxes_in(size, 6, seed=4), np.int32([0, 2, 2, 0, 2, 2])
    masks = (rng.random((6, 7, 7)) < 0.4).repeat(16, axis=1).repeat(16, axis=2)
    masks = masks.astype(np.uint8)
    painted = paint_masks(boxes, masks, owners, tf.constant([3, *size])).numpy()
    expected = np.zeros((3, *size), bool)
    for (x1, y1, x2, y2), mask, owner in zip(boxes, masks, owners, strict=True):
        for y in range(size[0]):
            for x in range(size[1]):
                i = np.floor((y + 0.5 - y1) / (y2 - y1) * 112).astype(int)
                j = np.floor((x + 0.5 - x1) / (x2 - x1) * 112).astype(int)
                if 0 <= i < 112 and 0 <= j < 112:
                    expected[owner, y, x] |= bool(mask[i, j])
    np.testing.assert_array_equal(painted, expected)
    assert expected[0].any() and expected[2].any() and not expected[1].any()

    left = uncovered(boxes, masks, owners, tf.constant(expected)).numpy()
    for box, mask, owner, cells in zip(boxes, masks, owners, left, strict=True):
        y, x = centres(box)
        hidden = expected[owner][np.ix_(y.astype(int), x.astype(int))]
        np.testing.assert_array_equal(cells, mask * ~hidden)
    none = np.zeros((0, 112, 112), np.uint8)
    painted = paint_masks(boxes[:0], none, owners[:0], tf.constant([3, *size]))
    assert not painted.numpy().any() and painted.shape == (3, *size)


def record(masks, boxes, **more):
    return {
        "encoded": encode(picture(*SIZE)),
        "boxes": np.float32(boxes),
        "box_labels": np.arange(len(masks), dtype=np.int32) % 4,
        "instance_masks": [encode_rle(mask) for mask in masks],
        **more,
    }


def test_target_has_a_mask_in_every_box_and_zeros_behind():
    masks = blobs(5)
    masks[3] = False  # nothing to be seen
    boxes = [[0, 0, 90, 60]] * 5
    records = [
        record(masks, boxes, is_crowd=np.array([False, True, False, False, False])),
        record(masks[:0], np.zeros((0, 4)), is_crowd=np.zeros(0, bool)),
    ]
    source = MemorySource(records, "instance_segmentation")
    input_ = Preprocessing(SIZE, "stretch")
    ((images, target),) = make_dataset(source, input_, 2, with_ids=True)
    assert set(target) == {"boxes", "labels", "masks", "image_id", "image_size"}
    assert target["masks"].shape == (2, 8, 112, 112) and images.shape[0] == 2
    assert target["masks"].dtype == tf.uint8
    assert target["labels"][0].numpy().tolist() == [0, 2, 0, *[-1] * 5]
    y, x = centres(boxes[0])
    cells = np.ix_(y.astype(int), x.astype(int))
    for row, index in enumerate((0, 2, 4)):
        np.testing.assert_array_equal(target["masks"][0, row], masks[index][cells])
    assert not target["masks"][0, 3:].numpy().any()
    assert not target["masks"][1].numpy().any()
    with pytest.warns(UserWarning, match="3 of 5 boxes"):
        dataset = make_dataset(source, input_, 2, max_boxes=2)
    ((_, target),) = dataset
    assert target["masks"].shape == (2, 2, 112, 112)
    np.testing.assert_array_equal(target["masks"][0, 1], masks[2][cells])


def test_a_box_of_which_only_the_empty_part_is_left_is_dropped():
    corner = np.zeros(SIZE, bool)
    corner[:6, :], corner[:, :9] = True, True  # an L, as large as the image
    whole = np.ones(SIZE, bool)
    source = MemorySource(
        [record([corner, whole], [[0, 0, 90, 60]] * 2)] * 2, "instance_segmentation"
    )
    crop = build_transforms([{"crop": {"scale": [0.2, 0.5]}}])
    input_ = Preprocessing((40, 40), "stretch")
    dataset = make_dataset(source, input_, 2, transforms=crop, order=Order(1))
    seen = []
    for _, target in dataset.take(8):
        for boxes, labels, masks in zip(*map(np.array, target.values()), strict=True):
            seen.append(0 in labels)
            assert 1 in labels
            for box, mask in zip(boxes[labels == 0], masks[labels == 0], strict=True):
                # The box is as tight as the L, or what is left of it.
                assert mask[0].any() and mask[:, 0].any() and mask.any()
                assert mask.all() or (box == [0, 0, 40, 40]).sum() >= 3
    assert any(seen) and not all(seen)


def test_a_damaged_mask_is_a_record_that_cannot_be_read():
    good = record(blobs(2), [[0, 0, 90, 60]] * 2)
    bad = {**good, "instance_masks": [encode_rle(blobs(1)[0]), b"xx\xff"]}
    small = {**good, "instance_masks": [encode_rle(np.ones((4, 4)))] * 2}
    records = [good, bad, small, good]
    source = MemorySource(records, "instance_segmentation")
    report = DataReport(source, max_bad=0.5)
    dataset = make_dataset(source, Preprocessing(SIZE), 1, report=report)
    assert len(list(dataset)) == 2
    assert [rule for rule, *_ in report.bad.values()] == ["mask.rle", "mask.size"]

"""Instances of id images and extents of RLE strings equal what pixels say."""

import numpy as np
import pytest
import tensorflow as tf

from visionkit.data.graph_rle_writer import encode_rle as encode_in_graph
from visionkit.data.mask_runs import measure, no_instances, split_ids
from visionkit.data.rle import encode_rle, encode_runs

SIZES = [(37, 53), (1, 9), (9, 1), (20, 20)]


def box_of(mask):
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("size", SIZES)
def test_split_ids(size, dtype):
    rng = np.random.default_rng(0)
    ids = rng.choice([0, 1, 3, 70, 255], size).astype(dtype)
    ids = np.where(rng.random(size) < 0.5, np.roll(ids, 1, axis=0), ids)
    found = split_ids(ids)
    assert found.ids.tolist() == sorted(set(ids.ravel().tolist()) - {0})
    assert found.size == size and found.boxes.dtype == found.area.dtype == np.float32
    for index, value in enumerate(found.ids):
        assert found.masks[index] == encode_rle(ids == value)
        assert found.boxes[index].tolist() == box_of(ids == value)
        assert found.area[index] == (ids == value).sum()


def test_nothing_and_everything():
    assert len(split_ids(np.zeros((4, 5), np.uint8)).ids) == 0
    assert no_instances((4, 5)).size == (4, 5)
    assert no_instances((4, 5)).boxes.shape == (0, 4)
    whole = split_ids(np.full((4, 5), 7))
    assert whole.boxes.tolist() == [[0, 0, 5, 4]] and whole.area.tolist() == [20]
    assert whole.masks[0] == encode_rle(np.ones((4, 5)))


@pytest.mark.parametrize("size", SIZES)
def test_measure(size):
    rng = np.random.default_rng(1)
    masks = [rng.random(size) < p for p in (0.02, 0.5, 0.9, 0, 1)]
    strings = [encode_rle(mask) for mask in masks]
    found = measure([*strings, b"\xff", b""], size[0])
    assert found.total.tolist() == [size[0] * size[1]] * 5 + [-1, -1]
    assert found.area.tolist() == [mask.sum() for mask in masks] + [0, 0]
    for box, mask in zip(found.boxes, masks, strict=False):
        assert box.tolist() == (box_of(mask) if mask.any() else [0, 0, 0, 0])
    shared = sum(mask.sum() for mask in masks) - np.any(masks, axis=0).sum()
    assert found.shared == shared
    apart = [encode_rle(np.indices(size)[1] % 2 == k) for k in (0, 1)]
    assert measure(apart, size[0]).shared == 0


def test_runs_of_no_pixel_are_no_pixels():
    found = measure([encode_runs(np.array([3, 0, 4, 2, 1, 0, 2]))], 4)
    assert found.area.tolist() == [2] and found.boxes.tolist() == [[1, 0, 3, 4]]


@pytest.mark.parametrize("size", [*SIZES, (300, 400)])
def test_the_graph_writes_the_same_strings(size):
    rng = np.random.default_rng(2)
    encode = tf.function(
        encode_in_graph, input_signature=[tf.TensorSpec([None, None], tf.bool)]
    )
    for share in (0, 0.001, 0.3, 0.999, 1):
        mask = rng.random(size) < share
        assert encode(mask).numpy() == encode_rle(mask)
    mask = np.zeros(size, bool)
    mask[size[0] // 3 :, size[1] // 3 : size[1] // 2 + 1] = True
    assert encode(mask).numpy() == encode_rle(mask)

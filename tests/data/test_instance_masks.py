"""RLE masks read like an array of masks, and no full one is made on the way there."""

import json

import numpy as np
import pytest

from visionkit.data.instance_masks import InstanceMasks, encode_crop
from visionkit.data.rle import encode_rle
from visionkit.paste import paste_masks
from visionkit.types import Results

SIZE = (40, 60)


@pytest.fixture(scope="module")
def dense():
    rng = np.random.default_rng(0)
    masks = np.zeros((5, *SIZE), bool)
    masks[0, 3:30, 10:50] = rng.random((27, 40)) > 0.4
    masks[1] = True
    masks[2, :, 20:25] = True  # whole columns are one run
    masks[4, -1, -1] = True  # the fourth is empty
    return masks


def test_a_part_has_the_string_of_the_whole():
    rng = np.random.default_rng(1)
    for _ in range(300):
        size = rng.integers(1, 8, 2)
        (top, bottom), (left, right) = (
            np.sort(rng.integers(0, length + 1, 2)) for length in size
        )
        full = np.zeros(size, bool)
        part = full[top:bottom, left:right]
        part[...] = rng.random(part.shape) > rng.random()
        assert encode_crop(part.copy(), top, left, size) == encode_rle(full)


def test_they_read_like_the_array_they_stand_for(dense):
    masks = InstanceMasks.from_dense(dense)
    np.testing.assert_array_equal(np.asarray(masks), dense)
    assert masks.shape == dense.shape and len(masks) == 5 and np.ndim(masks) == 3
    chosen = np.array([True, False, True, False, True])
    keys = (0, -1, slice(1, 3), [2, 0], chosen, (0, 5), (slice(None), 7, 9), (..., 3))
    for key in keys:
        np.testing.assert_array_equal(masks[key], dense[key])
    with pytest.raises(IndexError):
        masks[5]
    for mask, expected in zip(masks, dense, strict=True):
        np.testing.assert_array_equal(mask, expected)
    assert masks.areas().tolist() == dense.sum((1, 2)).tolist()
    assert np.asarray(InstanceMasks([], SIZE)).shape == (0, *SIZE)
    assert masks == InstanceMasks.from_dense(dense) != InstanceMasks([], SIZE)


def test_a_crop_is_what_there_is_and_no_more(dense):
    masks = InstanceMasks.from_dense(dense)
    for index, full in enumerate(dense):
        crop, top, left = masks.crop(index)
        back = np.zeros(SIZE, bool)
        back[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        np.testing.assert_array_equal(back, full)
        for edge in (crop[:1], crop[-1:], crop[:, :1], crop[:, -1:]):
            assert edge.any() or not full.any()


def test_masks_in_boxes_are_those_that_are_pasted():
    rng = np.random.default_rng(2)
    masks = rng.random((20, 28, 28)).astype("float32")
    corners = rng.uniform(-20, 60, (20, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 40, (20, 2))], axis=1)
    found = InstanceMasks.from_boxes(masks, boxes, SIZE)
    np.testing.assert_array_equal(found, paste_masks(masks, boxes, SIZE))
    assert InstanceMasks.from_boxes(masks[:0], boxes[:0], SIZE).shape == (0, *SIZE)
    with pytest.raises(ValueError, match=r"\(N, h, w\)"):
        InstanceMasks.from_boxes(masks, boxes[:3], SIZE)
    with pytest.raises(ValueError, match=r"\(N, H, W\)"):
        InstanceMasks.from_dense(masks[0])


def test_results_give_the_masks_to_coco(dense):
    coco = pytest.importorskip("pycocotools.mask")
    result = Results(
        image_size=SIZE,
        boxes=np.tile(np.float32([10, 3, 50, 30]), (5, 1)),
        labels=np.arange(5, dtype=np.int32),
        scores=np.full(5, 0.5, np.float32),
        label_names=list("abcde"),
        masks=dense,
    )
    rows = json.loads(json.dumps(result.to_coco(3)))
    for row, mask in zip(rows, dense, strict=True):
        assert row["segmentation"]["size"] == list(SIZE)
        np.testing.assert_array_equal(coco.decode(row["segmentation"]), mask)
    assert json.loads(result.to_json())["masks"][1] == rows[1]["segmentation"]
    pandas = pytest.importorskip("pandas")
    assert isinstance(result.to_pandas(), pandas.DataFrame)
    assert result.to_pandas()["pixels"].tolist() == dense.sum((1, 2)).tolist()

"""Masks come back from label maps as they went in, however they overlap."""

import numpy as np
import pytest

from visionkit.data import mask_layers
from visionkit.data.mask_layers import from_layers, to_layers
from visionkit.data.rle import decode_rle, encode_rle


def discs(count, size, radius, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.indices(size)
    for centre in rng.uniform(0, size, (count, 2)):
        yield (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


@pytest.mark.parametrize("radius", [2, 25, 200], ids=["apart", "overlap", "whole"])
def test_masks_come_back_with_their_tight_boxes(radius):
    size = (60, 83)
    masks = [m for m in discs(12, size, radius) if m.any()]
    layers, places = to_layers([encode_rle(mask) for mask in masks], size)
    assert layers.shape[1:] == size and layers.dtype == np.uint8
    depth = np.sum(masks, axis=0).max()
    assert depth <= len(layers) <= len(masks) and (places >= 0).all()
    regions, boxes = from_layers(layers, places)
    for mask, counts, box in zip(masks, regions, boxes, strict=True):
        assert counts == encode_rle(mask)
        y, x = np.nonzero(mask)
        np.testing.assert_array_equal(box, [x.min(), y.min(), x.max() + 1, y.max() + 1])


def test_hundreds_of_cells_are_two_layers():
    mask = np.zeros((70, 60), bool)
    regions = []
    for row in range(600):
        cell = mask.copy()
        cell[2 * (row // 20) : 2 * (row // 20) + 2, 3 * (row % 20) :][:, :2] = True
        regions.append(encode_rle(cell))
    layers, places = to_layers(regions, mask.shape)
    assert len(layers) == 3  # of 254 numbers each
    assert from_layers(layers, places)[0] == regions


def test_what_moving_changes_is_seen_and_borders_are_nothing():
    size = (20, 30)
    masks = np.zeros((3, *size), bool)
    masks[0, 2:9, 3:7], masks[1, 4:12, 5:20], masks[2, 15:18, 25:] = True, True, True
    layers, places = to_layers([encode_rle(mask) for mask in masks], size)
    layers = np.pad(layers[:, :, :24], [(0, 0), (3, 0), (0, 0)], constant_values=255)
    regions, boxes = from_layers(layers, places)
    assert regions[2] == b"" and boxes.dtype == np.float32
    moved = np.pad(masks[:2, :, :24], [(0, 0), (3, 0), (0, 0)])
    for counts, mask in zip(regions, moved, strict=False):
        np.testing.assert_array_equal(decode_rle(counts, (23, 24)), mask)
    np.testing.assert_array_equal(boxes[:2], [[3, 5, 7, 12], [5, 7, 20, 15]])


def test_there_is_an_end_to_the_layers(monkeypatch):
    monkeypatch.setattr(mask_layers, "MAX_LAYERS", 3)
    regions = [encode_rle(np.ones((5, 6), bool))] * 5
    layers, places = to_layers(regions, (5, 6))
    assert len(layers) == 3 and (places >= 0).tolist() == [True] * 3 + [False] * 2
    assert from_layers(layers, places)[0] == [*regions[:3], b"", b""]
    layers, places = to_layers([], (5, 6))
    assert layers.shape == (1, 5, 6) and from_layers(layers, places)[0] == []
    with pytest.raises(ValueError, match=r"sum to height \* width"):
        to_layers(regions[:1], (6, 6))

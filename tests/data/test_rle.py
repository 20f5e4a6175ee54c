"""RLE strings are those of the COCO API."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.data.rle import decode_rle, encode_rle

# Strings as pycocotools 2.0 writes them.
KNOWN = {
    b"`n1": np.zeros((40, 50), bool),
    b"0`n1": np.ones((40, 50), bool),
}


@pytest.mark.parametrize("counts", KNOWN)
def test_rle_equals_pycocotools(counts):
    assert encode_rle(KNOWN[counts]) == counts
    np.testing.assert_array_equal(decode_rle(counts, (40, 50)), KNOWN[counts])


def test_rle_of_a_shape_equals_pycocotools():
    mask = np.zeros((5, 7), bool)
    mask[1:4, 2:5] = mask[0, 6] = True
    assert encode_rle(mask) == b";320004NN"


def test_rle_round_trip():
    rng = np.random.default_rng(0)
    for density in (0.01, 0.3, 0.9):
        mask = np.kron(rng.random((13, 29)) < density, np.ones((7, 3))).astype(bool)
        np.testing.assert_array_equal(decode_rle(encode_rle(mask), mask.shape), mask)


def test_decode_rle_refuses_damage():
    counts = encode_rle(np.eye(6, 9, dtype=bool))
    with pytest.raises(ValueError, match=r"height \* width = 9 \* 9 = 81"):
        decode_rle(counts, (9, 9))
    for damaged in (b"", b"\xff\xff", counts[:-1] + b"o", b"oooooooooooo0"):
        with pytest.raises(ValueError, match="Not a compressed COCO RLE"):
            decode_rle(damaged, (6, 9))

"""A model's logits in original pixels: both arithmetics against a loop over pixels."""

import numpy as np
import pytest
import tensorflow as tf

from visionkit.data import geometry, resize
from visionkit.types import RESIZE_MODES, Preprocessing

FRAME = (24, 40)


class Graph:
    """TensorFlow's functions, traced as in an export."""

    def __getattr__(self, name):
        function = tf.function(getattr(resize, name))
        return lambda *inputs: function(*map(tf.constant, inputs)).numpy()


MODULES = (geometry, Graph())
SIZES = ((48, 97), (30, 100), (61, 20), (24, 40), (7, 5), (1, 3))


def by_hand(logits, image_size, preprocessing):
    """(H, W, K) by the rule as it is written down, and where the model saw nothing."""
    height, width = image_size
    sy, sx, oy, ox = geometry.placements([image_size], preprocessing)[0].tolist()
    out = np.zeros((height, width, logits.shape[-1]))
    void = np.zeros((height, width), bool)

    def place(i, scale, offset, length, frame):
        centre = (i + 0.5) * scale + offset
        first, last = max(offset, 0), min(length * scale + offset, frame)
        x = min(max(centre, first + 0.5), last - 0.5) - 0.5
        low = min(int(np.floor(x + 1e-6)), frame - 1)
        return low, min(low + 1, frame - 1), x - low, 0 < centre < frame

    for i in range(height):
        r0, r1, v, in_rows = place(i, sy, oy, height, FRAME[0])
        for j in range(width):
            c0, c1, u, in_columns = place(j, sx, ox, width, FRAME[1])
            if not (in_rows and in_columns):
                void[i, j] = True
                continue
            upper = logits[r0, c0] * (1 - u) + logits[r0, c1] * u
            lower = logits[r1, c0] * (1 - u) + logits[r1, c1] * u
            out[i, j] = upper * (1 - v) + lower * v
    return out, void


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("size", SIZES)
def test_both_arithmetics_follow_the_rule(mode, size, monkeypatch):
    for module in (geometry, resize):  # several strips, the last one not full
        monkeypatch.setattr(module, "STRIP_VALUES", 4 * size[1] * 5)
    preprocessing = Preprocessing(FRAME, mode, crop_fraction=0.8)
    logits = np.random.default_rng(0).normal(size=(*FRAME, 4)).astype("float32")
    expected, void = by_hand(logits, size, preprocessing)
    placement = geometry.placements([size], preprocessing)[0]
    best = np.where(void, 255, expected.argmax(-1))
    second, first = np.moveaxis(np.sort(expected, -1)[..., -2:], -1, 0)
    clear = void | (first - second > 1e-4)
    for module in MODULES:
        inputs = logits, placement, size
        found = module.logits_to_original(*inputs)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        classes = module.classes_to_original(*inputs)
        assert classes.dtype == np.uint8 and classes.shape == size
        np.testing.assert_array_equal(classes[clear], best[clear])
    assert void.any() == (mode == "center_crop")


def test_the_letterbox_border_does_not_show_and_nan_counts_as_zero():
    preprocessing = Preprocessing((20, 20))  # 10 x 20 in a frame of 20 x 20
    logits = np.full((20, 20, 2), 9.0, "float32")
    logits[5:15] = (0, 1)
    place = geometry.placements([(40, 80)], preprocessing)[0]
    for module in MODULES:
        found = module.logits_to_original(logits, place, (40, 80))
        np.testing.assert_array_equal(found, np.broadcast_to([0, 1], found.shape))
        bad = np.where(logits == 1, np.nan, logits)
        assert not module.logits_to_original(bad, place, (40, 80)).any()
        assert not module.classes_to_original(bad, place, (40, 80)).any()


def test_an_image_without_pixels_has_no_classes():
    # What stands for an image that could not be read.
    logits, placement = np.zeros((4, 6, 3), "float32"), np.zeros(4, "float32")
    for module in MODULES:
        assert module.classes_to_original(logits, placement, (0, 0)).shape == (0, 0)

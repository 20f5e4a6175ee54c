"""Losses of pixels against loops: void, shares, weights, the hard ones alone."""

import numpy as np
import pytest

from visionkit.losses.pixels import OHEMCrossentropy, PixelCrossentropy, PixelFocal
from visionkit.ops.pixels import pixel_labels

K = 3
WEIGHTS = [0.5, 2.0, 1.0]
rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(2, 4, 5, K)).astype("float32") * 2
MASKS = rng.integers(0, K, (2, 4, 5)).astype("uint8")
MASKS[0, 1, :3] = MASKS[1, 3, 4] = 255
PIXELS = rng.uniform(0, 3, MASKS.shape).astype("float32")


def shares_of(masks):
    """One-hot shares, rows of zeros where void."""
    return np.concatenate([np.eye(K), np.zeros((256 - K, K))])[masks].astype("float32")


def probabilities(logits):
    p = np.exp(logits.astype("float64"))
    return p / p.sum(-1, keepdims=True)


def by_pixel(shares, term, smoothing=0.0, weights=(1, 1, 1), pixels=None):
    """The mean over pixels that are not void, one after another."""
    total, count = 0.0, 0
    for place in np.ndindex(shares.shape[:-1]):
        y, p = shares[place], probabilities(LOGITS[place])
        if not (known := y.sum()):
            continue
        target = y / known * (1 - smoothing) + smoothing / K
        loss = sum(target[c] * term(p[c]) for c in range(K)) * np.dot(y, weights)
        total += loss * (1 if pixels is None else pixels[place])
        count += known
    return total / count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_crossentropy_is_the_mean_over_valid_pixels(weights, smoothing):
    loss = PixelCrossentropy(smoothing, weights)
    shares = shares_of(MASKS)
    options = (lambda p: -np.log(p), smoothing, weights or (1, 1, 1))
    expected = by_pixel(shares, *options)
    for truth in (MASKS, MASKS.astype("int64"), MASKS[..., None], shares):
        np.testing.assert_allclose(loss(truth, LOGITS), expected, rtol=1e-5)
    mixed = 0.7 * shares + 0.3 * shares[::-1]  # partly void where one of them is
    np.testing.assert_allclose(
        loss(mixed, LOGITS), by_pixel(mixed.astype("float32"), *options), rtol=1e-5
    )


def test_focal_is_the_mean_over_valid_pixels():
    loss = PixelFocal(1.5, 0.4, class_weights=WEIGHTS)
    expected = by_pixel(
        shares_of(MASKS), lambda p: -0.4 * (1 - p) ** 1.5 * np.log(p), 0, WEIGHTS
    )
    np.testing.assert_allclose(loss(MASKS, LOGITS), expected, rtol=1e-5)


def test_sample_weights_multiply_pixels_or_images_and_void_stays_out():
    loss, term = PixelCrossentropy(), lambda p: -np.log(p)
    expected = by_pixel(shares_of(MASKS), term, pixels=PIXELS)
    for weights in (PIXELS, PIXELS[..., None]):
        np.testing.assert_allclose(loss(MASKS, LOGITS, weights), expected, rtol=1e-5)
    images = np.array([0.5, 2.0], "float32")
    each = np.broadcast_to(images[:, None, None], MASKS.shape)
    expected = by_pixel(shares_of(MASKS), term, pixels=each)
    np.testing.assert_allclose(loss(MASKS, LOGITS, images), expected, rtol=1e-5)


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.3, 0.0), (0.01, 0.25), (0, 0)])
def test_ohem_keeps_the_hard_and_at_least_the_hardest(threshold, min_kept):
    p = probabilities(LOGITS)
    p = np.sort([p[(*i, MASKS[tuple(i)])] for i in np.argwhere(MASKS < K)])
    count = max((p < threshold).sum(), int(np.ceil(min_kept * len(p))))
    assert 0 <= count < len(p)
    loss = OHEMCrossentropy(threshold, min_kept)
    expected = -np.log(p[:count]).mean() if count else 0
    np.testing.assert_allclose(loss(MASKS, LOGITS), expected, rtol=1e-5)


def test_ohem_of_all_pixels_is_the_crossentropy():
    for options in ({"threshold": 1.0}, {"threshold": 0.0, "min_kept": 1.0}):
        loss = OHEMCrossentropy(**options, label_smoothing=0.1, class_weights=WEIGHTS)
        expected = PixelCrossentropy(0.1, WEIGHTS)(MASKS, LOGITS, PIXELS)
        np.testing.assert_allclose(loss(MASKS, LOGITS, PIXELS), expected, rtol=1e-5)


def test_a_value_that_is_no_class_is_not_taken_for_void():
    wrong = MASKS.copy()
    wrong[0, 0, 0] = K
    assert np.isnan(PixelCrossentropy()(wrong, LOGITS))


def test_labels_of_shares_are_their_largest_and_void_where_nothing_is_known():
    mixed = 0.6 * shares_of(MASKS) + 0.4 * shares_of(MASKS)[::-1]
    expected = np.where(MASKS < K, MASKS, MASKS[::-1])
    np.testing.assert_array_equal(pixel_labels(mixed, LOGITS), expected)
    np.testing.assert_array_equal(pixel_labels(shares_of(MASKS), LOGITS), MASKS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OHEMCrossentropy(threshold=2), "`threshold`"),
        (lambda: OHEMCrossentropy(min_kept=-1), "`min_kept`"),
        (lambda: PixelCrossentropy(1.0), "`label_smoothing`"),
        (lambda: PixelFocal(-1), "`gamma`"),
        (lambda: PixelCrossentropy(class_weights=[-1, 1]), "`class_weights`"),
        (lambda: PixelCrossentropy(class_weights=[1])(MASKS, LOGITS), "1 weights for"),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

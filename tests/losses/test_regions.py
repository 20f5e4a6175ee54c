"""Losses of regions against sums over pixels, and Lovász against its definition."""

import numpy as np
import pytest

from visionkit.losses.lovasz import LovaszSoftmax
from visionkit.losses.regions import Dice, Jaccard, Tversky

K = 4  # of which the last is nowhere in the truth
WEIGHTS = [0.0, 2.0, 1.0, 5.0]
rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(2, 3, 4, K)).astype("float32") * 2
MASKS = rng.integers(0, K - 1, (2, 3, 4)).astype("uint8")
MASKS[0, 1, :3] = MASKS[1, 2, 3] = 255
PIXELS = rng.uniform(0.1, 3, MASKS.shape).astype("float32")


def pixels_of(pixels=None):
    """Truth (N,), probabilities (N, K) and weights (N,) of what is not void."""
    known = MASKS != 255
    p = np.exp(LOGITS.astype("float64"))[known]
    weights = np.ones(MASKS.shape) if pixels is None else pixels
    return MASKS[known], p / p.sum(-1, keepdims=True), weights[known]


def tversky(alpha, beta, weights, pixels):
    truth, p, w = pixels_of(pixels)
    losses, counted = [], []
    for c in range(K):
        own = truth == c
        if not own.any():
            continue
        hit = (w * p[:, c])[own].sum()
        wrong = (w * p[:, c])[~own].sum()
        missed = (w * (1 - p[:, c]))[own].sum()
        losses.append(1 - hit / (hit + alpha * wrong + beta * missed))
        counted.append(weights[c])
    return np.average(losses, weights=counted)


@pytest.mark.parametrize("pixels", [None, PIXELS])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_overlaps_equal_sums_over_the_classes_that_are_there(weights, pixels):
    for loss, alpha, beta in (
        (Dice(weights), 0.5, 0.5),
        (Jaccard(weights), 1, 1),
        (Tversky(0.2, 0.9, weights), 0.2, 0.9),
    ):
        expected = tversky(alpha, beta, weights or [1] * K, pixels)
        np.testing.assert_allclose(loss(MASKS, LOGITS, pixels), expected, rtol=1e-5)


def lovasz(weights, pixels):
    """The integral over t of the Jaccard loss of the errors of at least t.

    That is the Lovász extension of the set function of the mistakes M of a class,
    |M| / |truth or M|, which is 1 - IoU.
    """
    truth, p, w = pixels_of(pixels)
    losses, counted = [], []
    for c in range(K):
        own = truth == c
        if not own.any():
            continue
        error = np.abs(own - p[:, c])
        total, last = 0.0, 0.0
        for t in np.sort(error):
            mistakes = error >= t
            total += (t - last) * w[mistakes].sum() / w[own | mistakes].sum()
            last = t
        losses.append(total)
        counted.append(weights[c])
    return np.average(losses, weights=counted)


@pytest.mark.parametrize("pixels", [None, PIXELS])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_lovasz_is_the_extension_of_the_jaccard_loss(weights, pixels):
    expected = lovasz(weights or [1] * K, pixels)
    got = LovaszSoftmax(weights)(MASKS, LOGITS, pixels)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [Jaccard(), LovaszSoftmax()], ids=lambda x: x.name)
def test_of_hard_answers_it_is_one_less_the_mean_iou(loss):
    answer = rng.integers(0, K, MASKS.shape)
    known = MASKS != 255
    ious = [
        ((answer == c) & (c == MASKS)).sum()
        / (((answer == c) | (c == MASKS)) & known).sum()
        for c in range(K - 1)
    ]
    got = loss(MASKS, 100 * np.eye(K, dtype="float32")[answer])
    np.testing.assert_allclose(got, 1 - np.mean(ious), rtol=1e-5)


def test_a_perfect_answer_costs_nothing_and_a_value_that_is_no_class_is_seen():
    answer = 100 * np.eye(256, dtype="float32")[MASKS][..., :K]
    wrong = MASKS.copy()
    wrong[0, 0, 0] = K
    for loss in (Dice(), Jaccard(), Tversky(), LovaszSoftmax()):
        np.testing.assert_allclose(loss(MASKS, answer), 0, atol=1e-6)
        assert np.isnan(loss(wrong, LOGITS))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="`alpha`"):
        Tversky(-0.1)
    with pytest.raises(ValueError, match="2 weights for 4 classes"):
        Dice([1, 2])(MASKS, LOGITS)

"""The weight map of U-Net against loops, and on its way into a training step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from contracts import drawn_masks

from visionkit.data.border_weights import border_weights, weigh_borders


def by_loops(mask, weight, sigma, background=0):
    """Equation 2 with every distance to every pixel of every object."""
    height, width = mask.shape
    objects = []
    left = {
        (y, x)
        for y in range(height)
        for x in range(width)
        if mask[y, x] not in (background, 255)
    }
    while left:  # flood fill
        queue, region = [left.pop()], []
        while queue:
            y, x = queue.pop()
            region.append((y, x))
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left and mask[near] == mask[y, x]:
                    left.remove(near)
                    queue.append(near)
        objects.append(np.array(region))
    weights = np.ones(mask.shape)
    for y, x in zip(*np.nonzero(mask == background), strict=True):
        distances = sorted(np.hypot(*(o - (y, x)).T).min() for o in objects)
        if len(distances) > 1:
            weights[y, x] += weight * np.exp(-(sum(distances[:2]) ** 2) / 2 / sigma**2)
    return weights


@pytest.mark.parametrize("background", [0, 2])
def test_weights_are_the_papers_formula(background):
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 53), "uint8")
    for label in (1, 2, 1, 3, 2, 1):
        y, x = rng.integers(0, 30), rng.integers(0, 40)
        mask[y : y + 8, x : x + 10] = label
    mask[20:22] = 255
    found = border_weights(mask, 10.0, 3.0, background)
    assert found.dtype == "float32" and found.max() > 5
    # Beyond four sigma it stops.
    np.testing.assert_allclose(found, by_loops(mask, 10, 3, background), atol=4e-3)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_without_two_objects_all_weigh_one(value):
    np.testing.assert_array_equal(
        border_weights(np.full((7, 9), value, "uint8")), np.ones((7, 9))
    )


def test_weights_reach_the_loss():
    from visionkit.losses.pixels import PixelCrossentropy

    images, masks = drawn_masks((32, 48))
    masks[:, 4:10, 4:10], masks[:, 4:10, 12:18] = 1, 2  # two pixels apart
    dataset = tf.data.Dataset.from_tensor_slices((images, masks)).batch(2)
    dataset = weigh_borders(dataset, sigma=4.0)
    assert dataset.element_spec[2].shape == (None, 32, 48)
    (batch,) = dataset
    expected = np.stack([border_weights(m, sigma=4.0) for m in masks])
    np.testing.assert_array_equal(batch[2], expected)
    assert expected[0, 6, 10] > 5

    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 48, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs / 255))
    model.compile("sgd", PixelCrossentropy())
    logits = keras.ops.convert_to_numpy(model(images.astype("float32")))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    valid = masks < 255
    true = np.take_along_axis(p, np.where(valid, masks, 0)[..., None], -1)[..., 0]
    mean = (-np.log(true) * expected)[valid].sum() / valid.sum()
    history = model.fit(dataset, verbose=0).history
    np.testing.assert_allclose(history["loss"][0], mean, rtol=1e-4)


def test_shares_of_classes_are_refused():
    shares = tf.data.Dataset.from_tensors(
        (np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 2)))
    )
    with pytest.raises(ValueError, match="leave `mixup` out"):
        weigh_borders(shares)

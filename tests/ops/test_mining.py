"""Hard negative mining against a loop."""

import numpy as np
import pytest

from visionkit.ops.mining import hardest_negatives


def by_loop(losses, positive, negative, ratio):
    chosen = np.zeros(losses.shape, bool)
    for row in range(len(losses)):
        count = int(np.ceil(ratio * positive[row].sum()))
        candidates = np.flatnonzero(negative[row])
        order = candidates[np.argsort(-losses[row][candidates], kind="stable")]
        chosen[row, order[:count]] = True
    return chosen


@pytest.mark.parametrize("ratio", [3, 0.5, 1000])
@pytest.mark.parametrize("jit_compile", [True, False])
def test_the_hardest_negatives_of_each_image_equal_a_loop(ratio, jit_compile):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    # Few different values, so that there are ties; the rest are ignored.
    losses = rng.integers(0, 6, (5, 40)).astype("float32")
    kind = rng.choice(3, (5, 40), p=[0.1, 0.8, 0.1])
    kind[3][kind[3] == 0] = 1  # no positives
    kind[4] = 2  # all ignored
    positive, negative = kind == 0, kind == 1
    mine = tf.function(hardest_negatives, jit_compile=jit_compile)
    chosen = mine(tf.constant(losses), positive, negative, ratio)
    np.testing.assert_array_equal(chosen, by_loop(losses, positive, negative, ratio))
    assert not np.any(chosen[3:])


def test_no_gradient_passes():
    import tensorflow as tf

    losses = tf.random.normal((2, 7))
    with tf.GradientTape() as tape:
        tape.watch(losses)
        kept = hardest_negatives(losses, losses > 1, losses <= 1)
        total = tf.reduce_sum(tf.cast(kept, "float32"))
    assert tape.gradient(total, losses) is None

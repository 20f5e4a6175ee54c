import keras
import numpy as np
import pytest
from keras import ops

from visionkit.ops.sampling import sample_balanced, uniform_noise


def draw(positives, negatives, num_samples, fraction, seed=0, rows=20):
    """One image whose first rows are positive and whose last are negative."""
    positive = np.arange(rows)[None] < positives
    negative = np.arange(rows)[None] >= rows - negatives
    sample = sample_balanced(positive, negative, num_samples, fraction, seed)
    index, is_positive, is_negative = (ops.convert_to_numpy(x)[0] for x in sample)
    assert len(index) == min(num_samples, rows) and index.dtype == np.int32
    assert (index >= 0).all() and (index < rows).all()
    assert not (is_positive & is_negative).any()
    assert positive[0, index[is_positive]].all()
    assert negative[0, index[is_negative]].all()
    drawn = index[is_positive | is_negative]
    assert len(set(drawn)) == len(drawn)
    return is_positive.sum(), is_negative.sum()


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        (6, 14, (2, 6)),  # enough of both: a quarter
        (1, 14, (1, 7)),  # few positives: negatives fill up
        (0, 14, (0, 8)),
        (6, 3, (2, 3)),  # few negatives: a smaller sample
        (6, 0, (2, 0)),
        (0, 0, (0, 0)),
        (20, 0, (2, 0)),
    ],
)
def test_numbers_of_positives_and_negatives(positives, negatives, expected):
    assert draw(positives, negatives, 8, 0.25) == expected


def test_a_sample_is_never_larger_than_what_there_is():
    assert draw(6, 14, 64, 0.5) == (6, 14)
    assert draw(15, 5, 64, 0.5) == (10, 5)


def test_every_candidate_has_the_same_chance():
    positive = np.broadcast_to(np.arange(30) < 10, (4000, 30))
    sample = sample_balanced(positive, ~positive, 10, 0.5, 3)
    index, is_positive, is_negative = map(ops.convert_to_numpy, sample)
    counts = np.bincount(index[is_positive | is_negative], minlength=30)
    expected = np.where(np.arange(30) < 10, 4000 * 5 / 10, 4000 * 5 / 20)
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_images_of_a_batch_are_drawn_apart():
    positive = np.broadcast_to(np.arange(1000) < 500, (2, 1000))
    index = ops.convert_to_numpy(sample_balanced(positive, ~positive, 50, 0.5, 0)[0])
    assert (index[0] != index[1]).any()


def test_seed_decides():
    positive = np.arange(400)[None] < 200
    options = (positive, ~positive, 100, 0.5)

    def index(seed):
        return ops.convert_to_numpy(sample_balanced(*options, seed).index)

    np.testing.assert_array_equal(index(1), index(1))
    assert (index(1) != index(2)).any()
    generator = keras.random.SeedGenerator(1)
    assert (index(generator) != index(generator)).any()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function")
def test_compiled_draws_are_the_plain_ones():
    import tensorflow as tf

    positive = np.random.default_rng(0).random((3, 500)) < 0.3

    def index():
        return sample_balanced(positive, ~positive, 64, 0.5, 7)

    compiled = tf.function(index, jit_compile=True)()
    for one, other in zip(compiled, index(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("count", "fraction"), [(0, 0.5), (8, 0.0), (8, 1.5)])
def test_arguments_out_of_range_are_refused(count, fraction):
    positive = np.zeros((1, 8), bool)
    with pytest.raises(ValueError, match="Received: num_samples="):
        sample_balanced(positive, ~positive, count, fraction, 0)


def test_noise_is_that_of_every_backend():
    # Computed once with Python's own integers; equal on TensorFlow and JAX, and by XLA.
    def mix(x):
        x = ((x ^ x >> 16) * 0x85EBCA6B) % 2**32
        x = ((x ^ x >> 13) * 0xC2B2AE35) % 2**32
        return x ^ x >> 16

    seed = 2**31 + 5
    second = mix(0x9E3779B9)
    expected = [
        (mix(mix((i + mix(seed)) % 2**32) ^ second) >> 8) / 2**24 for i in range(6)
    ]
    noise = ops.convert_to_numpy(uniform_noise((2, 3), seed))
    np.testing.assert_array_equal(noise.ravel(), np.float32(expected))


def test_noise_is_uniform_and_its_neighbours_unrelated():
    def noise(seed):
        return ops.convert_to_numpy(uniform_noise((300, 400), seed))

    one, other = noise(1), noise(2)
    histogram, _ = np.histogram(one, 100, (0, 1))
    assert (np.abs(histogram - 1200) < 5 * np.sqrt(1200)).all()
    for a, b in ((one[1:], one[:-1]), (one[:, 1:], one[:, :-1]), (one, other)):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(one.size)

"""TensorFlow's kernels give what portable code gives."""

import keras
import numpy as np
import pytest

from visionkit.ops import native

LABELS = np.int32([[3, 0, 255, -1], [3, 4, 0, -(2**31)]])
WEIGHTS = np.float32([[0.5, 1, 9, 9], [0.25, 9, 2, 9]])


@pytest.mark.parametrize("histogram", [True, False])
def test_weights_of_classes_are_summed_and_others_left_out(histogram, monkeypatch):
    if not histogram:
        monkeypatch.setattr(native, "_on_processors", lambda: False)
    counts = native.count_labels(LABELS, WEIGHTS, 4)
    assert keras.backend.standardize_dtype(counts.dtype) == "float32"
    np.testing.assert_array_equal(counts, [3, 0, 0, 0.75])


def test_compiled_and_with_unknown_sizes_the_counts_are_the_same():
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's compiler")
    signature = [tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None))]
    for jit_compile in (True, False):
        count = tf.function(
            lambda labels, weights: native.count_labels(labels, weights, 4),
            signature,
            jit_compile=jit_compile,
        )
        np.testing.assert_array_equal(count(LABELS, WEIGHTS), [3, 0, 0, 0.75])


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("processors", [True, False])
def test_the_first_of_equal_values_is_the_largest(axis, dtype, processors, monkeypatch):
    if not processors:
        monkeypatch.setattr(native, "_on_processors", lambda: False)
    values = np.random.default_rng(0).integers(0, 3, (5, 7, 4))
    found = native.first_largest(keras.ops.cast(values, dtype), axis)
    assert keras.backend.standardize_dtype(found.dtype) == "int32"
    np.testing.assert_array_equal(found, values.argmax(axis))

"""Whether both sides of a comparison have the same to do."""

import keras

from benchmarks.work import count_without_biases


def test_count_leaves_out_the_biases_of_convolutions_alone():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(3)(x)
    x = keras.layers.Flatten()(x)
    inner = keras.Model(inputs, x)
    model = keras.Model(inputs, keras.layers.Dense(5)(inner(inputs)))
    kernels = 3 * 3 * 3 * 4 + 3 * 3 * 4
    dense = (4 * 4 * 4 + 1) * 5
    assert count_without_biases(model) == kernels + 2 * 4 + dense

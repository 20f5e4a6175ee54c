"""Weights go to the same place of another model, a layer's together or not at all."""

import keras
import numpy as np

from visionkit.tasks.transfer import take_weights


@keras.saving.register_keras_serializable(package="test_transfer")
class Pair(keras.layers.Layer):
    """Two layers that Keras names, as those inside of keras-cv's blocks."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = keras.layers.Dense(4), keras.layers.Dense(units)

    def call(self, x):
        return self.second(self.first(x))


def build(units, *, normed=True):
    images = keras.Input((4,))
    x = keras.layers.Dense(4, name="stem")(images)
    if normed:
        x = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(images, Pair(units, name="pair")(x))
    for weight in model.weights:
        weight.assign(np.random.default_rng().normal(size=weight.shape))
    return model


def test_layers_without_a_name_are_found_by_their_place():
    trained, model = build(4), build(4)
    assert [w.path for w in trained.weights] != [w.path for w in model.weights]
    assert take_weights(model, trained) == (10, 10, [])
    for a, b in zip(model.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_new_or_has_another_shape_stays_fresh():
    trained, model = build(4, normed=False), build(3)
    before = model.get_weights()
    done = take_weights(model, trained)
    assert (done.taken, done.total) == (4, 10)
    assert done.fresh == ["norm", "pair/dense_1"]
    taken = [*trained.layers[1].weights, *trained.layers[2].first.weights]
    for a, b in zip([*model.weights[:2], *model.weights[6:8]], taken, strict=True):
        np.testing.assert_array_equal(a, b)
    for i in (2, 3, 4, 5, 8, 9):
        np.testing.assert_array_equal(model.weights[i], before[i])

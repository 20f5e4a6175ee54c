"""A model's state goes over whole or not at all."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from visionkit.training.optimizers import build_optimizer
from visionkit.training.state import model_state, restore_model_state


def build(units=5, optimizer="adamw"):
    inputs = keras.Input((6, 4, 3))
    x = keras.layers.Conv2D(units, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(x)
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    model.compile(build_optimizer(optimizer, learning_rate=0.1), "mse")
    return model


def train(model):
    rng = np.random.default_rng(0)
    model.train_on_batch(rng.normal(size=(4, 6, 4, 3)), rng.normal(size=(4, 2)))


def test_state_has_everything_under_the_same_names_in_another_model():
    model, other = build(), build()
    train(model)
    state = model_state(model)
    assert len(state) == len(model.variables) + len(model.optimizer.variables)
    assert sum("seed_generator" in name for name in state) == 1
    restore_model_state(other, state)
    found = model_state(other)
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)
    train(model)
    train(other)  # the same dropout, moments and step count
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_state_is_a_copy():
    model = build()
    state = model_state(model)
    kernel = next(iter(state.values())).copy()
    train(model)
    np.testing.assert_array_equal(next(iter(state.values())), kernel)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"units": 7},
            r"conv2d/kernel: \(3, 3, 3, 5\) in the checkpoint, \(3, 3, 3, 7\)",
        ),
        ({"optimizer": "sgd"}, r"adam_w/.*: unknown to this model"),
    ],
)
def test_restore_of_another_models_state_changes_nothing(other, message):
    state, model = model_state(build()), build(**other)
    before = model_state(model)
    with pytest.raises(ValueError, match=message):
        restore_model_state(model, state)
    for name, array in model_state(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_unbuilt_model_is_refused():
    with pytest.raises(ValueError, match="has no variables yet"):
        model_state(keras.Sequential([keras.layers.Dense(2)]))

"""A model's state goes over whole or not at all."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from visionkit.training.optimizers import build_optimizer
from visionkit.training.state import carry_weights, model_state, restore_model_state


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
            r"conv2d/kernel: \(3, 3, 3, 5\) instead of \(3, 3, 3, 7\)",
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


def resizable(size, trainable=True, ema=0.9):
    inputs = keras.Input((*size, 3))
    convolution = keras.layers.Conv2D(5, 3)
    convolution.trainable = trainable
    x = keras.layers.BatchNormalization()(convolution(inputs))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.compile(build_optimizer("adamw", learning_rate=0.1, ema=ema), "mse")
    return model


def test_weights_are_carried_to_another_size_and_other_frozen_layers():
    source, target = resizable((6, 4), trainable=False), resizable((9, 7))
    rng = np.random.default_rng(0)
    for _ in range(3):
        source.train_on_batch(rng.normal(size=(4, 6, 4, 3)), rng.normal(size=(4, 2)))
    own = [np.array(v) for v in source.variables]
    carry_weights(source, target)
    for before, after in zip(own, source.variables, strict=True):
        np.testing.assert_array_equal(before, after)  # the source keeps its own
    averages = source.optimizer._model_variables_moving_average
    paths = [variable.path for variable in source.trainable_variables]
    by_path = dict(zip(paths, averages, strict=True))
    for mine, its in zip(source.variables, target.variables, strict=True):
        np.testing.assert_array_equal(by_path.get(mine.path, mine), its)
    assert int(target.optimizer.iterations) == 0


def test_weights_of_another_shape_are_not_carried():
    target = build(units=4)
    before = target.get_weights()
    with pytest.raises(ValueError, match=r"(?s)do not fit.*instead of.*one image size"):
        carry_weights(build(units=5), target)
    for old, new in zip(before, target.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

"""Optimizers against NumPy: what decays, how, and that saving does not change it.

They run on the active backend; test_jax.py runs them on JAX too.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from visionkit.training.optimizers import OPTIMIZERS, build_optimizer
from visionkit.training.schedules import build_schedule
from visionkit.training.state import (
    averaged_weights,
    model_state,
    restore_model_state,
)

RATE, DECAY = 0.05, 0.1


def data(batches=50, size=8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batches, size, 4)).astype(np.float32)
    return x, rng.normal(size=(batches, size, 3)).astype(np.float32)


def linear(optimizer, **compile_options):
    """Dense 4 -> 3 with fixed weights, bias away from zero."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    rng = np.random.default_rng(1)
    model.layers[0].set_weights([rng.normal(size=(4, 3)), np.array([1.0, -2.0, 3.0])])
    model.compile(optimizer, "mse", **compile_options)
    return model


def train(model, x, y):
    for batch in zip(x, y, strict=True):
        model.train_on_batch(*batch)
    return model.layers[-1].get_weights()


def gradients(weights, x, y):
    error = 2 * (x @ weights[0] + weights[1] - y) / y.size
    return [x.T @ error, error.sum(0)]


class NumpySGD:
    def __init__(self, momentum=0.0, nesterov=False):
        self.momentum, self.nesterov, self.m = momentum, nesterov, [0.0, 0.0]

    def update(self, i, w, g, rate, decay):
        g = g + decay * w
        self.m[i] = self.momentum * self.m[i] - rate * g
        return w + (
            self.momentum * self.m[i] - rate * g if self.nesterov else self.m[i]
        )


class NumpyRMSprop:
    def __init__(self, rho=0.9, momentum=0.0, epsilon=1e-7):
        self.rho, self.momentum, self.epsilon = rho, momentum, epsilon
        self.v, self.m = [0.0, 0.0], [0.0, 0.0]

    def update(self, i, w, g, rate, decay):
        g = g + decay * w
        self.v[i] = self.rho * self.v[i] + (1 - self.rho) * g**2
        step = rate * g / np.sqrt(self.v[i] + self.epsilon)
        self.m[i] = self.momentum * self.m[i] + step
        return w - self.m[i]


class NumpyAdamW:
    def __init__(self, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
        self.b1, self.b2, self.epsilon = beta_1, beta_2, epsilon
        self.m, self.v, self.t = [0.0, 0.0], [0.0, 0.0], [0, 0]

    def update(self, i, w, g, rate, decay):
        w = w - rate * decay * w
        self.t[i] += 1
        self.m[i] = self.b1 * self.m[i] + (1 - self.b1) * g
        self.v[i] = self.b2 * self.v[i] + (1 - self.b2) * g**2
        scale = np.sqrt(1 - self.b2 ** self.t[i]) / (1 - self.b1 ** self.t[i])
        return w - rate * scale * self.m[i] / (np.sqrt(self.v[i]) + self.epsilon)


def numpy_weights(reference, weights, x, y, decay=DECAY):
    weights = [w.astype(np.float64) for w in weights]
    for batch in zip(x, y, strict=True):
        pairs = zip(weights, gradients(weights, *batch), (decay, 0.0), strict=True)
        weights = [
            reference.update(i, w, g, RATE, d) for i, (w, g, d) in enumerate(pairs)
        ]
    return weights


CASES = [
    ("sgd", {}, NumpySGD()),
    ("sgd", {"momentum": 0.9}, NumpySGD(0.9)),
    ("SGD", {"momentum": 0.9, "nesterov": True}, NumpySGD(0.9, True)),
    ("rmsprop", {"rho": 0.8, "momentum": 0.5}, NumpyRMSprop(0.8, 0.5)),
    ("adamw", {}, NumpyAdamW()),
    ("adam", {"beta_2": 0.99}, NumpyAdamW(beta_2=0.99)),
]


@pytest.mark.parametrize(("name", "options", "reference"), CASES)
def test_fifty_steps_equal_numpy_also_over_save_load_and_resume(
    name, options, reference, tmp_path
):
    x, y = data()
    build = lambda: linear(  # noqa: E731
        build_optimizer(name, options, learning_rate=RATE, weight_decay=DECAY)
    )
    model = build()
    expected = numpy_weights(reference, model.get_weights(), x, y)

    train(model, x[:20], y[:20])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is OPTIMIZERS[name.lower()]
    train(loaded, x[20:35], y[20:35])
    resumed = build()
    restore_model_state(resumed, model_state(loaded))
    for found, wanted in zip(train(resumed, x[35:], y[35:]), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_decays_matrices_and_spares_vectors(name, tmp_path):
    build = lambda decay: linear(  # noqa: E731
        build_optimizer(name, learning_rate=RATE, weight_decay=decay)
    )
    x, y = data(3)
    decayed, plain = build(0.3), build(0.0)
    decayed.optimizer.build(decayed.trainable_variables)
    decayed.save(tmp_path / "model.keras")
    decayed = keras.saving.load_model(tmp_path / "model.keras")
    zero = np.zeros_like(y)  # gradients do not depend on the decay in the first step
    with_decay = train(decayed, x[:1], zero[:1])
    without = train(plain, x[:1], zero[:1])
    np.testing.assert_allclose(with_decay[1], without[1], rtol=1e-6)
    assert np.abs(with_decay[0] - without[0]).max() > 1e-7
    assert all(np.isfinite(w).all() for w in train(decayed, x, y))


def test_coupled_decay_of_sgd_is_not_the_decoupled_one_of_keras():
    x, y = data(5)
    ours = linear(build_optimizer("sgd", learning_rate=RATE, weight_decay=DECAY))
    keras_own = linear(keras.optimizers.SGD(RATE, weight_decay=DECAY))
    # Without momentum the two agree on the matrix; the bias decays in Keras only.
    ours, keras_own = train(ours, x[:1], y[:1]), train(keras_own, x[:1], y[:1])
    np.testing.assert_allclose(ours[0], keras_own[0], rtol=1e-5)
    assert np.abs(ours[1] - keras_own[1]).max() > 1e-3


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_accumulating_two_half_batches_equals_one_full_batch(name):
    x, y = data(6)
    make = lambda **more: linear(  # noqa: E731
        build_optimizer(name, learning_rate=RATE, weight_decay=DECAY, **more)
    )
    whole = train(make(), x, y)
    halves = train(make(accumulation_steps=2), x.reshape(12, 4, 4), y.reshape(12, 4, 3))
    for a, b in zip(halves, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_clip_norm_limits_the_norm_of_all_gradients_before_the_decay():
    x, y = data(1)
    optimizer = build_optimizer(
        "sgd", learning_rate=1, weight_decay=DECAY, clip_norm=0.01
    )
    model = linear(optimizer)
    before = model.get_weights()
    after = train(model, x, y)
    steps = [b - a for a, b in zip(after, before, strict=True)]
    steps[0] -= DECAY * before[0]
    norm = np.sqrt(sum((step**2).sum() for step in steps))
    np.testing.assert_allclose(norm, 0.01, rtol=1e-3)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_average_follows_the_updates_with_a_growing_momentum(accumulation):
    x, y = data(12)
    optimizer = build_optimizer(
        "sgd", learning_rate=RATE, ema=0.5, accumulation_steps=accumulation
    )
    model = linear(optimizer)
    with averaged_weights(model):  # no update yet: nothing to average
        assert np.ptp(model.get_weights()[0]) > 0
    average, updates, last = 0.0, 0, model.get_weights()[0]
    for batch in zip(x, y, strict=True):
        model.train_on_batch(*batch)
        kernel = model.get_weights()[0]
        if not np.array_equal(kernel, last):
            momentum = min(0.5, updates / (updates + 9))
            average = momentum * average + (1 - momentum) * kernel
            updates, last = updates + 1, kernel
    assert updates == 12 // accumulation
    state = model_state(model)
    with averaged_weights(model):
        np.testing.assert_allclose(model.get_weights()[0], average, rtol=1e-5)
        with averaged_weights(model):
            np.testing.assert_allclose(model.get_weights()[0], average, rtol=1e-5)
        np.testing.assert_allclose(model.get_weights()[0], average, rtol=1e-5)
    for name, array in model_state(model).items():
        np.testing.assert_array_equal(array, state[name])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_mixed_precision_with_a_schedule_trains_saves_and_resumes(
    policy, name, tmp_path
):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        x, y = data(4)
        rate = build_schedule("cosine", RATE, steps_per_epoch=2, epochs=4)
        optimizer = build_optimizer(
            name, learning_rate=rate, weight_decay=DECAY, clip_norm=1, ema=0.9
        )
        model = linear(optimizer)
        start = model.get_weights()[0]
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (policy == "mixed_float16")
        assert np.isfinite(train(model, x, y)[0]).all()
        assert np.abs(model.get_weights()[0] - start).max() > 1e-4
        with averaged_weights(model):
            assert np.abs(model.get_weights()[0] - start).max() > 1e-5
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        found, state = model_state(loaded), model_state(model)
        assert found.keys() == state.keys()
        for key, array in state.items():
            np.testing.assert_array_equal(found[key], array)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("sdg", {}, r"no optimizer 'sdg'\. Did you mean 'sgd'\? Legal: sgd, rmsprop"),
        (
            "sgd",
            {"options": {"momentun": 1}},
            "'momentun'. Did you mean 'momentum'.*Legal: momentum, nesterov\\.$",
        ),
        (
            "adam",
            {"options": {"clipnorm": 1}},
            "Legal: beta_1, beta_2, epsilon, amsgrad\\.$",
        ),
        ("sgd", {"weight_decay": -1}, "weight_decay"),
        ("sgd", {"clip_norm": 0}, "clip_norm"),
        ("sgd", {"ema": 1.0}, "ema"),
        ("sgd", {"accumulation_steps": 0}, "accumulation_steps"),
    ],
)
def test_wrong_arguments_say_what_is_legal(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(name, **{"learning_rate": 0.1, **arguments})


def test_whole_numbers_do_where_keras_wants_floats():
    assert build_optimizer("sgd", {"momentum": 0}, learning_rate=1).momentum == 0.0

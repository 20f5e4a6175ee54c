"""Learning rates against NumPy, inside the warm-up, at its end, at the boundaries."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from visionkit.training.schedules import SCHEDULES, build_schedule

PEAK, STEPS, EPOCHS = 0.4, 10, 6
TOTAL = STEPS * EPOCHS
GRID = np.arange(0, TOTAL + 11)
WARMUP = {"warmup_steps": 4, "warmup_start": 0.1}


def build(name, **options):
    return build_schedule({name: options}, PEAK, steps_per_epoch=STEPS, epochs=EPOCHS)


def with_warmup(rates):
    ramp = PEAK * np.interp(GRID, [0, 4], [0.1, 1.0])
    return np.where(GRID < 4, ramp, rates)


PROGRESS = np.clip((GRID - 4) / (TOTAL - 4), 0, 1)
CASES = {
    "constant": ({}, np.full(len(GRID), PEAK)),
    "step": (
        {"epochs": [2, 4.5], "factor": 0.5},
        np.select([GRID < 20, GRID < 45], [PEAK, PEAK / 2], PEAK / 4),
    ),
    "exponential": (
        {"epochs": 2, "factor": 0.9},
        PEAK * 0.9 ** (np.maximum(GRID - 4, 0) / 20),
    ),
    "polynomial": (
        {"power": 0.9, "end": 0.25},
        PEAK * (0.25 + 0.75 * (1 - PROGRESS) ** 0.9),
    ),
    "cosine": (
        {"end": 0.05},
        PEAK * (0.05 + 0.95 * (1 + np.cos(np.pi * PROGRESS)) / 2),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_numpy_before_and_after_saving_and_compiled(name):
    options, rates = CASES[name]
    schedule = build(name, **options, **WARMUP)
    expected = with_warmup(rates)
    values = [float(schedule(int(step))) for step in GRID]
    np.testing.assert_allclose(values, expected, rtol=2e-6, atol=1e-7)

    config = keras.optimizers.schedules.serialize(schedule)
    loaded = keras.optimizers.schedules.deserialize(config)
    assert type(loaded) is type(schedule)
    compiled = tf.function(loaded, jit_compile=True)
    for step in (0, 3, 4, 19, 20, 59, 60, 70):
        rate = float(compiled(tf.constant(step, tf.int64)))
        np.testing.assert_allclose(rate, expected[step], rtol=1e-5, atol=1e-6)


def test_exponential_staircase_drops_only_at_the_intervals():
    schedule = build("exponential", steps=20, factor=0.5, staircase=True)
    values = [float(schedule(step)) for step in (0, 19, 20, 39, 40)]
    np.testing.assert_allclose(values, PEAK * np.array([1, 1, 0.5, 0.5, 0.25]))


def test_constant_without_warmup_is_a_number_and_can_be_set():
    rate = build_schedule("constant", 1, steps_per_epoch=9, epochs=9)
    assert rate == 1.0 and type(rate) is float
    optimizer = keras.optimizers.SGD(rate)
    optimizer.learning_rate = 0.5


def test_warmup_epochs_are_the_same_as_steps():
    by_epochs = build("cosine", warmup_epochs=0.4).get_config()
    assert by_epochs == build("cosine", warmup_steps=4).get_config()
    assert by_epochs["total_steps"] == TOTAL
    assert float(build("cosine", warmup_epochs=1)(0)) == pytest.approx(PEAK * 1e-3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_training_shorter_than_the_warmup_stays_finite(name):
    options = CASES[name][0]
    schedule = build_schedule(
        {name: {**options, "warmup_epochs": 5}}, PEAK, steps_per_epoch=3, epochs=1
    )
    values = np.array([float(schedule(step)) for step in range(30)])
    assert (
        np.isfinite(values).all() and (values >= 0).all() and values.max() < PEAK + 1e-6
    )


def test_schedule_counts_batches_under_gradient_accumulation():
    schedule = build("step", steps=[4], factor=0.5)
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=2)
    weight = keras.Variable(np.zeros(1, np.float32))
    rates = []
    for _ in range(6):
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([np.ones(1, np.float32)], [weight])
    np.testing.assert_allclose(rates, PEAK * np.array([1, 1, 1, 1, 0.5, 0.5]))
    # One update of each pair, at the rate of its last batch.
    np.testing.assert_allclose(weight.numpy(), -PEAK * (1 + 1 + 0.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cosinus", r"no schedule 'cosinus'\. Did you mean 'cosine'\? Legal: constant"),
        (
            {"cosine": {"warm_up": 1}},
            r"no option of the schedule 'cosine' 'warm_up'.*"
            r"Legal: warmup_epochs, end, warmup_steps, warmup_start",
        ),
        ({"cosine": {"total_steps": 1}}, "'total_steps'"),
        ({"step": {}}, "needs `epochs` or `steps`"),
        ({"step": {"epochs": [3, 2]}}, "ascending"),
        ({"step": {"epochs": []}}, "ascending"),
        ({"step": {"epochs": [1], "steps": [9]}}, "not both"),
        ({"step": {"epochs": "3"}}, "`epochs` must be a number"),
        ({"exponential": {"epochs": 0}}, "`steps` must be above 0"),
        ({"cosine": {"warmup_steps": 1, "warmup_epochs": 1}}, "not both"),
        ({"cosine": {"warmup_epochs": -1}}, "of at least 0"),
        ({"cosine": {"warmup_start": 2}}, r"in \[0, 1\]"),
        ({"polynomial": {"power": float("nan")}}, "`power` must be a number"),
    ],
)
def test_wrong_schedule_says_what_is_legal(spec, message):
    with pytest.raises(ValueError, match=message):
        build_schedule(spec, PEAK, steps_per_epoch=10, epochs=6)


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_learning_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="learning_rate"):
        build_schedule("constant", rate, steps_per_epoch=10, epochs=6)

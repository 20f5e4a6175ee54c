"""Learning rates against NumPy, inside the warm-up, at its end, at the boundaries."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from visionkit.training.schedules import SCHEDULES, build_plateau, build_schedule

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


def restarts(step, first=10, factor=2):
    """The period's progress by walking through the periods."""
    step, length = max(step - 4, 0), first
    while step >= length:
        step, length = step - length, length * factor
    return step / length


def one_cycle(step, rise=0.25, div=10, final=100):
    top = rise * TOTAL
    if step < top:
        return 1 / div + (1 - 1 / div) * (1 - np.cos(np.pi * step / top)) / 2
    progress = min((step - top) / (TOTAL - top), 1)
    low = 1 / div / final
    return low + (1 - low) * (1 + np.cos(np.pi * progress)) / 2


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
    "cosine_restarts": (
        {"period_epochs": 1, "period_factor": 2, "end": 0.1},
        PEAK * np.array([0.1 + 0.45 * (1 + np.cos(np.pi * restarts(s))) for s in GRID]),
    ),
    "one_cycle": (
        {"rise": 0.25, "div_factor": 10, "final_div_factor": 100},
        PEAK * np.array([one_cycle(step) for step in GRID]),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_numpy_before_and_after_saving_and_compiled(name):
    options, expected = CASES[name]
    if name != "one_cycle":  # which is a warm-up itself
        options, expected = {**options, **WARMUP}, with_warmup(expected)
    schedule = build(name, **options)
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


def test_restarts_are_at_the_exact_step_for_long_periods():
    schedule = build_schedule(
        {"cosine_restarts": {"period_steps": 1001, "period_factor": 3}},
        PEAK,
        steps_per_epoch=10_000,
        epochs=9,
    )
    for restart in (1001, 1001 * 4, 1001 * 13, 1001 * 40):
        assert float(schedule(restart)) == pytest.approx(PEAK)
        assert float(schedule(restart - 1)) < 1e-5


def test_plateau_is_a_number_and_a_callback():
    spec = {"plateau": {"factor": 0.5, "patience": 2, "min_rate": 0.01}}
    assert build_schedule(spec, PEAK, steps_per_epoch=9, epochs=9) == PEAK
    plateau = build_plateau(spec, "val_loss")
    assert (plateau.factor, plateau.patience, plateau.min_rate) == (0.5, 2, 0.01)
    assert build_plateau("plateau", "val_loss").patience == 5
    assert build_plateau({"cosine": {}}, "val_loss") is None


def test_warmup_epochs_are_the_same_as_steps():
    by_epochs = build("cosine", warmup_epochs=0.4).get_config()
    assert by_epochs == build("cosine", warmup_steps=4).get_config()
    assert by_epochs["total_steps"] == TOTAL
    assert float(build("cosine", warmup_epochs=1)(0)) == pytest.approx(PEAK * 1e-3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_training_shorter_than_the_warmup_stays_finite(name):
    options = CASES[name][0]
    if name != "one_cycle":
        options = {**options, "warmup_epochs": 5}
    schedule = build_schedule({name: options}, PEAK, steps_per_epoch=3, epochs=1)
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
        ({"cosine_restarts": {}}, "needs `period_epochs` or `period_steps`"),
        ({"cosine_restarts": {"period_epochs": 1, "period_factor": 0.5}}, "least 1"),
        ({"one_cycle": {"warmup_steps": 1}}, "'warmup_steps'"),
        ({"one_cycle": {"rise": 0}}, "`rise` must be above 0"),
        ({"plateau": {"patients": 1}}, "mean 'patience'"),
        ({"plateau": {"factor": 2}}, r"factor.*\(0, 1\)"),
        ("plato", "mean 'plateau'"),
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

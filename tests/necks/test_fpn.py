"""The feature pyramid against a NumPy one, its sizes and its published counts."""

import keras
import numpy as np
import pytest

from visionkit.necks import FPN

SIZES = {"P2": (19, 26), "P3": (10, 13), "P4": (5, 7), "P5": (3, 4)}


def features(levels, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        level: rng.normal(size=(2, *SIZES[level], channels)).astype("float32")
        for level in levels
    }


def trainable(layer):
    return sum(int(np.prod(w.shape)) for w in layer.trainable_weights)


def test_sums_run_from_the_coarsest_level_down_on_odd_sizes():
    levels = ("P3", "P4", "P5")
    neck = FPN(levels, num_coarse=0, channels=4)
    pyramid = features(levels)
    outputs = neck(pyramid)
    above = None
    for level in reversed(levels):
        kernel, bias = neck.laterals[level].get_weights()
        x = pyramid[level] @ kernel[0, 0] + bias
        if above is not None:
            height, width = SIZES[level]
            for row in range(height):
                for column in range(width):
                    x[:, row, column] += above[:, row // 2, column // 2]
        above = x
        np.testing.assert_allclose(
            outputs[level], neck.smooths[level](x), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("coarse", ["input", "output", "pool"])
def test_coarse_levels_are_made_of_what_is_asked(coarse):
    neck = FPN(("P4", "P5"), coarse=coarse, channels=4)
    pyramid = features(("P4", "P5"))
    outputs = {k: np.asarray(v) for k, v in neck(pyramid).items()}
    assert list(outputs) == ["P4", "P5", "P6", "P7"]
    assert outputs["P6"].shape[1:3] == (2, 2) and outputs["P7"].shape[1:3] == (1, 1)
    if coarse == "pool":
        np.testing.assert_array_equal(outputs["P6"], outputs["P5"][:, ::2, ::2])
        assert not neck.downs
        return
    source = pyramid["P5"] if coarse == "input" else outputs["P5"]
    np.testing.assert_allclose(outputs["P6"], neck.downs["P6"](source), atol=1e-5)
    positive = np.maximum(outputs["P6"], 0)
    np.testing.assert_allclose(outputs["P7"], neck.downs["P7"](positive), atol=1e-5)
    assert (outputs["P6"] < 0).any()  # the ReLU is before P7 alone


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # 1x1: (512 + 1024 + 2048 + 3) * 256; 3x3: 3 * (9 * 256 + 1) * 256; P6 and P7.
        ({}, 918_272 + 1_770_240 + 4_718_848 + 590_080),
        ({"coarse": "output"}, 918_272 + 1_770_240 + 2 * 590_080),
        ({"coarse": "pool", "num_coarse": 1}, 918_272 + 1_770_240),
    ],
)
def test_counts_on_the_widths_of_resnet50(options, expected):
    neck = FPN(**options)
    channels = {"P3": 512, "P4": 1024, "P5": 2048}
    neck({level: keras.Input((8, 8, c)) for level, c in channels.items()})
    assert trainable(neck) == expected


def test_sizes_that_are_not_known_beforehand():
    levels = ("P4", "P5")
    neck = FPN(levels, channels=4)
    inputs = {level: keras.Input((None, None, 3), name=level) for level in levels}
    model = keras.Model(inputs, neck(inputs))
    pyramid = features(levels)
    for level, value in model.predict_on_batch(pyramid).items():
        np.testing.assert_allclose(value, neck(pyramid)[level], atol=1e-5)


def test_saved_and_loaded_it_gives_the_same(tmp_path):
    levels = ("P4", "P5")
    inputs = {level: keras.Input((*SIZES[level], 3), name=level) for level in levels}
    model = keras.Model(inputs, FPN(levels, coarse="output", channels=4)(inputs))
    model.save(tmp_path / "neck.keras")
    again = keras.saving.load_model(tmp_path / "neck.keras")
    expected = model.predict_on_batch(features(levels))
    for level, value in again.predict_on_batch(features(levels)).items():
        np.testing.assert_array_equal(value, expected[level])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ("P3", "P5")}, r"adjacent and ascending.*\('P3', 'P5'\)"),
        ({"levels": ("P5", "P4")}, "adjacent"),
        ({"levels": ()}, "adjacent"),
        ({"coarse": "C5"}, "one of input, output, pool.*'C5'"),
    ],
)
def test_wrong_options_say_what_is_right(options, message):
    with pytest.raises(ValueError, match=message):
        FPN(**options)

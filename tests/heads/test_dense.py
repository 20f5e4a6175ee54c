"""One head for RetinaNet, SSD and the RPN: order, sharing, counts, first values."""

import keras
import numpy as np
import pytest

from visionkit.heads.dense import DenseHead

SIZES = {"P3": (3, 4), "P4": (2, 2), "P10": (1, 1)}


def features(channels=3, seed=0):
    rng = np.random.default_rng(seed)
    if isinstance(channels, int):
        channels = dict.fromkeys(SIZES, channels)
    return {
        level: rng.normal(size=(2, *size, channels[level])).astype("float32")
        for level, size in SIZES.items()
    }


def trainable(layer):
    return sum(int(np.prod(w.shape)) for w in layer.trainable_weights)


def inputs(channels, levels):
    return {level: keras.Input((4, 5, channels)) for level in levels}


@pytest.mark.parametrize("shared_levels", [True, False])
def test_rows_run_over_levels_rows_columns_and_anchors(shared_levels):
    # Given in another order than that of the levels, which is by number.
    anchors = {"P10": 2, "P3": 2, "P4": 2} if shared_levels else None
    anchors = anchors or {"P10": 1, "P3": 2, "P4": 3}
    head = DenseHead(5, anchors, kernel_size=1, shared_levels=shared_levels)
    pyramid = features() if shared_levels else features({"P3": 3, "P4": 4, "P10": 5})
    outputs = head(pyramid)
    for name, size in (("classes", 5), ("boxes", 4)):
        rows = []
        for level, (height, width) in SIZES.items():
            part = "P3" if shared_levels else level
            kernel, bias = head.predictors[part][name][-1].get_weights()
            for y in range(height):
                for x in range(width):
                    values = pyramid[level][:, y, x] @ kernel[0, 0] + bias
                    for a in range(anchors[level]):
                        rows.append(values[:, a * size : (a + 1) * size])
        np.testing.assert_allclose(outputs[name], np.stack(rows, 1), atol=1e-5)


FIVE = [f"P{i}" for i in range(3, 8)]


@pytest.mark.parametrize(
    ("head", "channels", "expected"),
    [
        # RetinaNet: 8 convolutions of 256, predictors of 9 * 80 and 9 * 4 filters.
        (
            DenseHead(80, dict.fromkeys(FIVE, 9), depth=4, prior=0.01),
            256,
            8 * 590_080 + 1_659_600 + 82_980,
        ),
        # RPN of Faster R-CNN with FPN: 3x3 conv, 3 scores and 12 deltas by 1x1.
        (
            DenseHead(
                1, dict.fromkeys(FIVE, 3), depth=1, shared_tower=True, kernel_size=1
            ),
            256,
            590_080 + 771 + 3_084,
        ),
        # Batch normalisation in place of biases: 256 less and 5 levels * 512 more.
        (
            DenseHead(80, dict.fromkeys(FIVE, 9), depth=4, normalization="batch"),
            256,
            8 * (590_080 - 256 + 5 * 512) + 1_659_600 + 82_980,
        ),
        # SSDLite on 32 channels: depthwise, its normalisation, 1x1.
        (
            DenseHead(3, {"P3": 6}, shared_levels=False, separable=True),
            32,
            2 * (9 * 32 + 64) + 33 * 6 * 3 + 33 * 6 * 4,
        ),
    ],
)
def test_counts_are_those_of_the_published_heads(head, channels, expected):
    head(inputs(channels, head.num_anchors))
    assert trainable(head) == expected


def test_first_values_are_the_prior_and_no_deltas():
    head = DenseHead(9, {"P3": 2}, depth=2, channels=64, prior=0.01)
    outputs = head({"P3": np.zeros((1, 2, 3, 64), "float32")})
    scores = keras.ops.sigmoid(outputs["classes"])
    np.testing.assert_allclose(scores, 0.01, rtol=1e-4)
    assert not np.any(outputs["boxes"])
    for steps in head.predictors["P3"].values():
        assert np.std(steps[-1].kernel) == pytest.approx(0.01, rel=0.1)
    # A tower passes its signal on.
    x = np.random.default_rng(0).normal(size=(4, 12, 16, 64)).astype("float32")
    for conv in head.towers["P3"]["classes"]:
        x = np.maximum(conv(x), 0)
    assert np.sqrt(np.mean(x**2)) == pytest.approx(1, abs=0.3)


def test_each_level_has_statistics_of_its_own():
    anchors = {"P3": 1, "P4": 1}
    head = DenseHead(2, anchors, depth=1, channels=8, normalization="batch")
    pyramid = {
        "P3": np.random.default_rng(0).normal(size=(2, 3, 4, 3)),
        "P4": np.zeros((2, 2, 2, 3)),
    }
    head(pyramid, training=True)
    moved = {
        level: np.abs(towers["classes"][0].moving_mean).max()
        for level, towers in head.norms.items()
    }
    assert moved["P3"] > 0 and moved["P4"] == 0
    assert len(head.towers) == 1


def test_half_precision_gives_single_precision_outputs(tmp_path):
    head = DenseHead(2, {"P3": 2}, depth=1, channels=8, dtype="mixed_bfloat16")
    x = keras.Input((3, 4, 5), name="P3", dtype="float32")
    model = keras.Model({"P3": x}, head({"P3": x}))
    assert {v.dtype for v in model.output.values()} == {"float32"}
    model.save(tmp_path / "head.keras")
    again = keras.saving.load_model(tmp_path / "head.keras")
    data = {"P3": np.random.default_rng(0).normal(size=(2, 3, 4, 5))}
    expected = model.predict_on_batch(data)
    for name, value in again.predict_on_batch(data).items():
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": 1.0}, r"`prior` must be in \(0, 1\).*1.0"),
        ({"normalization": "group"}, "must be one of .*'group'"),
        ({"num_anchors": {"P3": 4, "P4": 6}}, "equally many anchors.*'P4': 6"),
    ],
)
def test_wrong_options_say_what_is_right(options, message):
    with pytest.raises(ValueError, match=message):
        DenseHead(2, **{"num_anchors": {"P3": 1}, **options})

"""The path aggregation network keeps the levels and lets every one see the others."""

import keras
import numpy as np
import pytest

from visionkit.necks.pan import PAN


def pyramid(height, width, channels=(5, 7, 6), seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"P{n}": rng.normal(size=(2, -(-height // 2**n), -(-width // 2**n), c)).astype(
            "float32"
        )
        for n, c in zip((3, 4, 5), channels, strict=True)
    }


@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_levels_keep_their_sizes_and_get_the_widths(size):
    features = pyramid(*size)
    outputs = PAN((8, 12, 16), blocks=2)(features)
    assert list(outputs) == ["P3", "P4", "P5"]
    for (level, output), width in zip(outputs.items(), (8, 12, 16), strict=True):
        assert output.shape == (*features[level].shape[:3], width)


def test_every_level_reads_every_other():
    neck = PAN((8, 12, 16))
    before = neck(pyramid(64, 96))
    for changed in before:
        features = pyramid(64, 96)
        features[changed] = features[changed] + 1
        after = neck(features)
        for level in before:
            assert float(keras.ops.max(keras.ops.abs(after[level] - before[level]))) > 0


def test_its_weights_survive_saving(tmp_path):
    features = pyramid(64, 96)
    inputs = {name: keras.Input(x.shape[1:], name=name) for name, x in features.items()}
    neck = PAN((8, 12), 2, levels=("P4", "P5"))
    model = keras.Model(inputs, neck({k: inputs[k] for k in ("P4", "P5")}))
    model.save(tmp_path / "neck.keras")
    again = keras.models.load_model(tmp_path / "neck.keras")
    for level, expected in model.predict_on_batch(features).items():
        np.testing.assert_allclose(
            again.predict_on_batch(features)[level], expected, atol=1e-6
        )


def test_one_width_per_level():
    with pytest.raises(ValueError, match="one number per level"):
        PAN((8, 12))

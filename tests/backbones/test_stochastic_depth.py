import keras
import numpy as np
import pytest

from visionkit.backbones import build_backbone
from visionkit.backbones.stochastic_depth import StochasticDepth


def drops(backbone):
    return [x for x in backbone.layers if isinstance(x, StochasticDepth)]


def test_whole_images_are_dropped_in_training_and_the_mean_stays():
    keras.utils.set_random_seed(0)
    layer = StochasticDepth(0.25)
    images = np.ones((4000, 2, 3, 1), "float32")
    np.testing.assert_array_equal(layer(images, training=False), images)
    kept = keras.ops.convert_to_numpy(layer(images, training=True))
    np.testing.assert_allclose(np.unique(kept), [0, 1 / 0.75], rtol=1e-6)
    assert (kept == kept[:, :1, :1]).all()
    assert (kept[:, 0, 0, 0] == 0).mean() == pytest.approx(0.25, abs=0.03)
    layer.trainable = False
    np.testing.assert_array_equal(layer(images, training=True), images)


def test_rates_grow_linearly_over_the_residual_blocks_and_are_saved(tmp_path):
    backbone = build_backbone("resnet18", (32, 64), stochastic_depth=0.4)
    rates = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]
    assert [x.rate for x in drops(backbone)] == pytest.approx(rates)
    backbone.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [x.rate for x in drops(again)] == pytest.approx(rates)


def test_it_is_the_residual_branch_that_is_dropped():
    backbone = build_backbone("resnet18", (32, 64), stochastic_depth=0.4)
    first = drops(backbone)[0]
    assert first.input is backbone.get_layer("conv2_block1_2_bn").output
    assert drops(backbone)[2].input is backbone.get_layer("conv3_block1_2_bn").output
    add = backbone.get_layer("conv2_block1_add")
    shortcut, branch = add.input
    assert shortcut is backbone.get_layer("pool1_pool").output
    assert branch is first.output


def test_inference_is_that_of_the_plain_backbone_and_training_is_not(tmp_path):
    plain = build_backbone("mobilenet_v2_035", (32, 64))
    plain.save_weights(tmp_path / "plain.weights.h5")
    deep = build_backbone(
        "mobilenet_v2_035",
        (32, 64),
        weights=tmp_path / "plain.weights.h5",
        stochastic_depth=0.9,
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), "uint8")
    expected = plain.predict_on_batch(images)["P5"]
    np.testing.assert_array_equal(deep.predict_on_batch(images)["P5"], expected)
    drawn = [np.asarray(deep(images, training=True)["P5"]) for _ in range(2)]
    assert np.abs(drawn[0] - drawn[1]).max() > 0


def test_a_network_with_drops_of_its_own_keeps_their_places_and_rule():
    with keras.StatelessScope(initialize_variables=False):
        published = drops(build_backbone("efficientnet_b0"))
        none = drops(build_backbone("efficientnet_b0", stochastic_depth=0.0))
        half = drops(build_backbone("efficientnet_b0", stochastic_depth=0.1))
    keras.utils.clear_session()
    # 16 blocks, of which 9 have a shortcut; block b of them drops 0.2 * b / 16.
    blocks = [2, 4, 6, 7, 9, 10, 12, 13, 14]
    assert [x.rate for x in published] == pytest.approx([0.2 * b / 16 for b in blocks])
    assert [x.rate for x in half] == pytest.approx([0.1 * b / 16 for b in blocks])
    assert {x.rate for x in none} == {0.0}


@pytest.mark.parametrize(
    ("name", "rate", "message"),
    [
        ("lenet5", 0.1, "lenet5 has no residual additions"),
        ("shufflenet_v2_050", 0.1, "no residual additions"),
        ("nasnet_mobile", 0.1, "has cells in place of residual branches"),
        ("resnet18", 1.0, r"in \[0, 1\), or None.*stochastic_depth=1.0"),
    ],
)
def test_what_cannot_be_dropped_is_refused(name, rate, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, stochastic_depth=rate)

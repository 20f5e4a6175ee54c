"""U-Net: the published counts and sizes, and the mirrored image in front of it."""

import keras
import numpy as np
import pytest
from contracts import check_segmenter, drawn_masks
from dense_cases import tiny_backbone

import visionkit as vk
from visionkit.backbones.unet import MirrorBorder, unpadded


@pytest.fixture
def without_values():
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def count(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def small_unet(size=(None, None), **options):
    """A U-Net of few channels without dropout, of which nothing else is small."""
    keras.utils.set_random_seed(0)
    backbone = vk.build_backbone("unet_16", size)
    backbone.get_layer("dropout").rate = 0.0
    return vk.UNet(backbone, 3, **{"width": 4, **options})


@pytest.mark.parametrize(
    ("backbone", "channels", "num_classes", "expected"),
    [("unet", 1, 2, 31_030_658), ("unet_norm", 3, 21, 31_044_821)],
)
def test_published_counts(backbone, channels, num_classes, expected, without_values):
    model = vk.UNet(vk.build_backbone(backbone, channels=channels), num_classes)
    assert count(model) == expected
    assert [model.backbone.output[f"P{n}"].shape[-1] for n in range(5)] == [
        64 * 2**n for n in range(5)
    ]


def test_unpadded_572_gives_388():
    """The sizes of the paper's figure 1, from the image to the scores."""
    model = vk.UNet(vk.build_backbone("unet_16", (388, 388)), 2, padding="valid")
    assert model.backbone.get_layer("border").output.shape == (None, 572, 572, 3)
    sizes = [model.backbone.output[f"P{n}"].shape[1] for n in range(5)]
    assert sizes == [568, 280, 136, 64, 28]
    scores = keras.Model(model.input, model.head.output)
    assert scores.output.shape == (None, 388, 388, 2)
    assert model.output.shape == (None, 388, 388, 2)
    # The same weights as the padded network has.
    padded = vk.UNet(vk.build_backbone("unet_16", (388, 388)), 2)
    assert [w.shape for w in padded.weights] == [w.shape for w in model.weights]


@pytest.mark.parametrize("size", [(7, 130), (388, 389), (1, 20)])
def test_border_is_numpys_reflection(size):
    x = np.random.default_rng(0).normal(size=(2, *size, 1)).astype("float32")
    found = keras.ops.convert_to_numpy(MirrorBorder()(x))
    needed = [next(n for n in range(s, s + 16) if n % 16 == 4) for s in size]
    border = [(92, 92 + n - s) for n, s in zip(needed, size, strict=True)]
    expected = np.pad(x, [(0, 0), *border, (0, 0)], mode="reflect")
    np.testing.assert_array_equal(found, expected)
    assert MirrorBorder().compute_output_shape(x.shape) == expected.shape


def test_unpadded_logits_have_seen_image_all_around():
    """Of an image's crop they are those of the image, pixel for pixel."""
    model = small_unet(padding="valid")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 260, 292, 3), "uint8")
    whole = keras.ops.convert_to_numpy(model(image))
    part = keras.ops.convert_to_numpy(model(image[:, 16:244, 32:276]))
    seen = np.s_[:, 92 : 228 - 92, 92 : 244 - 92]
    np.testing.assert_allclose(
        part[seen], whole[:, 16:244, 32:276][seen], atol=1e-4 * np.ptp(whole)
    )
    assert np.abs(part - whole[:, 16:244, 32:276]).max() > 1e-2 * np.ptp(whole)


def test_keeps_the_contract_of_segmenters(tmp_path):
    check_segmenter(small_unet, tmp_path)


def test_unpadded_keeps_the_contract_and_is_saved(tmp_path):
    def build(size):
        return small_unet(size, padding="valid")

    check_segmenter(build, tmp_path, compiled=False)
    model = build((40, 33))
    model.save(tmp_path / "model.keras")
    again = vk.load(tmp_path / "model.keras")
    images, _ = drawn_masks((40, 33))
    np.testing.assert_allclose(again(images), model(images), atol=1e-5)
    # A copy of it is not mirrored twice.
    assert unpadded(again.backbone) is again.backbone
    assert again.output.shape == (None, 40, 33, 3)


@pytest.mark.parametrize("levels", [(1, 2, 3, 4, 5), (2, 4), (3,)])
def test_any_backbone_is_an_encoder(levels):
    """Its levels are read where it has them, and odd sizes come out as they went in."""
    model = vk.UNet(tiny_backbone((None, None), levels), 3)
    assert list(model.head.steps) == [f"P{n}" for n in reversed(range(max(levels)))]
    filters = [up.filters for up, _ in model.head.steps.values()]
    assert filters == [16 * 2**n for n in reversed(range(max(levels)))]
    assert model.head.norm  # as the backbone has
    images, _ = drawn_masks((45, 67))
    logits = keras.ops.convert_to_numpy(model(images))
    assert logits.shape == (2, 45, 67, 3) and np.ptp(logits) > 0
    changed = {f"P{n}": [] for n in levels}
    features = model.backbone(images)
    for level in changed:  # every level has a say
        other = {**features, level: features[level] + 1.0}
        assert np.abs(model.head(other) - model.head(features)).max() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "valid"}, "'same', or 'unet'|`padding='same'`"),
        ({"padding": "mirror"}, r"one of \('same', 'valid'\)"),
    ],
)
def test_wrong_options_say_what_is_right(options, message):
    with pytest.raises(ValueError, match=message):
        vk.UNet(tiny_backbone(), 3, **options)


@pytest.mark.slow
def test_a_training_step_of_the_published_network():
    backbone = vk.build_backbone("unet", (388, 388), channels=1)
    model = vk.UNet(backbone, 2, padding="valid")
    images, masks = drawn_masks((388, 388), count=1)
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.99))
    logs = model.train_on_batch(images[..., :1], masks % 2, return_dict=True)
    assert np.isfinite(logs["loss"])

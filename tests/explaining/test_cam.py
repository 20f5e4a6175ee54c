"""Heat lies where the answer comes from, whatever the model was put through."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from nets import SIZE, bright_or_dark, hottest, square

import visionkit as vk
from visionkit.explaining import eigen_cam, feature_maps, filters, grad_cam
from visionkit.postprocess import ClassProbabilities
from visionkit.tasks.task import VisionTask

PLACES = [(0, 0), (8, 60), (36, 4), (20, 32)]


@pytest.fixture(scope="module")
def spotter():
    return bright_or_dark()


@pytest.fixture(scope="module")
def squares():
    return np.stack([square(*place) for place in PLACES])


@pytest.mark.parametrize("method", [grad_cam, eigen_cam])
def test_heat_is_on_the_bright_square(method, spotter, squares):
    options = {"labels": 0} if method is grad_cam else {}
    heat = method(spotter, squares, **options)
    assert heat.shape == (4, *SIZE) and heat.dtype == np.float32
    assert heat.min() >= 0
    np.testing.assert_allclose(heat.max(axis=(1, 2)), 1)
    for each, (top, left) in zip(heat, PLACES, strict=True):
        np.testing.assert_allclose(hottest(each), (top + 3.5, left + 3.5), atol=1)
        assert each[square(top, left)[..., 0] == 0].mean() < 0.05


def test_grad_cam_explains_the_class_asked_for(spotter, squares):
    # Mostly black pictures are predicted "dark", which the square is not.
    predicted = grad_cam(spotter, squares)
    np.testing.assert_array_equal(predicted, grad_cam(spotter, squares, labels=1))
    for heat, (top, left) in zip(predicted, PLACES, strict=True):
        assert heat[top + 3, left + 3] < 0.3 < 0.9 < np.median(heat)
    mixed = grad_cam(spotter, squares, labels=[0, 1, 1, 0])
    bright = grad_cam(spotter, squares, labels=0)
    np.testing.assert_allclose(mixed[[0, 3]], bright[[0, 3]], atol=1e-6)
    np.testing.assert_allclose(mixed[[1, 2]], predicted[[1, 2]], atol=1e-6)


def test_a_net_that_sees_one_corner_lights_up_that_corner():
    model = bright_or_dark(window=(16, 24))
    images = np.full((1, *SIZE, 3), 200, np.uint8)
    for heat in (grad_cam(model, images), eigen_cam(model, images)):
        assert heat[0, :12, :20].min() > 0.7
        assert heat[0, 20:].max() == 0 == heat[0, :, 28:].max()


def test_grad_cam_of_a_pooled_top_is_the_class_activation_map(classifier):
    """Zhou et al. 2016: with average pooling the weights are those of the top."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 40, 56, 3), np.uint8)
    logits = keras.ops.convert_to_numpy(classifier(images))
    kernel, _ = classifier.get_layer("top").get_weights()
    activation = keras.ops.convert_to_numpy(classifier.backbone(images)["P5"])
    cam = np.stack([activation[i] @ kernel[:, logits[i].argmax()] for i in range(3)])
    expected = keras.ops.image.resize(np.maximum(cam, 0)[..., None], (40, 56))[..., 0]
    expected = keras.ops.convert_to_numpy(expected)
    assert expected.any()
    expected /= np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-30)
    np.testing.assert_allclose(grad_cam(classifier, images), expected, atol=1e-5)


def test_eigen_cam_is_the_first_principal_component(classifier):
    from sklearn.decomposition import PCA

    images = np.random.default_rng(1).integers(0, 256, (1, 40, 56, 3), np.uint8)
    (activation,) = feature_maps(classifier, images)
    height, width, channels = activation.shape
    flat = activation.reshape(-1, channels)
    component = PCA(1).fit_transform(flat)[:, 0]
    component *= np.sign(np.corrcoef(component, flat.mean(axis=1))[0, 1])
    coarse = np.maximum(component, 0).reshape(1, height, width, 1)
    expected = np.asarray(keras.ops.image.resize(coarse, (40, 56)))[..., 0]
    heat = eigen_cam(classifier, images)
    np.testing.assert_allclose(heat, expected / expected.max(), atol=1e-4)


def test_a_batch_of_one_and_a_saved_model_give_the_same_heat(
    classifier, tmp_path, squares
):
    images = np.random.default_rng(2).integers(0, 256, (3, 40, 56, 3), np.uint8)
    classifier.save(tmp_path / "model.keras")
    loaded = vk.load(tmp_path / "model.keras")
    for method in (grad_cam, eigen_cam):
        heat = method(classifier, images)
        np.testing.assert_allclose(method(loaded, images), heat, atol=1e-5)
        np.testing.assert_allclose(
            method(classifier, images[1:2])[0], heat[1], atol=1e-5
        )
    # Looking leaves the model as it was.
    loaded.save(tmp_path / "again.keras")
    again = vk.load(tmp_path / "again.keras").predict(images, verbose=0)
    expected = classifier.predict(images, verbose=0)
    np.testing.assert_allclose(again["probabilities"], expected["probabilities"])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_gives_nearly_the_same_heat(policy, squares, spotter):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        half = bright_or_dark()
    finally:
        keras.config.set_dtype_policy(before)
    assert half.backbone.get_layer("blocks").compute_dtype == policy[6:]
    for method in (grad_cam, eigen_cam):
        heat = method(half, squares)
        assert heat.dtype == np.float32
        np.testing.assert_allclose(heat, method(spotter, squares), atol=0.02)


@keras.saving.register_keras_serializable(package="tests")
class Pixels(VisionTask):
    """A U-shaped segmenter over a backbone with nesting, sharing and dynamic size."""

    task = "semantic_segmentation"

    def __init__(self):
        images = inputs = keras.Input((None, None, 3))
        relu = keras.layers.ReLU(name="relu")  # one layer, called three times
        x = keras.layers.Conv2D(4, 3, 2, "same", name="first")(images)
        p1 = relu(x)
        block = keras.Sequential(
            [keras.layers.Conv2D(4, 3, padding="same", name="inner"), relu]
        )
        p1 = p1 + block(p1)
        p2 = relu(keras.layers.Conv2D(8, 3, 2, "same", name="second")(p1))
        backbone = keras.Model(inputs, {"P1": p1, "P2": p2}, name="nested")
        images = keras.Input((None, None, 3), name="images")
        levels = backbone(images)
        up = keras.layers.UpSampling2D(2)(levels["P2"])
        x = keras.layers.Concatenate()([up, levels["P1"]])
        logits = keras.layers.Conv2D(2, 1, dtype="float32")(x)
        preprocessing = vk.Preprocessing((16, 24))
        super().__init__(
            images,
            logits,
            backbone=backbone,
            postprocess=ClassProbabilities(),
            preprocessing=preprocessing,
            class_names=("a", "b"),
        )


def test_segmenters_say_what_their_score_is():
    keras.utils.set_random_seed(0)
    model = Pixels()
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 24, 3))
    with pytest.raises(ValueError, match="no default score for the task 'semantic_"):
        grad_cam(model, images)
    for level, size in (("P1", 8), ("inner", 8), ("first", 8), (None, 4)):
        heat = grad_cam(model, images, level=level, score_of=_class_b)
        assert heat.shape == (2, 16, 24) and np.isfinite(heat).all()
        assert feature_maps(model, images, level).shape[1] == size
    with pytest.raises(ValueError, match=r"one score per image, \(2,\)"):
        grad_cam(model, images, score_of=lambda logits: logits)


def test_the_gradient_follows_every_path_from_a_level():
    """Against finite differences, though P1 reaches the score past P2 too."""
    from visionkit.explaining.cam import _gradient
    from visionkit.explaining.taps import as_images, find_tap, run_tapped

    keras.utils.set_random_seed(0)
    model = Pixels()
    images = np.random.default_rng(0).uniform(0, 255, (1, 16, 24, 3))
    images = as_images(model, images)
    tap = find_tap(model, "P1", images.shape)

    def score(delta):
        return keras.ops.sum(_class_b(run_tapped(model, images, tap, delta)[1])), ()

    zeros = np.zeros(tap.shape, "float32")
    gradient, _ = _gradient(score, keras.ops.convert_to_tensor(zeros))
    gradient = keras.ops.convert_to_numpy(gradient)
    for place in ((0, 1, 2, 3), (0, 5, 7, 0)):
        step = zeros.copy()
        step[place] = 1.0
        slope = (float(score(step)[0]) - float(score(-step)[0])) / 2
        assert gradient[place] == pytest.approx(slope, rel=1e-2, abs=1e-3)


def _class_b(logits):
    return keras.ops.mean(logits[..., 1], axis=(1, 2))


def test_filters_are_the_first_kernels(spotter, classifier):
    np.testing.assert_allclose(filters(spotter)[..., 0], 1 / (48 * 255))
    assert filters(spotter, "blocks").shape == (4, 4, 3, 2)
    assert filters(Pixels(), "inner").shape == (3, 3, 4, 4)
    with pytest.raises(ValueError, match=r"no convolution 'block'.*mean 'blocks'"):
        filters(spotter, "block")


def test_what_cannot_be_explained_is_refused(spotter, squares):
    for method in (grad_cam, eigen_cam, feature_maps):
        with pytest.raises(ValueError, match=r"no level or layer 'P5'.*levels: P2\."):
            method(spotter, squares, level="P5")
        with pytest.raises(ValueError, match=r"must be \(B, h, w, C\)"):
            method(spotter, squares[0])
    for labels in ([0, 1], 2, -1, [0.0] * 4):
        with pytest.raises(ValueError, match="`labels` must be"):
            grad_cam(spotter, squares, labels=labels)


def test_a_backbone_that_does_not_pad_has_its_heat_where_its_fields_are():
    """The last 5x5 maps of LeNet-5 stand for the middle 20 pixels of 32."""
    from visionkit.explaining.taps import find_tap

    model = vk.ImageClassifier(vk.build_backbone("lenet5", (32, 40)), 2)
    taps = [find_tap(model, level, (1, 32, 40, 3)) for level in ("S4", "P1", "C1")]
    assert [tap.covered for tap in taps] == [(20, 28), (20, 28), (32, 40)]
    # The rows that one cell depends on have their middle where the cell is drawn.
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    altered = np.stack([image] * 33)
    altered[np.arange(32), np.arange(32)] ^= 255
    maps = feature_maps(model, altered)[:, 1, 3]
    rows = np.flatnonzero(np.abs(maps[:32] - maps[32]).max(axis=-1) > 1e-6)
    assert rows.mean() + 0.5 == 6 + 4 * (1 + 0.5)
    heat = grad_cam(model, image[None])
    assert heat.shape == (1, 32, 40) and not heat[:, 0].any()


def test_nothing_to_see_is_no_heat(spotter):
    black = np.zeros((1, *SIZE, 3), np.uint8)
    assert not grad_cam(spotter, black, labels=0).any()
    assert not eigen_cam(spotter, black).any()


JAX = """
import sys
sys.modules["tensorflow"] = None
import keras, numpy as np
import visionkit as vk
from visionkit.explaining import eigen_cam, feature_maps, grad_cam
assert keras.backend.backend() == "jax"
folder = sys.argv[1]
model, images = vk.load(folder + "/model.keras"), np.load(folder + "/images.npy")
for method in (grad_cam, eigen_cam, feature_maps):
    expected = np.load(f"{folder}/{method.__name__}.npy")
    np.testing.assert_allclose(method(model, images), expected, atol=1e-4)
print("done")
"""


def test_jax_without_tensorflow_gives_the_same_heat(tmp_path):
    pytest.importorskip("jax")
    keras.utils.set_random_seed(0)
    model = vk.ImageClassifier(vk.build_backbone("lenet5", (40, 56)), 4)
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(3).integers(0, 256, (2, 40, 56, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    for method in (grad_cam, eigen_cam, feature_maps):
        np.save(tmp_path / method.__name__, method(model, images))
    done = subprocess.run(
        [sys.executable, "-c", JAX, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "done" in done.stdout, done.stderr

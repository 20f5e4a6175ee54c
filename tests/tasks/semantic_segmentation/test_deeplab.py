"""DeepLab: published counts, sizes, and one set of weights at two output strides."""

import keras
import numpy as np
import pytest
from contracts import check_segmenter, drawn_masks
from dense_cases import tiny_backbone

import visionkit as vk
from visionkit.backbones.atrous import output_stride
from visionkit.training.recipe import load_recipe
from visionkit.training.recipe_files import RecipeError

SIZE = (64, 96)
SMALL = {"head_channels": 16, "norm_momentum": 0.9}
KERAS_BIASES = (
    52_672  # of the convolutions of Keras' ResNet-101: one per normalised map
)


def tiny(size=SIZE, stride=16):
    """P1 to the level of this stride, of 8 to 40 channels."""
    return tiny_backbone(size, range(1, stride.bit_length()))


def conv(inside, out, kernel=1):
    """A convolution without bias and the scale and offset of its normalisation."""
    return inside * out * kernel**2 + 2 * out


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.fixture
def without_values():
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def test_counts_of_resnet101_are_the_published_ones(without_values):
    """Torchvision's V3 has a 3x3 convolution more; 58,753,973 is V3+ with one 3x3
    convolution in the decoder, the paper has two."""
    backbone = vk.build_backbone("resnet101", (128, 160), output_stride=16)
    v3 = vk.DeepLabV3(backbone, 21)
    extra = conv(256, 256, 3)
    assert extra == 590_336
    assert trainable(v3) == 58_630_997 - extra + KERAS_BIASES
    plus = vk.DeepLabV3Plus(backbone, 21)
    assert trainable(plus) == 58_753_973 + extra + KERAS_BIASES
    assert plus.get_layer("decoder").output.shape[1:] == (32, 40, 256)
    assert v3.output.shape == plus.output.shape == (None, 128, 160, 21)
    assert v3.preprocessing.resize == "letterbox"


def test_counts_of_the_separable_head():
    backbone = tiny()
    plain, separable = (
        vk.DeepLabV3Plus(backbone, 3, head_channels=16, separable=s)
        for s in (False, True)
    )

    def saved(inside):
        return conv(inside, 16, 3) - 9 * inside - 2 * inside - conv(inside, 16)

    saved = 3 * saved(32) + saved(16 + 48) + saved(16)
    assert trainable(plain) - trainable(separable) == saved


@pytest.mark.parametrize(
    ("stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))]
)
@pytest.mark.parametrize("size", [SIZE, (None, None), (65, 97)])
def test_rates_follow_the_output_stride(stride, rates, size):
    backbone = tiny(size, stride)
    assert output_stride(backbone) == stride
    model = vk.DeepLabV3(backbone, 3, **SMALL)
    assert model.get_layer("aspp").rates == rates


@pytest.mark.parametrize(
    ("network", "separable"), [(vk.DeepLabV3, True), (vk.DeepLabV3Plus, False)]
)
def test_segmenter(network, separable, tmp_path):
    def build(size):
        keras.utils.set_random_seed(0)
        return network(tiny(size), 3, separable=separable, dropout=0.0, **SMALL)

    check_segmenter(build, tmp_path, compiled=network is vk.DeepLabV3Plus)


@pytest.mark.parametrize(
    ("build", "separable"), [(vk.DeepLabV3, False), (vk.DeepLabV3Plus, True)]
)
def test_export_takes_every_size(build, separable, tmp_path):
    tf = pytest.importorskip("tensorflow")
    model = build(tiny((None, None)), 5, separable=separable, **SMALL)
    model.export(str(tmp_path), verbose=False)
    served = tf.saved_model.load(str(tmp_path))
    for size in ((65, 97), SIZE):
        images, _ = drawn_masks(size)
        images = images.astype("float32")
        logits = served.serve(images)
        assert logits.shape == (2, *size, 5)
        np.testing.assert_allclose(logits, model(images), atol=1e-5)


def test_another_output_stride_has_the_same_weights():
    backbone = vk.build_backbone(
        "mobilenet_v2_035",
        (96, 128),
        output_stride=16,
        freeze=["P1"],
        norm_momentum=0.9,
        stochastic_depth=0.1,
    )
    model = vk.DeepLabV3Plus(backbone, 3, class_names=("a", "b", "c"), **SMALL)
    rng = np.random.default_rng(0)
    for weight in model.weights:  # nothing is what a fresh model has
        weight.assign(weight + 0.1 * rng.uniform(0, 1, weight.shape))
    model.compile("sgd")
    finer = model.with_output_stride(8)
    assert type(finer) is vk.DeepLabV3Plus and finer.compiled
    assert finer.class_names == model.class_names
    assert finer.get_layer("aspp").rates == (12, 24, 36)
    assert output_stride(finer.backbone) == 8
    assert len(finer.weights) == len(model.weights)
    for a, b in zip(finer.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    layers = {layer.name: layer for layer in finer.backbone.layers}
    drops = 0
    for layer in model.backbone.layers:
        if layer.weights or hasattr(layer, "rate"):
            other = layers[layer.name]
            assert other.trainable == layer.trainable
            drops += hasattr(layer, "rate")
            for key in ("rate", "momentum"):
                assert getattr(other, key, None) == getattr(layer, key, None)
    assert drops == 10 and not layers["Conv1"].trainable

    images = rng.integers(0, 256, (1, 96, 128, 3), dtype="uint8")
    fine, coarse = (m.backbone(images) for m in (finer, model))
    np.testing.assert_allclose(fine["P3"], coarse["P3"], atol=1e-5)
    for level in ("P4", "P5"):
        assert fine[level].shape[1:3] == (12, 16) and coarse[level].shape[1:3] == (6, 8)
        scale = np.abs(coarse[level]).max()
        # `same` on an even size begins one pixel late.
        sampled = fine[level][:, 1::2, 1::2]
        np.testing.assert_allclose(sampled / scale, coarse[level] / scale, atol=1e-4)
    assert finer(images).shape == (1, 96, 128, 3)
    explicit = vk.DeepLabV3(backbone, 3, rates=[1, 4], **SMALL)
    explicit = explicit.with_output_stride(32)
    assert explicit.get_layer("aspp").rates == (1, 2)


def test_a_backbone_of_ones_own_keeps_its_output_stride():
    model = vk.DeepLabV3(tiny(), 3, **SMALL)
    with pytest.raises(ValueError, match="called 'tiny'"):
        model.with_output_stride(8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": [0, 6]}, "positive integers"),
        ({"rates": [6.5]}, "positive integers"),
        ({"num_classes": 1}, "2 to 255"),
        ({"backbone": tiny(stride=8), "dropout": 1.5}, "rate"),
    ],
)
def test_wrong_options_name_themselves(options, message):
    with pytest.raises(ValueError, match=message):
        vk.DeepLabV3Plus(**{"backbone": tiny(), "num_classes": 3, **SMALL, **options})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.multi_grid=[1, 2]", "model: `multi_grid` of resnet50 must be 3"),
        ("model.multi_grid=[]", r"model\.multi_grid: found \[\]"),
        ("model.backbone=mobilenet_v2", "model: `multi_grid` is for .*resnet18"),
        ("model.backbone=xception", "model: xception cannot be dilated"),
    ],
)
def test_holes_that_cannot_be_are_refused_before_anything_is_read(override, message):
    model = {"name": "deeplab_v3", "backbone": "resnet50", "image_size": [64, 96]}
    recipe = {
        "task": "semantic_segmentation",
        "model": {**model, "multi_grid": [1, 2, 4]},
        "data": {"source": "digits"},
        "train": {"epochs": 1},
    }
    assert load_recipe(recipe).model.multi_grid == [1, 2, 4]
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe, [override])


def test_v3_plus_needs_a_fine_level():
    backbone = tiny()
    coarse = keras.Model(backbone.input, {"P4": backbone.output["P4"]}, name="coarse")
    assert vk.DeepLabV3(coarse, 3, **SMALL).output.shape == (None, *SIZE, 3)
    with pytest.raises(ValueError, match="lacks P2"):
        vk.DeepLabV3Plus(coarse, 3, **SMALL)


def test_a_drawn_batch_is_learnt_by_heart():
    """With Adam, whose steps would let features that begin alike stay alike."""
    images, masks = drawn_masks((48, 64))
    keras.utils.set_random_seed(0)
    model = vk.DeepLabV3Plus(tiny((48, 64)), 3, separable=True, dropout=0.0, **SMALL)
    model.compile(keras.optimizers.Adam(5e-3))
    model.fit(images, masks, epochs=60, verbose=0)
    scores = model.evaluate(images, masks, verbose=0, return_dict=True)
    assert scores["mean_iou"] > 0.9, scores


def test_a_model_of_half_precision_stays_one_at_another_output_stride():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = vk.build_backbone("mobilenet_v2_035", SIZE, output_stride=16)
        model = vk.DeepLabV3(backbone, 3, **SMALL)
    finally:
        keras.config.set_dtype_policy(policy)
    for one in (model, model.with_output_stride(8)):
        assert one.get_layer("aspp").output.dtype == "bfloat16"
        assert one.backbone.output["P5"].dtype == "bfloat16"
        assert one.output.dtype == "float32"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [vk.DeepLabV3, vk.DeepLabV3Plus])
def test_a_training_step_of_the_published_size(kind):
    """Every kernel is moved by it (a bias before a normalisation cannot be)."""
    backbone = vk.build_backbone("resnet101", (513, 513), output_stride=16)
    model = kind(backbone, 21)
    images, masks = drawn_masks((513, 513), count=1)
    model.compile(keras.optimizers.SGD(1e-2))
    kernels = [w for w in model.trainable_weights if w.path.endswith("kernel")]
    before = [np.array(kernel) for kernel in kernels]
    logs = model.train_on_batch(images, masks, return_dict=True)
    assert np.isfinite(logs["loss"])
    pairs = zip(kernels, before, strict=True)
    still = [w.path for w, old in pairs if np.array_equal(np.array(w), old)]
    # One image: the pooled branch has one value, which its normalisation makes 0.
    assert still == ["aspp/whole/conv/kernel"]

"""FCN: the published counts, its upsampling, and a net that goes on from a coarser."""

import keras
import numpy as np
import pytest
from contracts import check_segmenter, drawn_masks
from dense_cases import tiny_backbone

import visionkit as vk
from visionkit.blocks import CropLike
from visionkit.heads.fcn import Bilinear


@pytest.fixture
def without_values():
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def count(weights):
    return sum(int(np.prod(w.shape)) for w in weights)


def small_fcn(size=(None, None), **options):
    keras.utils.set_random_seed(0)
    return vk.FCN(tiny_backbone(size), 3, **{"dropout": 0.0, **options})


@pytest.mark.parametrize(
    ("stride", "total", "scores_and_upsampling"),
    [
        (32, 136_152_917, 64**2 * 21**2),
        (16, 134_815_994, 513 * 21 + (4**2 + 32**2) * 21**2),
        (8, 134_489_759, 513 * 21 + 257 * 21 + (4**2 + 4**2 + 16**2) * 21**2),
    ],
)
def test_vgg16_gives_the_published_counts(
    stride, total, scores_and_upsampling, without_values
):
    backbone = vk.build_backbone("vgg16_fcn")
    model = vk.FCN(backbone, 21, stride=stride)
    assert count(model.trainable_weights) == total
    # fc6, fc7 and the scores of P5: what 32s has without its upsampling.
    assert total - scores_and_upsampling == 134_346_581
    fixed = vk.FCN(backbone, 21, stride=stride, learn_upsampling=False)
    upsampling = total - count(fixed.trainable_weights)
    assert upsampling == scores_and_upsampling - 21 * {32: 0, 16: 513, 8: 770}[stride]


def test_head_on_resnet50_has_the_published_count(without_values):
    """torchvision's network: 35,322,218 with ResNet-50 and the auxiliary head."""
    backbone = vk.build_backbone("resnet50")
    model = vk.FCN(backbone, 21, stride=32)
    resnet50 = 25_557_032 - 2049 * 1000
    auxiliary = 1024 * 256 * 9 + 2 * 256 + 257 * 21
    head = count(model.head.trainable_weights) - 64**2 * 21**2
    assert resnet50 + head + auxiliary == 35_322_218


def test_keeps_the_contract_of_segmenters(tmp_path):
    check_segmenter(small_fcn, tmp_path)


@pytest.mark.parametrize("factor", [2, 8])
def test_upsampling_begins_as_bilinear_interpolation(factor):
    """Inside the border, against Pillow, which has the same half-pixel centres."""
    from PIL import Image

    up = keras.layers.Conv2DTranspose(
        2, 2 * factor, factor, "same", use_bias=False, kernel_initializer=Bilinear()
    )
    x = np.random.default_rng(0).normal(size=(1, 5, 7, 2)).astype("float32")
    ours = keras.ops.convert_to_numpy(up(x))
    inside = slice(factor // 2, -(factor // 2))
    for channel in range(2):
        image = Image.fromarray(x[0, ..., channel])
        theirs = image.resize((7 * factor, 5 * factor), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(
            ours[0, inside, inside, channel],
            np.asarray(theirs)[inside, inside],
            atol=1e-5,
        )


def test_next_stride_begins_with_the_coarser_answers():
    coarse = small_fcn(stride=32)
    rng = np.random.default_rng(0)
    for weight in (*coarse.head.scores["P5"].weights, coarse.head.conv.kernel):
        weight.assign(rng.normal(0, 0.3, weight.shape))
    images, _ = drawn_masks((128, 192))
    expected = keras.ops.convert_to_numpy(coarse(images))
    middle = coarse.with_stride(16)
    fine = middle.with_stride(8)
    assert fine.get_config()["stride"] == 8 and fine.class_names == coarse.class_names
    # Two interpolations in a row are the one, but for half a cell around the centre of
    # each cell and at the border.
    y, x = (
        np.flatnonzero(np.abs(np.arange(s) % 32 - 15.5) > 8)[8:-8] for s in (128, 192)
    )
    found = keras.ops.convert_to_numpy(middle(images))
    same = np.ix_(range(len(images)), y, x)
    np.testing.assert_allclose(found[same], expected[same], atol=1e-4)
    assert np.ptp(expected[same]) > 0.1
    for model in (middle, fine):
        answers = keras.ops.convert_to_numpy(model(images)).argmax(-1)
        assert (answers == expected.argmax(-1)).mean() > 0.95


def test_what_a_stride_has_learnt_goes_on_to_the_next():
    model = small_fcn(stride=16)
    images, masks = drawn_masks((64, 96))
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    model.train_on_batch(images, masks)
    finer = model.with_stride(8)
    for name in ("conv", "norm", "scores", "doubled"):
        old, new = getattr(model.head, name), getattr(finer.head, name)
        pairs = (
            [(old[k], new[k]) for k in old] if isinstance(old, dict) else [(old, new)]
        )
        for a, b in pairs:
            for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
                np.testing.assert_array_equal(x, y)
    assert np.abs(finer.head.doubled["P5"].get_weights()[0]).max() > 1e-3
    assert not np.any(finer.head.scores["P3"].get_weights()[0])
    np.testing.assert_array_equal(
        model.backbone.get_weights()[0], finer.backbone.get_weights()[0]
    )


def test_crop_lies_on_the_first_pixel_or_the_centre():
    x = np.arange(6 * 7).reshape(1, 6, 7, 1)
    like = np.zeros((1, 4, 3, 5), "float32")
    np.testing.assert_array_equal(CropLike()(x, like), x[:, :4, :3])
    np.testing.assert_array_equal(CropLike(center=True)(x, like), x[:, 1:5, 2:5])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenet_v2_035", {"stride": 4}, r"one of \[8, 16, 32\]"),
        ("vgg16_atrous", {}, "lacks P5"),
        ("lenet5", {}, "lacks P3, P4, P5"),
        ("alexnet", {"stride": 32}, "classification only"),
    ],
)
def test_wrong_options_say_what_is_right(name, options, message, without_values):
    with pytest.raises(ValueError, match=message):
        vk.FCN(vk.build_backbone(name), 3, **options)


@pytest.mark.parametrize("num_classes", [1, 256])
def test_masks_are_bytes_and_one_value_is_void(num_classes):
    with pytest.raises(ValueError, match=r"must be 2 to 255.*void"):
        vk.FCN(tiny_backbone(), num_classes)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [32, 8])
def test_a_training_step_of_the_published_network(stride):
    model = vk.FCN(vk.build_backbone("vgg16_fcn", (500, 375)), 21, stride=stride)
    images, masks = drawn_masks((500, 375), count=1)
    model.compile(keras.optimizers.SGD(1e-3))
    before = model.head.scores["P5"].get_weights()[1]
    logs = model.train_on_batch(images, masks, return_dict=True)
    assert logs["loss"] == pytest.approx(np.log(21), rel=1e-3)  # all scores are zero
    assert (model.head.scores["P5"].get_weights()[1] != before).any()


@pytest.mark.parametrize("task", [vk.FCN, vk.UNet, vk.YOLO])
def test_refuses_levels_that_lie_on_another_stride(task):
    """Doubled, a dilated P5 would lie on a quarter of P4, without an error."""
    backbone = vk.build_backbone("mobilenet_v1_025", (64, 64), output_stride=16)
    with pytest.raises(ValueError, match=r"P5 must be at stride 32.*output_stride=16"):
        task(backbone, 3)

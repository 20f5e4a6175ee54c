import keras
import numpy as np
import pytest
from keras import ops

from visionkit.heads.mask import MaskHead
from visionkit.ops.roi_align import multilevel_roi_align

SMALL = {"output_size": 5, "channels": 6, "depth": 2}


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    sizes = {"P2": (9, 12), "P3": (5, 6)}
    pyramid = {
        level: rng.normal(size=(2, *size, 8)).astype("float32")
        for level, size in sizes.items()
    }
    boxes = rng.uniform(0, 36, (2, 4, 4)).astype("float32")
    boxes[..., 2:] += boxes[..., :2]
    return pyramid, boxes, np.array([[0, 2, 1, 2], [2, -1, 0, 1]])


def numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def test_every_region_has_the_channel_of_its_class(inputs):
    """Beside all channels of a plain 1x1 convolution."""
    pyramid, boxes, labels = inputs
    head = MaskHead(3, **SMALL)
    logits = head(*inputs)
    assert logits.shape == (2, 4, 10, 10)
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(6, 3)), rng.normal(size=3)
    head.masks.set_weights([kernel, bias])
    logits = numpy(head(*inputs))

    x = multilevel_roi_align(pyramid, boxes, 5, 2)
    x = ops.reshape(x, (8, 5, 5, 8))
    for layer in head.tower:
        x = layer(x)
        assert x.shape == (8, 5, 5, 6) and numpy(x).min() == 0
    every = numpy(head.double(x)) @ kernel + bias  # (8, 10, 10, 3)
    for i, label in enumerate(labels.ravel()):
        expected = every[i, ..., label] if label >= 0 else np.zeros((10, 10))
        np.testing.assert_allclose(logits.reshape(8, 10, 10)[i], expected, atol=1e-4)


def test_one_mask_for_whatever_class(inputs):
    pyramid, boxes, labels = inputs
    head = MaskHead(3, class_agnostic=True, **SMALL)
    first, second = (numpy(head(pyramid, boxes, x)) for x in (labels, labels * 0))
    assert head.masks.kernel.shape == (6, 1) and np.abs(first).max() > 0
    found = labels >= 0
    np.testing.assert_array_equal(first[found], second[found])
    assert (first[~found] == 0).all()


@pytest.mark.parametrize(
    ("options", "count"),
    [
        # Four 3x3 convolutions 590,080 each, doubling 262,400, 257 for each class:
        # the differences between Mask and Faster R-CNN of Detectron2 (44,343,216 less
        # 41,699,936) and of torchvision, which counts the background (44,401,393 less
        # 41,755,286).
        ({"num_classes": 80}, 2_643_280),
        ({"num_classes": 91}, 2_646_107),
        ({"num_classes": 80, "class_agnostic": True}, 2_622_977),
    ],
)
def test_published_size_has_the_published_number_of_parameters(options, count):
    pyramid = {"P2": keras.Input((8, 8, 256)), "P3": keras.Input((4, 4, 256))}
    head = MaskHead(**options)
    logits = head(pyramid, keras.Input((10, 4)), keras.Input((10,), dtype="int32"))
    assert logits.shape == (None, 10, 28, 28)
    assert head.count_params() == count
    assert not [w for w in head.weights if "norm" in w.path]


def test_half_precision_ends_in_float32(inputs):
    head = MaskHead(3, dtype="mixed_bfloat16", **SMALL)
    logits = head(*inputs)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert np.isfinite(numpy(logits)).all()


def test_config_gives_back_the_head():
    options = {"class_agnostic": True, "sampling_ratio": 1, "name": "head", **SMALL}
    head = MaskHead(5, **options)
    config = keras.saving.serialize_keras_object(head)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == head.get_config()
    assert options.items() <= head.get_config().items()

import sys

import keras
import numpy as np
import pytest
from keras import ops

from visionkit.heads.mask import MaskHead
from visionkit.heads.roi import BoxHead
from visionkit.ops.roi_align import multilevel_roi_align


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    sizes = {"P2": (9, 12), "P3": (5, 6)}
    pyramid = {
        level: rng.normal(size=(2, *size, 8)).astype("float32")
        for level, size in sizes.items()
    }
    boxes = rng.uniform(0, 36, (2, 7, 4)).astype("float32")
    boxes[..., 2:] += boxes[..., :2]
    boxes[1, 3:] = 0
    return pyramid, boxes


def numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def test_outputs_are_two_dense_layers_and_two_predictors(inputs):
    head = BoxHead(5, output_size=3, units=10)
    outputs = head(*inputs)
    assert outputs["classes"].shape == (2, 7, 6)
    assert outputs["boxes"].shape == (2, 7, 5, 4)
    x = numpy(multilevel_roi_align(*inputs, 3)).reshape(14, 3 * 3 * 8)
    for layer in head.hidden:
        kernel, bias = map(numpy, layer.weights)
        x = np.maximum(x @ kernel + bias, 0)
    kernel, bias = map(numpy, head.boxes.weights)
    expected = (x @ kernel + bias).reshape(2, 7, 5, 4)
    np.testing.assert_allclose(numpy(outputs["boxes"]), expected, atol=1e-5)


def test_published_size_has_the_published_number_of_parameters():
    pyramid = {"P2": keras.Input((8, 8, 256)), "P3": keras.Input((4, 4, 256))}
    head = BoxHead(80)
    head(pyramid, keras.Input((10, 4)))
    # 7 * 7 * 256 -> 1024 -> 1024 -> 81 and 320
    assert head.count_params() == 12_846_080 + 1_049_600 + 83_025 + 328_000
    assert not [w for w in head.weights if "norm" in w.path]


def test_half_precision_ends_in_float32(inputs):
    head = BoxHead(5, output_size=3, units=10, dtype="mixed_bfloat16")
    for output in head(*inputs).values():
        assert keras.backend.standardize_dtype(output.dtype) == "float32"
        assert np.isfinite(numpy(output)).all()


def test_config_gives_back_the_head():
    head = BoxHead(5, output_size=3, sampling_ratio=1, units=10, depth=1, name="head")
    config = keras.saving.serialize_keras_object(head)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == head.get_config()


@pytest.mark.parametrize("kind", [BoxHead, MaskHead])
def test_half_precision_does_not_move_boxes(kind, monkeypatch):
    # bfloat16 has steps of four pixels from 512 on.
    seen = []
    module = sys.modules[kind.__module__]

    def align(pyramid, boxes, *rest):
        seen.append(numpy(boxes))
        return multilevel_roi_align(pyramid, boxes, *rest)

    monkeypatch.setattr(module, "multilevel_roi_align", align)
    boxes = np.array([[[601.3, 402.7, 633.2, 431.4]]], "float32")
    pyramid = {"P2": ops.ones((1, 9, 12, 8), "bfloat16")}
    labels = [np.zeros((1, 1), "int32")] if kind is MaskHead else []
    kind(5, output_size=2, dtype="mixed_bfloat16")(pyramid, boxes, *labels)
    np.testing.assert_array_equal(seen[-1], boxes)

"""One training step of each detector at its published size (SSD's is in its own file).

pytest -m slow tests/tasks/detection/test_published_sizes.py
"""

import keras
import numpy as np
import pytest

import visionkit as vk


def yolo():
    return vk.YOLO(vk.build_backbone("csp_darknet_n", (640, 640)), 80)


def retinanet():
    return vk.RetinaNet(vk.build_backbone("resnet50", (640, 640)), 80)


def faster_rcnn():
    # 800x1333 of the paper, up to whole strides.
    return vk.FasterRCNN(vk.build_backbone("resnet50", (800, 1344)), 80)


@pytest.mark.slow
@pytest.mark.parametrize("build", [yolo, retinanet, faster_rcnn])
def test_a_training_step_of_the_published_size(build):
    """Every kernel is moved by it (a bias before a normalisation cannot be)."""
    keras.utils.set_random_seed(0)
    model = build()
    height, width = model.input.shape[1:3]
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (1, height, width, 3)).astype("float32")
    # Enough boxes of all sizes that each level has some to learn.
    corners = rng.uniform(0, 128, (1, 40, 2))
    sides = 2 ** rng.uniform(3, 9, (1, 40, 2))
    target = {
        "boxes": np.concatenate([corners, corners + sides], -1).astype("float32"),
        "labels": rng.integers(-1, 80, (1, 40)).astype("int32"),
    }
    model.compile(keras.optimizers.SGD(1e-3))
    kernels = [w for w in model.trainable_weights if w.path.endswith("kernel")]
    before = [np.array(kernel) for kernel in kernels]
    logs = model.train_on_batch(images, target, return_dict=True)
    assert np.isfinite(list(logs.values())).all(), logs
    still = [
        kernel.path
        for kernel, old in zip(kernels, before, strict=True)
        if np.array_equal(np.array(kernel), old)
    ]
    assert not still

"""Each detector learns: embedded scenes to AP50 0.90, real photographs by heart.

Run by `make test-learn`; the figures are printed as they come (`pytest -s`).
"""

from pathlib import Path

import keras
import numpy as np
import pytest

import visionkit as vk
from visionkit.data.sources.base import Subset
from visionkit.training.evaluation import evaluate_model

COCO = (Path(__file__).parents[3] / "../shared/data/coco128").resolve()
SIZE = (256, 320)

RECIPES = (
    "digits_yolo_n",
    "digits_ssd",
    "digits_retinanet",
    "digits_faster_rcnn",
)


@pytest.mark.learn
@pytest.mark.parametrize("recipe", RECIPES)
def test_learns_scenes_of_digits(recipe, tmp_path):
    metrics = vk.run(recipe, out=tmp_path / "run").metrics
    print(f"\n{recipe}: AP50 {metrics['map_50']:.4f}, AP {metrics['map']:.4f}")
    assert metrics["map_50"] >= 0.90


def yolo(num_classes):
    backbone = vk.build_backbone("csp_darknet_n", SIZE, norm_momentum=0.9)
    return vk.YOLO(backbone, num_classes)


def ssd(num_classes):
    backbone = vk.build_backbone("mobilenet_v2_035", SIZE, norm_momentum=0.9)
    return vk.SSD(backbone, num_classes, lite=True)


def retinanet(num_classes):
    backbone = vk.build_backbone("mobilenet_v2_035", SIZE, norm_momentum=0.9)
    small = {"sizes": [16, 32, 64, 128, 256]}
    options = {"neck": {"channels": 64}, "head": {"depth": 2}, "anchors": small}
    return vk.RetinaNet(backbone, num_classes, **options)


def faster_rcnn(num_classes):
    backbone = vk.build_backbone("mobilenet_v2_035", SIZE, norm_momentum=0.9)
    return vk.FasterRCNN(
        backbone,
        num_classes,
        neck={"channels": 64},
        anchors={"sizes": [16, 32, 64, 128, 256]},
        rpn={"num_proposals": 128},
        roi={"num_samples": 64, "units": 256},
    )


def eight_photographs(folder):
    """The first eight images of COCO128 that have boxes, none below 32x32 pixels."""
    if not COCO.is_dir():
        pytest.skip(f"needs {COCO.name} beside the project")
    (folder / "images").symlink_to(COCO / "images")
    (folder / "labels").symlink_to(COCO / "object_detection/labels")
    config = (COCO / "object_detection/config.yaml").read_text()
    (folder / "data.yaml").write_text(config)
    source = vk.build_source("yolo_txt", root=str(folder))
    chosen = []
    for index in range(len(source)):
        boxes = source.record(index)["boxes"]
        sides = boxes[:, 2:] - boxes[:, :2]
        if len(boxes) and sides.min() >= 32:
            chosen.append(index)
    return Subset(source, chosen[:8], "train")


@pytest.mark.learn
@pytest.mark.parametrize("build", [yolo, ssd, retinanet, faster_rcnn])
def test_learns_eight_photographs_by_heart(build, tmp_path):
    keras.utils.set_random_seed(0)
    source = eight_photographs(tmp_path)
    model = build(source.info.num_classes)
    model.class_names = source.info.class_names
    steps = 600
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - 50, alpha=0.01, warmup_target=2e-3, warmup_steps=50
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.0, clipnorm=10.0))
    data = vk.make_dataset(source, model.preprocessing, 8, order=vk.Order(0))
    history = model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0)
    metrics = evaluate_model(model, source, batch_size=8)
    loss = history.history["loss"][-1]
    print(f"\n{build.__name__}: AP50 {metrics['map_50']:.4f}, mean loss {loss:.3f}")
    assert metrics["map_50"] >= 0.95
    assert np.isfinite(loss)

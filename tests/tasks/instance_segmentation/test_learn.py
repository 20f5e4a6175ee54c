"""Mask R-CNN learns: embedded scenes to mask AP50 0.80, six photographs by heart.

Run by `make test-learn`; the figures are printed as they come (`pytest -s`).
"""

from pathlib import Path

import keras
import pytest

import visionkit as vk
from visionkit.data.sources.base import Subset
from visionkit.training.evaluation import evaluate_model

DATA = (Path(__file__).parents[3] / "../shared/data").resolve()
SIZE = (256, 320)


@pytest.mark.learn
def test_learns_scenes_of_digits(tmp_path):
    metrics = vk.run("digits_mask_rcnn", out=tmp_path / "run").metrics
    print(f"\nmask AP50 {metrics['mask_map_50']:.4f}, AP {metrics['mask_map']:.4f}")
    assert metrics["mask_map_50"] >= 0.80


@pytest.mark.learn
def test_learns_six_photographs_by_heart():
    if not (DATA / "nuts").is_dir():
        pytest.skip("needs nuts beside the project")
    keras.utils.set_random_seed(0)
    source = vk.build_source(
        "coco",
        annotations=str(DATA / "nuts/trainval.json"),
        images=str(DATA / "nuts/images"),
        task="instance_segmentation",
    )
    source = Subset(source, range(6), "train")
    weights = DATA / "weights/mobilenet_v2_1.0_224_imagenet_notop.weights.h5"
    backbone = vk.build_backbone(
        "mobilenet_v2", SIZE, weights=weights, norm_momentum=0.9
    )
    model = vk.MaskRCNN(
        backbone,
        source.info.num_classes,
        neck={"channels": 64},
        anchors={"sizes": [16, 32, 64, 128, 256]},
        rpn={"num_proposals": 128},
        roi={"num_samples": 64, "units": 256},
        mask={"channels": 64},
        preprocessing=vk.Preprocessing(SIZE),
        class_names=source.info.class_names,
    )
    steps = 250
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - 30, alpha=0.01, warmup_target=1e-3, warmup_steps=30
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.0, clipnorm=10.0))
    data = vk.make_dataset(source, model.preprocessing, 6, order=vk.Order(0))
    model.fit(data, steps_per_epoch=steps, verbose=0)
    metrics = evaluate_model(model, source, batch_size=6)
    print(f"\nmask AP50 {metrics['mask_map_50']:.4f}, AP {metrics['mask_map']:.4f}")
    assert metrics["mask_map_50"] >= 0.9

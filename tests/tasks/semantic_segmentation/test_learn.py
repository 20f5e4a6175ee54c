"""Each network learns: embedded scenes to stated figures, real photographs by heart.

Run by `make test-learn`; the figures are printed as they come (`pytest -s`).
"""

from pathlib import Path

import keras
import pytest
import yaml

import visionkit as vk
from visionkit.data.sources.base import Subset
from visionkit.training.evaluation import evaluate_model

DATA = (Path(__file__).parents[3] / "../shared/data").resolve()
SIZE = (256, 320)

# The strokes of digits are a few pixels wide: what a coarse grid of scores can say of
# them at best is little.
RECIPES = {
    "digits_fcn8s": 0.85,
    "digits_fcn16s": 0.70,
    "digits_fcn32s": 0.45,
    "digits_unet": 0.85,
    "digits_deeplab_v3": 0.70,
    "digits_deeplab_v3_plus": 0.85,
}


@pytest.mark.learn
@pytest.mark.parametrize("recipe", RECIPES)
def test_learns_scenes_of_digits(recipe, tmp_path):
    metrics = vk.run(recipe, out=tmp_path / "run").metrics
    print(f"\n{recipe}: mean IoU {metrics['mean_iou']:.4f}")
    assert metrics["mean_iou"] >= RECIPES[recipe]


def eight_photographs():
    """The first eight images of COCO128 that have a mask of things and stuff."""
    root = DATA / "coco128"
    if not root.is_dir():
        pytest.skip("needs coco128 beside the project")
    config = yaml.safe_load((root / "semantic_segmentation/config.yaml").read_text())
    source = vk.build_source(
        "mask_folder",
        root=str(root),
        images="images/train2017",
        masks="semantic_segmentation/masks/train2017",
        classes={name: value for value, name in config["classes"].items()},
        void="unlabeled",
    )
    return Subset(source, range(8), "train")


@pytest.mark.learn
def test_learns_eight_photographs_by_heart():
    keras.utils.set_random_seed(0)
    source = eight_photographs()
    weights = DATA / "weights/mobilenet_v2_1.0_224_imagenet_notop.weights.h5"
    backbone = vk.build_backbone(
        "mobilenet_v2", SIZE, weights=weights, output_stride=16, norm_momentum=0.9
    )
    model = vk.DeepLabV3Plus(
        backbone,
        source.info.num_classes,
        head_channels=128,
        norm_momentum=0.9,
        dropout=0.0,
        class_names=source.info.class_names,
    )
    steps = 300
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - 30, alpha=0.01, warmup_target=2e-3, warmup_steps=30
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.0, clipnorm=10.0))
    data = vk.make_dataset(source, model.preprocessing, 8, order=vk.Order(0))
    model.fit(data, steps_per_epoch=steps, verbose=0)
    metrics = evaluate_model(model, source, batch_size=8)
    print(f"\nDeepLab V3+: mean IoU {metrics['mean_iou']:.4f}")
    assert metrics["mean_iou"] >= 0.9

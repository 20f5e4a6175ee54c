"""The recipe that `new` prints for masks, of classes or instances, is complete."""

import numpy as np
import pytest
import yaml
from PIL import Image

from visionkit.tasks import MODELS
from visionkit.training.build import build_sources, build_transforms
from visionkit.training.new import new_recipe
from visionkit.training.recipe import load_recipe

TASK = "semantic_segmentation"


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for index in range(10):
        pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{index}.jpg")
        mask = rng.choice(np.uint8([0, 4, 255]), (20, 30))
        Image.fromarray(mask).save(tmp_path / f"masks/{index}.png")
    return tmp_path


@pytest.mark.parametrize("model", [None, *MODELS[TASK]])
def test_masks(folder, model):
    text = new_recipe(TASK, folder, model=model)
    assert "10 images, 2 classes: class 0, class 4" in text
    recipe = load_recipe(yaml.safe_load(text))
    assert recipe.train.monitor == "val_mean_iou"
    assert recipe.model.name == (model or next(iter(MODELS[TASK])))
    train, held = build_sources(recipe)
    assert (len(train), len(held)) == (8, 2)
    assert set(np.unique(held.mask(0))) == {0, 1, 255}
    names = [type(transform).__name__ for transform in build_transforms(recipe)]
    assert names == ["ClassCrop", "Flip", "Color"]


def test_instances(tmp_path):
    for index in range(10):
        for folder in ("images", "masks"):
            (tmp_path / f"{index}/{folder}").mkdir(parents=True)
        pixels = np.full((20, 30, 3), 20 * index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}/images/x.png")
        for number in range(index % 3):
            mask = np.zeros((20, 30), np.uint8)
            mask[4:15, 10 * number : 10 * number + 8] = 255
            Image.fromarray(mask).save(tmp_path / f"{index}/masks/{number}.png")
    text = new_recipe("instance_segmentation", tmp_path)
    assert "10 images, 1 classes: object" in text
    recipe = load_recipe(yaml.safe_load(text))
    assert recipe.train.monitor == "val_mask_map" and recipe.model.name == "mask_rcnn"
    assert recipe.data.source == "instance_folder"
    train, held = build_sources(recipe)
    assert (len(train), len(held)) == (8, 2)
    objects = train.objects()
    assert len(objects["instance_masks"]) == len(objects["boxes"]) > 0
    names = [type(transform).__name__ for transform in build_transforms(recipe)]
    assert names == ["Flip", "ScaleJitter", "Color"]

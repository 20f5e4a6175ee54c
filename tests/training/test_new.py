"""The recipe that `new` prints for a folder of masks is complete."""

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

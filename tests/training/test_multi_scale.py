"""A recipe that trains on several sizes: the run, its model, and what is refused."""

import json

import numpy as np
import pytest

import visionkit as vk
from visionkit.training.recipe_files import RecipeError
from visionkit.training.run import run

RECIPE = {
    "task": "detection",
    "model": {
        "name": "ssd",
        "backbone": "mobilenet_v2_035",
        "lite": True,
        "image_size": [64, 96],
        "resize": "letterbox",
    },
    "data": {
        "source": "digits",
        "train": {"split": "train", "num_scenes": 8},
        "validation": {"split": "validation", "num_scenes": 4},
        "batch_size": 2,
    },
    "augment": [
        "mosaic",
        {"multi_scale": {"sizes": [[64, 96], [75, 128]], "every": 1}},
    ],
    "train": {
        "epochs": 2,
        "optimizer": {"sgd": {"momentum": 0.9}},
        "learning_rate": 0.001,
        "tensorboard": False,
    },
}


@pytest.mark.slow  # a training
def test_a_run_of_several_sizes_is_scored_and_answers_at_one(tmp_path):
    run(RECIPE, out=tmp_path / "run", verbose=0)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))
    assert np.isfinite(metrics["map"])
    model = vk.load(tmp_path / "run")
    assert model.input.shape == (None, None, None, 3)
    assert model.preprocessing.image_size == (64, 96)
    assert model.predictor.input.shape == (None, 64, 96, 3)
    result = vk.predict(model, np.zeros((100, 80, 3), "uint8"))[0]
    assert result.image_size == (100, 80)


def test_a_model_of_one_size_refuses_it(tmp_path):
    fast = {"name": "fast_rcnn", "backbone": "resnet18", "image_size": [64, 96]}
    with pytest.raises(RecipeError, match="built for one image size"):
        run({**RECIPE, "model": fast}, out=tmp_path / "run", verbose=0)

"""Measuring a run: at another output stride than it was trained at, or refused."""

import json

import keras
import pytest

import visionkit as vk
from visionkit.backbones.atrous import multi_grid, output_stride
from visionkit.tasks.__main__ import main
from visionkit.training.build import build_model, build_validation
from visionkit.training.evaluation import evaluate, evaluate_model
from visionkit.training.files import atomic_write_text
from visionkit.training.recipe import load_recipe
from visionkit.training.recipe_files import RecipeError

SPLIT = {"split": "validation", "num_scenes": 3}


def run_folder(folder, **model):
    """A run whose model is not trained."""
    recipe = load_recipe(
        {
            "task": "semantic_segmentation",
            "model": {"image_size": [64, 96], **model},
            "data": {"source": "digits", "train": SPLIT, "validation": SPLIT},
            "train": {"epochs": 1},
        }
    )
    atomic_write_text(folder / "recipe.yaml", recipe.to_yaml())
    model = build_model(recipe, build_validation(recipe).info)
    model.save(folder / "model.keras")
    return model


def test_a_deeplab_is_measured_at_a_finer_output_stride(tmp_path):
    keras.utils.set_random_seed(0)  # another might answer one class everywhere
    backbone = {"backbone": "mobilenet_v1_025", "head_channels": 8}
    model = run_folder(tmp_path, name="deeplab_v3", **backbone)
    source = vk.build_source("digits", task="semantic_segmentation", **SPLIT)
    file = tmp_path / "scores.json"
    scores = {}
    for stride in (16, 8):
        override = f"model.output_stride={stride}"
        assert main(["evaluate", str(tmp_path), override, "--json", str(file)]) == 0
        scores[stride] = json.loads(file.read_text())
        same = model.with_output_stride(stride)
        expected = evaluate_model(same, source)
        assert scores[stride]["mean_iou"] == pytest.approx(expected["mean_iou"])
    assert scores[16]["mean_iou"] != pytest.approx(scores[8]["mean_iou"])
    for override, message in (
        ("model.output_stride=4", r"(?s)model\.output_stride: found 4; .*8, 16 or 32"),
        ("model.dropout=0", r"only data and model\.output_stride can"),
        ("model.output_strides=8", r"only data and model\.output_stride can"),
    ):
        with pytest.raises(RecipeError, match=message):
            evaluate(tmp_path, overrides=[override])


def test_a_model_that_keeps_its_output_stride_says_which_ones_do_not(tmp_path):
    run_folder(tmp_path, name="fcn", backbone="mobilenet_v1_025", head_channels=8)
    message = "fcn is measured .* deeplab_v3 and deeplab_v3_plus can have another"
    with pytest.raises(RecipeError, match=message):
        evaluate(tmp_path, overrides=["model.output_stride=8"])


def test_an_output_stride_that_the_backbone_cannot_have_is_refused(tmp_path):
    grid = {"backbone": "resnet18", "multi_grid": [2, 4], "head_channels": 8}
    model = run_folder(tmp_path, name="deeplab_v3_plus", **grid)
    assert multi_grid(model.backbone) == (2, 4) and output_stride(model.backbone) == 16
    with pytest.raises(RecipeError, match=r"has a stride .*multi_grid=\(2, 4\)"):
        evaluate(tmp_path, overrides=["model.output_stride=32"])

"""`train.border_weights` of a recipe."""

import numpy as np
import pytest
import tensorflow as tf

from visionkit.data.border_weights import border_weights
from visionkit.data.sources.base import SourceInfo
from visionkit.training.build import weigh_pixels
from visionkit.training.recipe import load_recipe
from visionkit.training.recipe_files import RecipeError

RECIPE = {
    "task": "semantic_segmentation",
    "model": {"name": "unet", "backbone": "unet_16", "image_size": [32, 48]},
    "data": {"source": "digits"},
    "train": {"epochs": 1},
}


def weighed(options, names=("sky", "cell", "wall")):
    masks = np.full((1, 32, 48), 2, "uint8")
    masks[:, 4:20, 4:20], masks[:, 4:20, 24:40] = 1, 1
    images = np.zeros((1, 32, 48, 3), "uint8")
    dataset = tf.data.Dataset.from_tensors((images, masks))
    train = {"epochs": 1, "border_weights": options}
    recipe = load_recipe({**RECIPE, "train": train})
    info = SourceInfo("semantic_segmentation", names, num_examples=1)
    (batch,) = weigh_pixels(dataset, recipe, info)
    return masks[0], batch


def test_weights_are_those_of_the_options():
    mask, (_, _, weights) = weighed({"weight": 4, "sigma": 3, "background": "wall"})
    np.testing.assert_array_equal(weights[0], border_weights(mask, 4, 3, 2))
    assert weights.numpy().max() > 1.5
    _, (_, _, weights) = weighed({})
    np.testing.assert_array_equal(weights[0], border_weights(mask, 10, 5, 0))
    assert len(weighed(None)[1]) == 2


def test_wrong_options_say_what_is_right():
    with pytest.raises(RecipeError, match="Did you mean 'wall'"):
        weighed({"background": "walls"})
    with pytest.raises(RecipeError, match="sigma"):
        weighed({"sigma": 0})
    with pytest.raises(RecipeError, match="border_weights is for semantic_seg"):
        load_recipe(
            {
                "task": "classification",
                "model": {"backbone": "lenet5", "image_size": [32, 32]},
                "data": {"source": "digits"},
                "train": {"epochs": 1, "border_weights": {}},
            }
        )

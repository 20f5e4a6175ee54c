"""Recipes are strict: a wrong one is refused with file, key, value and a way out."""

import inspect

import pytest
import yaml

from visionkit.training.recipe import Recipe, load_recipe
from visionkit.training.recipe_files import RecipeError, list_recipes, read_yaml
from visionkit.training.recipe_models import MODEL_RECIPES

GOOD = {
    "task": "classification",
    "model": {"backbone": "lenet5", "image_size": [32, 32]},
    "data": {"source": "digits"},
    "train": {"epochs": 2},
}


@pytest.mark.parametrize("name", sorted(list_recipes()))
def test_every_recipe_that_ships_is_valid_and_survives_writing(name, tmp_path):
    recipe = load_recipe(name)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    assert load_recipe(file) == recipe


def test_overrides_reach_any_key():
    overrides = ["train.epochs=7", "model.image_size=[48, 64]", "train.ema=0.99"]
    recipe = load_recipe(GOOD, overrides)
    assert recipe.train.epochs == 7 and recipe.train.ema == 0.99
    assert recipe.model.image_size == (48, 64)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lerning_rate=1", r"train\.lerning_rate.*mean 'learning_rate'"),
        ("train.epochs=many", r"train\.epochs: found 'many'; .*integer"),
        ("train.epochs=0", r"train\.epochs: found 0; .*greater than 0"),
        ("train.learning_rate=.nan", r"learning_rate.*finite"),
        ("trian={}", r"trian: unknown key.*mean 'train'"),
        ("model.backbone=resnet51", r"model\.backbone.*mean 'resnet5"),
        ("data.source=digit", r"data\.source.*mean 'digits'"),
        ("data.train={slpit: train}", r"data\.train.*slpit.*mean 'split'"),
        ("data.validation=1.5", r"data\.validation: found 1\.5; .*\(0, 1\)"),
        ("augment=[flop]", r"augment.*flop.*mean `flip`"),
        ("augment=[{flip: {q: 1}}]", r"augment.*'?q'?"),
        ("train.optimizer={sgd: {}, adam: {}}", r"optimizer.*one name"),
        ("epochs", r"key=value"),
        ("train.loss=focus", r"train\.loss: found 'focus'; .*mean 'focal'"),
        ("train.loss={focal: {}, crossentropy: {}}", r"train\.loss.*one name"),
        ("train.class_weights={'0': -1}", r"train\.class_weights.*0"),
        ("train.class_weights=even", r"train\.class_weights: found 'even'"),
        ("train.distribute=mirored", r"train\.distribute: found 'mirored'"),
        ("model.stochastic_depth=1.0", r"model\.stochastic_depth: found 1\.0"),
        ("data.oversample=often", r"data\.oversample: found 'often'"),
        ("augment=ligth", r"augment: .*mean 'light'"),
    ],
)
def test_wrong_keys_and_values_are_refused(override, message):
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        load_recipe(GOOD, [override])


@pytest.mark.parametrize("policy", ["none", "light", "strong"])
def test_augmentation_may_be_one_word(policy, tmp_path):
    from visionkit.training.build import build_transforms

    recipe = load_recipe(GOOD, [f"augment={policy}"])
    assert load_recipe(yaml.safe_load(recipe.to_yaml())) == recipe
    assert bool(build_transforms(recipe)) == (policy != "none")


def test_overrides_leave_the_callers_dict_alone():
    load_recipe(GOOD, ["train.epochs=7"])
    assert GOOD["train"] == {"epochs": 2}


def test_all_faults_are_listed_at_once():
    with pytest.raises(RecipeError) as error:
        load_recipe(GOOD, ["train.epochs=no", "model.dropout=2", "data.bad=1"])
    for key in ("train.epochs", "model.dropout", "data.bad"):
        assert key in str(error.value)


def test_a_missing_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="mean 'digits_lenet5'"):
        load_recipe("digits_lenet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "aliases"),
        ("train: {epochs: 1, epochs: 2}", "stands twice"),
        ("a: !!python/object/apply:os.system [ls]", "not a readable YAML"),
        ("- 1", "a recipe is a mapping"),
        ("a: [", "not a readable YAML"),
    ],
)
def test_treacherous_yaml_is_refused(text, message, tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_yaml(file)


def test_a_number_that_yaml_reads_as_text_is_a_number(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(GOOD) + "\n")
    recipe = load_recipe(file, ["train.learning_rate=1e-3"])
    assert recipe.train.learning_rate == 0.001


# What the data, the recipe as a whole or only Python can say.
NOT_IN_RECIPES = {
    "multi_label",
    "class_names",
    "preprocessing",
    "kwargs",
    "num_classes",
}


def test_every_model_has_a_section_and_the_reverse():
    from visionkit.tasks import MODELS

    assert {t: set(m) for t, m in MODELS.items()} == {
        t: set(m) for t, m in MODEL_RECIPES.items()
    }


@pytest.mark.parametrize(
    ("task", "name"), [(t, n) for t, names in MODEL_RECIPES.items() for n in names]
)
def test_model_keys_are_the_constructors_keywords(task, name):
    from visionkit.backbones import build_backbone
    from visionkit.tasks import model_class
    from visionkit.tasks.semantic_segmentation.segmenter import Segmenter
    from visionkit.types import Preprocessing

    def keywords(function):
        return set(inspect.signature(function).parameters)

    own = keywords(model_class(task, name)) - NOT_IN_RECIPES
    shared = keywords(build_backbone) | keywords(Preprocessing)
    if task == "semantic_segmentation":
        shared |= keywords(Segmenter)  # which the networks pass on
    shared |= {"backbone", "start_from"}  # what makes or fills the model, not its own
    keys = set(MODEL_RECIPES[task][name].model_fields)
    assert keys <= shared | own
    assert own <= keys


def test_optimizer_keys_are_the_builders_keywords():
    from visionkit.training.optimizers import build_optimizer

    train = set(Recipe.model_fields["train"].annotation.model_fields)
    optimizer = set(inspect.signature(build_optimizer).parameters)
    assert optimizer - {"name", "options"} <= train

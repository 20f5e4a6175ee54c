"""`model.start_from`: a training begins with the weights of a trained model."""

import shutil

import keras
import numpy as np
import pytest

import visionkit as vk
from visionkit.data.sources.base import SourceInfo
from visionkit.training import figures
from visionkit.training.build import build_model
from visionkit.training.recipe import load_recipe
from visionkit.training.recipe_files import RecipeError
from visionkit.training.start import start_model

LENET = {"backbone": "lenet5", "image_size": [32, 32], "channels": 1}
MOBILE = {"backbone": "mobilenet_v1_025", "image_size": [128, 192]}

YOLO = {**MOBILE, "name": "yolo", "size": "n"}
FCN = {**MOBILE, "name": "fcn", "head_channels": 8}


def build(task, num_classes=3, prefix="", **model):
    recipe = {"task": task, "model": model}
    recipe |= {"data": {"source": "digits"}, "train": {"epochs": 1}}
    names = tuple(f"{prefix}{i}" for i in range(num_classes))
    return build_model(load_recipe(recipe), SourceInfo(task, names, 4))


def trained(path, *arguments, **options):
    """A model that is saved, whose weights are like no fresh model's."""
    model = build(*arguments, **options)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + 0.1 * rng.uniform(size=weight.shape))
    model.save(path)
    return model


@pytest.mark.parametrize(
    ("task", "options", "classes"),
    [
        ("classification", LENET, {"top/logits"}),
        ("detection", YOLO, {f"head/classes_P{i}/logits" for i in (3, 4, 5)}),
    ],
)
def test_other_classes_take_all_but_their_own_layers(task, options, classes, tmp_path):
    path = tmp_path / "start.keras"
    start = trained(path, task, **options)
    total = len(start.weights)
    others = build(task, 5, **options, start_from=str(path))
    fresh = 2 * len(classes)
    assert f"{total - fresh} of {total} weights; fresh: " in others.started_from
    assert all(layer in others.started_from for layer in classes)
    for a, b in zip(others.weights, start.weights, strict=True):
        if a.path.rpartition("/")[0] not in classes:
            np.testing.assert_array_equal(a, b)


def test_the_same_classes_take_everything(tmp_path):
    path = tmp_path / "start.keras"
    start = trained(path, "classification", **LENET)
    same = build("classification", **LENET, start_from=str(path))
    for a, b in zip(same.weights, start.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert same.started_from == f"{path}, 6 of 6 weights"
    renamed = build("classification", prefix="no. ", **LENET, start_from=str(path))
    assert renamed.started_from.endswith("other names, and are taken by their places")


def test_fcn_16s_begins_with_the_answers_of_a_trained_32s(tmp_path):
    options = {**FCN, "dropout": 0}
    path = tmp_path / "fcn32s.keras"
    coarse = build("semantic_segmentation", **options, stride=32)
    rng = np.random.default_rng(0)
    for weight in (*coarse.head.scores["P5"].weights, *coarse.head.conv.weights):
        weight.assign(rng.normal(0, 1, weight.shape))
    coarse.save(path)
    fine = build("semantic_segmentation", **options, stride=16, start_from=str(path))
    for layer in ("score_P4", "double_P5", "upsample_16"):
        assert f"head/{layer}" in fine.started_from
    images = rng.integers(0, 256, (1, 128, 192, 3), dtype="uint8")
    expected, found = (keras.ops.convert_to_numpy(m(images)) for m in (coarse, fine))
    # Two interpolations in a row are one, but around the cells' centres and the border.
    y, x = (
        np.flatnonzero(np.abs(np.arange(s) % 32 - 15.5) > 8)[8:-8] for s in (128, 192)
    )
    place = np.ix_([0], y, x)
    np.testing.assert_allclose(found[place], expected[place], atol=1e-4)
    assert np.ptp(expected[place]) > 0.1
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.95


def test_another_network_is_refused(tmp_path):
    path = tmp_path / "fcn.keras"
    trained(path, "semantic_segmentation", **FCN)
    message = r"start_from: .*fcn\.keras is fcn on mobilenet_v1_025, .* is {} on {}\."
    for name, backbone in (
        ("fcn", "mobilenet_v1_050"),
        ("deeplab_v3", "mobilenet_v1_025"),
    ):
        options = {**FCN, "name": name, "backbone": backbone}
        with pytest.raises(RecipeError, match=message.format(name, backbone)):
            build("semantic_segmentation", **options, start_from=str(path))


def test_what_is_no_trained_model_is_refused(tmp_path):
    images = keras.Input((4,))
    foreign = tmp_path / "foreign.keras"
    keras.Model(images, keras.layers.Dense(1)(images)).save(foreign)
    (tmp_path / "damaged.keras").write_bytes(foreign.read_bytes()[:200])
    for name, message in (
        ("nothing", r"model\.start_from: There is no model at .*nothing"),
        ("damaged.keras", r"model\.start_from: .*damaged\.keras"),
        ("foreign.keras", r"foreign\.keras holds a Functional, which is no model of"),
    ):
        with pytest.raises(RecipeError, match=message):
            build("classification", **LENET, start_from=str(tmp_path / name))


def test_weights_of_which_none_fits_are_refused(tmp_path):
    def narrow(width):
        images = keras.Input((32, 32, 3))
        features = keras.layers.Conv2D(width, 3, name="conv")(images)
        backbone = keras.Model(images, {"P1": features}, name="mine")
        return vk.ImageClassifier(backbone, num_classes=width)

    narrow(2).save(tmp_path / "narrow.keras")
    with pytest.raises(RecipeError, match="none of the 4 weights"):
        start_model(narrow(3), str(tmp_path / "narrow.keras"))


def test_the_backbones_weights_beside_it_are_refused():
    message = r"model\.start_from: found 'runs/a'.*model\.weights=null .*'imagenet'"
    with pytest.raises(RecipeError, match=message):
        build("classification", **LENET, weights="imagenet", start_from="runs/a")


def test_a_run_says_it_and_is_resumed_without_the_start(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "draw_data", lambda *arguments: None)
    monkeypatch.setattr(figures, "draw_results", lambda *arguments: None)
    monkeypatch.chdir(tmp_path)
    split = {"split": "validation"}
    recipe = {
        "task": "classification",
        "model": {**LENET, "start_from": "start"},
        "data": {"source": "digits", "train": split, "validation": split},
        "train": {"epochs": 1, "learning_rate": 1e-9, "tensorboard": False},
    }
    recipe["data"]["batch_size"] = 359
    (tmp_path / "start").mkdir()
    start = trained("start/model.keras", "classification", 10, **LENET)
    run = vk.run(recipe, out="run", verbose=2)
    said = " ".join(capsys.readouterr().out.split())
    assert "started from start, 6 of 6 weights" in said
    for a, b in zip(run.model.weights, start.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # the rate is next to nothing
    shutil.rmtree("start")
    vk.run("run", overrides=["train.epochs=2"], resume=True, verbose=2)
    said = capsys.readouterr().out
    assert "resumed" in said and "started from" not in said

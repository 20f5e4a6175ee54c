"""What every detector inherits: scores in `fit`, whatever the data come from."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from dense_cases import drawn_batch
from tiny_detectors import DETECTORS

import visionkit as vk
from visionkit.tasks.task import select_levels
from visionkit.training.callbacks import EmaWeights

SIZE = (64, 96)


@pytest.fixture(scope="module")
def ssd():
    keras.utils.set_random_seed(0)
    backbone = vk.build_backbone("mobilenet_v2_035", SIZE)
    model = vk.SSD(backbone, 10, lite=True, class_names=tuple("0123456789"))
    model.compile(keras.optimizers.SGD(1e-3))
    return model


@pytest.fixture(scope="module")
def scenes():
    return vk.build_source("digits", task="detection", split="validation", num_scenes=6)


def test_scores_and_losses_are_logged_and_add_up(ssd, scenes):
    data = vk.make_dataset(scenes, ssd.preprocessing, 2, with_ids=True)
    assert data.cardinality() == tf.data.UNKNOWN_CARDINALITY
    ssd.truth = scenes
    logs = ssd.evaluate(data, return_dict=True, verbose=0)
    assert set(ssd.logged_scores) < set(logs)
    # Keras by itself counts one batch too many for each output.
    total = logs["classes_loss"] + logs["boxes_loss"]
    np.testing.assert_allclose(total, logs["loss"], rtol=1e-4)
    again = ssd.evaluate(data, verbose=0)
    np.testing.assert_allclose(again, list(logs.values()), rtol=1e-4)


def test_fit_logs_the_scores_for_callbacks_and_for_arrays(ssd, scenes):
    ssd.truth = None
    images, target = next(iter(vk.make_dataset(scenes, ssd.preprocessing, 6)))
    arrays = (images.numpy(), {k: v.numpy() for k, v in target.items()})
    history = ssd.fit(*arrays, batch_size=3, validation_data=arrays, verbose=0).history
    assert 0 <= history["val_map_50"][0] <= 1
    logs = ssd.evaluate(*arrays, batch_size=4, return_dict=True, verbose=0)
    assert np.isfinite(list(logs.values())).all()


@pytest.mark.parametrize("callback", [EmaWeights, keras.callbacks.SwapEMAWeights])
def test_the_averages_are_scored_where_a_callback_swaps_them_in(callback, monkeypatch):
    model = DETECTORS["yolo"](SIZE)
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    scored = []

    def score(batches):
        scored.append([weight.numpy() for weight in model.trainable_weights])
        return {}, 1

    monkeypatch.setattr(model, "_score", score)
    batch = drawn_batch()
    data = tf.data.Dataset.from_tensors(batch).repeat(2)
    model.fit(data, validation_data=data.take(1), callbacks=[callback()], verbose=0)
    # At its end `fit` makes the averages the model's weights.
    for seen, average in zip(scored[0], model.trainable_weights, strict=True):
        np.testing.assert_allclose(seen, average.numpy(), rtol=1e-6)


def test_data_that_are_read_once_get_no_scores(ssd, scenes):
    data = vk.make_dataset(scenes, ssd.preprocessing, 3)
    with pytest.warns(UserWarning, match="not scored"):
        logs = ssd.evaluate((batch for batch in data), return_dict=True, verbose=0)
    assert "map" not in logs and np.isfinite(logs["loss"])


def test_losses_change_by_name_alone(ssd):
    backbone = vk.build_backbone("mobilenet_v2_035", SIZE)
    model = vk.SSD(backbone, 1, lite=True)  # one class is enough
    model.compile("sgd", loss_weights={"boxes": 2.0})
    assert model.get_compile_config()["loss_weights"] == {"classes": 1.0, "boxes": 2.0}
    with pytest.raises(ValueError, match="names among"):
        model.compile("sgd", loss_weights={"box": 2.0})
    with pytest.raises(ValueError, match="itself"):
        model.compile("sgd", metrics=["accuracy"])


@pytest.mark.parametrize("name", DETECTORS)
def test_a_label_that_is_no_class_makes_all_losses_nan(name):
    """And so the gradients: a training that watches its loss stops."""
    model = DETECTORS[name](SIZE)
    images, target = drawn_batch()
    model.compile(keras.optimizers.SGD(1e-3))
    logs = model.test_on_batch(images, target, return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    for label in (2, 7, -2):
        wrong = target["labels"].copy()
        wrong[0, 0] = label
        wrong = {**target, "labels": wrong}
        logs = model.test_on_batch(images, wrong, return_dict=True)
        assert np.isnan(list(logs.values())).all(), logs
    model.train_on_batch(images, wrong)
    assert np.isnan(keras.ops.convert_to_numpy(model.trainable_variables[0])).all()


def test_backbones_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="lacks P6"):
        select_levels({"P3": 0, "P4": 0}, ("P3", "P6"))


@pytest.fixture(scope="module")
def faster():
    keras.utils.set_random_seed(0)
    backbone = vk.build_backbone("mobilenet_v2_035", SIZE)
    return vk.FasterRCNN(
        backbone,
        3,
        neck={"channels": 16},
        rpn={"num_proposals": 12},
        roi={"num_samples": 8, "units": 16},
    )


def test_proposals_are_written_as_sources_read_them(faster, tmp_path):
    from PIL import Image

    from visionkit.inference.proposals import propose

    rng = np.random.default_rng(0)
    for name in "ab":
        pixels = rng.integers(0, 256, (50, 120, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    rows = propose(faster, tmp_path)
    assert {row["file_name"] for row in rows} == {"a.png", "b.png"}
    first = [row for row in rows if row["image_id"] == 0]
    assert 0 < len(first) <= 12
    scores = [row["score"] for row in first]
    assert scores == sorted(scores, reverse=True) and 0 < scores[-1] <= scores[0] < 1
    x, y, width, height = np.array([row["bbox"] for row in rows]).T
    assert (x + width).max() <= 120.01 and (y + height).max() <= 50.01
    json.dumps(rows)
    with pytest.raises(ValueError, match="region proposal network"):
        backbone = vk.build_backbone("mobilenet_v2_035", SIZE)
        propose(vk.SSD(backbone, 3, lite=True), tmp_path)


def test_fast_rcnn_is_scored_on_arrays_and_says_what_it_cannot(faster, tmp_path):
    backbone = vk.build_backbone("mobilenet_v2_035", SIZE)
    options = {"neck": {"channels": 16}, "roi": {"num_samples": 8, "units": 16}}
    model = vk.FastRCNN(backbone, 3, num_proposals=4, **options)
    model.compile("sgd")
    boxes = np.tile(np.float32([[5, 5, 40, 40]]), (3, 4, 1))
    inputs = {"images": np.zeros((3, *SIZE, 3), "uint8"), "proposals": boxes}
    target = {"boxes": boxes, "labels": np.tile(np.int32([0, 1, -1, -1]), (3, 1))}
    logs = model.evaluate(inputs, target, batch_size=2, return_dict=True, verbose=0)
    assert np.isfinite(logs["loss"]) and "map" in logs
    with pytest.raises(ValueError, match="proposals"):
        vk.predict(model, np.zeros((64, 96, 3), "uint8"))
    with pytest.raises(ValueError, match="images alone"):
        vk.export(model, tmp_path / "m")

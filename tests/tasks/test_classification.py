"""The classifier is an ordinary Keras model whose answers survive saving."""

import keras
import numpy as np
import pytest
import sklearn.metrics
from contracts import check_task

import visionkit as vk


def toy_backbone(channels=3):
    images = keras.Input((24, 40, channels), name="images")
    x = keras.layers.Rescaling(1 / 127.5, -1)(images)
    x = keras.layers.Conv2D(8, 3, 2, "same", activation="relu")(x)
    y = keras.layers.Conv2D(12, 3, 2, "same", activation="relu")(x)
    return keras.Model(images, {"P1": x, "P2": y}, name="toy")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 32)
    images = rng.integers(0, 256, (32, 24, 40, 3)).astype("uint8")
    images[..., 0] = labels[:, None, None] * 36
    return images, labels


def test_the_contract_of_every_task(data, tmp_path):
    images, labels = data

    def build():
        return vk.ImageClassifier(toy_backbone(), 7, label_smoothing=0.1)

    check_task(build, images[:8], labels[:8], tmp_path)


def test_answers_are_probabilities_and_the_best_class(data):
    images, _ = data
    answers = vk.ImageClassifier(toy_backbone(), 7).predict(images, verbose=0)
    assert answers["probabilities"].dtype == np.float32
    np.testing.assert_allclose(answers["probabilities"].sum(-1), 1, atol=1e-5)
    best = answers["probabilities"].argmax(-1)
    np.testing.assert_array_equal(answers["labels"], best)


def test_evaluate_reports_top_1_and_top_5(data):
    images, labels = data
    model = vk.ImageClassifier(toy_backbone(), 7)
    model.compile()
    scores = model.evaluate(images, labels, verbose=0, return_dict=True)
    answers = model.predict(images, verbose=0)
    top_5 = np.argsort(-answers["probabilities"])[:, :5]
    assert scores["accuracy"] == pytest.approx((answers["labels"] == labels).mean())
    expected = (top_5 == labels[:, None]).any(1).mean()
    assert scores["top_5_accuracy"] == pytest.approx(expected)


def test_mixed_labels_train_and_count_as_their_largest_class(data):
    images, labels = data
    model = vk.ImageClassifier(toy_backbone(), 7, label_smoothing=0.1)
    model.compile()
    soft = (0.7 * np.eye(7)[labels] + 0.3 / 7).astype("float32")
    hard = model.evaluate(images, labels, verbose=0, return_dict=True)
    mixed = model.evaluate(images, soft, verbose=0, return_dict=True)
    for name in ("accuracy", "top_5_accuracy"):
        assert mixed[name] == pytest.approx(hard[name])
    model.fit(images, soft, epochs=1, verbose=0)


@pytest.fixture
def many(data):
    """Two labels each: the class of `data`, and the next one."""
    labels = np.eye(7, dtype="float32")
    return labels[data[1]] + labels[(data[1] + 1) % 7]


def test_the_contract_of_a_multi_label_task(data, many, tmp_path):
    def build():
        return vk.ImageClassifier(toy_backbone(), 7, multi_label=True)

    check_task(build, data[0][:8], many[:8], tmp_path)


def test_multi_label_answers_are_sigmoids_and_the_metrics_are_areas(data, many):
    images, _ = data
    model = vk.ImageClassifier(toy_backbone(), 7, multi_label=True)
    model.compile()
    scores = model.evaluate(images, many, verbose=0, return_dict=True)
    assert set(scores) == {"loss", "auc", "pr_auc"}
    answers = model.predict(images, verbose=0)
    logits = np.asarray(model(images))
    expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(answers["labels"], logits.argmax(-1))
    exact = sklearn.metrics.roc_auc_score(many, logits)
    assert scores["auc"] == pytest.approx(exact, abs=0.05)
    exact = sklearn.metrics.average_precision_score(many, logits)
    assert scores["pr_auc"] == pytest.approx(exact, abs=0.1)
    with pytest.raises(ValueError, match=r"\(B, num_classes\)"):
        model.fit(images, data[1], verbose=0)


def test_lenet5_with_its_published_top_has_61706_parameters():
    backbone = vk.build_backbone("lenet5", (32, 32), channels=1)
    model = vk.ImageClassifier(backbone, 10, top="paper")
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 61_706


def test_paper_top_needs_the_papers_size():
    backbone = vk.build_backbone("lenet5", (40, 40), channels=1)
    with pytest.raises(ValueError, match=r"\(5, 5, 16\).*32x32.*\(7, 7, 16\)"):
        vk.ImageClassifier(backbone, 10, top="paper")


def test_frozen_backbone_trains_only_the_top(data):
    images, labels = data
    backbone = toy_backbone()
    backbone.trainable = False
    model = vk.ImageClassifier(backbone, 7)
    model.compile("sgd")
    before = [w.numpy().copy() for w in backbone.weights]
    model.fit(images, labels, verbose=0)
    assert len(model.trainable_weights) == 2
    for old, new in zip(before, backbone.weights, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "at least 2"),
        ({"num_classes": 3, "class_names": ["a"]}, "num_classes=3 names"),
        ({"num_classes": 3, "top": "papers"}, "one of .'pooled', 'paper'"),
        ({"num_classes": 3, "top": "paper"}, "no published top"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        vk.ImageClassifier(toy_backbone(), **options)

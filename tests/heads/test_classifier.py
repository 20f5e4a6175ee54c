"""Published tops: what they read, what they drop, what trains them."""

import keras
import numpy as np
import pytest

import visionkit as vk


@pytest.fixture(scope="module")
def with_auxiliary():
    keras.utils.set_random_seed(0)
    backbone = vk.build_backbone("googlenet", (80, 96))
    return vk.ImageClassifier(backbone, 4, top="paper+auxiliary")


@pytest.fixture(scope="module")
def data():
    images = np.random.default_rng(0).integers(0, 256, (4, 80, 96, 3), "uint8")
    return images, np.arange(4)


def test_auxiliary_losses_count_at_three_tenths_in_training_alone(with_auxiliary, data):
    images, labels = data
    model = with_auxiliary
    model.compile("sgd")
    outputs = model.auxiliary(images)
    assert sorted(outputs) == [
        "auxiliary_inception_4a",
        "auxiliary_inception_4d",
        "logits",
    ]
    losses = {k: float(model.loss(labels, v)) for k, v in outputs.items()}
    plain = losses.pop("logits")
    training = model.compute_loss(images, labels, outputs)
    assert float(training) == pytest.approx(plain + 0.3 * sum(losses.values()), 1e-5)
    scores = model.evaluate(images, labels, verbose=0, return_dict=True)
    assert scores["loss"] == pytest.approx(plain, rel=1e-4)


def test_auxiliary_classifiers_train_are_saved_and_never_predict(
    with_auxiliary, data, tmp_path
):
    images, labels = data
    model = with_auxiliary
    auxiliary = [w for w in model.trainable_weights if "auxiliary" in w.path]
    before = [w.numpy() for w in auxiliary]
    model.compile(keras.optimizers.SGD(1e-2))
    model.fit(images, labels, verbose=0)
    assert len(auxiliary) == 12
    for old, new in zip(before, auxiliary, strict=True):
        assert (old != new.numpy()).any()
    names = {layer.name for layer in model.predictor.layers}
    assert names == {"images", "googlenet", "top", "probabilities"}
    model.save(tmp_path / "model.keras")
    again = vk.load(tmp_path / "model.keras")
    for old, new in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    again.fit(images, labels, verbose=0)


def test_a_published_top_drops_its_published_share_unless_told():
    with keras.StatelessScope(initialize_variables=False):
        backbone = vk.build_backbone("googlenet", (32, 32))
        rates = [
            vk.ImageClassifier(backbone, 3, top=top, dropout=dropout)
            .get_layer("top")
            .dropout.rate
            for top, dropout in (("paper", 0.0), ("paper", 0.1), ("pooled", 0.0))
        ]
    keras.utils.clear_session()
    assert rates == [0.4, 0.1, 0.0]


@pytest.mark.parametrize(
    ("name", "size", "top", "message"),
    [
        ("vgg16", (32, 64), "paper", r"\(7, 7, 512\).*224x224.*\(1, 2, 512\)"),
        ("resnet18", (32, 64), "paper+auxiliary", "no published auxiliary.*googlenet"),
        ("googlenet", (64, 64), "paper+auxiliary", r"5x5 .*\(4, 4, 512\)"),
        ("googlenet", (None, None), "paper+auxiliary", "static image size"),
        ("googlenet", (64, 64), "papers", "`top` must be one of"),
    ],
)
def test_tops_that_do_not_fit_are_refused(name, size, top, message):
    with keras.StatelessScope(initialize_variables=False):
        backbone = vk.build_backbone(name, size)
        with pytest.raises(ValueError, match=message):
            vk.ImageClassifier(backbone, 3, top=top)
    keras.utils.clear_session()

"""The auxiliary FCN head of segmenters: its parameters, its loss, its place."""

import keras
import numpy as np
import pytest
from dense_cases import tiny_backbone

import visionkit as vk
from visionkit.heads.fcn import auxiliary_scores

SIZE = (32, 48)


def network(name, **options):
    """A segmenter of 3 classes with P1 to P5 below it."""
    keras.utils.set_random_seed(0)
    backbone = tiny_backbone(SIZE, range(1, 6))
    if name.startswith("DeepLab"):
        options = {"head_channels": 8, "norm_momentum": 0.9, "rates": [1], **options}
    return getattr(vk, name)(backbone, 3, **{"auxiliary_level": "P4"} | options)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, *SIZE, 3), "uint8"), rng.integers(0, 3, (2, *SIZE))


def test_torchvision_s_head_has_as_many_parameters():
    """Of DeepLab V3 on ResNet-101: 60,996,202 with the head, 58,630,997 without."""
    features = keras.Input((8, 8, 1024))
    head = keras.Model(features, auxiliary_scores(features, 21))
    count = sum(int(np.prod(w.shape)) for w in head.trainable_weights)
    assert count == 60_996_202 - 58_630_997


@pytest.mark.parametrize("name", ["FCN", "UNet", "DeepLabV3", "DeepLabV3Plus"])
def test_its_loss_counts_in_training_alone(name, data):
    images, masks = data
    model = network(name, auxiliary_weight=0.25)
    model.compile("sgd")
    outputs = model.auxiliary(images)
    assert outputs["auxiliary"].shape == outputs["logits"].shape == (2, *SIZE, 3)
    main, auxiliary = (
        float(model.loss(masks, outputs[k])) for k in ("logits", "auxiliary")
    )
    loss = float(model.compute_loss(images, masks, outputs))
    assert loss == pytest.approx(main + 0.25 * auxiliary, rel=1e-5)
    scores = model.evaluate(images, masks, verbose=0, return_dict=True)
    assert scores["loss"] == pytest.approx(main, rel=1e-4)
    assert not [n.name for n in model.predictor.layers if "auxiliary" in n.name]


@pytest.mark.parametrize("loss", ["mean_squared_error", lambda t, p: (t - p) ** 2])
def test_losses_that_are_no_objects_count_too(loss, data):
    images, masks = data
    model = network("FCN", auxiliary_weight=0.5)
    model.compile("sgd", loss=loss)
    outputs = model.auxiliary(images)
    truth = np.eye(3, dtype="float32")[masks]
    main, auxiliary = (
        np.mean((truth - np.asarray(outputs[k])) ** 2) for k in ("logits", "auxiliary")
    )
    found = float(model.compute_loss(images, truth, outputs))
    assert found == pytest.approx(main + 0.5 * auxiliary, rel=1e-5)


def test_it_trains_is_saved_and_leaves_the_answers_alone(data, tmp_path):
    images, masks = data
    model = network("FCN")
    plain = network("FCN", auxiliary_level=None)
    plain.set_weights(model.get_weights()[: len(plain.weights)])
    np.testing.assert_allclose(model(images), plain(images), atol=1e-5)

    head = [w for w in model.trainable_weights if "auxiliary" in w.path]
    before = [w.numpy() for w in head]
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(images, masks, verbose=0)
    assert len(head) == 5
    assert all(
        (old != new.numpy()).any() for old, new in zip(before, head, strict=True)
    )
    model.save(tmp_path / "model.keras")
    again = vk.load(tmp_path / "model.keras")
    for old, new in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert again.auxiliary_level == "P4" and again.auxiliary_weight == 0.4
    again.fit(images, masks, verbose=0)


def test_a_level_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="lacks P7"):
        network("FCN", auxiliary_level="P7")
    backbone = vk.build_backbone("unet_16", (32, 48))
    with pytest.raises(ValueError, match=r"padding=.valid.* auxiliary head"):
        vk.UNet(backbone, 2, padding="valid", auxiliary_level="P3")

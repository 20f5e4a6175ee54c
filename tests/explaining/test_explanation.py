"""Heat in pixels of the originals, for images of any kind and size."""

import sys

import numpy as np
import pytest
from nets import bright_or_dark, hottest
from PIL import Image

import visionkit as vk
from visionkit.explaining.explanation import heat_to_original
from visionkit.inference.batches import prepared_batches


@pytest.fixture(scope="module")
def spotter():
    return bright_or_dark()


def spot(height, width, top, left, side):
    image = np.zeros((height, width, 3), np.uint8)
    image[top : top + side, left : left + side] = 255
    return image


def test_heat_comes_back_through_the_letterbox(spotter, tmp_path):
    """A wide and a tall picture, the square in a corner next to the borders."""
    wide, tall = spot(300, 1000, 180, 20, 120), spot(1000, 300, 880, 180, 120)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    explained = vk.explain(spotter, [tall, tmp_path / "wide.png"], labels="bright")
    for explanation, image in zip(explained, (tall, wide), strict=True):
        assert explanation.ok and explanation.label_name == "bright"
        assert explanation.heat.shape == image.shape[:2]
        assert explanation.heat.min() >= 0 and explanation.heat.max() <= 1
        bright = image[..., 0] > 0
        assert bright[explanation.heat > 0.9 * explanation.heat.max()].all()
        # The borders are grey (114), hence not dark; they stay out of the picture.
        assert explanation.heat[~bright].mean() < 0.1
        assert explanation.plot().width == max(image.shape[1], 320)
    assert explained[0].path is None and explained[1].path.endswith("wide.png")


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "center_crop"])
@pytest.mark.parametrize("size", [(300, 1000), (90, 40), (10, 12)])
def test_heat_to_original_inverts_the_preprocessing(resize, size, picture):
    preprocessing = vk.Preprocessing((48, 72), resize)
    image = np.asarray(picture(*size))
    ((rows, batch),) = prepared_batches([image], preprocessing, 4)
    assert rows == [0]
    resized, placement = batch["images"][0, ..., 0].numpy(), batch["placement"][0]
    back = heat_to_original(resized, placement.numpy(), size)
    assert back.shape == size
    scale_y, scale_x, offset_y, offset_x = placement.numpy()
    y = (np.arange(size[0]) + 0.5) * scale_y + offset_y
    x = (np.arange(size[1]) + 0.5) * scale_x + offset_x
    seen = np.outer((y >= 0) & (y < 48), (x >= 0) & (x < 72))
    assert not back[~seen].any() and seen.all() == (resize != "center_crop")
    error = np.abs(back - image[..., 0].astype(float))[seen]
    assert error.mean() < 8


def test_every_image_gets_its_own_label_and_broken_ones_an_error(spotter, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.fromarray(spot(60, 90, 0, 0, 50)).save(tmp_path / "spot.png")
    encoded = (tmp_path / "spot.png").read_bytes()
    array = spot(60, 90, 0, 0, 50)
    images = [array, tmp_path / "broken.png", encoded, tmp_path / "spot.png", array]
    labels = ["bright", "dark", 0, 1, "dark"]
    explained = vk.explain(spotter, images, labels=labels, batch_size=2)
    assert [e.label_name for e in explained] == [
        "bright",
        None,
        "bright",
        *["dark"] * 2,
    ]
    assert [e.ok for e in explained] == [True, False, True, True, True]
    assert explained[1].error.startswith("image.") and explained[1].heat is None
    np.testing.assert_allclose(explained[0].heat, explained[2].heat, atol=1e-5)
    np.testing.assert_allclose(explained[3].heat, explained[4].heat, atol=1e-5)
    assert explained[0].heat[25, 25] > 0.9 > 0.1 > explained[3].heat[25, 25]
    predicted = vk.predict(spotter, [array])[0].probabilities
    np.testing.assert_allclose(explained[0].score, predicted[0], atol=1e-5)
    for explanation in explained:
        assert min(explanation.plot().size) > 60


def test_a_run_file_and_eigen_cam(spotter, tmp_path):
    spotter.save(tmp_path / "model.keras")
    image = spot(60, 90, 30, 60, 20)
    for model in (tmp_path, tmp_path / "model.keras"):
        (explanation,) = vk.explain(model, image, "eigen_cam")
        np.testing.assert_allclose(hottest(explanation.heat), (39.5, 69.5), atol=2)
        assert explanation.label_name == "dark"


def test_a_score_of_ones_own_has_no_class(spotter):
    image = spot(60, 90, 30, 60, 20)
    (explanation,) = vk.explain(spotter, image, score_of=lambda logits: logits[:, 0])
    assert explanation.label is None and explanation.label_name is None
    (expected,) = vk.explain(spotter, image, labels=0)
    np.testing.assert_allclose(explanation.heat, expected.heat, atol=1e-6)
    explanation.plot()


def test_what_cannot_be_explained_is_refused(spotter, tmp_path):
    image = spot(60, 90, 30, 60, 20)
    sealed = tmp_path / "saved" / "1"
    sealed.mkdir(parents=True)
    (sealed / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match="SavedModel, whose layers and gradients"):
        vk.explain(tmp_path / "saved", image)
    with pytest.raises(TypeError, match="must be a visionkit task"):
        vk.explain(spotter.backbone, image)
    for options, message in (
        ({"method": "gradcam"}, "mean 'grad_cam'"),
        ({"labels": "brigth"}, "mean 'bright'"),
        ({"labels": [0, 1]}, "one per image, 1"),
        ({"labels": 2}, r"must be in 0\.\.1"),
        ({"level": "P3"}, "Its levels: P2"),
        ({"method": "eigen_cam", "labels": 0}, "asks for no class"),
        ({"labels": 0, "score_of": len}, "not both"),
        ({"batch_size": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            vk.explain(spotter, image, **options)


def test_explaining_and_visionkit_share_no_name():
    """`vk.explain` is the function, also after its package has been imported."""
    import visionkit.explaining.explanation  # noqa: F401

    assert callable(vk.explain) and "explain" in dir(vk)
    assert "visionkit.explain" not in sys.modules

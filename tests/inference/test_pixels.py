"""Windows and mirror images say of each pixel what the whole image says."""

import numpy as np
import pytest
from painter import NAMES, build_noise, build_painter, draw

import visionkit as vk
from visionkit.inference.pixels import pixel_views, softmax

RADIUS = 2  # of what `build_noise` sees beside a pixel


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (96, 140, 3), "uint8")


def test_tiles_say_what_the_whole_image_says_inside_the_seams(image):
    whole, window = build_noise((96, 140)), build_noise((48, 48))
    (full,) = vk.predict(whole, image, probabilities=True)
    options = {"tile": 48, "overlap": 0.25}
    (tiled,) = vk.predict(window, image, probabilities=True, **options)
    # Inner borders of windows, and as far from them as the network sees.
    seam = np.zeros(image.shape[:2], bool)
    for view in pixel_views(image.shape[:2], **options):
        x1, y1, x2, y2 = view.window
        rows, columns = np.zeros(96, bool), np.zeros(140, bool)
        for length, low, high, near in ((96, y1, y2, rows), (140, x1, x2, columns)):
            near[low : low + RADIUS * (low > 0)] = True
            near[high - RADIUS * (high < length) : high] = True
        seam[y1:y2, x1:x2] |= rows[y1:y2, None] | columns[x1:x2]
    assert 0.1 < seam.mean() < 0.6
    np.testing.assert_allclose(
        tiled.probabilities[~seam], full.probabilities[~seam], atol=1e-5
    )
    assert (tiled.segmentation == full.segmentation)[~seam].mean() > 0.999
    # A border counts little where its neighbour sees further.
    wrong = np.abs(tiled.probabilities - full.probabilities)[seam]
    assert wrong.mean() < 0.02
    without = vk.predict(window, image, probabilities=True, tile=48, overlap=0)[0]
    assert np.abs(without.probabilities - full.probabilities)[seam].mean() > 0.01


def test_probabilities_are_the_softmax_of_the_logits(image):
    model = build_noise((96, 140))
    (result,) = vk.predict(model, image, probabilities=True)
    expected = softmax(np.asarray(model(image[None].astype("float32")))[0])
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(result.segmentation, expected.argmax(-1))
    assert "probabilities" not in result.to_dict()
    assert sum(result.to_dict()["pixels"]) == image.shape[0] * image.shape[1]
    np.testing.assert_allclose(result.scores.sum(), 1, atol=1e-6)


def test_mirror_images_are_turned_back(image):
    model = build_noise((96, 140))
    (plain,) = vk.predict(model, image, probabilities=True)
    (mirrored,) = vk.predict(model, image[:, ::-1].copy(), probabilities=True)
    expected = (plain.probabilities + mirrored.probabilities[:, ::-1]) / 2
    (both,) = vk.predict(model, image, probabilities=True, tta=[1.0])
    np.testing.assert_allclose(both.probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("resize", ["letterbox", "center_crop"])
@pytest.mark.parametrize("options", [{"tta": True}, {"tile": 100}])
def test_every_look_keeps_things_in_their_place(resize, options):
    encoded, mask = draw((150, 260), [[60, 40, 110, 110], [130, 50, 200, 100]])
    model = build_painter((96, 128), resize, crop_fraction=0.8)
    (result,) = vk.predict(model, encoded, probabilities=True, **options)
    seen = result.segmentation != 255
    assert (result.segmentation == mask)[seen].mean() > 0.985
    assert seen.all() == (resize == "letterbox") and seen[40:110, 60:200].all()
    np.testing.assert_allclose(result.probabilities.sum(-1), seen, atol=1e-5)
    assert set(result.label_names) == set(NAMES)


def test_small_classes_can_be_left_out_of_the_list():
    encoded, _ = draw((150, 260), [[60, 40, 70, 50]])
    (result,) = vk.predict(build_painter(), encoded, score=0.01)
    assert result.label_names == ["background"] and (result.segmentation == 1).any()
    assert result.to_dict()["pixels"] == [int((result.segmentation == 0).sum())]


def test_what_is_for_other_tasks_is_refused(classifier, image):
    with pytest.raises(ValueError, match="for semantic segmentation"):
        vk.predict(classifier, image, probabilities=True)
    with pytest.raises(ValueError, match="for detection and segmentation"):
        vk.predict(classifier, image, tile=64)
    with pytest.raises(ValueError, match="overlap"):
        vk.predict(build_painter(), image, tile=64, overlap=1.0)

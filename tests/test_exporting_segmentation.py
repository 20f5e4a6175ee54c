"""An exported segmenter answers in the pixels of the original image."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from painter import NAMES, build_painter, draw

import visionkit as vk
from visionkit.types import RESIZE_MODES

SIZE = (300, 1000)
BOXES = [[400, 60, 520, 260], [530, 100, 700, 180]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A version of the painter that passed the gate."""
    return vk.export(build_painter(), tmp_path_factory.mktemp("models") / "painter")


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported))


def ask(served, signature, **inputs):
    answers = served.signatures[signature](
        **{k: tf.constant(v) for k, v in inputs.items()}
    )
    return {name: answer.numpy() for name, answer in answers.items()}


def test_a_drawn_mask_comes_back_in_its_own_pixels(served):
    wide, mask = draw(SIZE, BOXES)
    small, small_mask = draw((90, 70), [[10, 20, 50, 70]])
    answer = ask(served, "serving_default", image_bytes=[wide, small])
    assert set(answer) == {"segmentation", "image_size"}
    found = answer["segmentation"]
    assert found.dtype == np.uint8 and found.shape == (2, *SIZE)
    assert answer["image_size"].tolist() == [[300, 1000], [90, 70]]
    # The input is half as large: a corner of a box loses a pixel at most.
    assert (found[0] != mask).sum() <= 8
    assert (found[1, :90, :70] != small_mask).sum() <= 8
    assert (found[1, 90:] == 255).all() and (found[1, :, 70:] == 255).all()


@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_predict_finds_the_drawing_whatever_the_resize(resize):
    encoded, mask = draw(SIZE, BOXES)
    (result,) = vk.predict(build_painter((120, 160), resize), encoded)
    found = result.segmentation
    assert found.shape == SIZE == result.image_size
    seen = found != 255
    # A 160th of 1000 pixels: the edges of boxes lie within such a pixel.
    assert (found[seen] == mask[seen]).mean() > 0.985
    columns = np.flatnonzero(seen.any(axis=0))
    expected = (300, 699) if resize == "center_crop" else (0, 999)
    assert (columns[0], columns[-1]) == expected
    assert seen[:, columns].all()
    assert set(result.label_names) == set(NAMES)
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)


@pytest.mark.parametrize("exif", [3, 5, 6, 7, 8])
def test_a_turned_photograph_is_answered_upright(served, exif):
    encoded, mask = draw((90, 140), [[100, 10, 130, 40], [10, 50, 60, 85]], exif=exif)
    answer = ask(served, "serving_default", image_bytes=[encoded])
    assert answer["segmentation"][0].shape == mask.shape
    assert (answer["segmentation"][0] == mask).mean() > 0.99


def test_tensors_and_logits(served):
    wide, mask = draw(SIZE, BOXES)
    small, _ = draw((90, 70), [])
    answer = ask(served, "logits", image_bytes=[wide, small])
    assert answer["logits"].shape == (2, *SIZE, 3)
    assert answer["image_size"].tolist() == [[300, 1000], [90, 70]]
    classes = ask(served, "serving_default", image_bytes=[wide])["segmentation"]
    np.testing.assert_array_equal(answer["logits"][0].argmax(-1), classes[0])
    assert not answer["logits"][1, 90:].any() and not answer["logits"][1, :, 70:].any()
    half = mask[::2, ::2]
    pixels = np.array([(40, 40, 60), (255, 0, 0), (0, 255, 0)], "float32")[half]
    raw = ask(served, "tensors", images=pixels[None])["logits"]
    np.testing.assert_array_equal(raw[0].argmax(-1), half)


def test_an_image_that_cannot_be_read_has_no_size_and_no_class(served):
    good, mask = draw((90, 70), [[10, 20, 50, 70]])
    answer = ask(
        served, "tolerant", image_bytes=[b"broken", good, draw(SIZE, [])[0][:50]]
    )
    assert answer["image_valid"].tolist() == [0, 1, 0]
    assert answer["image_size"].tolist() == [[0, 0], [90, 70], [0, 0]]
    assert answer["segmentation"].shape == (3, 90, 70)
    assert (answer["segmentation"][[0, 2]] == 255).all()
    assert (answer["segmentation"][1] == mask).mean() > 0.99
    assert ask(served, "tolerant", image_bytes=[b""])["segmentation"].shape == (1, 0, 0)


@pytest.mark.parametrize("signature", ["serving_default", "tolerant", "logits"])
def test_a_high_and_a_wide_image_ask_for_no_gigabytes(served, signature):
    """Together their answers would have 16,000 pixels on each side."""
    images = [draw(size, [])[0] for size in ((16_000, 2), (2, 16_000))] * 2
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"batch\.too_large"):
        ask(served, signature, image_bytes=images)
    assert ask(served, signature, image_bytes=images[:1])["image_size"].shape == (1, 2)


def test_the_saved_model_answers_as_predict(exported, tmp_path):
    names = {"a.png": (SIZE, BOXES), "b.png": ((64, 48), [[5, 5, 30, 50]])}
    for name, scene in names.items():
        (tmp_path / name).write_bytes(draw(*scene)[0])
    model = build_painter()
    for options in ({}, {"probabilities": True}, {"tile": 200, "tta": True}):
        expected = vk.predict(model, tmp_path, **options)
        for got, want in zip(
            vk.predict(exported, tmp_path, **options), expected, strict=True
        ):
            assert (got.segmentation == want.segmentation).mean() >= 0.999
            assert got.label_names == want.label_names
            assert (got.probabilities is None) == (want.probabilities is None)
    described = json.loads((exported / "model.json").read_text("utf-8"))
    assert described["task"] == "semantic_segmentation"
    assert described["class_names"] == list(NAMES)
    outputs = described["signatures"]["serving_default"]["outputs"]
    shapes = {k: (v["dtype"], v["shape"]) for k, v in outputs.items()}
    assert shapes == {
        "segmentation": ("uint8", [None, None, None]),
        "image_size": ("int32", [None, 2]),
    }
    logits = described["signatures"]["logits"]["outputs"]["logits"]
    assert logits == {"dtype": "float32", "shape": [None, None, None, 3]}
    assert "255" in described["conventions"]["segmentation"]


def test_it_serves_where_neither_keras_nor_visionkit_exists(exported, tmp_path):
    encoded, mask = draw(SIZE, BOXES)
    (tmp_path / "scene.png").write_bytes(encoded)
    code = (
        "import sys\n"
        "for name in ('keras', 'tf_keras', 'visionkit'): sys.modules[name] = None\n"
        "import numpy as np, tensorflow as tf\n"
        "served = tf.saved_model.load(sys.argv[1]).signatures['serving_default']\n"
        "image = tf.constant([open(sys.argv[2], 'rb').read()])\n"
        "np.save(sys.argv[3], served(image_bytes=image)['segmentation'].numpy()[0])\n"
    )
    files = str(exported), str(tmp_path / "scene.png"), str(tmp_path / "mask.npy")
    subprocess.run([sys.executable, "-c", code, *files], check=True, cwd=tmp_path)
    assert (np.load(files[2]) == mask).mean() >= 0.999


def test_styles_of_detectors_are_refused(tmp_path):
    for style in ("modelgarden", "odapi"):
        with pytest.raises(ValueError, match="for detection"):
            vk.export(build_painter(), tmp_path / "m", style=style)

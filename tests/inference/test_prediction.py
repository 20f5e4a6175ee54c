"""`predict` takes what people have, keeps the order, and stops at no broken file."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import visionkit as vk

FIELDS = ("probabilities", "labels", "scores")


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert (a.path, a.error, a.image_size) == (b.path, b.error, b.image_size)
        assert a.label_names == b.label_names
        for field in FIELDS if a.ok else ():
            np.testing.assert_allclose(getattr(a, field), getattr(b, field), atol=1e-4)


@pytest.fixture
def files(tmp_path, picture, encode):
    """Every kind of image a folder holds, and five that are none."""
    rgb = picture(60, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray(np.asarray(rgb.convert("L"), np.uint16) * 257)
    content = {
        "alpha.png": encode(rgb.convert("RGBA"), "PNG"),
        "cmyk.jpg": encode(rgb.convert("CMYK")),
        "grey.png": encode(rgb.convert("L"), "PNG"),
        "grey16.png": encode(grey16, "PNG"),
        "grey_alpha.png": encode(rgb.convert("LA"), "PNG"),
        "palette.png": encode(rgb.convert("P"), "PNG"),
        "plain.jpg": encode(rgb),
        "rotated.JPG": encode(rgb, exif=exif),
        "empty.jpg": b"",
        "page.jpg": b"<html>not found</html>",
        "truncated.jpg": encode(rgb)[:-200],
        "truncated.png": encode(rgb, "PNG")[:-20],
        "damaged.png": encode(rgb, "PNG").replace(b"IDAT", b"IDAT\0", 1),
    }
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.d").mkdir()
    return tmp_path


def test_a_folder_is_answered_in_order_past_broken_files(classifier, files):
    results = vk.predict(classifier, files, batch_size=5)
    names = [os.path.basename(result.path) for result in results]
    assert names == sorted(
        p.name for p in files.iterdir() if p.suffix[1:3] not in "txd"
    )
    errors = {n: r.error for n, r in zip(names, results, strict=True) if not r.ok}
    assert {name: error.partition(":")[0] for name, error in errors.items()} == {
        "damaged.png": "image.corrupt",
        "empty.jpg": "image.empty",
        "page.jpg": "image.format",
        "truncated.jpg": "image.truncated",
        "truncated.png": "image.truncated",
    }
    sizes = {n: r.image_size for n, r in zip(names, results, strict=True) if r.ok}
    assert sizes.pop("rotated.JPG") == (90, 60)
    assert set(sizes.values()) == {(60, 90)}
    for result in results:
        if result.ok:
            assert result.probabilities.sum() == pytest.approx(1, abs=1e-5)
            assert result.labels[0] == result.probabilities.argmax()


@pytest.mark.parametrize("batch_size", [1, 32])
def test_the_saved_model_answers_as_the_model(classifier, exported, files, batch_size):
    expected = vk.predict(classifier, files)
    assert_same(vk.predict(exported, files, batch_size=batch_size), expected)
    assert_same(vk.predict(str(exported.parent), files), expected)


def test_every_colour_format_is_near_the_plain_image(classifier, files):
    results = {os.path.basename(r.path): r for r in vk.predict(classifier, files)}
    plain = results["plain.jpg"].probabilities
    for name, tolerance in (
        ("alpha.png", 0.02),
        ("cmyk.jpg", 0.1),
        ("palette.png", 0.1),
    ):
        np.testing.assert_allclose(results[name].probabilities, plain, atol=tolerance)
    grey = results["grey.png"].probabilities
    for name in ("grey16.png", "grey_alpha.png"):
        np.testing.assert_allclose(results[name].probabilities, grey, atol=0.02)


def test_all_ways_to_give_an_image_agree(classifier, files):
    path = files / "alpha.png"
    image = Image.open(path)
    pixels = np.asarray(image.convert("RGB"))
    (expected,) = vk.predict(classifier, path)
    ways = (
        [str(path)],
        str(files / "alph*.png"),
        path.read_bytes(),
        pixels,
        pixels[None],
        [pixels],
        image,
        (item for item in [path]),
    )
    for way in ways:
        (result,) = vk.predict(classifier, way)
        assert result.image_size == (60, 90)
        np.testing.assert_allclose(
            result.probabilities, expected.probabilities, atol=1e-5
        )


def test_mixed_kinds_keep_their_order(classifier, exported, files, picture):
    other = np.asarray(picture(50, 50, seed=4))
    images = [other, files / "plain.jpg", b"", other[:30], files / "grey.png", other]
    singles = [vk.predict(classifier, [image])[0] for image in images]
    for model in (classifier, exported):
        assert_same(vk.predict(model, images, batch_size=2), singles)


def test_a_pil_image_is_turned_upright(classifier, files):
    path = files / "rotated.JPG"
    (from_file,) = vk.predict(classifier, path)
    (from_pil,) = vk.predict(classifier, Image.open(path))
    assert from_pil.image_size == from_file.image_size == (90, 60)
    np.testing.assert_allclose(
        from_pil.probabilities, from_file.probabilities, atol=2e-2
    )


def test_top_and_score_limit_the_labels(classifier, files):
    (result,) = vk.predict(classifier, files / "plain.jpg", top=2)
    assert len(result.labels) == len(result.scores) == len(result.label_names) == 2
    assert result.scores[0] >= result.scores[1]
    assert result.probabilities.shape == (4,)
    (result,) = vk.predict(classifier, files / "plain.jpg", score=1.0)
    assert result.labels.size == 0 and result.label_names == []


def test_file_names_that_are_not_utf8(classifier, exported, files):
    folder = os.fsencode(files / "names")
    os.mkdir(folder)
    for name in (b"caf\xe9.png", b"-x\n.png", "日本 *.png".encode()):
        os.link(os.fsencode(files / "alpha.png"), os.path.join(folder, name))
    for model in (classifier, exported):
        results = vk.predict(model, os.fsdecode(folder))
        assert all(result.ok for result in results)
        paths = [os.path.basename(os.fsencode(result.path)) for result in results]
        assert sorted(paths) == sorted(os.listdir(folder))
        assert json.loads(results[0].to_json())["path"]


def test_a_pipe_is_an_error_and_does_not_block(classifier, exported, files):
    os.mkfifo(files / "pipe.png")
    start = time.monotonic()
    for model in (classifier, exported):
        bad, good = vk.predict(model, [files / "pipe.png", files / "plain.jpg"])
        assert bad.error.startswith("image.not_a_file") and good.ok
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ("missing.jpg", FileNotFoundError, "missing.jpg"),
        (["missing.jpg"], FileNotFoundError, "missing.jpg"),
        ("*.nothing", FileNotFoundError, "nothing"),
        (3, TypeError, "Received: int"),
        ([None], TypeError, "Received: NoneType"),
        (np.zeros((4, 4, 3), np.float32), ValueError, "uint8.*float32"),
        (np.zeros((4, 4), np.uint8), ValueError, r"\(H, W, 3\).*\(4, 4\)"),
        (np.zeros((2, 4, 4, 1), np.uint8), ValueError, r"\(H, W, 3\).*\(4, 4, 1\)"),
        (Image.new("I;16", (4, 4)), ValueError, "8 bits"),
    ],
)
def test_what_is_no_image_is_refused(classifier, images, error, message):
    with pytest.raises(error, match=message):
        vk.predict(classifier, images)


def test_a_folder_without_images_is_refused(classifier, files):
    with pytest.raises(ValueError, match="no images"):
        vk.predict(classifier, files / "folder.d")


def test_no_images_give_no_results(classifier):
    assert vk.predict(classifier, []) == []
    with pytest.raises(ValueError, match="batch_size=0"):
        vk.predict(classifier, [], batch_size=0)


def test_what_is_no_model_is_refused(exported, files, tmp_path):
    with pytest.raises(TypeError, match=r"visionkit task.*Received: dict"):
        vk.predict({}, files)
    with pytest.raises(FileNotFoundError, match="no_such_run"):
        vk.predict("no_such_run", files)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.json is missing"):
        vk.predict(tmp_path / "foreign", files)


def run(code, *arguments, **environment):
    """The JSON that `code` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_saved_model_needs_no_keras(exported, classifier, files):
    code = (
        "import sys\n"
        "sys.modules['keras'] = None\n"
        "import visionkit as vk\n"
        "print(vk.predict(sys.argv[1], sys.argv[2])[0].to_json())"
    )
    answer = run(code, exported, files / "plain.jpg")
    (expected,) = vk.predict(classifier, files / "plain.jpg")
    np.testing.assert_allclose(
        answer["probabilities"], expected.probabilities, atol=1e-4
    )


def test_jax_answers_as_tensorflow_and_says_how_to_export(classifier, files):
    classifier.save(files / "model.keras")
    code = (
        "import json, sys\n"
        "import visionkit as vk\n"
        "try: vk.export(sys.argv[1], 'nowhere')\n"
        "except RuntimeError as error: message = str(error)\n"
        "result, = vk.predict(*sys.argv[1:])\n"
        "print(json.dumps([message, result.to_dict()]))"
    )
    image = files / "plain.jpg"
    message, answer = run(code, files / "model.keras", image, KERAS_BACKEND="jax")
    assert "KERAS_BACKEND=tensorflow" in message
    (expected,) = vk.predict(classifier, image)
    np.testing.assert_allclose(
        answer["probabilities"], expected.probabilities, atol=1e-4
    )

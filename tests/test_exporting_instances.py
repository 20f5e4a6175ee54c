"""Drawn shapes come back from an export in their own pixels."""

import json

import numpy as np
import pytest
import tensorflow as tf
from finder import NAMES
from mask_finder import build_mask_finder, draw_shapes, mask_iou
from PIL import Image

import visionkit as vk
from visionkit.paste import paste_masks

SIZE = (300, 1000)
# The second touches the border, so that its box reaches beyond the image.
BOXES = [[400, 60, 560, 260], [860, 120, 1000, 300]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A version of the finder that passed the gate."""
    return vk.export(build_mask_finder(), tmp_path_factory.mktemp("saved_models"))


def ask(folder, signature, **inputs):
    served = tf.saved_model.load(str(folder)).signatures[signature]
    answers = served(**{k: tf.constant(v) for k, v in inputs.items()})
    return {name: answer.numpy() for name, answer in answers.items()}


def test_a_client_pastes_masks_into_a_wide_scene(exported):
    encoded, truth = draw_shapes(SIZE, BOXES)
    empty, _ = draw_shapes((90, 70), [])
    answer = ask(exported, "serving_default", image_bytes=[encoded, empty])
    assert answer["num_detections"].tolist() == [2, 0]
    assert answer["masks"].shape == (2, 3, 28, 28)
    assert answer["masks"].dtype == np.float32
    assert answer["boxes"][0, 1, 2] == 1000 and answer["boxes"][0, 1, 3] == 300
    found = paste_masks(answer["masks"][0, :2], answer["boxes"][0, :2], SIZE)
    for mask, true in zip(found, truth, strict=True):
        assert mask_iou(mask, true) >= 0.93
    assert not answer["masks"][1].any() and not answer["masks"][0, 2].any()
    tolerant = ask(exported, "tolerant", image_bytes=[b"no", encoded])
    np.testing.assert_array_equal(tolerant["masks"][1], answer["masks"][0])
    assert not tolerant["masks"][0].any()
    described = json.loads((exported / "model.json").read_text())
    assert described["task"] == "instance_segmentation"
    assert "interpolate" in described["conventions"]["masks"]


@pytest.mark.parametrize("resize", ["center_crop", "shortest_edge"])
def test_predict_finds_the_shapes_whatever_the_resize(resize):
    encoded, truth = draw_shapes(SIZE, [[400, 60, 560, 260], [590, 100, 690, 300]])
    (result,) = vk.predict(build_mask_finder(resize=resize), encoded)
    assert result.label_names == list(NAMES)
    assert result.masks.shape == (2, *SIZE)
    for mask, true in zip(result.masks, truth, strict=True):
        assert mask_iou(mask, true) >= 0.93


def test_the_saved_model_answers_as_predict(exported, tmp_path):
    (tmp_path / "a.png").write_bytes(draw_shapes(SIZE, BOXES)[0])
    (tmp_path / "b.png").write_bytes(draw_shapes((64, 48), [[5, 5, 30, 60]])[0])
    (tmp_path / "c.png").write_bytes(draw_shapes((64, 48), [])[0])
    expected = vk.predict(build_mask_finder(), tmp_path)
    for got, want in zip(vk.predict(exported, tmp_path), expected, strict=True):
        np.testing.assert_allclose(got.boxes, want.boxes, atol=1e-2)
        assert got.label_names == want.label_names
        assert got.masks.shape == (len(want.boxes), *want.image_size)
        assert got.masks == want.masks
    assert expected[2].masks.shape == (0, 64, 48)


def test_tiles_and_mirror_images_find_the_same_masks(exported):
    # 8 pixels of 1600 vanish in a frame of 160, and are plain in a tile of 160.
    encoded, truth = draw_shapes((300, 1600), [[1217, 131, 1225, 140]])
    model = build_mask_finder((160, 160), reach=0.0)
    assert not len(vk.predict(model, encoded)[0].masks)
    (tiled,) = vk.predict(model, encoded, tile=160)
    assert len(tiled.masks) == 1 and mask_iou(tiled.masks[0], truth[0]) >= 0.9
    encoded, truth = draw_shapes(SIZE, BOXES)
    (result,) = vk.predict(exported, encoded, tta=True)
    assert result.label_names == list(NAMES)
    for mask, true in zip(result.masks, truth, strict=True):
        assert mask_iou(mask, true) >= 0.93


def test_the_command_writes_pictures_ids_and_rle(exported, tmp_path):
    from visionkit.tasks.__main__ import main

    coco = pytest.importorskip("pycocotools.mask")
    encoded, truth = draw_shapes(SIZE, BOXES)
    (tmp_path / "scene.png").write_bytes(encoded)
    (tmp_path / "empty.png").write_bytes(draw_shapes((50, 80), [])[0])
    images = [str(tmp_path / name) for name in ("scene.png", "empty.png")]
    out, found, plain = tmp_path / "out", tmp_path / "coco.json", tmp_path / "all.json"
    options = ["--out", str(out), "--coco", str(found), "--json", str(plain)]
    assert main(["predict", str(exported), *images, *options]) == 0
    rows = json.loads(found.read_text())
    assert [row["file_name"] for row in rows] == ["scene.png"] * 2
    with Image.open(out / "scene.instances.png") as picture:
        ids = np.array(picture)
    for index, (row, true) in enumerate(zip(rows, truth, strict=True)):
        mask = coco.decode(row["segmentation"]).astype(bool)
        assert mask_iou(mask, true) >= 0.93
        np.testing.assert_array_equal(ids == index + 1, mask)
    answers = json.loads(plain.read_text())
    assert answers[0]["masks"] == [row["segmentation"] for row in rows]
    assert answers[1]["masks"] == []
    with Image.open(out / "empty.instances.png") as picture:
        assert picture.size == (80, 50) and not np.array(picture).any()
    with Image.open(out / "scene.png") as picture:
        assert picture.size == (1000, 300)

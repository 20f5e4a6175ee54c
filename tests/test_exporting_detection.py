"""An exported detector answers where things lie in the original image."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from finder import NAMES, build_finder, draw, iou

import visionkit as vk
from visionkit.types import RESIZE_MODES

SIZE = (300, 1000)
BOXES = [[400, 60, 520, 260], [30, 100, 130, 180]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Style -> a version of the finder that passed the gate."""
    model, base = build_finder(), tmp_path_factory.mktemp("saved_models")
    styles = ("visionkit", "modelgarden", "odapi")
    return {style: vk.export(model, base / style, style=style) for style in styles}


def ask(folder, signature, **inputs):
    served = tf.saved_model.load(str(folder)).signatures[signature]
    answers = served(**{k: tf.constant(v) for k, v in inputs.items()})
    return {name: answer.numpy() for name, answer in answers.items()}


def test_boxes_come_back_in_the_pixels_of_a_wide_scene(exported):
    answer = ask(
        exported["visionkit"],
        "serving_default",
        image_bytes=[draw(SIZE, BOXES), draw((90, 70), BOXES[:0])],
    )
    assert answer["num_detections"].tolist() == [2, 0]
    for found, true in zip(answer["boxes"][0], BOXES, strict=False):
        assert iou(found, np.array(true)) >= 0.9
    assert answer["labels"].tolist() == [[0, 1, -1], [-1, -1, -1]]
    names = [name.decode() for name in answer["label_names"][0]]
    assert names == [*NAMES, ""]
    assert not answer["boxes"][1].any() and not answer["scores"][1].any()
    assert not answer["boxes"][0, 2].any()


@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_predict_finds_the_drawing_whatever_the_resize(resize):
    boxes = [[400, 60, 520, 260]]  # inside of what a centre crop shows
    (result,) = vk.predict(build_finder(resize=resize), draw(SIZE, boxes))
    assert result.label_names == ["red"] and result.image_size == SIZE
    assert iou(result.boxes[0], np.array(boxes[0])) >= 0.9


def test_a_turned_photograph_is_answered_upright():
    stored = draw((90, 140), [[100, 10, 130, 40]], exif=6)  # to be turned clockwise
    (result,) = vk.predict(build_finder(), stored)
    assert result.image_size == (140, 90)
    assert iou(result.boxes[0], np.array([50, 100, 80, 130])) >= 0.8


def test_the_saved_model_answers_as_predict(exported, tmp_path):
    (tmp_path / "a.png").write_bytes(draw(SIZE, BOXES))
    (tmp_path / "b.png").write_bytes(draw((64, 48), [[5, 5, 30, 50]]))
    expected = vk.predict(build_finder(), tmp_path)
    for folder in exported.values():
        for got, want in zip(vk.predict(folder, tmp_path), expected, strict=True):
            np.testing.assert_allclose(got.boxes, want.boxes, atol=0.5)
            np.testing.assert_allclose(got.scores, want.scores, atol=1e-5)
            assert got.label_names == want.label_names


def test_model_gardens_names_order_offset_and_units(exported):
    answer = ask(exported["modelgarden"], "serving_default", inputs=[draw(SIZE, BOXES)])
    # 1000x300 in a frame of 160x120: scale 0.16, 36 rows of border above.
    expected = np.array([60 * 0.16 + 36, 400 * 0.16, 260 * 0.16 + 36, 520 * 0.16])
    np.testing.assert_allclose(answer["detection_boxes"][0, 0], expected, atol=1.0)
    assert answer["detection_classes"].tolist() == [[1, 2, 1]]
    assert answer["detection_classes"].dtype == np.int32
    assert answer["num_detections"].tolist() == [2]
    info = answer["image_info"][0]
    np.testing.assert_allclose(info, [SIZE, (120, 160), (0.16, 0.16), (-36, 0)])
    assert set(answer) == {
        *("detection_boxes", "detection_classes", "detection_scores"),
        *("num_detections", "image_info"),
    }


def test_object_detection_apis_names_order_offset_and_units(exported):
    answer = ask(exported["odapi"], "serving_default", input_tensor=[draw(SIZE, BOXES)])
    expected = np.array([60 / 300, 400 / 1000, 260 / 300, 520 / 1000])
    np.testing.assert_allclose(answer["detection_boxes"][0, 0], expected, atol=0.02)
    assert answer["detection_classes"].tolist() == [[1.0, 2.0, 1.0]]
    assert answer["num_detections"].dtype == np.float32
    described = json.loads((exported["odapi"] / "model.json").read_text())
    assert described["style"] == "odapi" and described["task"] == "detection"


def test_a_style_is_refused_where_it_has_no_meaning(classifier, tmp_path):
    with pytest.raises(ValueError, match="for detection"):
        vk.export(classifier, tmp_path / "m", style="odapi")
    with pytest.raises(ValueError, match="one of visionkit"):
        vk.export(build_finder(), tmp_path / "m", style="torch")


def test_tiles_find_what_the_whole_image_is_too_coarse_for():
    # 8 pixels of 4000 vanish in a frame of 160, and are plain in a tile of 400.
    scene = draw((600, 4000), [[3000, 300, 3008, 308]])
    model = build_finder()
    assert not len(vk.predict(model, scene)[0].boxes)
    (result,) = vk.predict(model, scene, tile=160)
    assert iou(result.boxes[0], np.array([3000, 300, 3008, 308])) >= 0.6
    (result,) = vk.predict(model, draw(SIZE, BOXES), tta=True)
    assert result.label_names == list(NAMES)
    for found, true in zip(result.boxes, BOXES, strict=True):
        assert iou(found, np.array(true)) >= 0.9


def test_a_video_is_answered_frame_by_frame(tmp_path):
    from visionkit.inference.video import frame_rate, read_frames, write_video

    path = str(tmp_path / "clip.mp4")
    frames = [np.full((96, 128, 3), 30, np.uint8) for _ in range(5)]
    for number, frame in enumerate(frames):
        frame[20:60, 16 * number : 16 * number + 32] = (255, 0, 0)
    assert write_video(path, frames, 12.0) == 5
    assert frame_rate(path) == pytest.approx(12.0)
    assert len(list(read_frames(path))) == 5
    results = vk.predict(build_finder(), path, batch_size=2)
    assert [result.frame for result in results] == list(range(5))
    for number, result in enumerate(results):
        true = np.array([16 * number, 20, 16 * number + 32, 60])
        assert iou(result.boxes[0], true) >= 0.8
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="no frame"):
        vk.predict(build_finder(), str(tmp_path / "broken.mp4"))


def test_results_in_cocos_format():
    (result,) = vk.predict(build_finder(), draw(SIZE, BOXES))
    rows = result.to_coco(7)
    assert [row["category_id"] for row in rows] == [1, 2]
    np.testing.assert_allclose(rows[0]["bbox"], [400, 60, 120, 200], atol=8)
    assert rows[0]["image_id"] == 7 and rows[1]["category_name"] == NAMES[1]
    json.dumps(rows)


def test_a_detector_says_where_it_looks():
    keras.utils.set_random_seed(0)  # of some weights nothing speaks for a class
    backbone = vk.build_backbone("mobilenet_v2_035", (64, 96))
    model = vk.SSD(backbone, 3, lite=True)
    rng = np.random.default_rng(0)
    for explanation in vk.explain(model, rng.integers(0, 256, (2, 50, 90, 3), "uint8")):
        assert explanation.heat.shape == (50, 90) and explanation.heat.max() > 0


def test_the_gate_does_not_mind_the_order_of_equal_proposals():
    from visionkit.serving.replay import Case, compare

    scores = np.float32([[0.9, 0.5, 0.5, 0.1]])
    boxes = np.arange(16, dtype="float32").reshape(1, 4, 4)
    expected = {"proposal_scores": scores, "proposals": boxes}
    case = Case("tensors", "images", np.zeros((1, 2, 2, 3)), expected)
    swapped = {**expected, "proposals": boxes[:, [0, 2, 1, 3]]}
    assert not compare(case, swapped, 1e-4)
    wrong = {**expected, "proposals": boxes[:, [1, 0, 2, 3]]}
    assert compare(case, wrong, 1e-4)


def test_pictures_are_written_over_no_input_and_no_other(tmp_path):
    from visionkit.tasks.predicting import _free_path

    inputs = [tmp_path / "a/clip.mp4", tmp_path / "b/clip.mp4", tmp_path / "b/new.mp4"]
    taken = {str(path.resolve()) for path in inputs}
    found = [
        _free_path(tmp_path / "a", path, ".mp4", index, taken).name
        for index, path in enumerate(inputs)
    ]
    assert found == ["clip-0.mp4", "clip-1.mp4", "new.mp4"]

"""Segmenters on the command line, measured on a source, and in a run's pictures."""

import json

import numpy as np
import pytest
from painter import NAMES, build_painter, draw
from PIL import Image

import visionkit as vk
from visionkit.tasks.__main__ import main

SCENES = {
    "wide": ((150, 500), [[40, 30, 120, 130], [200, 20, 300, 90]]),
    "tall": ((200, 90), [[10, 20, 60, 110]]),
    "empty": ((60, 80), []),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images and index masks of the scenes; one file is broken."""
    root = tmp_path_factory.mktemp("scenes")
    for kind in ("images", "masks", "broken"):
        (root / kind).mkdir()
    for name, (size, boxes) in SCENES.items():
        encoded, mask = draw(size, boxes)
        (root / "images" / f"{name}.png").write_bytes(encoded)
        mask[:5] = 255  # void
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    (root / "broken" / "none.png").write_bytes(b"none")
    return root


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    return str(vk.export(build_painter(), base / "painter", gate=False))


def test_predict_writes_masks_pictures_and_probabilities(
    exported, folder, tmp_path, capsys
):
    out, file = tmp_path / "out", tmp_path / "answers.json"
    arguments = [exported, str(folder / "images"), str(folder / "broken")]
    options = ["--out", str(out), "--json", str(file), "--probabilities"]
    assert main(["predict", *arguments, *options]) == 1  # one is broken
    table = capsys.readouterr().out
    assert "background 80.0 %, red 10.7 %, grün 9.3 %" in table.replace("\n", "")
    answers = json.loads(file.read_text("utf-8"))
    for name, answer in zip(sorted(SCENES), answers, strict=False):
        size, boxes = SCENES[name]
        _, mask = draw(size, boxes)
        with Image.open(out / f"{name}.mask.png") as image:
            assert image.mode == "P"
            found = np.asarray(image)
            colors = np.array(image.getpalette()).reshape(-1, 3)
        assert found.shape == size and (found == mask).mean() > 0.998
        assert len(np.unique(colors[:3], axis=0)) == 3 and not colors[0].any()
        assert answer["image_size"] == list(size)
        counts = np.bincount(found.ravel(), minlength=3)
        pixels = dict(zip(answer["label_names"], answer["pixels"], strict=True))
        assert pixels == {n: c for n, c in zip(NAMES, counts, strict=True) if c}
        with np.load(out / f"{name}.probabilities.npz") as stored:
            probabilities = stored["probabilities"]
        assert probabilities.shape == (*size, 3)
        np.testing.assert_array_equal(probabilities.argmax(-1), found)
        assert Image.open(out / f"{name}.png").width >= size[1]
    assert "error" in answers[-1]


def test_probabilities_need_a_place(exported, capsys):
    with pytest.raises(SystemExit):
        main(["predict", exported, "a.png", "--probabilities"])
    assert "--out" in capsys.readouterr().err


def test_a_videos_frames_are_painted_in_one_size(exported, tmp_path):
    from visionkit.inference.video import read_frames, write_video

    frames = [np.full((96, 128, 3), 30, np.uint8) for _ in range(4)]
    for number, frame in enumerate(frames[1:]):
        frame[20:60, 16 * number : 16 * number + 32] = (255, 0, 0)
    path = str(tmp_path / "clip.mp4")
    write_video(path, frames, 12.0)
    assert main(["predict", exported, path, "--out", str(tmp_path / "out")]) == 0
    painted = list(read_frames(str(tmp_path / "out" / "clip.mp4")))
    assert len(painted) == 4
    legend = painted[0].shape[0] - 3 * 96  # the picture is enlarged
    assert legend > 20 and (painted[0][-legend + 4 :, :100] < 128).any()
    assert not list((tmp_path / "out").glob("*.png"))


def test_a_run_is_measured_in_original_pixels_and_drawn(folder, tmp_path):
    from visionkit.data import build_source, make_dataset
    from visionkit.training import figures
    from visionkit.training.evaluation import evaluate_model

    source = build_source("mask_folder", root=folder, classes=list(NAMES))
    model = build_painter((75, 250))
    metrics = evaluate_model(model, source, batch_size=2)
    assert metrics["num_pixels"] == sum(
        s[0] * s[1] - 5 * s[1] for s, _ in SCENES.values()
    )
    assert 0.97 < metrics["mean_iou"] < 1 and metrics["unanswered_pixels"] == 0
    found = vk.predict(model, folder / "images")
    wrong = 0
    for result in found:
        truth = np.asarray(Image.open(result.path.replace("images", "masks")))
        wrong += int(((result.segmentation != truth) & (truth != 255)).sum())
    matrix = metrics["confusion_matrix"]
    assert wrong == matrix.sum() - matrix.trace()
    figures.draw_data(make_dataset(source, model.preprocessing, 2), source, tmp_path)
    figures.draw_results(model, source, metrics, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        *("class_counts.png", "train_samples.png", "class_iou.png"),
        *("confusion_matrix.png", "validation_predictions.png"),
    }


def test_samples_of_mixed_masks_are_drawn_by_the_largest_share():
    from visionkit.visualize.samples import _as_results

    shares = np.zeros((1, 2, 3, 4), "float32")
    shares[0, 0, :, 2], shares[0, 0, 0] = 1, (0.3, 0.7, 0, 0)
    (result,) = _as_results(shares, shares, list("abcd"))
    np.testing.assert_array_equal(result.segmentation, [[1, 2, 2], [255, 255, 255]])


def test_a_run_is_measured_with_several_looks(folder):
    """What `predict` answers with the same looks is what is measured."""
    from visionkit.data import build_source
    from visionkit.inference.views import view_options
    from visionkit.training.evaluation import evaluate_model

    source = build_source("mask_folder", root=folder, classes=list(NAMES))
    model = build_painter((75, 250))
    looks = {"tile": 150, "overlap": 0.3, "tta": [1.3]}
    views = view_options(model.task, **looks)
    metrics = evaluate_model(model, source, views=views)
    right = total = 0
    for result in vk.predict(model, folder / "images", **looks):
        truth = np.asarray(Image.open(result.path.replace("images", "masks")))
        right += int((result.segmentation == truth)[truth != 255].sum())
        total += int((truth != 255).sum())
    assert metrics["num_pixels"] == total
    assert metrics["pixel_accuracy"] == pytest.approx(right / total)
    assert metrics != evaluate_model(model, source)

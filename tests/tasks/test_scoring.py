"""Answers are scored where the truth lies, and data sets of every kind are read."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from visionkit.data.geometry import placements
from visionkit.data.sources import build_source
from visionkit.tasks.scoring import (
    DetectionScorer,
    SegmentationScorer,
    answer_batches,
    batches_of,
)
from visionkit.types import RESIZE_MODES, Preprocessing

TIED = (0.054, 0.407)  # scores of two results, see below
METRIC_COCO = Path(__file__).parents[2] / "../shared/data/metric_coco"


def perfect_answers(target):
    """The padded truth itself, as a detector would answer it."""
    boxes, labels = np.array(target["boxes"]), np.array(target["labels"])
    return {
        "boxes": boxes,
        "labels": labels,
        "scores": (labels >= 0).astype("float32"),
        "num_detections": (labels >= 0).sum(axis=1),
    }


@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_truth_as_answer_scores_one_in_original_pixels(resize):
    from visionkit.data import make_dataset

    source = build_source("digits", task="detection", split="validation", num_scenes=6)
    # The whole image fits the crop, else boxes would be missed rightly.
    size = (128, 160) if resize == "center_crop" else (96, 160)
    preprocessing = Preprocessing(size, resize, crop_fraction=1.0)
    scorer = DetectionScorer(source.info.class_names, preprocessing, source)
    for _, target in make_dataset(source, preprocessing, 4, with_ids=True):
        scorer.update(perfect_answers(target), target)
    assert scorer.result()["map"] == pytest.approx(1.0)


def test_without_a_source_the_targets_are_the_truth():
    target = {
        "boxes": np.array([[[0, 0, 10, 10], [0, 0, 0, 0]]], "float32"),
        "labels": np.array([[1, -1]], "int32"),
    }
    scorer = DetectionScorer(("a", "b"), Preprocessing((32, 32)))
    scorer.update(perfect_answers(target), target)
    wrong = {**perfect_answers(target), "labels": np.array([[0, -1]])}
    assert scorer.result()["map"] == pytest.approx(1.0)
    scorer.update(wrong, target)  # another image, of which the class is wrong
    assert scorer.result()["map"] < 0.6


class Masks:
    """The mask (20, 30) of one image, as a source gives it."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.truth = rng.integers(0, 3, (20, 30)).astype("uint8")
        self.truth[3, :7] = 255
        self.origin = self

    def mask(self, index):
        assert index == 0
        return self.truth

    def answers(self, scale, top=0, left=0, frame=(40, 60)):
        """The truth as logits, each pixel `scale` times, and noise around."""
        logits = np.random.default_rng(1).normal(size=(1, *frame, 3)) * 9
        truth = np.where(self.truth == 255, 1, self.truth)
        seen = np.eye(3)[truth].repeat(scale, 0).repeat(scale, 1) * 5
        height, width = frame
        seen = seen[max(0, -top) :, max(0, -left) :][:height, :width]
        top, left = max(0, top), max(0, left)
        logits[0, top : top + len(seen), left : left + seen.shape[1]] = seen
        return {"logits": logits.astype("float32"), "segmentation": logits.argmax(-1)}


ONE = {"image_id": np.array([0]), "image_size": np.array([[20, 30]])}


@pytest.mark.parametrize(
    ("preprocessing", "place", "unseen"),
    [
        (Preprocessing((40, 60), "stretch"), {"scale": 2}, 0),
        (Preprocessing((40, 100), "letterbox"), {"scale": 2, "left": 20}, 0),
        (Preprocessing((90, 60), "letterbox"), {"scale": 2, "top": 25}, 0),
        (Preprocessing((70, 90), "shortest_edge", min_edge=40), {"scale": 2}, 0),
        (Preprocessing((50, 60), "shortest_edge", min_edge=20), {"scale": 1}, 0),
        (
            Preprocessing((40, 40), "center_crop", crop_fraction=1.0),
            {"scale": 2, "left": -10},
            200 - 5,  # 5 columns at both sides, and void does not count
        ),
    ],
    ids=lambda x: getattr(x, "resize", None),
)
def test_masks_are_scored_in_original_pixels(preprocessing, place, unseen):
    source = Masks()
    scorer = SegmentationScorer(("a", "b", "c"), preprocessing, source)
    scorer.update(source.answers(**place, frame=preprocessing.image_size), ONE)
    scores = scorer.result()
    assert scores["unanswered_pixels"] == unseen
    right = scores["num_pixels"] - unseen
    assert scores["pixel_accuracy"] == pytest.approx(right / scores["num_pixels"])
    assert scores["num_pixels"] == 20 * 30 - 7


def test_masks_without_a_source_are_scored_in_the_frame_in_either_form():
    source = Masks()
    answers = source.answers(1, frame=(20, 30))
    shares = np.concatenate([np.eye(3), np.zeros((253, 3))])[source.truth]
    for masks in (source.truth, source.truth[..., None], shares):
        scorer = SegmentationScorer(("a", "b", "c"), Preprocessing((20, 30)))
        scorer.update(answers, {"segmentation_masks": masks[None]})
        scores = scorer.result()
        assert scores["mean_iou"] == 1.0 and scores["num_pixels"] == 593


def test_the_pipelines_masks_are_the_sources_own():
    from visionkit.data import make_dataset

    source = build_source(
        "digits", task="semantic_segmentation", split="validation", num_scenes=4
    )
    preprocessing = Preprocessing((256, 320), "stretch")
    scorer = SegmentationScorer(source.info.class_names, preprocessing, source)
    for _, target in make_dataset(source, preprocessing, 3, with_ids=True):
        masks = np.asarray(target["segmentation_masks"])
        logits = np.eye(source.info.num_classes)[masks]
        scorer.update({"segmentation": masks, "logits": logits}, target)
    scores = scorer.result()
    assert scores["mean_iou"] == 1.0 and scores["num_examples"] == 4


def test_batches_of_arrays_data_sets_and_things_read_once():
    images, target = np.zeros((5, 2, 2, 3)), {"labels": np.arange(5)}
    batches = list(batches_of(images, target, batch_size=2))
    assert [len(x) for x, _ in batches] == [2, 2, 1]
    np.testing.assert_array_equal(batches[2][1]["labels"], [4])
    assert len(list(batches_of(images, target, 2, steps=1))) == 1
    assert len(list(batches_of([(images, target)] * 3))) == 3
    assert batches_of(iter([(images, target)])) is None


class Coco:
    """COCO's truth as a source gives it, without the images."""

    def __init__(self, dataset, numbers, classes):
        rows = sorted(dataset["annotations"], key=lambda row: numbers[row["image_id"]])
        counts = np.bincount([numbers[r["image_id"]] for r in rows], None, len(numbers))
        xywh = np.array([row["bbox"] for row in rows], np.float32)
        self.columns = {
            "row_splits": np.cumsum([0, *counts]),
            "boxes": np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]),
            "box_labels": np.array([classes.index(r["category_id"]) for r in rows]),
            "area": np.array([row["area"] for row in rows]),
            "is_crowd": np.array([bool(row["iscrowd"]) for row in rows]),
        }
        self.origin = self

    def objects(self):
        return self.columns


def pycocotools_stats(dataset, results):
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = dataset
        truth.createIndex()
        run = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats


@pytest.mark.skipif(not METRIC_COCO.is_dir(), reason="COCO's examples are not here")
@pytest.mark.parametrize("resize", ["letterbox", "stretch", "shortest_edge"])
def test_cocos_own_results_score_the_same_after_resizing_and_back(resize):
    folder = METRIC_COCO / "tests/dataset/cocoapi"
    dataset = json.loads((folder / "instances_val2014_100.json").read_text())
    results = folder / "instances_val2014_fakebbox100_results.json"
    # Two overlaps are exactly 0.6 and 0.8: no rounding may decide about those.
    results = [r for r in json.loads(results.read_text()) if r["score"] not in TIED]
    images = sorted(dataset["images"], key=lambda row: row["id"])
    numbers = {image["id"]: n for n, image in enumerate(images)}
    classes = sorted(row["id"] for row in dataset["categories"])
    sizes = np.array([(image["height"], image["width"]) for image in images])
    preprocessing = Preprocessing((512, 640), resize)
    source = Coco(dataset, numbers, classes)
    scorer = DetectionScorer([str(c) for c in classes], preprocessing, source)
    found = [[] for _ in images]
    for row in results:
        found[numbers[row["image_id"]]].append(row)
    for number, rows in enumerate(found):
        rows.sort(key=lambda row: -row["score"])
        xywh = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
        place = placements(sizes[number : number + 1], preprocessing).astype(float)[0]
        boxes = np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])
        boxes = boxes * place[[1, 0, 1, 0]] + place[[3, 2, 3, 2]]
        answers = {
            "boxes": boxes[None].astype(np.float32),
            "scores": np.array([[row["score"] for row in rows]]),
            "labels": np.array([[classes.index(row["category_id"]) for row in rows]]),
            "num_detections": np.array([len(rows)]),
        }
        target = {"image_id": [number], "image_size": sizes[number : number + 1]}
        scorer.update(answers, target)
    got = list(scorer.summary().values())
    np.testing.assert_allclose(got, pycocotools_stats(dataset, results), atol=1e-6)


def test_a_smaller_last_batch_is_no_new_shape():
    """It is filled up for the model and cut again."""

    shapes = set()

    class Doubler:
        def predict_on_batch(self, images):
            shapes.add(images.shape)
            return {"probabilities": 2 * images}

    batches = [(np.arange(n, dtype="float32"), {"rows": n}) for n in (4, 4, 1)]
    found = list(answer_batches(Doubler(), batches))
    assert shapes == {(4,)}
    for (images, target), (answers, same) in zip(batches, found, strict=True):
        np.testing.assert_array_equal(answers["probabilities"], 2 * images)
        assert same is target

"""COCO's numbers equal pycocotools', whichever library computes them."""

import contextlib
import importlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from visionkit.metrics import coco
from visionkit.metrics.coco import BACKENDS, evaluate_coco
from visionkit.metrics.objects import make_answers, make_truth

DATA = Path(__file__).parents[2] / "../shared/data/metric_coco"
KEYS = [
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
]


def random_set(seed, images=12, classes=4):
    """Truth and answers with crowds, ties, empty images and 150 answers in one."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, 9, images) * (rng.random(images) < 0.8)
    corner = rng.uniform(0, 400, (count.sum(), 2))
    sides = np.exp(rng.uniform(np.log(6), np.log(250), corner.shape))
    if seed % 2:  # whole pixels, where overlaps are exactly 0.5 or 0.75
        corner, sides = corner.round(), sides.round()
    boxes = np.hstack([corner, corner + sides])
    numbers = np.repeat(np.arange(images), count)
    labels = rng.integers(0, classes - 1, len(boxes))  # the last class is absent
    area = sides.prod(axis=1) * rng.uniform(0.3, 1, len(boxes))
    crowd = rng.random(len(boxes)) < 0.15
    truth = make_truth(numbers, boxes, labels, area=area, is_crowd=crowd)

    many = np.where(np.arange(images) == 3, 150, rng.integers(0, 20, images))
    image = np.repeat(np.arange(images), many * (rng.random(images) < 0.9))
    found = rng.uniform(0, 400, (len(image), 4))
    found[:, 2:] = found[:, :2] + rng.uniform(1, 90, (len(image), 2))
    label = rng.integers(0, classes, len(image))
    for row, number in enumerate(image):
        near = np.flatnonzero(numbers == number)
        if near.size and rng.random() < 0.8:
            target = rng.choice(near)
            spread = 0.12 * sides[target].min() * rng.random()
            found[row] = boxes[target] + rng.normal(0, spread, 4)
            if seed % 2:
                found[row] = found[row].round()
            found[row, 2:] = np.maximum(found[row, 2:], found[row, :2] + 1)
            if rng.random() < 0.8:
                label[row] = labels[target]
    scores = rng.random(len(image)).round(2)
    return truth, make_answers(image, found, scores, label), images, classes


def pycocotools_stats(truth, answers, images, classes):
    """The twelve numbers by way of dicts, `loadRes` and `summarize`."""
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(table):
        xywh = np.hstack([table.boxes[:, :2], table.boxes[:, 2:] - table.boxes[:, :2]])
        return [
            {"image_id": 7 + 3 * int(image), "category_id": 2 + int(k), "bbox": list(b)}
            for image, k, b in zip(table.images, table.labels, xywh, strict=True)
        ]

    dataset = {
        "images": [{"id": 7 + 3 * i} for i in range(images)],
        "categories": [{"id": 2 + k} for k in range(classes)],
        "annotations": [
            row | {"id": i + 1, "area": float(area), "iscrowd": int(crowd)}
            for i, (row, area, crowd) in enumerate(
                zip(rows(truth), truth.area, truth.is_crowd, strict=True)
            )
        ],
    }
    found = rows(answers)
    for row, score in zip(found, answers.scores, strict=True):
        row["score"] = float(score)
    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO()
        objects.dataset = dataset
        objects.createIndex()
        run = COCOeval(objects, objects.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats, run.eval


def assert_equal_to_pycocotools(seed):
    case = random_set(seed)
    stats, arrays = pycocotools_stats(*case)
    curves = evaluate_coco(*case)
    summary = curves.summary()
    assert list(summary) == KEYS
    expected = np.where(stats == -1, np.nan, stats)
    np.testing.assert_allclose(list(summary.values()), expected, 0, 1e-12)
    for key in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(getattr(curves, key), arrays[key])


@pytest.mark.parametrize("seed", range(12))
def test_random_sets_equal_pycocotools(seed):
    assert_equal_to_pycocotools(seed)


@pytest.mark.slow
def test_three_hundred_random_sets_equal_pycocotools():
    for seed in range(100, 400):
        assert_equal_to_pycocotools(seed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_library_gives_the_same_arrays(backend):
    pytest.importorskip(backend)
    case = random_set(5)
    expected, found = evaluate_coco(*case), evaluate_coco(*case, backend=backend)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, 0, 1e-12)


def read_official(kind):
    """Truth, answers and sizes of COCO's own 100 images with made-up results."""
    from pycocotools import mask

    folder = DATA / "tests/dataset/cocoapi"
    dataset = json.loads((folder / "instances_val2014_100.json").read_text())
    name = f"instances_val2014_fake{kind}100_results.json"
    results = json.loads((folder / name).read_text())
    sizes = {i["id"]: (i["height"], i["width"]) for i in dataset["images"]}
    numbers = {image: n for n, image in enumerate(sorted(sizes))}
    classes = sorted(c["id"] for c in dataset["categories"])

    def rle(row):
        segments, size = row["segmentation"], sizes[row["image_id"]]
        if isinstance(segments, list):
            return mask.merge(mask.frPyObjects(segments, *size))
        if isinstance(segments["counts"], list):
            return mask.frPyObjects(segments, *size)
        return segments

    def columns(rows, box):
        xywh = np.array([box(row) for row in rows], np.float64)
        return (
            [numbers[row["image_id"]] for row in rows],
            np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]).astype(np.float32),
            [classes.index(row["category_id"]) for row in rows],
        )

    rows = dataset["annotations"]
    truth = make_truth(
        *columns(rows, lambda row: row["bbox"]),
        area=[row["area"] for row in rows],
        is_crowd=[row["iscrowd"] for row in rows],
        masks=[rle(row) for row in rows],
    )
    masks = None if kind == "bbox" else [rle(row) for row in results]
    images, boxes, labels = columns(results, lambda row: row.get("bbox", [0, 0, 0, 0]))
    scores = [row["score"] for row in results]
    answers = make_answers(images, boxes, scores, labels, masks=masks)
    return truth, answers, len(sizes), len(classes)


@pytest.mark.skipif(not DATA.is_dir(), reason="the official examples are not here")
@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_official_examples(kind, backend):
    pytest.importorskip("pycocotools")
    pytest.importorskip(backend)
    curves = evaluate_coco(*read_official(kind), iou_type=kind, backend=backend)
    stored = json.loads((DATA / "pycocotools_reference.json").read_text())
    expected = stored[f"val2014_100_{kind}"]
    np.testing.assert_allclose(list(curves.summary().values()), expected, 0, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_difficult_object_is_neither_asked_for_nor_wrong(backend):
    pytest.importorskip(backend)
    boxes = [[0, 0, 50, 50], [100, 100, 150, 150]]
    answers = make_answers([0, 0], boxes, [0.5, 0.9], [0, 0])
    for difficult in (False, True):
        truth = make_truth([0, 0], boxes, [0, 0], is_difficult=[False, difficult])
        summary = evaluate_coco(truth, answers, 1, 1, backend=backend).summary()
        assert summary["map"] == pytest.approx(1)
    truth = make_truth([0, 0], boxes, [0, 0], is_difficult=[True, True])
    summary = evaluate_coco(truth, answers, 1, 1, backend=backend).summary()
    assert all(np.isnan(value) for value in summary.values())
    missed = make_answers([0], boxes[:1], [0.5], [0])
    truth = make_truth([0, 0], boxes, [0, 0], is_difficult=[False, True])
    assert evaluate_coco(truth, missed, 1, 1, backend=backend).summary()["mar_100"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_true_or_nothing_found(backend):
    pytest.importorskip(backend)
    nothing, none = make_truth([], [], []), make_answers([], [], [], [])
    truth = make_truth([1], [[5, 5, 60, 70]], [1])
    answers = make_answers([0], [[5, 5, 60, 70]], [0.5], [1])
    for case in ((nothing, none), (nothing, answers)):
        summary = evaluate_coco(*case, 2, 3, backend=backend).summary()
        assert list(summary) == KEYS and np.isnan(list(summary.values())).all()
    for found in (none, answers):
        summary = evaluate_coco(truth, found, 2, 3, backend=backend).summary()
        assert summary["map"] == 0 and np.isnan(summary["map_small"])


def test_without_hotcoco_the_next_library_serves(monkeypatch):
    def import_module(name):
        if name in missing:
            raise ImportError(name)
        return importlib.import_module(name)

    missing = {"hotcoco"}
    stand_in = type("importlib", (), {"import_module": staticmethod(import_module)})
    monkeypatch.setattr(coco, "importlib", stand_in)
    pytest.importorskip("pycocotools")
    assert evaluate_coco(*random_set(0)).summary()["map"] > 0
    missing |= set(BACKENDS)
    with pytest.raises(ImportError, match="pip install hotcoco"):
        evaluate_coco(*random_set(0))


def test_wrong_options():
    case = random_set(0)
    with pytest.raises(ValueError, match="'bbox' or 'segm'"):
        evaluate_coco(*case, iou_type="keypoints")
    with pytest.raises(ValueError, match="needs masks"):
        evaluate_coco(*case, iou_type="segm")
    with pytest.raises(ValueError, match="one of hotcoco"):
        evaluate_coco(*case, backend="cocoapi")

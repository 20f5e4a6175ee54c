"""Scores of masks, their boundaries and panoptic quality, against other programs."""

import contextlib
import io
import json

import numpy as np
import pytest

from tests.metrics.test_coco import DATA, read_official
from visionkit.metrics import InstanceEvaluator, to_json_safe
from visionkit.metrics.masks import find_mask_pairs

coco_mask = pytest.importorskip("pycocotools.mask")

NAMES = ("ant", "bee", "cat")
SIZE = (60, 90)


def rle(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]


def rectangle(x1, y1, x2, y2):
    mask = np.zeros(SIZE, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def ellipse(rng):
    """A mask, perhaps cut by the border, and its box."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    centre, radius = rng.uniform(0, SIZE), rng.uniform(4, 25, 2)
    mask = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2 < 1
    return mask, box_of(mask)


def box_of(mask):
    if not mask.any():
        return np.zeros(4)
    (y, x) = np.nonzero(mask)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], float)


def random_scenes(seed, images=6):
    """Columns of truth and of answers: overlaps, crowds, ties, empty masks."""
    rng = np.random.default_rng(seed)
    truth, answers = [], []
    for image in range(images):
        objects = [(*ellipse(rng), rng.integers(3)) for _ in range(rng.integers(0, 6))]
        crowd = rng.random(len(objects)) < 0.2
        truth += [(image, *row, c) for row, c in zip(objects, crowd, strict=True)]
        for _ in range(rng.integers(0, 12)):
            mask, box = ellipse(rng)
            label = rng.integers(3)
            if objects and rng.random() < 0.8:
                mask, _, label = objects[rng.integers(len(objects))]
                mask = np.roll(mask, rng.integers(-3, 4, 2), (0, 1)) & (
                    rng.random() < 0.95
                )
                box = box_of(mask)
            answers.append((image, mask, box, label, round(rng.random(), 1)))
    return truth, answers


def evaluate(truth, answers, images=6, area=None, **options):
    evaluator = InstanceEvaluator(NAMES, **options)
    for i in range(images):
        rows = [row for row in truth if row[0] == i]
        _, masks, boxes, labels, crowd = zip(*rows, strict=True) if rows else [()] * 5
        evaluator.add_truth(
            i, boxes, labels, [rle(m) for m in masks], is_crowd=crowd, area=area
        )
    for i in range(images):
        rows = [row for row in answers if row[0] == i]
        _, masks, boxes, labels, scores = zip(*rows, strict=True) if rows else [()] * 5
        evaluator.update([i], [answer(masks, boxes, labels, scores)])
    return evaluator


def answer(masks, boxes, labels, scores):
    return {
        "boxes": np.array(boxes, float).reshape(-1, 4),
        "labels": np.array(labels, int),
        "scores": np.array(scores, float),
        "masks": [rle(mask) for mask in masks],
        "image_size": SIZE,
    }


def eroded_edge(mask, size):
    """The boundary by scipy, the image's border being one too."""
    from scipy import ndimage

    depth = max(1, round(0.02 * np.hypot(*size)))
    square = np.ones((3, 3), bool)
    return mask & ~ndimage.binary_erosion(mask, square, iterations=depth)


def pycocotools_run(truth, answers, images, boundary=False):
    """COCO's program; with the lower of both overlaps where `boundary`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class BoundaryEval(COCOeval):
        def computeIoU(self, image, category):
            objects = self._gts[image, category]
            found = sorted(self._dts[image, category], key=lambda row: -row["score"])
            if not (objects and found):
                return []
            crowd = [row["iscrowd"] for row in objects]
            iou = overlap(found, objects, crowd, lambda mask: mask)
            edge = overlap(found, objects, crowd, lambda m: eroded_edge(m, m.shape))
            return np.where(np.array(crowd, bool), iou, np.minimum(iou, edge))

    def overlap(found, objects, crowd, change):
        rles = [
            [
                coco_mask.encode(
                    np.asfortranarray(
                        change(coco_mask.decode(row["segmentation"]) > 0), np.uint8
                    )
                )
                for row in rows
            ]
            for rows in (found, objects)
        ]
        return coco_mask.iou(*rles, crowd)

    def rows(columns, **more):
        return [
            {
                "image_id": image,
                "category_id": int(label),
                "segmentation": {"size": list(mask.shape), "counts": rle(mask)},
                "area": int(mask.sum()),
            }
            for image, mask, _, label, _ in columns
        ]

    annotations, results = rows(truth), rows(answers)
    for i, (row, source) in enumerate(zip(annotations, truth, strict=True)):
        row |= {"id": i + 1, "iscrowd": int(source[4])}
    for i, (row, source) in enumerate(zip(results, answers, strict=True)):
        row |= {"id": i + 1, "iscrowd": 0, "score": float(source[4])}
    frames = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(images)]
    shared = {"images": frames, "categories": [{"id": k} for k in range(3)]}
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):
        for part in (annotations, results):
            side = COCO()
            side.dataset = {**shared, "annotations": part}
            side.createIndex()
            sides.append(side)
        run = (BoundaryEval if boundary else COCOeval)(*sides, "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


@pytest.mark.skipif(not DATA.is_dir(), reason="the official examples are not here")
def test_the_official_masks_score_as_pycocotools_scores_them():
    truth, answers, images, classes = read_official("segm")
    sizes = {
        image: mask["size"]
        for table in (truth, answers)
        for image, mask in zip(table.images.tolist(), table.masks, strict=True)
    }
    evaluator = InstanceEvaluator([str(k) for k in range(classes)])
    for i in range(images):
        rows = truth.images == i
        masks = [mask["counts"] for mask in truth.masks[rows]]
        optional = {"is_crowd": truth.is_crowd[rows], "area": truth.area[rows]}
        boxes, labels = truth.boxes[rows], truth.labels[rows]
        evaluator.add_truth(i, boxes, labels, masks, **optional)
    for i in range(images):
        rows = answers.images == i
        columns = {k: getattr(answers, k)[rows] for k in ("boxes", "scores", "labels")}
        masks = [mask["counts"] for mask in answers.masks[rows]]
        size = sizes.get(i, (1, 1))
        evaluator.update([i], [{**columns, "masks": masks, "image_size": size}])
    summary = evaluator.summary()
    twelve = [summary[key] for key in summary if key.startswith("mask_")]
    stored = json.loads((DATA / "pycocotools_reference.json").read_text())
    np.testing.assert_allclose(twelve, stored["val2014_100_segm"], 0, 1e-12)
    assert summary["mask_map"] == pytest.approx(0.319545, abs=1e-6)
    result = evaluator.result()
    assert {key: result[key] for key in summary} == pytest.approx(summary, nan_ok=True)
    boundary = [result[f"boundary_map{end}"] for end in ("", "_50", "_75")]
    # What faster-coco-eval 1.8.0 says, iouType="boundary".
    assert boundary == pytest.approx([0.22639400, 0.37750108, 0.22557985], abs=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_random_masks_score_as_pycocotools_scores_them(seed):
    truth, answers = random_scenes(seed)
    evaluator = evaluate(truth, answers)
    result, summary = evaluator.result(), evaluator.summary()
    stats = pycocotools_run(truth, answers, 6).stats
    expected = np.where(stats == -1, np.nan, stats)
    twelve = [summary[key] for key in summary if key.startswith("mask_")]
    np.testing.assert_allclose(twelve, expected, 0, 1e-12)
    stats = pycocotools_run(truth, answers, 6, boundary=True).stats
    boundary = [result[f"boundary_map{end}"] for end in ("", "_50", "_75")]
    np.testing.assert_allclose(boundary, stats[:3], 0, 1e-12)
    # By classes, and the matching in NumPy against the library's curves.
    rows = result["per_class"]
    mean = np.nanmean([row["mask_ap"] for row in rows])
    assert mean == pytest.approx(summary["mask_map"])
    mean = np.nanmean([r["boundary_ap"] for r in rows])
    assert mean == pytest.approx(result["boundary_map"])
    for row, precision in zip(rows, result["mask_curves"]["precision"], strict=True):
        assert row["mask_ap_50"] == pytest.approx(precision.mean(), abs=1e-4)


def test_overlaps_of_masks_equal_those_of_arrays():
    truth, answers = random_scenes(7)
    found, known = evaluate(truth, answers)._tables()[1::-1]
    pairs = find_mask_pairs(found, known, 0.1)
    expected = []
    for i, image in enumerate(found.images):
        a = coco_mask.decode(found.masks[i]) > 0
        for j in np.flatnonzero(known.images == image):
            b = coco_mask.decode(known.masks[j]) > 0
            whole = a.sum() if known.is_crowd[j] else (a | b).sum()
            if (a & b).sum() >= 0.1 * whole > 0:
                same = found.labels[i] == known.labels[j]
                expected.append((i, j, (a & b).sum() / whole, same))
    assert len(expected) > 10
    for column, other in zip(pairs, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(column, other, 0, 1e-12)


def test_a_mask_is_judged_beside_its_box():
    """Boxes may be right where masks are not: an L and what it leaves of its box."""
    mask = rectangle(10, 10, 50, 50)
    mask[10:40, 20:50] = False
    truth = [(0, mask, [10, 10, 50, 50], 0, False)]
    wrong = rectangle(10, 10, 50, 50) & ~mask
    result = evaluate(truth, [(0, wrong, [10, 10, 50, 50], 0, 0.9)], 1).result()
    assert result["map"] == pytest.approx(1) and result["mask_map"] == 0
    assert result["errors"]["background"]["count"] == 0
    assert result["mask_errors"]["background"]["count"] == 1
    assert result["confusion_matrix"][0, 0] == 1
    assert result["mask_confusion_matrix"][0].tolist() == [0, 0, 0, 1]
    assert result["worst_images"] == []
    assert result["mask_worst_images"][0]["missed"] == 1
    row = result["per_class"][0]
    assert row["f1"] == 1 and row["mask_f1"] == 0 and row["boundary_ap"] == 0
    right = evaluate(truth, [(0, mask, [10, 10, 50, 50], 0, 0.9)], 1).result()
    keys = ("map", "mask_map", "boundary_map", "pq", "sq", "rq")
    assert [right[key] for key in keys] == pytest.approx([1] * 6)
    json.dumps(to_json_safe(right), allow_nan=False)


def test_the_boundary_sees_what_a_large_mask_hides():
    """A square with a frayed edge: the mask hardly changes, the boundary does."""
    mask = rectangle(5, 5, 55, 55)
    frayed = mask.copy()
    frayed[5:55:2, 5:8] = frayed[5:8, 5:55:2] = False
    result = evaluate(
        [(0, mask, box_of(mask), 0, False)], [(0, frayed, box_of(mask), 0, 0.9)], 1
    ).result()
    iou = (mask & frayed).sum() / (mask | frayed).sum()
    a, b = eroded_edge(mask, SIZE), eroded_edge(frayed, SIZE)
    edge = (a & b).sum() / (a | b).sum()
    assert edge < 0.85 < 0.9 < iou
    assert result["mask_map"] == pytest.approx(np.mean(iou >= LEVELS))
    assert result["boundary_map"] == pytest.approx(np.mean(edge >= LEVELS))


LEVELS = np.linspace(0.5, 0.95, 10)


# Panoptic quality


def test_panoptic_quality_equals_another_librarys():
    """Of segments that do not overlap and fill the image, as that one asks for."""
    hotcoco = pytest.importorskip("hotcoco")
    from hotcoco.panoptic import PanopticEval

    rng = np.random.default_rng(0)
    truth, answers = [], []
    for image in range(8):
        cuts = np.sort(rng.integers(1, 89, 4))
        for table, places in ((truth, cuts), (answers, cuts + rng.integers(-4, 5, 4))):
            owners = (np.arange(SIZE[1]) >= places[:, None]).sum(0)
            owners = np.broadcast_to(owners, SIZE)
            for owner in np.unique(owners):
                mask = owners == owner
                label = (image + owner) % 3 if rng.random() < 0.8 else rng.integers(3)
                table.append((image, mask, box_of(mask), label, False))
    answers = [(*row[:4], 0.9) for row in answers]

    def side(table, **more):
        rows = [
            {
                "id": i + 1,
                "image_id": row[0],
                "category_id": int(row[3]),
                "segmentation": {"size": list(SIZE), "counts": rle(row[1]).decode()},
                "area": int(row[1].sum()),
                "bbox": [0, 0, 1, 1],
                "iscrowd": 0,
                **more,
            }
            for i, row in enumerate(table)
        ]
        return {
            "images": [
                {"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(8)
            ],
            "categories": [
                {"id": k, "name": name, "isthing": 1} for k, name in enumerate(NAMES)
            ],
            "annotations": rows,
        }

    run = PanopticEval(hotcoco.COCO(side(truth)), hotcoco.COCO(side(answers)))
    run.evaluate()
    expected = run.results()
    result = evaluate(truth, answers, 8).result()
    for key in ("pq", "sq", "rq"):
        assert result[key] == pytest.approx(expected["All"][key], abs=1e-12)


def test_pixels_belong_to_the_surest_detection_and_the_smallest_object():
    large, small = rectangle(0, 0, 40, 40), rectangle(10, 10, 20, 20)
    truth = [(0, large, box_of(large), 0, False), (0, small, box_of(small), 1, False)]
    copy = rectangle(0, 0, 50, 30)  # of which a fifth is left
    right = rectangle(40, 0, 60, 40)
    answers = [
        (0, large, box_of(large), 0, 0.8),
        (0, small, box_of(small), 1, 0.9),
        (0, copy, box_of(copy), 2, 0.7),
        (0, right, box_of(right), 2, 0.4),  # not shown
    ]
    result = evaluate(truth, answers, 1).result()
    assert (result["pq"], result["sq"], result["rq"]) == (1, 1, 1)
    assert np.isnan(result["per_class"][2]["pq"])
    # The small one is unsure and hidden: missed, and the large one has its pixels.
    answers[1] = (*answers[1][:4], 0.6)
    rows = evaluate(truth, answers, 1).result()["per_class"]
    assert rows[0]["pq"] == pytest.approx(1500 / 1600) and rows[1]["pq"] == 0
    # Shown as well, the last one is wrong: it answers to nothing.
    rows = evaluate(truth, answers, 1, score_threshold=0.3).result()["per_class"]
    assert rows[2]["pq"] == 0


def test_crowds_take_detections_and_ask_for_none():
    crowd, one = rectangle(0, 0, 40, 60), rectangle(60, 0, 90, 60)
    truth = [(0, crowd, box_of(crowd), 0, True), (0, one, box_of(one), 0, False)]
    inside = [rectangle(x, 5, x + 9, 30) for x in (2, 14, 26)]
    answers = [(0, mask, box_of(mask), 0, 0.9) for mask in (*inside, one)]
    result = evaluate(truth, answers, 1).result()
    for key in ("map", "mask_map", "boundary_map", "pq"):
        assert result[key] == pytest.approx(1), key
    assert result["num_objects"] == 1 and result["mask_confusion_matrix"].sum() == 1


# Nothing, and what is wrong


def test_without_objects_or_answers():
    nothing = evaluate([], [], 2).result()
    for key in ("map", "mask_map", "boundary_map", "pq"):
        assert np.isnan(nothing[key])
    mask = rectangle(3, 3, 9, 9)
    silent = evaluate([(0, mask, box_of(mask), 1, False)], [], 2).result()
    alarm = evaluate([], [(1, mask, box_of(mask), 1, 0.9)], 2).result()
    assert silent["mask_map"] == silent["boundary_map"] == silent["pq"] == 0
    assert np.isnan(alarm["mask_map"]) and alarm["pq"] == 0
    assert alarm["mask_worst_images"][0]["image_id"] == 1


def test_the_area_is_the_masks_unless_told():
    mask = rectangle(0, 0, 40, 40)
    mask[5:, 5:] = False  # 375 pixels: small, in a medium box
    truth = [(0, mask, box_of(mask), 0, False)]
    answers = [(0, mask, box_of(mask), 0, 0.9)]
    assert evaluate(truth, answers, 1).summary()["mask_map_small"] == pytest.approx(1)
    summary = evaluate(truth, answers, 1, area=[2000.0]).summary()
    assert np.isnan(summary["mask_map_small"]) and np.isnan(summary["map_small"])


def test_columns_of_a_source_equal_truth_image_by_image():
    truth, answers = random_scenes(2)
    columns = {
        "row_splits": np.searchsorted([row[0] for row in truth], range(7)),
        "boxes": np.array([row[2] for row in truth]),
        "box_labels": np.array([row[3] for row in truth]),
        "is_crowd": np.array([row[4] for row in truth]),
        "instance_masks": np.array([rle(row[1]) for row in truth], object),
    }
    whole, single = InstanceEvaluator.from_columns(columns, NAMES), evaluate(truth, [])
    for i in range(6):
        rows = [row[1:] for row in answers if row[0] == i]
        found = answer(*(zip(*rows, strict=True) if rows else [()] * 4))
        whole.update([i], [found])
        single.update([i], [found])
    assert to_json_safe(whole.result()) == to_json_safe(single.result())
    del columns["instance_masks"]
    with pytest.raises(ValueError, match="`instance_masks` beside the boxes"):
        InstanceEvaluator.from_columns(columns, NAMES)


def test_wrong_input_is_refused():
    mask = rectangle(3, 3, 9, 9)
    evaluator = evaluate([(0, mask, box_of(mask), 1, False)], [], 1)
    good = answer([mask], [box_of(mask)], [1], [0.9])
    for wrong in ({"masks": []}, {"labels": [3]}):
        with pytest.raises(ValueError):
            evaluator.update([0], [{**good, **wrong}])
    evaluator.reset()
    with pytest.raises(ValueError, match="0 images"):
        evaluator.result()
    padded = answer([mask, mask], [box_of(mask)] * 2, [1, -1], [0.9, 0])
    evaluator.update([0], [padded])
    assert evaluator.result()["num_detections"] == 1

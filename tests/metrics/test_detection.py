"""A detector's scores on drawn scenes with known answers, and on random ones."""

import json

import numpy as np
import pytest

from visionkit.data.sources.base import Source, SourceInfo
from visionkit.metrics import DetectionEvaluator, to_json_safe
from visionkit.metrics.curves import Ranking
from visionkit.metrics.errors import error_split
from visionkit.metrics.matching import find_pairs, match
from visionkit.metrics.objects import make_answers, make_truth

NAMES = ("ant", "bee", "cat")


def box(x, y=0, size=10):
    return [x, y, x + size, y + size]


def answer(*rows):
    """Rows of (box, label, score)."""
    boxes, labels, scores = zip(*rows, strict=True) if rows else ([], [], [])
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.array(labels, np.int32),
        "scores": np.array(scores, np.float32),
    }


def drawn(truth, found, **options):
    """The result of one image of drawn boxes; truth are (box, label)."""
    evaluator = DetectionEvaluator(NAMES, **options)
    boxes, labels = zip(*truth, strict=True) if truth else ((), ())
    evaluator.add_truth(0, boxes, np.array(labels, np.int64))
    evaluator.update([0], [answer(*found)])
    return evaluator.result()


def counts(result):
    return {kind: error["count"] for kind, error in result["errors"].items()}


def random_scenes(seed, images=30, classes=3, crowd=0.0):
    rng = np.random.default_rng(seed)
    evaluator = DetectionEvaluator([str(k) for k in range(classes)])
    for i in range(images):
        n = int(rng.integers(0, 8))
        corner = rng.uniform(0, 120, (n, 2))
        boxes = np.hstack([corner, corner + rng.uniform(10, 60, (n, 2))])
        labels = rng.integers(0, classes, n)
        evaluator.add_truth(i, boxes, labels, is_crowd=rng.random(n) < crowd)
        m = int(rng.integers(0, 40))
        found = rng.uniform(0, 120, (m, 4))
        found[:, 2:] = found[:, :2] + rng.uniform(5, 60, (m, 2))
        label = rng.integers(0, classes, m)
        if n:
            near = rng.integers(0, n, m)
            close = rng.random(m) < 0.7
            shift = rng.normal(0, 6, (m, 4))
            found[close] = (boxes[near] + shift)[close]
            found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
            label = np.where(rng.random(m) < 0.7, labels[near], label)
        scores = rng.random(m).astype(np.float32)
        evaluator.update([i], [{"boxes": found, "scores": scores, "labels": label}])
    return evaluator


# Errors


def test_every_kind_of_error_is_told_apart():
    truth = [(box(100 * i), i % 3) for i in range(6)]
    found = [
        (box(0), 0, 0.99),  # right
        (box(1), 0, 0.9),  # duplicate: IoU 9 / 11
        (box(100), 0, 0.8),  # a bee called ant
        (box(206), 2, 0.7),  # a cat, IoU 4 / 16
        (box(306), 1, 0.6),  # an ant called bee, IoU 4 / 16: both
        (box(0, 500), 1, 0.6),  # background
        (box(400), 1, 0.1),  # right, but not shown
    ]
    result = drawn(truth, found)
    assert counts(result) == {
        "localization": 1,
        "classification": 1,
        "both": 1,
        "duplicate": 1,
        "background": 1,
        "missed": 3,  # the ant of "both", the bee not shown, the last cat
    }
    #           ant bee cat background
    expected = [[1, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 2], [1, 2, 1, 0]]
    assert result["confusion_matrix"].tolist() == expected
    assert result["worst_images"] == [
        {"image_id": 0, "true_positives": 1, "false_positives": 5, "missed": 5}
    ]


def test_gains_of_a_drawn_case():
    truth = [(box(0), 0), (box(100), 0), (box(0, 100), 1), (box(300), 2)]
    found = [(box(100, 100), 0, 0.9), (box(0), 0, 0.8), (box(0, 100), 1, 0.7)]
    errors = drawn(truth, found)["errors"]
    gain = {kind: error["ap_gain"] for kind, error in errors.items()}
    # Ant: 51 of 101 recalls at precision 1/2; bee 1; cat 0.
    base = (51 / 101 / 2 + 1 + 0) / 3
    assert gain["background"] == pytest.approx((51 / 101 + 1 + 0) / 3 - base)
    # Without the missed ant its recall is 1; without the missed cat there is no cat.
    assert gain["missed"] == pytest.approx((1 / 2 + 1) / 2 - base)
    rest = {gain[kind] for kind in ("localization", "classification", "both")}
    assert rest == {0} and gain["duplicate"] == 0


def test_a_mended_class_counts_for_the_right_one():
    truth = [(box(0), 0), (box(100), 1)]
    errors = drawn(truth, [(box(0), 0, 0.9), (box(100), 0, 0.8)])["errors"]
    assert errors["classification"] == {"count": 1, "ap_gain": pytest.approx(0.5)}
    assert errors["missed"]["count"] == 0


def test_the_split_equals_tide_of_an_independent_library():
    hotcoco = pytest.importorskip("hotcoco")
    names = ["Loc", "Cls", "Both", "Dupe", "Bkg", "Miss"]
    for seed in range(5):
        truth, answers, images = random_scenes(seed)._tables()
        objects = hotcoco.COCO.from_arrays(
            [{"id": i} for i in range(len(images))],
            [{"id": k, "name": str(k)} for k in range(3)],
            truth.images,
            truth.labels,
            np.hstack([truth.boxes[:, :2], truth.boxes[:, 2:] - truth.boxes[:, :2]]),
        )
        sides = answers.boxes[:, 2:] - answers.boxes[:, :2]
        rows = (answers.images, answers.boxes[:, :2], sides, answers.scores)
        found = objects.load_res(np.column_stack([*rows, answers.labels]))
        run = hotcoco.COCOeval(objects, found, "bbox")
        run.evaluate()
        expected = run.tide_errors()
        pairs = find_pairs(answers, truth, 0.1)
        case = (truth, answers, pairs, match(answers, truth, pairs))
        split = error_split(*case, answers.scores >= 0, 3)
        for name, error in zip(names, split.values(), strict=True):
            assert error["count"] == expected["counts"][name], (seed, name)
            gain = pytest.approx(expected["delta_ap"][name], abs=1e-12)
            assert error["ap_gain"] == gain, (seed, name)


# The confusion matrix


def test_the_right_class_goes_before_the_better_overlap():
    truth = [(box(0), 0)]
    found = [(box(0), 1, 0.9), (box(2), 0, 0.6)]
    matrix = drawn(truth, found)["confusion_matrix"]
    assert matrix[0].tolist() == [1, 0, 0, 0] and matrix[3].tolist() == [0, 1, 0, 0]


def test_the_surest_of_two_wrong_classes_takes_the_object():
    matrix = drawn([(box(0), 0)], [(box(2), 1, 0.9), (box(0), 2, 0.6)])
    matrix = matrix["confusion_matrix"]
    assert matrix[0, 1] == 1 and matrix[3, 2] == 1 and matrix.sum() == 2


def test_the_matrix_adds_up():
    for seed in range(5):
        evaluator = random_scenes(seed, crowd=0.2)
        evaluator.score_threshold, evaluator.num_mistakes = 0.3, 99
        result = evaluator.result()
        matrix, rows = result["confusion_matrix"], result["per_class"]
        support = [row["support"] for row in rows]
        assert matrix[:-1].sum(axis=1).tolist() == support and matrix[-1, -1] == 0
        total = {
            key: sum(image[key] for image in result["worst_images"])
            for key in ("true_positives", "false_positives", "missed")
        }
        right = np.trace(matrix)
        # An image without a mistake is not listed.
        assert total["true_positives"] <= right
        assert total["false_positives"] == matrix[:, :-1].sum() - right
        assert total["missed"] == sum(support) - right


def test_crowds_and_difficult_objects_count_for_nothing():
    for flag in ("is_crowd", "is_difficult"):
        evaluator = DetectionEvaluator(NAMES)
        boxes = [box(0), box(100, size=50)]
        evaluator.add_truth(4, boxes, [0, 1], **{flag: [False, True]})
        found = [(box(0), 0, 0.9), (box(100, size=50), 1, 0.8)]
        if flag == "is_crowd":  # any number of boxes, inside it
            found += [(box(110, 10), 1, 0.95), (box(130, 30), 1, 0.95)]
        evaluator.update([4], [answer(*found)])
        result = evaluator.result()
        assert result["map"] == pytest.approx(1) and result["voc_map"] == 1
        assert result["num_objects"] == 1 and result["worst_images"] == []
        assert result["confusion_matrix"].sum() == 1 and not any(
            counts(result).values()
        )
        assert [row["support"] for row in result["per_class"]] == [1, 0, 0]


# Average precision and thresholds


def test_matching_in_numpy_gives_cocos_average_precision():
    for seed in range(5):
        result = random_scenes(seed, crowd=0.2).result()
        for row, precision in zip(
            result["per_class"], result["curves"]["precision"], strict=True
        ):
            assert row["ap_50"] == pytest.approx(precision.mean(), abs=1e-4)
        truth, answers, _ = random_scenes(seed, crowd=0.2)._tables()
        pairs = find_pairs(answers, truth, 0.5)
        matches = match(answers, truth, pairs)
        for label, row in enumerate(result["per_class"]):
            kept = ~matches.ignored & (answers.labels == label)
            ranking = Ranking(answers.scores[kept], matches.right[kept], row["support"])
            levels = np.linspace(0, 1, 101)
            expected = ranking.average_precision(levels)
            assert row["ap_50"] == pytest.approx(expected, abs=1e-12)


def test_only_the_hundred_surest_of_a_class_and_image_count():
    rows = [(box(20 * i, 900), 0, 0.9) for i in range(100)]
    result = drawn([(box(0), 0)], [*rows, (box(0), 0, 0.8)])
    assert result["map"] == 0 and result["per_class"][0]["f1"] == 0
    assert result["errors"]["background"]["count"] == 100
    assert result["voc_map"] == pytest.approx(1 / 101)


def test_the_best_threshold():
    scores = np.array([0.9, 0.8, 0.8, 0.6, 0.5])
    hits = np.array([True, True, False, True, False])
    best = Ranking(scores, hits, 4).best_f1()
    assert best == {"threshold": 0.6, "precision": 0.75, "recall": 0.75, "f1": 0.75}
    # A threshold of 0.8 cannot keep one of two equals.
    best = Ranking(scores[:3], hits[:3], 2).best_f1()
    assert best["threshold"] == 0.8 and best["f1"] == pytest.approx(4 / 5)
    assert Ranking(scores[:1], hits[2:3], 3).best_f1()["f1"] == 0
    assert np.isnan(Ranking(scores[:0], hits[:0], 3).best_f1()["threshold"])
    assert np.isnan(Ranking(scores, ~hits & hits, 0).best_f1()["f1"])


def test_a_class_without_objects_is_left_out_and_json_says_null():
    result = drawn([(box(0), 0)], [(box(0), 0, 0.9), (box(0, 50), 1, 0.9)])
    assert result["map"] == pytest.approx(1) and result["mar_1"] == 1
    row = result["per_class"][1]
    assert row["support"] == 0 and row["detections"] == 1
    keys = ("ap", "ap_50", "ap_75", "ar", "voc_ap", "threshold", "f1")
    assert all(np.isnan(row[key]) for key in keys)
    assert result["curves"]["precision"].shape == (3, 101)
    assert np.isnan(result["curves"]["scores"][1:]).all()
    plain = json.loads(json.dumps(to_json_safe(result), allow_nan=False))
    assert plain["map_large"] is None and plain["per_class"][2]["ap"] is None
    assert plain["curves"]["precision"][1][0] is None


def test_no_objects_at_all_and_no_answers_at_all():
    nothing = drawn([], [])
    assert np.isnan(nothing["map"]) and np.isnan(nothing["voc_map"])
    assert nothing["num_examples"] == 1 and nothing["num_detections"] == 0
    false_alarm = drawn([], [(box(0), 2, 0.9)])
    assert np.isnan(false_alarm["map"]) and false_alarm["confusion_matrix"][3, 2] == 1
    silent = drawn([(box(0), 2)], [])
    assert silent["map"] == silent["voc_map"] == 0
    assert silent["errors"]["missed"]["count"] == 1
    assert silent["worst_images"][0]["missed"] == 1


# Streaming


class Scenes(Source):
    """Six images with 0, 1, 2 ... boxes of all sizes."""

    info = SourceInfo("detection", NAMES, 6)

    def record(self, index):
        rows = np.arange(index)
        boxes = np.array([box(130 * i, 10, 8 * 3**i) for i in rows], np.float32)
        return {
            "path": b"",
            "boxes": boxes.reshape(-1, 4),
            "box_labels": (rows % 3).astype(np.int32),
            "is_crowd": rows == 3,
            "area": (40.0 * 4**rows).astype(np.float32),
        }


def test_columns_of_a_source_equal_truth_image_by_image():
    source = Scenes()
    whole = DetectionEvaluator.from_columns(source.columns(), NAMES)
    single = DetectionEvaluator(NAMES)
    for i in (5, 0, 3):
        record = source.record(i)
        optional = {key: record[key] for key in ("is_crowd", "area")}
        single.add_truth(i, record["boxes"], record["box_labels"], **optional)
        found = {
            "boxes": record["boxes"] + np.float32(1),
            "labels": record["box_labels"],
            "scores": np.linspace(0.9, 0.2, i),
        }
        for evaluator in (whole, single):
            evaluator.update([i], [found])
    a, b = (to_json_safe(evaluator.result()) for evaluator in (whole, single))
    # Only the three images that were answered count.
    assert a == b and a["num_examples"] == 3 and a["num_objects"] == 7
    assert a["map_50"] > 0.9 and a["map_small"] != a["map_medium"]
    assert to_json_safe(whole.summary()) == {key: a[key] for key in whole.summary()}


def test_batches_order_and_repetition_do_not_matter():
    evaluator = random_scenes(3)
    expected = to_json_safe(evaluator.result())
    answers = evaluator._answers
    evaluator.reset()
    with pytest.raises(ValueError, match="0 images"):
        evaluator.result()
    ids = list(answers)[::-1]
    for start in range(0, len(ids), 7):
        batch = ids[start : start + 7]
        evaluator.update(np.array(batch), [answers[i] for i in batch])
    evaluator.update([5], [answers[5]])
    assert to_json_safe(evaluator.result()) == expected


def test_padding_rows_are_dropped():
    evaluator = DetectionEvaluator(NAMES)
    boxes = np.array([box(0), [np.nan] * 4], np.float32)
    evaluator.add_truth(0, boxes, np.array([1, -1]))
    found = answer((box(0), 1, 0.9), (box(0), -1, 0.0))
    evaluator.update([0], [found])
    result = evaluator.result()
    assert result["num_objects"] == result["num_detections"] == 1


def test_area_decides_the_size_and_defaults_to_the_boxs():
    for area, size in ((None, "medium"), ([1000.0], "small")):
        evaluator = DetectionEvaluator(NAMES)
        evaluator.add_truth(0, [box(0, size=40)], [0], area=area)
        evaluator.update([0], [answer((box(0, size=40), 0, 0.9))])
        assert evaluator.summary()[f"map_{size}"] == pytest.approx(1)


# Wrong input


def test_wrong_input_is_refused_and_not_counted():
    evaluator = DetectionEvaluator(NAMES)
    evaluator.add_truth(3, [box(0)], [0])
    good = answer((box(0), 0, 0.9))
    for key, value, match_ in (
        ("labels", [3], r"0\.\.2; background.*image 3"),
        ("labels", [0.5], "integers"),
        ("scores", [np.nan], "scores must be finite"),
        ("boxes", [[0, 0, np.inf, 9]], "boxes must be finite"),
        ("boxes", [0, 0, 9, 9], r"\(n, 4\)"),
        ("scores", [0.5, 0.4], r"\(n, 4\)"),
    ):
        with pytest.raises(ValueError, match=match_):
            evaluator.update([3], [good | {key: np.array(value)}])
    with pytest.raises(ValueError, match="answer for image 4"):
        evaluator.update([3, 4], [good, good])
    with pytest.raises(ValueError, match="one answer per image"):
        evaluator.update([3], [])
    with pytest.raises(ValueError, match="0 images"):
        evaluator.summary()
    with pytest.raises(ValueError, match=r"told once.*image 3"):
        evaluator.add_truth(3, [], [])
    with pytest.raises(ValueError, match="image -1"):
        evaluator.add_truth(-1, [], [])
    with pytest.raises(ValueError, match=r"image 9.*5"):
        evaluator.add_truth(9, [box(0)], [5])
    with pytest.raises(ValueError, match="at least one name"):
        DetectionEvaluator(())


def test_a_source_without_records_has_no_truth():
    evaluator = DetectionEvaluator.from_columns({}, NAMES)
    with pytest.raises(ValueError, match="before it is answered"):
        evaluator.update([0], [answer()])


def test_overlaps_do_not_depend_on_the_chunk(monkeypatch):
    from visionkit.metrics import matching

    truth, answers, _ = random_scenes(0, crowd=0.3)._tables()
    expected = find_pairs(answers, truth, 0.1)
    monkeypatch.setattr(matching, "CHUNK", 5)
    for a, b in zip(find_pairs(answers, truth, 0.1), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    for row, column, iou in list(zip(*expected[:3], strict=True))[:50]:
        a, b = answers.boxes[row], truth.boxes[column]
        common = np.prod(np.minimum(a, b)[2:] - np.maximum(a, b)[:2])
        area = [np.prod(c[2:] - c[:2]) for c in (a, b)]
        whole = area[0] if truth.is_crowd[column] else sum(area) - common
        assert iou == pytest.approx(common / whole)


def test_boxes_without_area_overlap_nothing():
    truth = make_truth([0, 0], [[5, 5, 5, 5], [0, 0, 9, 9]], [0, 0])
    answers = make_answers([0, 0], [[5, 5, 5, 5], [3, 3, 3, 8]], [0.9, 0.8], [0, 0])
    assert not len(find_pairs(answers, truth, 0.1).iou)

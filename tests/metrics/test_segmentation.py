"""Scores of masks in original pixels against loops over classes, and at the edges."""

import json

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from visionkit.metrics import SegmentationEvaluator, to_json_safe

NAMES = ("background", "cat", "dog", "nowhere", "only answered")
K = len(NAMES)


def blobs(seed, shape=(37, 61)):
    """A mask of some rectangles of classes 0 to 2, and void."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    for label in (1, 2, 1, 255, 2):
        y, x = rng.integers(0, 30), rng.integers(0, 50)
        mask[y : y + rng.integers(4, 20), x : x + rng.integers(4, 30)] = label
    return mask


def damaged(truth, seed):
    """The truth moved by a pixel, with another class and some pixels never seen."""
    answer = np.roll(np.where(truth == 255, 0, truth), 1, axis=seed % 2)
    answer[5:9, 10:20] = 4
    answer[:, -3:] = 255
    return answer


@pytest.fixture(scope="module")
def case():
    truths = [blobs(seed) for seed in range(4)] + [np.full((9, 11), 255, np.uint8)]
    return [damaged(t, i) for i, t in enumerate(truths)], truths


def boundary_of(mask, depth):
    """What erosion by 3x3 squares takes away, outside of the image being empty."""
    square = np.ones((3, 3), bool)
    return mask & ~binary_erosion(mask, square, iterations=depth, border_value=0)


def expected(answers, truths):
    """The scores of each class, one class and image after another."""
    rows = []
    for c in range(K):
        n = dict.fromkeys(("hit", "true", "found", "edge", "edges"), 0)
        for answer, truth in zip(answers, truths, strict=True):
            known = truth != 255
            t, a = (truth == c) & known, (answer == c) & known
            depth = max(1, round(0.02 * np.hypot(*truth.shape)))
            te, ae = boundary_of(t, depth), boundary_of(a, depth)
            n["hit"] += (t & a).sum()
            n["true"] += t.sum()
            n["found"] += a.sum()
            n["edge"] += (te & ae).sum()
            n["edges"] += (te | ae).sum()
        union = n["true"] + n["found"] - n["hit"]

        def share(part, whole):
            return part / whole if whole else np.nan

        rows.append(
            {
                "name": NAMES[c],
                "iou": share(n["hit"], union),
                "dice": share(2 * n["hit"], n["true"] + n["found"]),
                "precision": share(n["hit"], n["found"]),
                "recall": share(n["hit"], n["true"]),
                "boundary_iou": share(n["edge"], n["edges"]),
                "truth_pixels": n["true"],
                "predicted_pixels": n["found"],
            }
        )
    return rows


def test_scores_equal_loops_over_classes_and_images(case):
    evaluator = SegmentationEvaluator(NAMES)
    evaluator.update([10, 11], case[0][:2], case[1][:2])
    evaluator.update(np.array([12, 13, 14]), case[0][2:], case[1][2:])
    got, rows = evaluator.result(), expected(*case)
    for row, right in zip(got["per_class"], rows, strict=True):
        assert list(row) == list(right) and row["name"] == right["name"]
        for key in list(right)[1:]:
            assert row[key] == pytest.approx(right[key], nan_ok=True), key
    table = {k: np.array([r[k] for r in rows]) for k in rows[0] if k != "name"}
    share = table["truth_pixels"] / table["truth_pixels"].sum()
    hits = np.nan_to_num(table["recall"] * table["truth_pixels"]).sum()
    for key, value in {
        "mean_iou": np.nanmean(table["iou"]),
        "mean_dice": np.nanmean(table["dice"]),
        "mean_accuracy": np.nanmean(table["recall"]),
        "boundary_iou": np.nanmean(table["boundary_iou"]),
        "frequency_weighted_iou": np.nansum(share * table["iou"]),
        "pixel_accuracy": hits / table["truth_pixels"].sum(),
    }.items():
        assert got[key] == pytest.approx(value), key
    # The class that is nowhere has no score; the one that is only answered has 0.
    assert np.isnan(got["per_class"][3]["iou"]) and got["per_class"][4]["iou"] == 0
    assert 0.3 < got["mean_iou"] < 0.9 and got["num_examples"] == 5
    matrix = got["confusion_matrix"]
    known = [t != 255 for t in case[1]]
    assert matrix[1, 2] == sum(
        ((t == 1) & (a == 2)).sum() for a, t in zip(*case, strict=True)
    )
    assert matrix.sum() + got["unanswered_pixels"] == got["num_pixels"]
    assert got["num_pixels"] == sum(k.sum() for k in known)
    json.dumps(to_json_safe(got), allow_nan=False)


def test_worst_images_come_first_and_void_or_perfect_ones_never(case):
    evaluator = SegmentationEvaluator(NAMES, num_mistakes=3)
    perfect = np.where(case[1][0] == 255, 3, case[1][0])  # void may be anything
    evaluator.update(range(6), [*case[0], perfect], [*case[1], case[1][0]])
    worst = evaluator.result()["worst_images"]
    assert len(worst) == 3 and {row["image_id"] for row in worst} <= {0, 1, 2, 3}
    assert [r["iou"] for r in worst] == sorted(r["iou"] for r in worst)
    for row in worst:
        i = row["image_id"]
        alone = [r["iou"] for r in expected([case[0][i]], [case[1][i]])]
        assert row["iou"] == pytest.approx(np.nanmean(alone))


def test_a_perfect_answer_scores_one_whatever_it_says_of_void(case):
    evaluator = SegmentationEvaluator(NAMES)
    truths = case[1][:4]
    evaluator.update(range(4), [np.where(t == 255, 4, t) for t in truths], truths)
    result = evaluator.result()
    means = ("mean_iou", "pixel_accuracy", "mean_accuracy", "mean_dice", "boundary_iou")
    assert [result[key] for key in means] == [1.0] * 5
    assert result["frequency_weighted_iou"] == pytest.approx(1.0)
    assert result["worst_images"] == []


def test_void_alone_has_no_score_and_nothing_at_all_is_an_error(case):
    evaluator = SegmentationEvaluator(NAMES)
    with pytest.raises(ValueError, match="nothing to score"):
        evaluator.result()
    evaluator.update([0], case[0][4:], case[1][4:])
    result = evaluator.result()
    assert result["num_pixels"] == 0 and np.isnan(result["mean_iou"])
    evaluator.reset()
    with pytest.raises(ValueError, match="nothing to score"):
        evaluator.result()


@pytest.mark.parametrize(
    ("answer", "truth", "message"),
    [
        (np.zeros((4, 5)), np.zeros((5, 4)), r"\(4, 5\) and \(5, 4\)"),
        (np.zeros((4, 5), int), np.full((4, 5), K), rf"truth of image 7: \[{K}\]"),
        (np.full((4, 5), -1), np.zeros((4, 5), int), r"answer of image 7: \[-1\]"),
        (np.zeros((4, 5)), np.zeros((4, 5), int), "dtype float64"),
    ],
)
def test_wrong_masks_are_refused_and_nothing_is_counted(case, answer, truth, message):
    evaluator = SegmentationEvaluator(NAMES)
    with pytest.raises(ValueError, match=message):
        evaluator.update([6, 7], [case[0][0], answer], [case[1][0], truth])
    with pytest.raises(ValueError, match="nothing to score"):
        evaluator.result()

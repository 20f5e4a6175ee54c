"""The classification scores equal scikit-learn's, batch by batch or at once."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from visionkit.metrics import ClassificationEvaluator, to_json_safe

NAMES = [f"class {i}" for i in range(7)]


def random_answers(n=300, k=7, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = 0.99 * rng.dirichlet(np.full(k, 0.4), n) + 0.01 / k
    labels = np.where(
        rng.random(n) < 0.6, probabilities.argmax(1), rng.integers(0, k, n)
    )
    return probabilities, labels


def evaluate(probabilities, labels, names=NAMES, batch=64, **options):
    evaluator = ClassificationEvaluator(names, **options)
    for i in range(0, len(labels), batch):
        evaluator.update(probabilities[i : i + batch], labels[i : i + batch])
    return evaluator.result()


def test_result_equals_scikit_learn():
    probabilities, labels = random_answers()
    predicted = probabilities.argmax(1)
    result = evaluate(probabilities, labels)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=range(7), zero_division=0
    )
    expected = {
        "num_examples": 300,
        "accuracy": sk.accuracy_score(labels, predicted),
        "top_5_accuracy": sk.top_k_accuracy_score(labels, probabilities, k=5),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "macro_precision": precision.mean(),
        "macro_recall": recall.mean(),
        "macro_f1": f1.mean(),
        "cross_entropy": sk.log_loss(labels, probabilities),
        "macro_auc": sk.roc_auc_score(labels, probabilities, multi_class="ovr"),
    }
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-12), name
    confusion = sk.confusion_matrix(labels, predicted, labels=range(7))
    np.testing.assert_array_equal(result["confusion_matrix"], confusion)
    assert result["confusion_matrix"].dtype == np.int64
    for i, row in enumerate(result["per_class"]):
        assert row["name"] == NAMES[i] and row["support"] == support[i]
        values = [row["precision"], row["recall"], row["f1"]]
        np.testing.assert_allclose(values, [precision[i], recall[i], f1[i]], atol=1e-12)


def test_result_does_not_depend_on_batches_or_on_what_came_before_reset():
    probabilities, labels = random_answers()
    evaluator = ClassificationEvaluator(NAMES)
    evaluator.update(probabilities[:50], labels[:50])
    evaluator.reset()
    evaluator.update(probabilities, labels)
    once, batched = evaluator.result(), evaluate(probabilities, labels, batch=7)
    np.testing.assert_array_equal(
        once.pop("confusion_matrix"), batched.pop("confusion_matrix")
    )
    for name in ("accuracy", "cross_entropy", "expected_calibration_error"):
        assert once[name] == pytest.approx(batched[name], abs=1e-12)
    assert once["mistakes"] == batched["mistakes"]


def test_expected_calibration_error_equals_a_loop_over_the_bins():
    probabilities, labels = random_answers()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap
    result = evaluate(probabilities, labels)
    assert result["expected_calibration_error"] == pytest.approx(expected, abs=1e-12)


def test_ties_go_to_the_lower_class_in_top_1_and_top_5():
    uniform = np.full((7, 7), 1 / 7, np.float32)
    result = evaluate(uniform, np.arange(7))
    assert result["accuracy"] == pytest.approx(1 / 7)
    assert result["top_5_accuracy"] == pytest.approx(5 / 7)


def test_cross_entropy_of_a_probability_of_zero_is_finite():
    result = evaluate(np.eye(2), np.array([1, 1]), NAMES[:2])
    assert result["cross_entropy"] == pytest.approx(-np.log(1e-7) / 2)


def test_five_classes_have_no_top_5():
    assert "top_5_accuracy" not in evaluate(np.eye(5), np.arange(5), NAMES[:5])


def test_class_without_examples_is_nan_and_left_out_of_the_means():
    # Class 2 has no examples but is predicted once; class 1 is never predicted.
    result = evaluate(np.eye(3)[[0, 0, 2]], np.array([0, 1, 0]), NAMES[:3])
    zero, one, two = result["per_class"]
    assert (zero["precision"], zero["recall"], zero["f1"]) == (0.5, 0.5, 0.5)
    assert (one["precision"], one["recall"], one["f1"]) == (0, 0, 0)
    assert two["support"] == 0 and math.isnan(two["precision"] + two["f1"])
    assert result["macro_precision"] == 0.25 and result["macro_recall"] == 0.25
    assert result["balanced_accuracy"] == 0.25


def test_mistakes_are_the_most_confident_with_the_callers_ids():
    evaluator = ClassificationEvaluator(NAMES[:2], num_mistakes=2)
    probabilities = [[0.6, 0.4], [0.9, 0.1], [0.1, 0.9], [0.3, 0.7]]
    ids = np.array([11, 12, 13, 14])
    evaluator.update(probabilities, np.array([1, 1, 1, 0]), ids)
    mistakes = evaluator.result()["mistakes"]
    assert [m["image_id"] for m in mistakes] == [12, 14]
    assert mistakes[0] == {"image_id": 12, "truth": 1, "predicted": 0, "score": 0.9}


def test_float16_probabilities_of_a_thousand_classes_are_accepted():
    logits = np.random.default_rng(0).normal(size=(4, 1000))
    exponent = np.exp(logits)
    probabilities = (exponent / exponent.sum(1, keepdims=True)).astype(np.float16)
    result = evaluate(probabilities, np.arange(4), [str(i) for i in range(1000)])
    assert np.isfinite(result["cross_entropy"])


GOOD = np.array([[0.5, 0.5], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("probabilities", "labels", "match"),
    [
        (GOOD * [[1], [np.nan]], [0, 1], "must be finite.*image 3"),
        (np.where(GOOD == 1, np.inf, GOOD), [0, 1], "must be finite"),
        (GOOD * 3, [0, 1], "need a softmax"),
        (GOOD - [[0.7, -0.7]], [0, 1], "need a softmax"),
        (GOOD, [0, 2], r"0\.\.1.*label 2 for image 3"),
        (GOOD, [-1, 0], "label -1"),
        (GOOD, [0.0, 1.0], "must be integers"),
        (GOOD, [0], r"labels \(1,\)"),
        (GOOD, 1, r"labels \(\)"),
        (np.eye(3), [0, 1, 2], r"probabilities \(B, 2\)"),
    ],
)
def test_update_refuses_a_bad_batch_whole(probabilities, labels, match):
    evaluator = ClassificationEvaluator(NAMES[:2])
    evaluator.update(GOOD, np.array([0, 0]))
    with pytest.raises(ValueError, match=match):
        evaluator.update(probabilities, np.array(labels))
    assert evaluator.result()["num_examples"] == 2


def test_no_examples_and_no_classes_are_refused():
    evaluator = ClassificationEvaluator(NAMES)
    evaluator.update(np.zeros((0, 7)), np.zeros(0, np.int32))
    with pytest.raises(ValueError, match="0 examples"):
        evaluator.result()
    with pytest.raises(ValueError, match="at least one name"):
        ClassificationEvaluator([])
    with pytest.raises(ValueError, match="num_mistakes"):
        ClassificationEvaluator(NAMES, num_mistakes=-1)


def test_to_json_safe_survives_strict_json():
    result = evaluate(np.eye(3)[[0, 0, 2]], np.array([0, 1, 0]), NAMES[:3])
    safe = to_json_safe(result | {"path": b"a\xff", "rate": np.float32(np.inf)})
    again = json.loads(json.dumps(safe, allow_nan=False))
    assert again["per_class"][2]["recall"] is None and again["rate"] is None
    assert again["confusion_matrix"] == [[1, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert again["path"] == "a\udcff" and again["accuracy"] == result["accuracy"]

"""The multi-label scores equal scikit-learn's, batch by batch or at once."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from visionkit.metrics import MultiLabelEvaluator, to_json_safe
from visionkit.metrics.ranking import average_precision, roc_auc

K = 6
NAMES = [f"class {i}" for i in range(K)]


def answers(n=240, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((n, K)) < rng.uniform(0.05, 0.6, K)
    # Rounded, so that many scores are equal.
    scores = np.round(np.clip(0.3 * truth + rng.random((n, K)) * 0.7, 0, 1), 2)
    return scores.astype(np.float32), truth.astype(np.float32)


def evaluate(scores, truth, batch=64, **options):
    evaluator = MultiLabelEvaluator(NAMES[: truth.shape[1]], **options)
    for i in range(0, len(truth), batch):
        evaluator.update(scores[i : i + batch], truth[i : i + batch])
    return evaluator.result()


def test_result_equals_scikit_learn():
    scores, truth = answers()
    found = scores >= 0.5
    result = evaluate(scores, truth)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        truth, found, zero_division=0
    )
    expected = {
        "num_examples": 240,
        "mean_average_precision": sk.average_precision_score(truth, scores),
        "macro_auc": sk.roc_auc_score(truth, scores),
        "micro_auc": sk.roc_auc_score(truth, scores, average="micro"),
        "macro_precision": precision.mean(),
        "macro_recall": recall.mean(),
        "macro_f1": f1.mean(),
        "micro_f1": sk.f1_score(truth, found, average="micro"),
        "subset_accuracy": sk.accuracy_score(truth, found),
    }
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-12), name
    p = np.clip(scores.astype("float64"), 1e-7, 1 - 1e-7)
    entropy = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
    assert result["binary_cross_entropy"] == pytest.approx(entropy, rel=1e-5)
    for k, row in enumerate(result["per_class"]):
        assert (row["name"], row["support"]) == (NAMES[k], support[k])
        ap = sk.average_precision_score(truth[:, k], scores[:, k])
        assert row["average_precision"] == pytest.approx(ap, abs=1e-12)
        values = [row["precision"], row["recall"], row["f1"]]
        np.testing.assert_allclose(values, [precision[k], recall[k], f1[k]], atol=1e-12)


def test_curves_are_scikit_learns_with_precision_that_never_rises():
    scores, truth = answers()
    truth[:, 2] = 0
    curves = evaluate(scores, truth)["curves"]
    assert np.isnan(curves["precision"][2]).all()
    for k in (0, 1, 3, 4, 5):
        precision, recall, _ = sk.precision_recall_curve(truth[:, k], scores[:, k])
        for level, value in zip(curves["recall"], curves["precision"][k], strict=True):
            # scikit-learn adds (0, 1) as its last point, where nothing is found.
            at = (recall >= level) & (np.arange(len(recall)) < len(recall) - 1)
            assert value == pytest.approx(precision[at].max(), abs=1e-12)


def test_result_does_not_depend_on_batches_or_on_what_came_before_reset():
    scores, truth = answers()
    evaluator = MultiLabelEvaluator(NAMES)
    evaluator.update(scores[:9], truth[:9])
    evaluator.reset()
    evaluator.update(scores, truth)
    once, again = evaluator.result(), evaluate(scores, truth, batch=7)
    assert to_json_safe(once) == to_json_safe(again)


def test_a_class_without_examples_is_nan_and_left_out_of_the_means():
    scores, truth = answers()
    truth[:, 2], truth[:, 4] = 0, 1
    result = evaluate(scores, truth)
    rows = result["per_class"]
    assert math.isnan(rows[2]["average_precision"]) and math.isnan(rows[2]["f1"])
    assert math.isnan(rows[4]["auc"]) and rows[4]["average_precision"] == 1
    known = [r["average_precision"] for i, r in enumerate(rows) if i != 2]
    assert result["mean_average_precision"] == pytest.approx(np.mean(known))
    text = json.dumps(to_json_safe(result), allow_nan=False)
    assert json.loads(text)["per_class"][2]["f1"] is None


def test_mistakes_are_the_largest_errors_with_the_callers_ids():
    evaluator = MultiLabelEvaluator(NAMES[:2], num_mistakes=2)
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.05, 0.2], [0.2, 0.9]])
    truth = np.array([[1, 0], [1, 1], [1, 0], [0, 0]])
    evaluator.update(scores, truth, np.array([10, 11, 12, 13]))
    first, second = evaluator.result()["mistakes"]
    assert (first["image_id"], first["truth"], first["predicted"]) == (12, [0], [])
    assert (second["image_id"], second["truth"], second["predicted"]) == (13, [], [1])
    assert first["score"] == pytest.approx(0.95)


@pytest.mark.parametrize("seed", range(4))
def test_rankings_equal_scikit_learn_with_many_ties(seed):
    rng = np.random.default_rng(seed)
    truth, scores = rng.random(50) < 0.3, rng.integers(0, 5, 50) / 4
    ap = sk.average_precision_score(truth, scores)
    assert average_precision(truth, scores) == pytest.approx(ap, abs=1e-12)
    auc = sk.roc_auc_score(truth, scores)
    assert roc_auc(truth, scores) == pytest.approx(auc, abs=1e-12)
    assert math.isnan(roc_auc(np.ones(3), np.ones(3)))
    assert math.isnan(average_precision(np.zeros(0), np.zeros(0)))


GOOD = np.array([[0.5, 0.5], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("scores", "labels", "match"),
    [
        (GOOD * 3, np.eye(2), r"\[0, 1\].*sigmoid.*class 0"),
        (GOOD * [[1], [np.nan]], np.eye(2), "must be finite"),
        (GOOD, np.eye(2) * 2, "0 or 1.*label 2"),
        (GOOD, [0, 1], r"labels \(2,\)"),
        (np.eye(3), np.eye(3), r"labels \(B, 2\)"),
    ],
)
def test_update_refuses_a_bad_batch_whole(scores, labels, match):
    evaluator = MultiLabelEvaluator(NAMES[:2])
    evaluator.update(GOOD, np.eye(2))
    with pytest.raises(ValueError, match=match):
        evaluator.update(scores, np.array(labels))
    assert evaluator.result()["num_examples"] == 2


def test_no_examples_and_no_classes_are_refused():
    with pytest.raises(ValueError, match="0 examples"):
        MultiLabelEvaluator(NAMES).result()
    with pytest.raises(ValueError, match="at least one name"):
        MultiLabelEvaluator([])

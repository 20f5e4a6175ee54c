"""What a detector gets wrong: confusions, and kinds of errors with their cost."""

from __future__ import annotations

import numpy as np

from visionkit.metrics.coco import RECALLS
from visionkit.metrics.curves import rank_classes
from visionkit.metrics.matching import Matches, Pairs, best_overlap, take_best_first
from visionkit.metrics.objects import Answers, Truth
from visionkit.metrics.ranking import nan_mean

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU thresholds of TIDE
KINDS = (
    "localization",
    "classification",
    "both",
    "duplicate",
    "background",
    "missed",
)
# A better box or another class makes them right.
ONE_STEP = [KINDS.index("localization"), KINDS.index("classification")]


def confusion_matrix(
    truth: Truth, answers: Answers, pairs: Pairs, matches: Matches, shown, num_classes
) -> np.ndarray:
    """Objects against detections, with the background as the last class.

    A detection first finds an object of its own class, as for the average precision,
    so the diagonal counts the true positives. Of the rest the surest takes the object
    of another class that it overlaps most, from IoU 0.5 on. What is left over is a
    detection of background (last row) or a missed object (last column).

    Args:
        truth: The N objects; crowds and difficult ones do not count.
        answers: The D detections.
        pairs: At least those of IoU 0.5 and above.
        matches: At IoU 0.5.
        shown: (D,) bool, the detections above the score threshold.
        num_classes: K.

    Returns:
        (K + 1, K + 1) int64, rows are the truth.
    """
    free = matches.missed(truth, shown)
    left = matches.wrong & shown
    near = pairs.where(
        left[pairs.answer] & free[pairs.truth] & (pairs.iou >= FOREGROUND)
    )
    confused = take_best_first(near, len(left), len(free))
    found = np.where(matches.right, matches.truth, confused)
    free[confused[confused >= 0]] = False

    rows = np.flatnonzero(shown & ~matches.ignored)
    labels = np.append(truth.labels, num_classes)  # -1: the background
    side = num_classes + 1
    cells = np.concatenate(
        [
            labels[found[rows]] * side + answers.labels[rows],
            truth.labels[free] * side + num_classes,
        ]
    )
    return np.bincount(cells, minlength=side * side).reshape(side, side)


def error_split(
    truth: Truth, answers: Answers, pairs: Pairs, matches: Matches, shown, num_classes
) -> dict[str, dict[str, float]]:
    """Errors by kind, after Bolya et al. 2020, "TIDE: A General Toolbox for
    Identifying Object Detection Errors".

    A false positive is of the first kind that fits:

    - localization: IoU in [0.1, 0.5) with an object of its class;
    - classification: IoU of at least 0.5 with an object of another class;
    - duplicate: IoU of at least 0.5 with an object of its class, which a surer
      detection has found;
    - background: IoU below 0.1 with every object;
    - both: what remains, IoU in [0.1, 0.5) with an object of another class.

    An object is missed if no detection has found it and no localization or
    classification error points at it.

    Args:
        truth: The N objects; crowds and difficult ones do not count.
        answers: The D detections.
        pairs: Those of IoU 0.1 and above.
        matches: At IoU 0.5.
        shown: (D,) bool, the detections above the score threshold.
        num_classes: K.

    Returns:
        kind -> {"count": errors among the `shown` detections, "ap_gain": what AP at
        IoU 0.5 would gain if all errors of the kind, shown or not, were mended}.
        Mended is: the box or the class of the surest of these detections that mean
        an object still free put right, the others removed; duplicates, background and
        "both" removed; a missed object no longer asked for, nor a class of which
        nothing remains.
    """
    kinds, target = _judge(truth, answers, pairs, matches)
    counts = np.bincount(kinds[shown & matches.wrong], minlength=len(KINDS))
    counts[-1] = _missed(truth, matches, kinds, target, shown).sum()

    support = truth.support(num_classes)
    base = (answers.labels, matches.right, ~matches.ignored, support)
    score = _average_precision(answers.scores, *base)
    gains = [
        _average_precision(
            answers.scores, *_mend(kind, truth, matches, kinds, target, *base)
        )
        - score
        for kind in range(len(KINDS))
    ]
    return {
        name: {"count": int(count), "ap_gain": float(gain)}
        for name, count, gain in zip(KINDS, counts, gains, strict=True)
    }


def _judge(truth, answers, pairs, matches) -> tuple[np.ndarray, np.ndarray]:
    """(D,) kind of each wrong detection (-1 for others), and the object it meant."""
    count = len(answers.labels)
    near = pairs.where(matches.wrong[pairs.answer] & truth.counted[pairs.truth])
    same, same_target = best_overlap(near.where(near.same_class), count)
    other, other_target = best_overlap(near.where(~near.same_class), count)
    rules = {
        "localization": (same >= BACKGROUND) & (same < FOREGROUND),
        "classification": other >= FOREGROUND,
        "duplicate": same >= FOREGROUND,
        "background": np.maximum(same, other) < BACKGROUND,
    }
    kinds = np.select(
        list(rules.values()), [KINDS.index(k) for k in rules], KINDS.index("both")
    )
    kinds[~matches.wrong] = -1
    is_class = kinds == KINDS.index("classification")
    return kinds, np.where(is_class, other_target, same_target)


def _missed(truth, matches, kinds, target, among=slice(None)) -> np.ndarray:
    """(N,) bool, objects not found and not meant by a box or a class error."""
    missed = matches.missed(truth, among)
    meant = np.isin(kinds, ONE_STEP)
    missed[target[among][meant[among]]] = False
    return missed


def _mend(kind, truth, matches, kinds, target, labels, hits, keep, support):
    """The arguments of `_average_precision` with the errors of one kind mended."""
    if KINDS[kind] == "missed":
        missed = _missed(truth, matches, kinds, target)
        gone = np.bincount(truth.labels[missed], minlength=len(support))
        return labels, hits, keep, support - gone
    labels, hits, keep = labels.copy(), hits.copy(), keep & (kinds != kind)
    if kind in ONE_STEP:
        rows = np.flatnonzero(np.isin(kinds, ONE_STEP))
        rows = rows[matches.missed(truth)[target[rows]]]
        # The surest detection of each object: rows are by score.
        rows = rows[np.unique(target[rows], return_index=True)[1]]
        rows = rows[kinds[rows] == kind]
        labels[rows] = truth.labels[target[rows]]
        hits[rows] = keep[rows] = True
    return labels, hits, keep, support


def _average_precision(scores, labels, hits, keep, support) -> float:
    rankings = rank_classes(labels, scores, hits, keep, support)
    return nan_mean([ranking.average_precision(RECALLS) for ranking in rankings])

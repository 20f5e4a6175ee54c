"""COCO's average precision and recall, by a library that equals pycocotools.

hotcoco does the work in a hundredth of pycocotools' time; where it is not installed,
faster-coco-eval or pycocotools itself gives the same numbers.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
from typing import NamedTuple

import numpy as np

from visionkit.metrics.objects import Answers, Truth

BACKENDS = ("hotcoco", "faster_coco_eval", "pycocotools")
RLE_MODULES = {
    "hotcoco": "hotcoco.mask",
    "faster_coco_eval": "faster_coco_eval.core.mask",
    "pycocotools": "pycocotools.mask",
}
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)  # of every precision array
MAX_DETECTIONS = (1, 10, 100)
AREAS = ("all", "small", "medium", "large")  # small < 32², medium < 96² pixels
IOU_50, IOU_75 = 0, 5  # rows of the thresholds .50, .55, ... .95
IGNORED_AREA = 1e11  # beyond the largest range, whose upper end is 1e10


class CocoCurves(NamedTuple):
    """What pycocotools accumulates, bit for bit; -1 where a class has no object.

    T = 10 IoU thresholds .50 to .95, R = 101 recalls, K classes, A = 4 areas, M = 3
    limits of detections in an image and class.

    Attributes:
        precision: (T, R, K, A, M) float64, interpolated.
        recall: (T, K, A, M) float64, the highest reached.
        scores: (T, R, K, A, M) float64, the score at which the recall is reached.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray

    def mean_precision(self, iou=slice(None), area="all", label=slice(None)) -> float:
        """Mean average precision at 100 detections; NaN where no object counts."""
        return _mean(self.precision[iou, :, label, AREAS.index(area), -1])

    def mean_recall(self, limit=100, area="all", label=slice(None)) -> float:
        """Mean average recall at `limit` detections; NaN where no object counts."""
        column = MAX_DETECTIONS.index(limit)
        return _mean(self.recall[:, label, AREAS.index(area), column])

    def summary(self) -> dict[str, float]:
        """COCO's twelve numbers, in the order in which it prints them."""
        return {
            "map": self.mean_precision(),
            "map_50": self.mean_precision(IOU_50),
            "map_75": self.mean_precision(IOU_75),
            **{f"map_{area}": self.mean_precision(area=area) for area in AREAS[1:]},
            **{f"mar_{n}": self.mean_recall(n) for n in MAX_DETECTIONS},
            **{f"mar_{area}": self.mean_recall(area=area) for area in AREAS[1:]},
        }


def evaluate_coco(
    truth: Truth,
    answers: Answers,
    num_images: int,
    num_classes: int,
    *,
    iou_type: str = "bbox",
    backend: str | None = None,
) -> CocoCurves:
    """Match and accumulate as COCO does.

    Crowd regions take any number of answers and count for nothing; so does a difficult
    object, once: the answer that finds it is neither right nor wrong.

    Args:
        truth: The objects; with `masks` for "segm".
        answers: The detections; with `masks` for "segm".
        num_images: How many were looked at, with objects or without.
        num_classes: K.
        iou_type: "bbox" or "segm".
        backend: One of `BACKENDS`; default the first that is installed.

    Returns:
        `CocoCurves`.

    Raises:
        ValueError: Unknown `iou_type` or `backend`, or "segm" without masks.
        ImportError: None of the libraries is installed.
    """
    if iou_type not in ("bbox", "segm"):
        raise ValueError(
            f"`iou_type` must be 'bbox' or 'segm'. Received: iou_type={iou_type!r}"
        )
    if iou_type == "segm" and (truth.masks is None or answers.masks is None):
        raise ValueError(
            "`iou_type='segm'` needs masks (COCO RLE) beside the boxes of both the "
            "truth and the answers. Received: no masks"
        )
    area = np.where(truth.is_difficult & ~truth.is_crowd, IGNORED_AREA, truth.area)
    truth = truth._replace(area=area)
    images = [{"id": i} for i in range(num_images)]
    if iou_type == "segm":
        images = _with_sizes(images, truth, answers)
    categories = [{"id": k, "name": str(k)} for k in range(num_classes)]
    name = _installed(backend)
    run = _run_hotcoco if name == "hotcoco" else _run_pycocotools
    found = run(name, truth, answers, images, categories, iou_type)
    return CocoCurves(*(np.asarray(found[key]) for key in CocoCurves._fields))


@functools.cache
def rle_library(backend: str | None = None):
    """The module of COCO's functions of RLE masks: `area`, `decode`, `iou`, `toBbox`.

    Args:
        backend: One of `BACKENDS`; default the first that is installed.
    """
    return importlib.import_module(RLE_MODULES[_installed(backend)])


def _mean(values) -> float:
    """Mean of what is defined, as pycocotools' `summarize` takes it."""
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _installed(backend) -> str:
    """The first library that can be imported."""
    if backend not in (None, *BACKENDS):
        raise ValueError(
            f"`backend` must be one of {', '.join(BACKENDS)}. "
            f"Received: backend={backend!r}"
        )
    for name in BACKENDS if backend is None else (backend,):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            return name
    raise ImportError(
        "COCO metrics need a library that is not installed. "
        f"Run: pip install {(backend or BACKENDS[0]).replace('_', '-')}"
    )


def _run_hotcoco(_, truth, answers, images, categories, iou_type) -> dict:
    from hotcoco import COCO, COCOeval

    masks = iou_type == "segm"
    objects = COCO.from_arrays(
        images,
        categories,
        truth.images,
        truth.labels,
        _xywh(truth.boxes),
        area=truth.area,
        iscrowd=truth.is_crowd,
        segmentation=truth.masks.tolist() if masks else None,
    )
    if masks:  # by dicts: the area of a mask decides, not that of its box
        found = objects.load_res(_annotations(answers, masks))
    else:
        columns = (_xywh(answers.boxes), answers.scores, answers.labels)
        found = objects.load_res(np.column_stack([answers.images, *columns]))
    run = COCOeval(objects, found, iou_type)
    run.evaluate()
    run.accumulate()
    return run.eval


def _run_pycocotools(name, truth, answers, images, categories, iou_type) -> dict:
    """By pycocotools or faster-coco-eval, which keeps its interface."""
    masks = iou_type == "segm"
    if name == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    area = rle_library(name).area
    objects, found = COCO(), COCO()
    shared = {"images": images, "categories": categories}
    objects.dataset = shared | {"annotations": _annotations(truth, masks)}
    rows = _annotations(answers, masks)
    for row in rows:
        row["area"] = area(row["segmentation"]) if masks else np.prod(row["bbox"][2:])
    found.dataset = shared | {"annotations": rows}
    with contextlib.redirect_stdout(io.StringIO()):
        objects.createIndex()
        found.createIndex()
        run = COCOeval(objects, found, iou_type)
        run.evaluate()
        run.accumulate()
    return run.eval


def _with_sizes(images, *tables) -> list[dict]:
    """The images with the size that their masks have."""
    sizes = {
        image: dict(zip(("height", "width"), mask["size"], strict=True))
        for rows in tables
        for image, mask in zip(rows.images.tolist(), rows.masks, strict=True)
    }
    return [image | sizes.get(image["id"], {}) for image in images]


def _annotations(rows: Truth | Answers, masks: bool) -> list[dict]:
    """COCO's dicts; ids from 1, since 0 stands for "not matched"."""
    columns = {
        "image_id": rows.images.tolist(),
        "category_id": rows.labels.tolist(),
    }
    if masks:
        columns["segmentation"] = rows.masks.tolist()
    else:
        columns["bbox"] = _xywh(rows.boxes).tolist()
    if isinstance(rows, Truth):
        columns["area"] = rows.area.tolist()
        columns["iscrowd"] = rows.is_crowd.astype(int).tolist()
    else:
        columns["score"] = rows.scores.tolist()
        columns["iscrowd"] = [0] * len(rows.scores)
    keys = ("id", *columns)
    values = zip(range(1, len(rows.labels) + 1), *columns.values(), strict=True)
    return [dict(zip(keys, row, strict=True)) for row in values]


def _xywh(boxes) -> np.ndarray:
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])

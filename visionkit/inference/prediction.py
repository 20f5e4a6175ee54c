"""Answers for image files, from a Keras model or from a SavedModel.

TensorFlow is imported on use: the client of a server makes results without it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from visionkit._quiet import quiet_start
from visionkit.data.image_header import BadImage
from visionkit.data.instance_masks import InstanceMasks
from visionkit.inference.inputs import (
    Image,
    is_video,
    list_images,
    original_size,
    split_kinds,
)
from visionkit.inference.instances import merge_instances
from visionkit.inference.pixels import merge_pixels, pixel_views
from visionkit.inference.styles import own_answers
from visionkit.inference.video import read_frames
from visionkit.inference.views import list_views, merge_views, view_options
from visionkit.types import Results


def classification_result(answer: dict, class_names, top: int, score: float) -> dict:
    """Fields of `Results` for one image: the `top` best classes, best first."""
    probabilities = answer["probabilities"]
    best = np.argsort(-probabilities, kind="stable")[:top].astype(np.int32)
    best = best[probabilities[best] >= score]
    return {
        "labels": best,
        "scores": probabilities[best],
        "label_names": [class_names[label] for label in best],
        "probabilities": probabilities,
    }


def detection_result(answer: dict, class_names, top: int, score: float) -> dict:
    """Fields of `Results` for one image: its boxes, best first."""
    del top
    keep = _shown(answer, score)
    labels = answer["labels"][keep]
    return {
        "boxes": answer["boxes"][keep],
        "labels": labels,
        "scores": answer["scores"][keep],
        "label_names": [class_names[label] for label in labels],
    }


def instance_result(answer: dict, class_names, top: int, score: float) -> dict:
    """Fields of `Results` for one image: its boxes, best first, and their masks."""
    fields = detection_result(answer, class_names, top, score)
    keep, masks = _shown(answer, score), answer["masks"]
    if isinstance(masks, InstanceMasks):  # several views' have been put together
        masks = InstanceMasks(
            itertools.compress(masks.counts, keep), answer["image_size"]
        )
    else:
        boxes, size = fields["boxes"], answer["image_size"]
        masks = InstanceMasks.from_boxes(masks[keep], boxes, size)
    return {**fields, "masks": masks}


def _shown(answer: dict, score: float) -> np.ndarray:
    """(N,) bool, which of one image's boxes are answers."""
    boxes = answer["boxes"]
    # What lies in the border that the resize added is nothing in the original.
    visible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return (answer["labels"] >= 0) & (answer["scores"] >= score) & visible


def segmentation_result(answer: dict, class_names, top: int, score: float) -> dict:
    """Fields of `Results` for one image: its classes, the largest first."""
    del top
    height, width = answer["image_size"]
    # A copy: the batch that it is a part of may go.
    classes = answer["segmentation"][:height, :width].copy()
    counts = np.bincount(classes.ravel(), minlength=256)[: len(class_names)]
    shares = (counts / classes.size).astype(np.float32)
    labels = np.argsort(-counts, kind="stable").astype(np.int32)
    labels = labels[(counts[labels] > 0) & (shares[labels] >= score)]
    return {
        "segmentation": classes,
        "labels": labels,
        "scores": shares[labels],
        "label_names": [class_names[label] for label in labels],
    }


# Task -> function from one image's answers to fields of `Results`.
RESULTS = {
    "classification": classification_result,
    "detection": detection_result,
    "instance_segmentation": instance_result,
    "semantic_segmentation": segmentation_result,
}

# Task -> lowest score that `predict` shows unless told otherwise.
DEFAULT_SCORE = {
    "classification": 0.0,
    "detection": 0.25,
    "instance_segmentation": 0.25,
    "semantic_segmentation": 0.0,
}

# Logits of a batch of segmentations that are in memory at once, unless told otherwise.
_MAX_LOGITS = 64_000_000


def predict(
    model,
    images,
    *,
    batch_size: int | None = None,
    top: int = 5,
    score: float | None = None,
    tile: int | None = None,
    overlap: float = 0.2,
    tta: bool | Sequence[float] = False,
    probabilities: bool = False,
) -> list[Results]:
    """Answers for images of any size, in pixels of the originals.

        vk.predict(model, "photos/")                     # every image of a folder
        vk.predict("saved_models/flowers", ["a.jpg"])    # needs neither Keras nor code
        vk.predict(model, "aerial.png", tile=640)        # small things, large pictures
        vk.predict(model, "clip.mp4")                    # a result per frame

    Args:
        model: A `VisionTask`, a run folder, a `.keras` file, a SavedModel that
            `visionkit.export` wrote (a version, or the folder of versions: newest), or
            a `.tflite` or `.onnx` file of a portable export, `model.json` beside it.
        images: A path, a list of paths, a folder (not its subfolders), a glob pattern,
            encoded bytes, (H, W, C) or (B, H, W, C) uint8 pixels, PIL images, a video.
        batch_size: Images per step; default 32, and fewer where the model's input has
            more than 512x512 pixels, or many classes for each of them.
        top: How many classes a classification result lists, best first.
        score: Labels with a lower score are left out, 0 <= score <= 1; with 0.5 a
            multi-label result lists the classes that it finds present. The score of a
            class of pixels is its share of the image. Default 0, for boxes 0.25.
        tile: Look at tiles of this side in pixels of the original. Boxes and their
            masks: besides the whole image, and what their seams cut is put together.
            Semantic segmentation: in place of it, and the probabilities are blended
            where tiles overlap. Not for classification.
        overlap: Share of a tile that its neighbour sees too; objects should fit in it.
        tta: Look at the mirror image too, and at other scales (`TTA_SCALES`, or those
            given). Semantic segmentation: the mean of all probabilities. Not for
            classification.
        probabilities: Semantic segmentation only: give those of each pixel too. They,
            `tile` and `tta` hold one array (H, W, K) float32 for each image in work, 2
            GB for 24 megapixels and 21 classes; without them pixels are classified
            strip by strip.

    Returns:
        A `Results` per image or frame, in order. An image that cannot be read has
        `error` set and does not stop the others.

    Raises:
        FileNotFoundError: The model or an image does not exist.
        TypeError: `model` or an image is of a type that is not listed above.
        ValueError: An array has the wrong type or shape, the SavedModel is foreign, a
            video cannot be read, or an option is out of range or not for this task.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(
            f"`batch_size` must be at least 1. Received: batch_size={batch_size}"
        )
    with quiet_start():
        from visionkit.inference.answerers import build_answerer

    answerer = build_answerer(model)
    views = view_options(answerer.task, tile, overlap, tta)
    if probabilities:
        _check_probabilities(answerer.task)
        views = views or {"overlap": overlap}
    if score is None:
        score = DEFAULT_SCORE[answerer.task]
    options = Options(
        batch_size or _batch_size(answerer),
        top,
        score,
        views,
        probabilities,
    )
    return answer_all(images, answerer, options)


def _check_probabilities(task: str) -> None:
    if task != "semantic_segmentation":
        raise ValueError(
            "`probabilities` is for semantic segmentation; a classification has them "
            f"anyway. Received: a model for {task}"
        )


def _batch_size(answerer) -> int:
    height, width = answerer.preprocessing.image_size
    batch_size = 32 * 512 * 512 // (height * width)
    if answerer.task == "semantic_segmentation":
        logits = height * width * len(answerer.class_names)
        batch_size = min(batch_size, _MAX_LOGITS // logits)
    return max(1, min(32, batch_size))


@dataclasses.dataclass(frozen=True)
class Options:
    """How images are answered.

    Args:
        batch_size: Images per step.
        top: Classes that a classification result lists.
        score: Lowest score of a label.
        views: Keywords of `list_views` and `pixel_views`, or None to look once.
        probabilities: Whether a result keeps those of its pixels.
    """

    batch_size: int
    top: int
    score: float
    views: dict | None = None
    probabilities: bool = False


def answer_all(images, answerer, options: Options) -> list[Results]:
    """A `Results` per image or frame of what people hand to `predict`, in order."""
    items = list_images(images, answerer.preprocessing)
    answered = iter(answer([i for i in items if not is_video(i)], answerer, options))
    results = []
    for item in items:
        video = is_video(item)
        results += answer_video(item, answerer, options) if video else [next(answered)]
    return results


def answer(items: Sequence[Image], answerer, options: Options) -> list[Results]:
    """A `Results` per image, in order."""
    if options.views is not None:
        return [_answer_views(item, answerer, options) for item in items]
    results: list[Results | None] = [None] * len(items)
    answers = (answerer.encoded, answerer.arrays)
    for indices, ask in zip(split_kinds(items), answers, strict=True):
        chosen = [items[i] for i in indices]
        rows = ask(chosen, options.batch_size) if indices else ()
        for index, row in zip(indices, rows, strict=True):
            results[index] = _result(items[index], row, answerer, options)
    return results


def answer_video(path: str, answerer, options: Options):
    """A `Results` per frame of a video, one batch of frames in memory at a time."""
    frames = read_frames(path, answerer.preprocessing.channels)
    numbers = itertools.count()
    while batch := list(itertools.islice(frames, options.batch_size)):
        for result in answer(batch, answerer, options):
            yield dataclasses.replace(result, path=path, frame=next(numbers))


def _result(item: Image, row: dict, answerer, options: Options) -> Results:
    path = item if isinstance(item, str) else None
    try:
        size = original_size(item, answerer.preprocessing, row["image_valid"])
    except BadImage as error:
        return Results(path=path, error=row.get("refused") or str(error))
    row = own_answers(row, answerer.style, size)
    return _fill(path, size, row, answerer, options)


def _fill(path, size, row: dict, answerer, options: Options) -> Results:
    # A server says the names of what it found, and may be all that knows them.
    names = row.get("class_names", answerer.class_names)
    fields = RESULTS[answerer.task](
        {**row, "image_size": size}, names, options.top, options.score
    )
    return Results(path=path, image_size=size, **fields)


def _answer_views(item: Image, answerer, options: Options) -> Results:
    """The answers of several views of one image as one."""
    from visionkit.inference.batches import decode_pixels

    path = item if isinstance(item, str) else None
    try:
        image = decode_pixels(item, answerer.preprocessing)
    except BadImage as error:
        return Results(path=path, error=str(error))
    size = image.shape[:2]
    if answerer.task == "semantic_segmentation":
        row = _look_at_pixels(image, answerer, options)
        result = _fill(path, size, row, answerer, options)
        if options.probabilities:
            result.probabilities = row["probabilities"]
        return result
    views = list_views(size, **options.views)
    crops = [np.ascontiguousarray(view.cut(image)) for view in views]
    rows = answerer.arrays(crops, options.batch_size)
    keys, merge = ("boxes", "scores", "labels"), merge_views
    if answerer.task == "instance_segmentation":
        keys, merge = (*keys, "masks"), merge_instances
    found = []
    for crop, row in zip(crops, rows, strict=True):
        row = own_answers(row, answerer.style, crop.shape[:2])
        keep = (row["labels"] >= 0) & (row["scores"] >= options.score)
        found.append({key: row[key][keep] for key in keys})
    return _fill(path, size, merge(views, found, size), answerer, options)


def _look_at_pixels(image: np.ndarray, answerer, options: Options) -> dict:
    """What several views of one image say of its pixels; see `merge_pixels`."""
    size, views = image.shape[:2], pixel_views(image.shape[:2], **options.views)
    crops = [np.ascontiguousarray(view.cut(image)) for view in views]
    rows = answerer.logits(crops, options.batch_size)
    classes = len(answerer.class_names)
    return merge_pixels(views, rows, size, classes, options.views["overlap"])

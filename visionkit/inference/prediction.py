"""Answers for image files, from a Keras model or from a SavedModel."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from visionkit.data.image_header import BadImage
from visionkit.inference import graph
from visionkit.inference.batches import (
    is_file,
    original_size,
    prepared_batches,
    split_kinds,
)
from visionkit.inference.inputs import Image, list_images, saved_model_folder
from visionkit.types import Preprocessing, Results


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


# Task -> function from one image's answers to fields of `Results`.
RESULTS = {"classification": classification_result}


def predict(
    model,
    images,
    *,
    batch_size: int = 32,
    top: int = 5,
    score: float = 0.0,
) -> list[Results]:
    """Answers for images of any size, in pixels of the originals.

        vk.predict(model, "photos/")                     # every image of a folder
        vk.predict("saved_models/flowers", ["a.jpg"])    # needs neither Keras nor code

    Args:
        model: A `VisionTask`, a run folder, a `.keras` file, or a SavedModel that
            `visionkit.export` wrote (a version, or the folder of versions: newest).
        images: A path, a list of paths, a folder (not its subfolders), a glob pattern,
            encoded bytes, (H, W, C) or (B, H, W, C) uint8 pixels, PIL images.
        batch_size: Images per step.
        top: How many classes a classification result lists, best first.
        score: Labels with a lower score are left out, 0 <= score <= 1; with 0.5 a
            multi-label result lists the classes that it finds present.

    Returns:
        A `Results` per image, in order. An image that cannot be read has `error` set
        and does not stop the others.

    Raises:
        FileNotFoundError: The model or an image does not exist.
        TypeError: `model` or an image is of a type that is not listed above.
        ValueError: An array has the wrong type or shape, the SavedModel is foreign, or
            `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(
            f"`batch_size` must be at least 1. Received: batch_size={batch_size}"
        )
    answerer = _answerer(model)
    items = list_images(images, answerer.preprocessing)
    results: list[Results | None] = [None] * len(items)
    answers = (answerer.encoded, answerer.arrays)
    for indices, answer in zip(split_kinds(items), answers, strict=True):
        rows = answer([items[i] for i in indices], batch_size) if indices else ()
        for index, row in zip(indices, rows, strict=True):
            results[index] = _result(items[index], row, answerer, top, score)
    return results


def _result(item: Image, row: dict, answerer, top: int, score: float) -> Results:
    path = item if isinstance(item, str) else None
    try:
        size = original_size(item, answerer.preprocessing, row["image_valid"])
    except BadImage as error:
        return Results(path=path, error=str(error))
    fields = RESULTS[answerer.task](row, answerer.class_names, top, score)
    return Results(path=path, image_size=size, **fields)


def _answerer(model):
    if isinstance(model, str | os.PathLike):
        if folder := saved_model_folder(model):
            return _SavedModel(folder)
        from visionkit.tasks.loading import load

        model = load(model)
    if not hasattr(model, "predictor"):
        raise TypeError(
            "`model` must be a visionkit task, a run folder, a .keras file or a "
            f"SavedModel folder. Received: {type(model).__name__}"
        )
    return _KerasModel(model)


class _KerasModel:
    """Answers of a task: TensorFlow prepares the images, any backend runs the model."""

    def __init__(self, model):
        self.predictor = model.predictor
        self.task = model.task
        self.class_names = model.class_names
        self.preprocessing = model.preprocessing

    def encoded(self, items: Sequence[Image], batch_size: int) -> Iterator[dict]:
        """Answers for files and encoded images, or for arrays, one dict each."""
        names = graph.encode_names(self.class_names)
        for _, prepared in prepared_batches(items, self.preprocessing, batch_size):
            outputs = self.predictor.predict_on_batch(prepared["images"].numpy())
            answers = graph.ANSWERS[self.task](outputs, prepared, names)
            yield from _rows({**answers, "image_valid": prepared["image_valid"]})

    arrays = encoded


class _SavedModel:
    """Answers of an export, which needs neither Keras nor the model's code."""

    def __init__(self, folder: Path):
        try:
            description = json.loads((folder / "model.json").read_text())
            self.task = description["task"]
            self.class_names = description["class_names"]
            self.preprocessing = Preprocessing.from_config(description["preprocessing"])
        except (FileNotFoundError, KeyError) as error:
            raise ValueError(
                f"{folder} was not written by `visionkit.export`: its model.json is "
                f"missing or incomplete ({error}). Load it by `tf.saved_model.load`."
            ) from error
        self.model = tf.saved_model.load(str(folder))

    def encoded(self, items: Sequence[str | bytes], batch_size: int) -> Iterator[dict]:
        """Answers for files and encoded images, one dict each."""
        for start in range(0, len(items), batch_size):
            batch = tf.constant(
                [_content(i) for i in items[start : start + batch_size]]
            )
            yield from _rows(self.model.signatures["tolerant"](image_bytes=batch))

    def arrays(self, items: Sequence[np.ndarray], batch_size: int) -> Iterator[dict]:
        """Answers for (H, W, C) uint8 arrays, neighbours of one shape as a batch."""
        for _, group in itertools.groupby(items, key=np.shape):
            same = list(group)
            for start in range(0, len(same), batch_size):
                batch = tf.constant(np.stack(same[start : start + batch_size]))
                answers = self.model.signatures["images"](images=batch)
                yield from _rows({**answers, "image_valid": np.ones(len(batch), int)})


def _rows(answers: dict) -> Iterator[dict]:
    """A batch of answers, image by image."""
    arrays = {name: np.asarray(value) for name, value in answers.items()}
    for index in range(len(arrays["image_valid"])):
        yield {name: array[index] for name, array in arrays.items()}


def _content(item: str | bytes) -> bytes:
    """The encoded image; empty, hence invalid, when it cannot be read."""
    if isinstance(item, bytes):
        return item
    try:
        return Path(item).read_bytes() if is_file(item) else b""
    except OSError:
        return b""

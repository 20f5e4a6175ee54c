"""A Keras model or a SavedModel, asked in the same way."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from visionkit.inference import graph
from visionkit.inference.batches import prepared_batches
from visionkit.inference.chunks import CHUNK_PIXELS, chunks
from visionkit.inference.inputs import Image, saved_model_folder
from visionkit.inference.runtimes import SUFFIXES, Runtime
from visionkit.inference.styles import INPUT_NAMES
from visionkit.types import Preprocessing

# What reading a description raises where it is missing, damaged or no description.
_UNUSABLE = (FileNotFoundError, KeyError, TypeError, ValueError, RecursionError)


def build_answerer(model):
    """What answers images for a model of any kind; see `predict`.

    It has `task`, `class_names`, `preprocessing` and `style`. Its `encoded` and
    `arrays` take (items, batch_size) and give one dict of answers per image. Its
    `logits` takes the same and gives one dict of "logits", as the network gives them,
    and "placement" per image.
    """
    if isinstance(model, str | os.PathLike):
        if Path(model).suffix in SUFFIXES:
            return _PortableFile(Path(model))
        if folder := saved_model_folder(model):
            return _SavedModel(folder)
        from visionkit.tasks.loading import load

        model = load(model)
    if not hasattr(model, "predictor"):
        raise TypeError(
            "`model` must be a visionkit task, a run folder, a SavedModel folder or a "
            f".keras, .tflite or .onnx file. Received: {type(model).__name__}"
        )
    if isinstance(model.input, dict):
        raise ValueError(
            f"{type(model).__name__} reads more than images: {', '.join(model.input)}. "
            "Call its own `predict` with a dict of arrays at the model's size."
        )
    return _KerasModel(model)


class _KerasModel:
    """Answers of a task: TensorFlow prepares the images, any backend runs the model."""

    style = "visionkit"

    def __init__(self, model):
        self.model = model
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

    def logits(self, items: Sequence[Image], batch_size: int) -> Iterator[dict]:
        """Raw outputs of a network that has one, and where they lie, one dict each."""
        return _logits(self.predictor.predict_on_batch, self, items, batch_size)


class _PortableFile(_KerasModel):
    """Answers of a LiteRT or ONNX file, which is the network and what follows on it."""

    def __init__(self, file: Path):
        _describe(self, file.parent, f"Run it by the runtime of {file.suffix} files")
        self.model = self.predictor = Runtime(file)


class _SavedModel:
    """Answers of an export, which needs neither Keras nor the model's code."""

    def __init__(self, folder: Path):
        _describe(self, folder, "Load it by `tf.saved_model.load`")
        self.model = tf.saved_model.load(str(folder))

    def encoded(self, items: Sequence[str | bytes], batch_size: int) -> Iterator[dict]:
        """Answers for files and encoded images, one dict each."""
        for chunk in chunks(items, batch_size):
            inputs = {INPUT_NAMES[self.style]: tf.constant(chunk)}
            yield from _rows(self.model.signatures["tolerant"](**inputs))

    def arrays(self, items: Sequence[np.ndarray], batch_size: int) -> Iterator[dict]:
        """Answers for (H, W, C) uint8 arrays, neighbours of one shape as a batch."""
        for _, group in itertools.groupby(items, key=np.shape):
            same = list(group)
            step = max(1, min(batch_size, CHUNK_PIXELS // math.prod(same[0].shape[:2])))
            for start in range(0, len(same), step):
                batch = tf.constant(np.stack(same[start : start + step]))
                answers = self.model.signatures["images"](images=batch)
                yield from _rows({**answers, "image_valid": np.ones(len(batch), int)})

    def logits(self, items: Sequence[Image], batch_size: int) -> Iterator[dict]:
        """Raw outputs of a network that has one, and where they lie, one dict each."""
        network = self.model.signatures["tensors"]
        return _logits(
            lambda x: network(images=tf.constant(x)), self, items, batch_size
        )


def _describe(answerer, folder: Path, otherwise: str) -> None:
    """Give an answerer what the export's description says."""
    try:
        description = json.loads((folder / "model.json").read_text())
        answerer.task = description["task"]
        answerer.class_names = description["class_names"]
        preprocessing = Preprocessing.from_config(description["preprocessing"])
        answerer.preprocessing = preprocessing
        answerer.style = description.get("style", "visionkit")
    except _UNUSABLE as error:
        raise ValueError(
            f"{folder} was not written by `visionkit.export`: its model.json is "
            f"missing or incomplete ({error}). {otherwise}."
        ) from error


def _logits(network, answerer, items, batch_size) -> Iterator[dict]:
    batches = prepared_batches(items, answerer.preprocessing, batch_size)
    for _, prepared in batches:
        logits = np.asarray(network(prepared["images"].numpy())["logits"])
        placements = prepared["placement"].numpy()
        for row, placement in zip(logits, placements, strict=True):
            yield {"logits": row, "placement": placement}


def _rows(answers: dict) -> Iterator[dict]:
    """A batch of answers, image by image."""
    arrays = {name: np.asarray(value) for name, value in answers.items()}
    for index in range(len(arrays["image_valid"])):
        yield {name: array[index] for name, array in arrays.items()}

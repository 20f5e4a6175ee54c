"""Explanations of images of any kind and size, in pixels of the originals."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable

import numpy as np

from visionkit._spelling import check_name
from visionkit.explaining import METHODS
from visionkit.explaining.cam import eigen_cam_and_outputs, grad_cam_and_outputs
from visionkit.types import Preprocessing, Results


@dataclasses.dataclass
class Explanation:
    """Where a model looked in one image.

    Attributes:
        image: As received: a path, encoded bytes or (H, W, C) uint8 pixels.
        method: Name of the method.
        heat: (H, W) float32 in [0, 1] at the size of the original, upright; 0 where
            the model saw nothing (outside of a centre crop).
        label: The class explained; the predicted one where the method asks for none;
            None where `score_of` replaced the classes.
        label_name: Its name.
        score: Its probability, as predicted.
        error: Why there is no heat (an unreadable file), else None.
    """

    image: str | bytes | np.ndarray
    method: str
    heat: np.ndarray | None = None
    label: int | None = None
    label_name: str | None = None
    score: float | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the image could be read."""
        return self.error is None

    @property
    def path(self) -> str | None:
        """The image file, where there is one."""
        return self.image if isinstance(self.image, str) else None

    def plot(self):
        """The heat over the image, as a `PIL.Image` with a caption below."""
        from visionkit.visualize import draw_heat, draw_results
        from visionkit.visualize.drawing import open_image

        if not self.ok:
            return draw_results(Results(path=self.path, error=self.error))
        image = self.image
        if isinstance(image, bytes):
            image = io.BytesIO(image)
        if not isinstance(image, np.ndarray):
            image = open_image(image, self.heat.shape)
        caption = METHODS[self.method]
        if self.label_name is not None:
            caption += f": {self.label_name} ({self.score:.1%})"
        return draw_heat(image, self.heat, caption)


def explain(
    model,
    images,
    method: str = "grad_cam",
    *,
    labels=None,
    level: str | None = None,
    score_of: Callable | None = None,
    batch_size: int = 32,
) -> list[Explanation]:
    """Where the model looks in images of any size.

        for explanation in vk.explain(model, "photos/"):
            explanation.plot().show()

    Args:
        model: A `VisionTask`, a run folder or a `.keras` file.
        images: As for `visionkit.predict`: paths, folders, patterns, bytes, uint8
            arrays, PIL images.
        method: `"grad_cam"`, what raised the score of a class, or `"eigen_cam"`, what
            stands out in the features, whatever the class.
        labels: Class to explain, by index or name, for all images or one each;
            default the predicted ones. Grad-CAM only.
        level: Level of the backbone such as "P3", or the name of a layer inside it;
            default the last level, which is about classes. Lower ones are finer: below
            some 160 pixels the last one has few cells, and "P4" shows more.
        score_of: What to explain in place of a class, see
            `visionkit.explaining.grad_cam`. Grad-CAM only.
        batch_size: Images per step.

    Returns:
        An `Explanation` per image, in order. An image that cannot be read has `error`
        set and does not stop the others.

    Raises:
        FileNotFoundError: The model or an image does not exist.
        TypeError: `model` or an image is of a type that is not listed above.
        ValueError: An unknown method, level or label, or a SavedModel.
    """
    from visionkit.inference.batches import prepared_batches
    from visionkit.inference.inputs import list_images

    _check_options(method, labels, score_of, batch_size)
    model = explainable(model)
    items = list_images(images, model.preprocessing)
    labels = _label_indices(labels, len(items), model.class_names)
    explained = [Explanation(item, method) for item in items]
    for rows, batch in prepared_batches(items, model.preprocessing, batch_size):
        wanted = None if labels is None else labels[rows]
        batch = {name: value.numpy() for name, value in batch.items()}
        if method == "eigen_cam":
            heat, outputs = eigen_cam_and_outputs(model, batch["images"], level)
        else:
            options = (wanted, level, score_of)
            heat, outputs = grad_cam_and_outputs(model, batch["images"], *options)
        classes = None if score_of else _classes(model, outputs, wanted)
        for i, row in enumerate(rows):
            each = {name: value[i] for name, value in batch.items()}
            _fill(explained[row], each, heat[i], model.preprocessing)
            if explained[row].ok and classes is not None:
                label, score = int(classes[0][i]), float(classes[1][i])
                explained[row].label, explained[row].score = label, score
                explained[row].label_name = model.class_names[label]
    return explained


def explainable(model):
    """The model itself, or the one in a run folder or `.keras` file.

    Raises:
        FileNotFoundError: There is no model.
        TypeError: It is no visionkit task.
        ValueError: It is a SavedModel, whose layers cannot be looked into.
    """
    from visionkit.inference.inputs import saved_model_folder

    if isinstance(model, str | os.PathLike):
        if folder := saved_model_folder(model):
            raise ValueError(
                f"{folder} is a SavedModel, whose layers and gradients are sealed. "
                "Explain the run folder or the .keras file that it was exported from."
            )
        from visionkit.tasks.loading import load

        model = load(model)
    if not hasattr(model, "predictor"):
        raise TypeError(
            "`model` must be a visionkit task, a run folder or a .keras file. "
            f"Received: {type(model).__name__}"
        )
    return model


def heat_to_original(heat, placement, image_size) -> np.ndarray:
    """Heat of the model's input in pixels of the original, bilinear.

    Args:
        heat: (h, w) float32.
        placement: (4,) [scale_y, scale_x, offset_y, offset_x]: resized = original *
            scale + offset.
        image_size: Original (height, width).

    Returns:
        (height, width) float32; 0 where the model saw nothing. Borders are left out.
    """
    rows, columns = (
        _weights(image_size[axis], heat.shape[axis], *placement[axis::2])
        for axis in (0, 1)
    )
    return rows @ heat @ columns.T


def _weights(count, size, scale, offset) -> np.ndarray:
    """(count, size): what each of `size` cells gives to each original pixel."""
    edges = (np.arange(count, dtype=np.float32)[:, None] + 0.5) * scale + offset
    inside = (edges >= 0) & (edges < size)
    centres = (edges - 0.5).clip(0, size - 1)
    tent = 1 - np.abs(centres - np.arange(size, dtype=np.float32))
    return np.maximum(tent, 0) * inside


def _fill(explanation, prepared, heat, preprocessing: Preprocessing) -> None:
    from visionkit.data.image_header import BadImage
    from visionkit.inference.inputs import original_size

    valid = prepared["image_valid"]
    try:
        size = original_size(explanation.image, preprocessing, valid)
    except BadImage as error:
        explanation.error = str(error)
    else:
        explanation.heat = heat_to_original(heat, prepared["placement"], size)


def _classes(model, outputs, labels):
    """The classes explained and their probabilities, (B,); None for other tasks."""
    from keras import ops

    answers = model.postprocess(outputs)
    if "probabilities" not in answers:
        return None
    probabilities = ops.convert_to_numpy(answers["probabilities"])
    labels = probabilities.argmax(axis=-1) if labels is None else labels
    return labels, np.take_along_axis(probabilities, labels[:, None], axis=-1)[:, 0]


def _label_indices(labels, count, class_names) -> np.ndarray | None:
    """One class index per image, from indices or names."""
    if labels is None:
        return None
    single = isinstance(labels, str) or np.ndim(labels) == 0
    labels = [labels] * count if single else list(labels)
    if len(labels) != count:
        raise ValueError(
            f"`labels` must be one class or one per image, {count}. "
            f"Received: {len(labels)}"
        )
    for label in labels:
        if isinstance(label, str):
            check_name("class", label, class_names)
    names = list(class_names)
    return np.array([names.index(x) if isinstance(x, str) else x for x in labels])


def _check_options(method, labels, score_of, batch_size) -> None:
    check_name("method", method, METHODS)
    if labels is not None and score_of is not None:
        raise ValueError(
            "Give `labels` or `score_of`, not both: each says what to ask."
        )
    if method == "eigen_cam" and (labels is not None or score_of is not None):
        raise ValueError(
            "Eigen-CAM asks for no class: leave out `labels` and `score_of`, or use "
            "method='grad_cam'."
        )
    if batch_size < 1:
        raise ValueError(
            f"`batch_size` must be at least 1. Received: batch_size={batch_size}"
        )

"""Class activation maps: which part of an image an answer rests on."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from visionkit.explaining.taps import as_images, find_tap, run_tapped
from visionkit.types import BOX_TASKS


def class_score(outputs, labels=None):
    """(B,) logits of the given classes, default the predicted ones.

    Args:
        outputs: (B, num_classes) logits.
        labels: (B,) integers.
    """
    if labels is None:
        labels = ops.argmax(outputs, axis=-1)
    chosen = ops.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)
    return ops.sum(outputs * chosen, axis=-1)


def box_score(outputs, labels=None, *, num_classes: int):
    """(B,) how sure a detector is of the given classes, default of the surest one.

    The smooth maximum of a class's logits over all boxes: each level of the pyramid has
    its say, as it would not with the one best box.

    Args:
        outputs: Has "classes" (B, A, num_classes), or one more with the background
            first.
        labels: (B,) integers.
        num_classes: Number of classes.
    """
    logits = outputs["classes"][..., -num_classes:]
    return class_score(ops.logsumexp(logits, axis=1), labels)


def grad_cam(
    model,
    images,
    *,
    labels=None,
    level: str | None = None,
    score_of: Callable | None = None,
) -> np.ndarray:
    """Grad-CAM heat: what raised the score of a class (Selvaraju et al. 2017, sec. 3).

    Each channel at `level` is weighted by the mean gradient of the score with respect
    to it; the positive part of their sum is the heat, stretched over the image. One
    forward and one backward pass for the batch, in inference mode.

    Args:
        model: A `VisionTask`, fresh or loaded.
        images: (B, h, w, C) 0..255 at the model's size.
        labels: (B,) classes to explain, or one for all; default the predicted ones.
        level: A level of the backbone such as "P3" or the name of a layer inside it;
            default the last level. Lower ones are finer but weigh their channels by a
            mean gradient that says little there: trust the last one.
        score_of: Function from raw outputs (as `model(images)` gives) to (B,) scores,
            written with `keras.ops`; default the logit of the class, for detection the
            smooth maximum of its logits over all boxes. What a segmenter is asked is
            said here, e.g. the sum of a class' pixels.

    Returns:
        (B, h, w) float32 in [0, 1], 1 at the hottest pixel of each image; all 0 where
        nothing at `level` raises the score.

    Raises:
        ValueError: A wrong level, label or shape, or a task without a default score.
        RuntimeError: The backend is neither TensorFlow nor JAX.
    """
    return grad_cam_and_outputs(model, images, labels, level, score_of)[0]


def grad_cam_and_outputs(model, images, labels=None, level=None, score_of=None):
    """`grad_cam`'s heat, and the raw outputs of the same pass."""
    images = as_images(model, images)
    tap = find_tap(model, level, images.shape)
    score_of = score_of or _default_score(model, labels, len(images))

    def objective(delta):
        activation, outputs = run_tapped(model, images, tap, delta)
        scores = score_of(outputs)
        if tuple(scores.shape) != (len(images),):
            raise ValueError(
                f"`score_of` must return one score per image, ({len(images)},). "
                f"Received: shape {tuple(scores.shape)}"
            )
        # An image's score depends on that image alone: the sum's gradient is each's.
        return ops.sum(ops.cast(scores, "float32")), (activation, outputs)

    zeros = ops.zeros(tap.shape, dtype=tap.dtype)
    gradient, (activation, outputs) = _gradient(objective, zeros)
    activation, gradient = (ops.cast(x, "float32") for x in (activation, gradient))
    weights = ops.mean(gradient, axis=(1, 2), keepdims=True)
    heat = ops.sum(weights * activation, axis=-1)
    return _at_size(heat, tap.covered, images.shape[1:3]), outputs


def eigen_cam(model, images, *, level: str | None = None) -> np.ndarray:
    """Eigen-CAM heat: what stands out in the features (Muhammad and Yeasin 2020).

    The projection of the activations at `level` on their first principal component:
    no gradient, no class. Its sign, which is free, is that of the mean activation.

    Args:
        model: A `VisionTask`, fresh or loaded.
        images: (B, h, w, C) 0..255 at the model's size.
        level: As for `grad_cam`.

    Returns:
        (B, h, w) float32 in [0, 1], 1 at the hottest pixel of each image; all 0 where
        the activations are the same everywhere.

    Raises:
        ValueError: A wrong level or shape.
    """
    return eigen_cam_and_outputs(model, images, level)[0]


def eigen_cam_and_outputs(model, images, level=None):
    """`eigen_cam`'s heat, and the raw outputs of the same pass."""
    images = as_images(model, images)
    tap = find_tap(model, level, images.shape)
    activation, outputs = run_tapped(model, images, tap)
    activation = ops.convert_to_numpy(ops.cast(activation, "float32"))
    heat = np.stack([_first_component(each) for each in activation])
    heat = ops.convert_to_tensor(heat)
    return _at_size(heat, tap.covered, images.shape[1:3]), outputs


def _first_component(activation):
    """(h, w, C) -> (h, w): along the direction in which the positions differ most."""
    height, width, channels = activation.shape
    features = activation.reshape(-1, channels)
    centred = features - features.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    if s[0] <= 1e-5 * np.linalg.norm(features):  # nothing but rounding differs
        return np.zeros((height, width), np.float32)
    projection = u[:, 0] * s[0]
    mean = features.mean(axis=1)
    sign = -1.0 if projection @ (mean - mean.mean()) < 0 else 1.0
    return (sign * projection).reshape(height, width)


def _default_score(model, labels, count):
    if model.task not in ("classification", *BOX_TASKS):
        raise ValueError(
            f"There is no default score for the task {model.task!r}. Pass `score_of`, "
            "a function from the raw outputs to (B,) scores, such as the sum of a "
            "class's pixels; or use Eigen-CAM, which asks for none."
        )
    if labels is not None:
        labels = _checked_labels(labels, count, len(model.class_names))
    if model.task == "classification":
        return lambda outputs: class_score(outputs, labels)
    return lambda outputs: box_score(
        outputs, labels, num_classes=len(model.class_names)
    )


def _checked_labels(labels, count, num_classes) -> np.ndarray:
    given = np.asarray(labels)
    integers = np.issubdtype(given.dtype, np.integer)
    if not integers or given.shape not in ((), (count,)):
        raise ValueError(
            f"`labels` must be one class or one per image, ({count},) integers. "
            f"Received: shape {given.shape}, dtype {given.dtype}"
        )
    if given.size and not (given.min() >= 0 and given.max() < num_classes):
        raise ValueError(
            f"`labels` must be in 0..{num_classes - 1}. Received: {given.tolist()}"
        )
    return np.broadcast_to(given, (count,)).astype(np.int32)


def _gradient(function, x):
    """Gradient of a function `x -> (scalar, more)`, and `more`."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value, more = function(x)
        zero = tf.UnconnectedGradients.ZERO
        return tape.gradient(value, x, unconnected_gradients=zero), more
    if backend == "jax":
        import jax

        return jax.grad(function, has_aux=True)(x)
    raise RuntimeError(
        "Grad-CAM takes gradients on the TensorFlow and the JAX backend; the active "
        f"one is {backend!r}. Eigen-CAM needs none."
    )


def _at_size(heat, covered, size) -> np.ndarray:
    """The positive part of (B, h', w') at (B, *size), its maximum 1.

    It is stretched over the part that is covered; around that it fades out.
    """
    heat = ops.image.resize(ops.relu(heat)[..., None], covered, "bilinear")[..., 0]
    heat = ops.convert_to_numpy(heat)
    margins = [s - c for s, c in zip(size, covered, strict=True)]
    margins = [(0, 0), *((margin // 2, -(-margin // 2)) for margin in margins)]
    heat = np.pad(heat, margins, "linear_ramp")
    # A maximum that is only rounding noise around zero counts as none.
    largest = heat.max(axis=(1, 2), keepdims=True, initial=0.0)
    return heat / np.where(largest > np.finfo(np.float32).tiny, largest, np.inf)

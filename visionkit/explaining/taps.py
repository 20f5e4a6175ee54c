"""A place inside a nested backbone, and the model run with an eye on it.

The graph of the model is walked operation by operation, into its nested models, with
the very layers it is made of. So it makes no difference whether a model is fresh or
loaded, and neither layers nor graph are changed.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from visionkit._spelling import nearest


class Tap(NamedTuple):
    """One call of one layer inside a backbone.

    Attributes:
        name: Of the level or layer.
        index: The call's place in the order of execution.
        shape: (B, h, w, C) of its output.
        dtype: Of its output.
        covered: (height, width) of the part in the middle of the image whose pixels the
            output's cells stand for: all of it, but in a backbone that does not pad.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    covered: tuple[int, int]


def find_tap(model, level: str | None, image_shape) -> Tap:
    """The place that `level` names, for images of a shape.

    Args:
        model: A `VisionTask`.
        level: A level of the backbone such as "P3"; the name of a layer inside it, also
            of a nested model (the last call where there are several); None is the last
            level.
        image_shape: (B, h, w, C).

    Raises:
        ValueError: There is no such level or layer, or it has no height and width.
    """
    calls = []

    def shape_only(operation, *args, **kwargs):
        output = operation.compute_output_spec(*args, **kwargs)
        calls.append((operation.name, output))
        return output

    backbone = model.backbone
    images = keras.KerasTensor(image_shape, backbone.input.dtype)
    pyramid = _walk(backbone, images, shape_only)
    if level is None:
        level = max(pyramid, key=lambda name: int(name[1:]))
    wanted = pyramid.get(level)
    indices = [
        i
        for i, (name, output) in enumerate(calls)
        if output is wanted or (wanted is None and name == level)
    ]
    if not indices:
        names = [*pyramid, *dict.fromkeys(name for name, _ in calls)]
        raise ValueError(
            f"{backbone.name} has no level or layer {level!r}.{nearest(level, names)} "
            f"Its levels: {', '.join(pyramid)}. `[layer.name for layer in "
            "model.backbone.layers]` names its layers."
        )
    index = indices[-1]
    output = calls[index][1]
    if len(getattr(output, "shape", ())) != 4:
        raise ValueError(
            f"The output of {level!r} must be (B, h, w, C) to be seen as a picture. "
            f"Received: {keras.tree.map_structure(lambda x: x.shape, output)}"
        )
    shape = tuple(output.shape)
    strides = {tuple(x.shape[1:3]): 2 ** int(name[1:]) for name, x in pyramid.items()}
    covered = tuple(image_shape[1:3])
    if stride := strides.get(shape[1:3]):
        sides = zip(covered, shape[1:3], strict=True)
        covered = tuple(min(pixels, cells * stride) for pixels, cells in sides)
    return Tap(level, index, shape, output.dtype, covered)


def run_tapped(model, images, tap: Tap, delta=None):
    """The model's raw outputs, and what passed the tap on the way, in inference mode.

    Args:
        model: A `VisionTask`.
        images: (B, h, w, C) tensor.
        tap: From `find_tap`.
        delta: (B, h', w', C') added to what passes; zeros let gradients with respect
            to it be taken, whatever the backend and whatever path leads on from there.

    Returns:
        `(activation, outputs)`: (B, h', w', C'), and as `model(images)` gives them.
    """
    counter = itertools.count()
    passed = []

    def inside(operation, *args, **kwargs):
        output = operation(*args, **kwargs)
        if next(counter) == tap.index:
            passed.append(output)
            if delta is not None:
                output = output + delta
        return output

    def outside(operation, *args, **kwargs):
        if operation is model.backbone:
            return _walk(operation, args[0], inside)
        return operation(*args, **kwargs)

    outputs = _run_graph(model, images, outside)
    return passed[0], outputs


def as_images(model, images):
    """`images` as a tensor of the model's input type.

    Raises:
        ValueError: They are not (B, h, w, C).
    """
    if np.ndim(images) != 4:
        raise ValueError(
            "`images` must be (B, h, w, C) at the model's size, 0..255. Received: "
            f"shape {np.shape(images)}. Files and other sizes: `visionkit.explain`."
        )
    return ops.convert_to_tensor(images, dtype=model.input.dtype)


def _walk(model, inputs, call):
    """Run a model's graph on `inputs`, with `call` for each layer, nested ones too."""

    def visit(operation, *args, **kwargs):
        if isinstance(operation, keras.Sequential):
            for layer in operation.layers:
                args = (visit(layer, *args),)
            return args[0]
        if isinstance(operation, keras.Model) and hasattr(operation, "operations"):
            return _walk(operation, args[0], call)
        return call(operation, *args, **kwargs)

    return _run_graph(model, inputs, visit)


def _run_graph(model, inputs, call):
    # What `keras.models.clone_model` and `Functional.call` do. Unlike a clone, it
    # leaves no node behind on the layers.
    return model._run_through_graph(
        inputs, operation_fn=lambda operation: operation, call_fn=call
    )

"""Equal work for both sides: drawn batches, and how much a network computes."""

from __future__ import annotations

import math

import numpy as np


def draw_images(batch: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(B, h, w, 3) float32 0..255."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (batch, *size, 3)).astype("float32")


def draw_boxes(batch: int, count: int, size: tuple[int, int], seed: int = 0):
    """(B, M, 4) float32 xyxy pixels inside the image, of all sizes from 16 pixels on.

    Args:
        batch: Images.
        count: Boxes in each.
        size: (height, width).
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    limit = np.array(size[::-1], float)
    sides = 16 * (limit / 32) ** rng.uniform(0, 1, (batch, count, 2))
    corners = rng.uniform(0, 1, (batch, count, 2)) * (limit - sides)
    return np.concatenate([corners, corners + sides], axis=-1).astype("float32")


def draw_labels(batch: int, count: int, num_classes: int, seed: int = 0) -> np.ndarray:
    """(B, M) int32."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, num_classes, (batch, count)).astype("int32")


def gigamacs(model, shape: tuple[int, ...]) -> float:
    """Multiply-adds of a model's forward pass, in billions, read off its graph.

    Args:
        model: A Keras model, TensorFlow backend.
        shape: Of its input, with the batch.
    """
    import tensorflow as tf

    forward = tf.function(lambda x: model(x, training=False), jit_compile=False)
    graph = forward.get_concrete_function(tf.TensorSpec(shape, tf.float32)).graph
    total = 0
    for operation in graph.get_operations():
        if operation.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul"):
            kernel = operation.inputs[1].shape.as_list()
            # Each value of the output is a sum over the kernel, but for the channels
            # that the output itself counts.
            if operation.type == "Conv2D":
                each = math.prod(kernel[:3])
            elif operation.type == "MatMul":
                each = kernel[1 if operation.get_attr("transpose_b") else 0]
            else:
                each = math.prod(kernel[:2])
            total += each * math.prod(operation.outputs[0].shape.as_list())
    return total / 1e9


def train_gigaflops(model, shape: tuple[int, ...]) -> float:
    """Of a training step: forward and backward, two operations each."""
    return 6 * gigamacs(model, shape)


def count_without_biases(model) -> int:
    """Trainable parameters but for the biases of convolutions.

    keras.applications' ResNet has them, although the normalisation behind takes them
    away again.
    """
    count, kernels = 0, {}
    for variable in model.trainable_variables:
        layer, _, name = variable.path.rpartition("/")
        if name == "kernel":
            kernels[layer] = len(variable.shape)
        if name != "bias" or kernels[layer] != 4:
            count += math.prod(variable.shape)
    return count


def trained_once(model, inputs, target):
    """A compiled model after its first step of `fit`, and what makes one more.

    That is what `fit` itself calls for each step, without its callbacks.

    Args:
        model: A compiled Keras model, TensorFlow backend.
        inputs: Of one batch.
        target: Of the same.

    Returns:
        (losses of the first step by name, function that trains one step).
    """
    import tensorflow as tf

    batch = tf.data.Dataset.from_tensors((inputs, target)).cache().repeat()
    history = model.fit(batch, steps_per_epoch=1, epochs=1, verbose=0).history
    batches = iter(batch)
    return {k: v[-1] for k, v in history.items()}, lambda: model.train_function(batches)


def check_losses(name: str, losses: dict) -> None:
    """Refuse a training that has nothing to do with numbers.

    Raises:
        ArithmeticError: A loss is not finite.
    """
    if not np.isfinite(list(losses.values())).all():
        raise ArithmeticError(f"The losses of {name} are not finite: {losses}")

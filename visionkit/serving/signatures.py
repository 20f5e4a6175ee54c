"""The signatures of an export: one graph, entered in several places."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from visionkit.inference import graph
from visionkit.inference.styles import INPUT_NAMES, style_function
from visionkit.types import VOID_CLASS

# Output -> what stands for an image that cannot be read, where it is not 0.
BLANKS = {"segmentation": VOID_CLASS}


def build_signatures(model, style: str = "visionkit") -> dict[str, Callable]:
    """The signatures of an export.

    Args:
        model: A `VisionTask` on the TensorFlow backend.
        style: Output conventions, one of `types.STYLES`.

    Returns:
        Signature name -> concrete function that reads the model's variables.
    """
    preprocessing = model.preprocessing
    resized = (None, *preprocessing.image_size, preprocessing.channels)

    def function(spec):
        return tf.function(input_signature=[spec], autograph=False)

    # A function of its own, so that the network stands once in the file, not thrice.
    @function(tf.TensorSpec(resized, tf.float32))
    def network(images):
        return model.predictor(images, training=False)

    def answer(prepared):
        return answers(model, network(prepared["images"]), prepared, style)

    encoded = tf.TensorSpec((None,), tf.string, INPUT_NAMES[style])

    @function(encoded)
    def serving_default(image_bytes):
        return answer(_map(graph.prepare_encoded, image_bytes, preprocessing))

    any_size = (None, None, None, preprocessing.channels)

    @function(tf.TensorSpec(any_size, tf.uint8, "images"))
    def images(images):
        return answer(_map(graph.prepare_image, images, preprocessing))

    @function(tf.TensorSpec(resized, tf.float32, "images"))
    def tensors(images):
        return raw_outputs(model, images)

    @function(encoded)
    def tolerant(image_bytes):
        prepared = _tolerant_batch(image_bytes, preprocessing)
        return mask_invalid(answer(prepared), prepared["image_valid"])

    @function(encoded)
    def logits(image_bytes):
        prepared = _map(graph.prepare_encoded, image_bytes, preprocessing)
        prepared = graph.check_canvas(prepared, model.num_classes)
        return graph.original_logits(network(prepared["images"]), prepared)

    functions = [serving_default, images, tensors, tolerant]
    if model.task == "semantic_segmentation":
        functions.append(logits)
    return {f.__name__: f.get_concrete_function() for f in functions}


def answers(model, outputs: dict, prepared: dict, style: str) -> dict:
    """A predictor's outputs in original pixels, by the names and units of a style."""
    if model.task == "semantic_segmentation":
        prepared = graph.check_canvas(prepared, 1)
    # In here the names are a constant of each graph: no lookup table.
    names = graph.encode_names(model.class_names)
    found = graph.ANSWERS[model.task](outputs, prepared, names)
    restyle = style_function(style, model.task)
    return restyle(found, prepared, model.preprocessing) if restyle else found


def _map(prepare, elements, preprocessing) -> dict:
    """Prepare each image of a batch, on the CPU, several at a time."""
    with tf.device("cpu:0"):
        return tf.map_fn(
            lambda element: prepare(element, preprocessing),
            elements,
            fn_output_signature=graph.prepared_spec(preprocessing),
            parallel_iterations=16,
        )


def _tolerant_batch(image_bytes, preprocessing) -> dict:
    prepare = functools.partial(graph.prepare_encoded, preprocessing=preprocessing)
    with tf.device("cpu:0"):
        dataset = tf.data.Dataset.from_tensor_slices(image_bytes)
        dataset = graph.tolerant_map(dataset, prepare, preprocessing)
        batch = tf.size(image_bytes, tf.int64)
        return dataset.batch(batch).get_single_element()


def raw_outputs(model, images) -> dict:
    """What the functional model gives, by output name; a single output is "logits"."""
    outputs = model(images, training=False)
    outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
    shown = outputs.keys() - set(model.hidden_outputs)
    return {name: graph.finite(outputs[name]) for name in sorted(shown)}


def mask_invalid(answers: dict, valid) -> dict:
    """The answers, blank where `valid` (B,) is 0, and `valid` as "image_valid".

    Blank are zeros and empty strings, and 255, which is no class, in a segmentation.
    """

    def mask(name, value):
        keep = tf.reshape(valid > 0, [-1] + [1] * (value.shape.rank - 1))
        blank = tf.zeros_like(value)
        if name in BLANKS:
            blank += tf.constant(BLANKS[name], value.dtype)
        return tf.where(keep, value, blank)

    return {**{k: mask(k, v) for k, v in answers.items()}, "image_valid": valid}

"""What the gate asks an export, and what the model itself answers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from visionkit.inference import graph
from visionkit.inference.styles import INPUT_NAMES
from visionkit.serving.replay import Case
from visionkit.serving.samples import decode_sample, sample_images
from visionkit.serving.signatures import answers, mask_invalid, raw_outputs


def build_cases(model, style: str = "visionkit") -> list[Case]:
    """Requests to every signature in batches of 1 and 3, and the model's own answers.

    One more has a broken image among others, and is to be refused. The answers are
    computed on the CPU, op by op: a GPU's rounding is not the server's fault.

    Args:
        model: The `VisionTask`.
        style: The export's.
    """
    preprocessing = model.preprocessing
    pictures = sample_images(preprocessing.channels)
    pixels = decode_sample(pictures[0])

    def prepare(function, elements):
        rows = [function(element, preprocessing) for element in elements]
        return {name: tf.stack([row[name] for row in rows]) for name in rows[0]}

    def network(prepared):
        return model.predictor(prepared["images"], training=False)

    def answer(prepared, outputs=None):
        outputs = outputs or network(prepared)
        return answers(model, outputs, prepared, style)

    def logits(prepared, outputs=None):
        """Of each pixel's classes, or None."""
        if model.task != "semantic_segmentation":
            return None
        outputs = outputs or network(prepared)
        return graph.original_logits(outputs, prepared)["logits"].numpy()

    def case(signature, name, value, expected, pixels=None):
        answers = {key: value.numpy() for key, value in expected.items()}
        return Case(signature, name, value, answers, pixels)

    cases, encoded = [], INPUT_NAMES[style]
    with tf.device("cpu:0"):
        for batch in (1, 3):
            same_size = np.stack([pixels // (row + 1) for row in range(batch)])
            from_pixels = prepare(graph.prepare_image, same_size)
            good = prepare(graph.prepare_encoded, pictures[:batch])
            outputs = network(good)
            valid = tf.constant([1, 0, 1][:batch])
            # An image that cannot be read has no size.
            partly = {**good, "image_size": good["image_size"] * valid[:, None]}
            broken = [p if v else p[:40] for p, v in zip(pictures, valid, strict=False)]
            resized = good["images"].numpy()
            whole, without = answer(good, outputs), answer(partly, outputs)
            without, from_images = mask_invalid(without, valid), answer(from_pixels)
            classes = [logits(good, outputs), logits(partly, outputs)]
            classes.append(logits(from_pixels))
            cases += [
                case("serving_default", encoded, pictures[:batch], whole, classes[0]),
                case("tolerant", encoded, broken, without, classes[1]),
                case("images", "images", same_size, from_images, classes[2]),
                case("tensors", "images", resized, raw_outputs(model, resized)),
            ]
            if model.task == "semantic_segmentation":
                expected = graph.original_logits(outputs, good)
                cases.append(case("logits", encoded, pictures[:batch], expected))
    return [*cases, Case("serving_default", encoded, broken, None)]

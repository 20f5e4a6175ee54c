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

    They are computed on the CPU, op by op: a GPU's rounding is not the server's fault.

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
            cases += [
                ("serving_default", encoded, pictures[:batch], answer(good, outputs)),
                (
                    "tolerant",
                    encoded,
                    broken,
                    mask_invalid(answer(partly, outputs), valid),
                ),
                ("images", "images", same_size, answer(from_pixels)),
                ("tensors", "images", resized, raw_outputs(model, resized)),
            ]
            if model.task == "semantic_segmentation":
                expected = graph.original_logits(outputs, good)
                cases.append(("logits", encoded, pictures[:batch], expected))
    return [
        Case(signature, name, value, {k: v.numpy() for k, v in expected.items()})
        for signature, name, value, expected in cases
    ]

"""The regions that a detector's first stage proposes, for others to read."""

from __future__ import annotations

import os

import numpy as np

from visionkit.data.resize import boxes_to_original
from visionkit.inference.answerers import build_answerer
from visionkit.inference.batches import prepared_batches
from visionkit.inference.inputs import list_images


def propose(model, images, *, batch_size: int = 8) -> list[dict]:
    """Proposals in the format of COCO's results, as the sources' `proposals` read them.

    Args:
        model: A `FasterRCNN`, its run folder or `.keras` file.
        images: As for `predict`.
        batch_size: Images per step.

    Returns:
        A dict per region, image by image and best first: "image_id" (the place in
        `images`), "file_name" where there is one, "category_id" 1, "bbox" [x, y, width,
        height] in pixels of the original image, "score" in [0, 1]. An image that cannot
        be read has none.

    Raises:
        FileNotFoundError: The model or an image does not exist.
        ValueError: The model proposes nothing.
    """
    import keras

    answerer = build_answerer(model)
    task = getattr(answerer, "model", None)
    outputs = getattr(task, "output", None)
    if not isinstance(outputs, dict) or "proposal_scores" not in outputs:
        raise ValueError(
            "Only a detector with a region proposal network proposes: a Faster R-CNN, "
            "its run folder or .keras file."
        )
    names = ("proposals", "proposal_scores")
    network = keras.Model(task.input, {name: outputs[name] for name in names})
    items = list_images(images, answerer.preprocessing)
    rows = []
    for indices, batch in prepared_batches(items, answerer.preprocessing, batch_size):
        found = network.predict_on_batch(batch["images"].numpy())
        boxes = boxes_to_original(
            found["proposals"], batch["placement"], batch["image_size"]
        ).numpy()
        for i, index in enumerate(indices):
            if batch["image_valid"][i]:
                scores = found["proposal_scores"][i]
                rows += _rows(index, items[index], boxes[i], scores)
    return sorted(rows, key=lambda row: row["image_id"])


def _rows(index: int, item, boxes, scores) -> list[dict]:
    name = {"file_name": os.path.basename(item)} if isinstance(item, str) else {}
    sides = boxes[:, 2:] - boxes[:, :2]
    return [
        {
            "image_id": index,
            **name,
            "category_id": 1,
            "bbox": [*map(float, boxes[i, :2]), *map(float, sides[i])],
            "score": float(scores[i]),
        }
        for i in np.flatnonzero(sides.min(axis=1) > 0)
    ]

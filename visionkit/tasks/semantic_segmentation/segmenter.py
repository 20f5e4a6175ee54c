"""What every network for semantic segmentation shares."""

from __future__ import annotations

import keras

from visionkit.backbones import CLASSIFICATION_ONLY
from visionkit.heads.fcn import auxiliary_scores
from visionkit.losses.pixels import PixelCrossentropy
from visionkit.metrics.pixels import MeanIoU, PixelAccuracy
from visionkit.ops.resize import ResizeLike
from visionkit.postprocess import PixelClasses
from visionkit.tasks.auxiliary import AuxiliaryTraining
from visionkit.tasks.scoring import SegmentationScorer
from visionkit.tasks.task import (
    VisionTask,
    check_class_names,
    default_preprocessing,
    select_levels,
)
from visionkit.types import VOID_CLASS


class Segmenter(AuxiliaryTraining, VisionTask):
    """A `VisionTask` from images to a class for each pixel.

    Input: images (B, h, w, C), any number type, RGB 0..255; normalisation is the
    backbone's first layer. Truth: masks (B, h, w), integers, 255 where a pixel neither
    trains nor counts (void), or (B, h, w, K) shares of the classes, all zero where
    void.
    `model(x)`: (B, h, w, K) float32 logits, at the input's own size, whatever it is.
    `model.predict(x)`: {"logits": the same, "segmentation": (B, h, w) uint8, the
    first of the best classes}.

    A subclass builds its graph in the constructor.

    Args:
        images: The graph's input.
        outputs: Its logits.
        pyramid: The backbone's levels in this graph, for an auxiliary head.
        num_classes: Number of classes.
        components: The constructor's further arguments, for its config.
        class_names: Names in label order; default "0", "1", ...
        backbone: A `keras.Model`.
        preprocessing: `Preprocessing` for files; default "letterbox".
        auxiliary_level: Level such as "P4" on which training puts an auxiliary FCN
            head (`auxiliary_scores`), which nothing else runs; None for none. It
            teaches the backbone past a decoder that knows nothing yet.
        auxiliary_weight: Of its loss; 0.4 is MMSegmentation's, torchvision has 0.5.
        **kwargs: As for `VisionTask`.

    Attributes:
        num_classes: Number of classes K of the data's list, 2 to 255; where that list
            has a background, it counts as one.
    """

    task = "semantic_segmentation"

    def __init__(
        self,
        images,
        outputs,
        pyramid: dict | None = None,
        *,
        num_classes: int,
        components: dict | None = None,
        class_names=None,
        backbone: keras.Model,
        preprocessing=None,
        auxiliary_level: str | None = None,
        auxiliary_weight: float = 0.4,
        **kwargs,
    ):
        if backbone.name in CLASSIFICATION_ONLY:
            raise ValueError(
                f"{backbone.name} serves classification only: its levels have no fixed "
                "place in the image. Take another backbone of the table."
            )
        super().__init__(
            images,
            outputs,
            backbone=backbone,
            postprocess=PixelClasses(name="classes"),
            preprocessing=preprocessing or default_preprocessing(backbone, "letterbox"),
            class_names=check_pixel_classes(num_classes, class_names),
            **kwargs,
        )
        self.num_classes = num_classes
        self._components = components or {}
        self.auxiliary_level = auxiliary_level
        self.auxiliary_weight = auxiliary_weight
        if auxiliary_level is not None:
            features = select_levels(pyramid or {}, [auxiliary_level])[auxiliary_level]
            scores = auxiliary_scores(features, num_classes)
            scores = ResizeLike(name="auxiliary")(scores, images)
            graph = {"logits": self.output, "auxiliary": scores}
            self.auxiliary = keras.Model(self.input, graph, name="with_auxiliary")

    def compile(self, optimizer="adamw", loss=None, metrics=None, **kwargs):
        """Compile; what is left out gets a sensible default.

        Args:
            optimizer: As for Keras; default AdamW at its default rate.
            loss: Default `PixelCrossentropy()` on logits, which leaves void out.
            metrics: Default "mean_iou" and "pixel_accuracy", at the input's size.
            **kwargs: As for `keras.Model.compile`.
        """
        if loss is None:
            loss = PixelCrossentropy()
        if metrics is None:
            metrics = [
                MeanIoU(self.num_classes, name="mean_iou"),
                PixelAccuracy(name="pixel_accuracy"),
            ]
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def scorer(self, source=None):
        """A `SegmentationScorer` for answers of this model."""
        return SegmentationScorer(self.class_names, self.preprocessing, source)

    def _init_config(self):
        return {
            "num_classes": self.num_classes,
            "auxiliary_level": self.auxiliary_level,
            "auxiliary_weight": self.auxiliary_weight,
            **self._components,
        }


def check_pixel_classes(num_classes: int, class_names=None) -> tuple[str, ...]:
    """The names, or "0", "1", ... where none are given.

    Raises:
        ValueError: Fewer than 2 classes, more than 255, or another number of names.
    """
    if not 2 <= num_classes <= VOID_CLASS:
        raise ValueError(
            f"`num_classes` must be 2 to {VOID_CLASS}: masks are bytes, {VOID_CLASS} "
            "is void, and a background counts as a class. "
            f"Received: num_classes={num_classes}"
        )
    return check_class_names(num_classes, class_names)

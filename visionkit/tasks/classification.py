"""Image classification."""

from __future__ import annotations

import keras

from visionkit.heads.classifier import build_top
from visionkit.losses.classification import SoftmaxCrossentropy
from visionkit.postprocess import ClassProbabilities
from visionkit.tasks.task import (
    VisionTask,
    check_class_names,
    default_preprocessing,
)


@keras.saving.register_keras_serializable(package="visionkit")
class ImageClassifier(VisionTask):
    """One label per image: backbone -> top -> logits.

        backbone = vk.build_backbone("resnet50", (224, 224), weights="imagenet")
        model = vk.ImageClassifier(backbone, num_classes=10)
        model.compile()
        model.fit(dataset)           # of (images, labels), images 0..255

    Input: images (B, h, w, C), any number type, RGB 0..255; normalisation is the
    backbone's first layer. Labels: (B,) integers, or (B, num_classes) probabilities.
    `model(x)`: (B, num_classes) float32 logits. `model.predict(x)`:
    {"probabilities": (B, num_classes) float32, "labels": (B,) int32}.

    Args:
        backbone: Any `keras.Model` from images to a dict of levels {"P1": ...}; the
            last level is classified. Freeze it with `build_backbone(freeze=...)` or
            `backbone.trainable = False`.
        num_classes: Number of classes.
        top: `"pooled"`: global average pooling and one dense layer, on any backbone
            and size. `"paper"`: the top that was published with the backbone.
        dropout: Share of features dropped before the logits.
        label_smoothing: For the default loss, see `SoftmaxCrossentropy`.
        preprocessing: `Preprocessing` for files; default centre crop (0.875) to the
            backbone's size.
        class_names: Names in label order; default "0", "1", ...
        name: Name of the model.
    """

    task = "classification"

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        top: str = "pooled",
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        preprocessing=None,
        class_names=None,
        name: str = "image_classifier",
        **kwargs,
    ):
        class_names = check_class_names(num_classes, class_names)
        images = keras.Input(backbone.input.shape[1:], name="images")
        pyramid = backbone(images)
        last_level = max(pyramid, key=lambda level: int(level[1:]))
        logits = build_top(top, backbone, num_classes, dropout, pyramid[last_level])
        super().__init__(
            images,
            logits,
            backbone=backbone,
            postprocess=ClassProbabilities(name="probabilities"),
            preprocessing=preprocessing or default_preprocessing(backbone),
            class_names=class_names,
            name=name,
            **kwargs,
        )
        self.num_classes = num_classes
        self.top_name = top
        self.dropout = dropout
        self.label_smoothing = label_smoothing

    def compile(self, optimizer="adamw", loss=None, metrics=None, **kwargs):
        """Compile; what is left out gets a sensible default.

        Args:
            optimizer: As for Keras; default AdamW at its default rate.
            loss: Default `SoftmaxCrossentropy(label_smoothing)` on logits.
            metrics: Default top-1 ("accuracy") and, above five classes, top-5
                ("top_5_accuracy").
            **kwargs: As for `keras.Model.compile`.
        """
        if loss is None:
            loss = SoftmaxCrossentropy(self.label_smoothing)
        if metrics is None:
            metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
            if self.num_classes > 5:
                metrics.append(
                    keras.metrics.SparseTopKCategoricalAccuracy(5, "top_5_accuracy")
                )
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def _init_config(self):
        return {
            "num_classes": self.num_classes,
            "top": self.top_name,
            "dropout": self.dropout,
            "label_smoothing": self.label_smoothing,
        }

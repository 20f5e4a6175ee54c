"""Image classification."""

from __future__ import annotations

import keras

from visionkit.heads.classifier import build_auxiliary, build_top
from visionkit.losses.classification import SigmoidCrossentropy, SoftmaxCrossentropy
from visionkit.metrics.accuracy import TopKAccuracy
from visionkit.postprocess import ClassProbabilities
from visionkit.tasks.auxiliary import AuxiliaryTraining
from visionkit.tasks.scoring import ClassScorer
from visionkit.tasks.task import (
    VisionTask,
    check_class_names,
    check_levels,
    default_preprocessing,
)


@keras.saving.register_keras_serializable(package="visionkit")
class ImageClassifier(AuxiliaryTraining, VisionTask):
    """One label per image, or any number of them: backbone -> top -> logits.

        backbone = vk.build_backbone("resnet50", (224, 224), weights="imagenet")
        model = vk.ImageClassifier(backbone, num_classes=10)
        model.compile()
        model.fit(dataset)           # of (images, labels), images 0..255

    Input: images (B, h, w, C), any number type, RGB 0..255; normalisation is the
    backbone's first layer. Labels: (B,) integers, or (B, num_classes) probabilities;
    with `multi_label` (B, num_classes), 1 where a class is present.
    `model(x)`: (B, num_classes) float32 logits. `model.predict(x)`:
    {"probabilities": (B, num_classes) float32, "labels": (B,) int32, the best class};
    the probabilities sum to 1, with `multi_label` each is one of its own.

    Args:
        backbone: Any `keras.Model` from images to a dict of levels {"P1": ...}; the
            last level is classified. Freeze it with `build_backbone(freeze=...)` or
            `backbone.trainable = False`.
        num_classes: Number of classes.
        multi_label: Any number of classes per image: sigmoid instead of softmax.
        top: `"pooled"`: global average pooling and one dense layer, on any backbone
            and size. `"paper"`: the top that was published with the backbone.
            `"paper+auxiliary"`: with its auxiliary classifiers (GoogLeNet), which
            training adds at weight 0.3 and nothing else runs.
        dropout: Share of features dropped before the logits; 0 leaves a published top
            its published share.
        label_smoothing: For the default loss, see there.
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
        multi_label: bool = False,
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
        check_levels(pyramid)
        last_level = max(pyramid, key=lambda level: int(level[1:]))
        logits = build_top(top, backbone, num_classes, dropout, pyramid[last_level])
        super().__init__(
            images,
            logits,
            backbone=backbone,
            postprocess=ClassProbabilities(
                "sigmoid" if multi_label else "softmax", name="probabilities"
            ),
            preprocessing=preprocessing or default_preprocessing(backbone),
            class_names=class_names,
            name=name,
            **kwargs,
        )
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.top_name = top
        if top == "paper+auxiliary":
            self.auxiliary = build_auxiliary(
                backbone, num_classes, self.get_layer("top")
            )
        self.dropout = dropout
        self.label_smoothing = label_smoothing

    def compile(self, optimizer="adamw", loss=None, metrics=None, **kwargs):
        """Compile; what is left out gets a sensible default.

        Args:
            optimizer: As for Keras; default AdamW at its default rate.
            loss: Default `SoftmaxCrossentropy(label_smoothing)` on logits, or
                `SigmoidCrossentropy(label_smoothing)`.
            metrics: Default top-1 ("accuracy") and, above five classes, top-5
                ("top_5_accuracy"). With `multi_label` the means over the classes of
                the areas under the ROC curve ("auc") and under the precision-recall
                curve ("pr_auc"), both by 200 thresholds; what `vk.evaluate` says is
                exact.
            **kwargs: As for `keras.Model.compile`.
        """
        if loss is None:
            kind = SigmoidCrossentropy if self.multi_label else SoftmaxCrossentropy
            loss = kind(self.label_smoothing)
        if metrics is None:
            metrics = self._default_metrics()
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def scorer(self, source=None):
        """A `ClassScorer`; the truth is what comes with the images."""
        del source
        return ClassScorer(self.class_names, self.multi_label)

    def _default_metrics(self) -> list:
        if self.multi_label:
            options = {
                "multi_label": True,
                "num_labels": self.num_classes,
                "from_logits": True,
            }
            return [
                keras.metrics.AUC(curve="ROC", name="auc", **options),
                keras.metrics.AUC(curve="PR", name="pr_auc", **options),
            ]
        metrics = [TopKAccuracy(1, "accuracy")]
        if self.num_classes > 5:
            metrics.append(TopKAccuracy(5, "top_5_accuracy"))
        return metrics

    def _init_config(self):
        return {
            "num_classes": self.num_classes,
            "multi_label": self.multi_label,
            "top": self.top_name,
            "dropout": self.dropout,
            "label_smoothing": self.label_smoothing,
        }

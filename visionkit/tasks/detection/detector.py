"""What every detector shares: compiling, losses by name, COCO scores in `fit`."""

from __future__ import annotations

import dataclasses
import warnings

import keras

from visionkit.ops.nms import NMS
from visionkit.tasks.scoring import DetectionScorer, batches_of
from visionkit.tasks.task import VisionTask, check_class_names


class Detector(VisionTask):
    """A `VisionTask` from images to boxes.

    Input: images (B, h, w, C), any number type, RGB 0..255, at one size; normalisation
    is the backbone's first layer. Truth: {"boxes": (B, M, 4) float32 xyxy pixels of the
    input, "labels": (B, M) int32, -1 in padded rows}.
    `model(x)`: a dict of raw float32 outputs. `model.predict(x)`: {"boxes": (B, D, 4)
    float32 xyxy pixels of the input, "scores": (B, D) float32 in [0, 1], falling,
    "labels": (B, D) int32, "num_detections": (B,) int32}; padded rows have box 0, score
    0 and label -1.

    A subclass builds its graph in the constructor and defines `default_losses`,
    `compute_loss` and `_init_config`.

    Attributes:
        num_classes: Number of classes.
        nms: `NMS` that the answers have gone through.
        truth: A `Source` whose own annotations `evaluate` scores against, in pixels of
            the original images, when the data set has "image_id"s of it. None: the
            targets, in pixels of the input; boxes that were dropped, capped or cut on
            the way there do not count then.
    """

    task = "detection"
    logged_scores = ("map", "map_50", "map_75")
    default_loss_weights: dict[str, float] | None = None
    num_proposals: int | None = None  # how many the input has beside the images

    def __init__(
        self, images, outputs, *, num_classes: int, class_names=None, **kwargs
    ):
        class_names = check_class_names(num_classes, class_names, at_least=1)
        super().__init__(images, outputs, class_names=class_names, **kwargs)
        self.num_classes = num_classes
        self.truth = None
        self._scorer = None

    def default_losses(self) -> dict:
        """Name of a raw output -> its published loss, with `reduction="sum"`."""
        raise NotImplementedError(f"{type(self).__name__} must define default_losses.")

    def compile(
        self, optimizer="adamw", loss=None, loss_weights=None, metrics=None, **kwargs
    ):
        """Compile; what is left out gets the published value.

        Args:
            optimizer: As for Keras; default AdamW at its default rate.
            loss: Dict from the names of `default_losses` to losses; those left out keep
                their default.
            loss_weights: Dict from the same names to numbers.
            metrics: None. Boxes are scored by `evaluate`, for `fit` too.
            **kwargs: As for `keras.Model.compile`.

        Raises:
            ValueError: Metrics, or a name that no loss has.
        """
        if metrics:
            raise ValueError(
                "`metrics` must be None: `evaluate` adds "
                f" {', '.join(self.logged_scores)} "
                "itself. "
                f"Received: metrics={metrics}"
            )
        losses = self.default_losses()
        for argument in (loss or {}, loss_weights or {}):
            if not isinstance(argument, dict) or argument.keys() - losses.keys():
                raise ValueError(
                    "`loss` and `loss_weights` must be dicts with names among "
                    f"{', '.join(losses)}. Received: {argument}"
                )
        losses |= loss or {}
        weights = {**(self.default_loss_weights or {}), **(loss_weights or {})}
        super().compile(
            optimizer=optimizer,
            loss=losses,
            loss_weights={name: weights.get(name, 1.0) for name in losses},
            **kwargs,
        )

    def scorer(self, source=None):
        """A `DetectionScorer` for answers of this model."""
        return DetectionScorer(self.class_names, self.preprocessing, source)

    def evaluate(self, x=None, y=None, batch_size=None, return_dict=False, **kwargs):
        """The losses, and the COCO scores of `logged_scores`.

        The data are read twice, for the losses and for the answers; data that can be
        read once only (a generator) get no scores.

        Args:
            x: A data set of (images, target), or images (N, h, w, C).
            y: The target where `x` are images.
            batch_size: Where `x` are images; default 32.
            return_dict: Whether to return a dict by name instead of a list.
            **kwargs: As for `keras.Model.evaluate`.
        """
        scores = {}
        batches = batches_of(x, y, batch_size or 32, kwargs.get("steps"))
        if batches is None:
            warnings.warn(
                "Data that can be read only once are not scored. Pass a data set or "
                "arrays.",
                stacklevel=2,
            )
        else:
            scores, kwargs["steps"] = self._score(batches)
            kwargs.pop("_use_cached_eval_dataset", None)  # it is read up to its end
        losses = super().evaluate(
            x, y, batch_size=batch_size, return_dict=True, **kwargs
        )
        logs = {**losses, **scores}
        return logs if return_dict else list(logs.values())

    def _score(self, batches) -> tuple[dict[str, float], int]:
        """The scores of `logged_scores`, and the number of batches.

        Keras has to be told the number: where it finds the end of the data by itself,
        it counts one batch too many in the mean of each output's loss.
        """
        scorer, count = self._fresh_scorer(), 0
        for images, target in batches:
            scorer.update(self.predict_on_batch(images), target)
            count += 1
        found = scorer.summary()
        return {name: found[name] for name in self.logged_scores}, count

    def _fresh_scorer(self) -> DetectionScorer:
        """A scorer without answers; that of a source, which may be large, is kept."""
        if self.truth is None:
            return self.scorer()
        if self._scorer is None or self._scorer.source is not self.truth:
            self._scorer = self.scorer(self.truth)
        self._scorer.reset()
        return self._scorer


def resolve_nms(nms, default: NMS) -> NMS:
    """The `NMS` that a constructor's argument means.

    Args:
        nms: An `NMS`, a dict of the options of `default` that change, or None.
        default: The published one.

    Raises:
        TypeError: Unknown option.
    """
    if isinstance(nms, NMS):
        return nms
    return dataclasses.replace(default, **(nms or {}))


def static_size(backbone: keras.Model) -> tuple[int, int]:
    """(height, width) of the backbone's input.

    Raises:
        ValueError: It is dynamic; anchors need a size.
    """
    height, width = backbone.input.shape[1:3]
    if height is None or width is None:
        raise ValueError(
            "A detector is built for one image size. Pass it to `build_backbone(name, "
            f"(height, width))`. Received: a backbone of input {backbone.input.shape}"
        )
    return height, width


def select_levels(pyramid: dict, levels) -> dict:
    """The levels that a neck reads, in order.

    Raises:
        ValueError: The backbone lacks one.
    """
    missing = [level for level in levels if level not in pyramid]
    if missing:
        raise ValueError(
            f"The detector reads the levels {', '.join(levels)}; the backbone has "
            f"{', '.join(sorted(pyramid))} and lacks {', '.join(missing)}. Take "
            "another backbone of the table."
        )
    return {level: pyramid[level] for level in levels}

"""What every detector shares: compiling, losses by name, COCO scores in `fit`."""

from __future__ import annotations

import contextlib
import functools
import math
import warnings

import keras
from keras import ops

from visionkit.losses.replicas import replica_share
from visionkit.tasks.first_device import on_first_device
from visionkit.tasks.scoring import DetectionScorer, answer_batches, batches_of
from visionkit.tasks.task import VisionTask, default_preprocessing
from visionkit.types import PADDING_LABEL


class Detector(VisionTask):
    """A `VisionTask` from images to boxes.

    Input: images (B, h, w, C), any number type, RGB 0..255; normalisation is the
    backbone's first layer. Truth: {"boxes": (B, M, 4) float32 xyxy pixels of the
    input, "labels": (B, M) int32, -1 in padded rows}; any other label that is no class
    makes every loss NaN.
    On a backbone of static size all images have that size. On one of dynamic size
    (TensorFlow backend) each batch that trains may have its own; answers are given, and
    so scores are taken, at `preprocessing.image_size`.
    `model(x)`: a dict of raw float32 outputs. `model.predict(x)`: {"boxes": (B, D, 4)
    float32 xyxy pixels of the input, "scores": (B, D) float32 in [0, 1], falling,
    "labels": (B, D) int32, "num_detections": (B,) int32}; padded rows have box 0, score
    0 and label -1.

    A subclass builds its graph in the constructor and defines `default_losses` and
    `loss_terms`.

    Args:
        images: The graph's input.
        outputs: Its raw outputs.
        backbone: A `keras.Model`; where its size is dynamic, `answer_size` has been
            asked whether there is one.
        num_classes: Number of classes.
        preprocessing: `Preprocessing` for files; None for the subclass's
            `default_resize` at the backbone's size.
        nms: `NMS` of `postprocess`, where it has one.
        components: The constructor's further arguments, for its config.
        **kwargs: As for `VisionTask`.

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
    default_resize = "shortest_edge"
    num_proposals: int | None = None  # how many the input has beside the images

    def __init__(
        self,
        images,
        outputs,
        *,
        backbone: keras.Model,
        num_classes: int,
        preprocessing=None,
        nms=None,
        components: dict | None = None,
        **kwargs,
    ):
        super().__init__(
            images,
            outputs,
            backbone=backbone,
            preprocessing=preprocessing
            or default_preprocessing(backbone, self.default_resize),
            **kwargs,
        )
        self.num_classes, self.nms = num_classes, nms
        self.truth = None
        self._components, self._scorer = components or {}, None

    @functools.cached_property
    def predictor(self) -> keras.Model:
        """See `VisionTask`; its input has the size that is answered for."""
        if None not in self.backbone.input.shape[1:3]:
            return super().predictor
        shape = (*self.preprocessing.image_size, self.backbone.input.shape[-1])
        images = keras.Input(shape, name="images")
        # `call`, and not the model as a layer, which would hold itself then.
        answers = self.postprocess(self.call(images))
        return keras.Model(images, answers, name=f"{self.name}_predictor")

    def image_size(self, images) -> tuple:
        """(height, width) of a batch: integers, or scalars where only it says them."""
        size = tuple(self.backbone.input.shape[1:3])
        return ops.shape(images)[1:3] if None in size else size

    def default_losses(self) -> dict:
        """Name of a raw output -> its published loss, with `reduction="sum"`."""
        raise NotImplementedError(f"{type(self).__name__} must define default_losses.")

    def loss_terms(self, x, y: dict, y_pred: dict, training: bool) -> dict:
        """What each loss reads.

        Args:
            x: The images, for their size.
            y: "boxes" (B, M, 4) and "labels" (B, M) int32.
            y_pred: The raw outputs.
            training: Whether the weights are about to change.

        Returns:
            Name of a loss -> (truth, prediction, weights).
        """
        raise NotImplementedError(f"{type(self).__name__} must define `loss_terms`.")

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The compiled losses of `loss_terms`; NaN where a label is no class.

        On several devices each divides by the positives of its own share of the batch,
        and the mean of them is taken.
        """
        labels = ops.cast(y["labels"], "int32")
        legal = (labels >= PADDING_LABEL) & (labels < self.num_classes)
        y = {**y, "labels": ops.where(legal, labels, PADDING_LABEL)}
        terms = self.loss_terms(x, y, y_pred, training)
        y_true, y_pred, weights = (
            {name: term[i] for name, term in terms.items()} for i in range(3)
        )
        # Taken for padding, such objects would be learnt as background in silence.
        factor = ops.where(ops.all(legal), replica_share(), math.nan)
        weights = {name: factor * weight for name, weight in weights.items()}
        return super().compute_loss(x, y_true, y_pred, weights, training=training)

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

    def make_train_function(self, force: bool = False):
        """As `VisionTask`'s; Keras makes the losses' means too in the first step."""
        losses = self._compile_loss
        if losses is not None and not losses.built:
            names = dict.fromkeys(self.default_losses(), 0)  # only the structure counts
            losses.build(names, names)
        super().make_train_function(force)

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
            callbacks = kwargs.get("callbacks")
            with on_first_device(self), _validation_weights(self, callbacks):
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
        for answers, target in answer_batches(self, batches):
            scorer.update(answers, target)
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

    def _init_config(self):
        return {"num_classes": self.num_classes, **self._components}


def answer_size(backbone: keras.Model, preprocessing) -> tuple[int, int]:
    """(height, width) of the images that a detector answers for.

    Args:
        backbone: Its input says the size, unless it is dynamic.
        preprocessing: `Preprocessing`, whose size it is then, or None.

    Raises:
        ValueError: None of both says it; or the backbone is dynamic on another backend
            than TensorFlow.
    """
    size = tuple(backbone.input.shape[1:3])
    if None not in size:
        return size
    if keras.backend.backend() != "tensorflow":
        # JAX cannot tell that a map, halved and doubled, has its size again.
        raise ValueError(
            "Only on the TensorFlow backend a detector is built on a backbone of "
            "dynamic size. Pass the one image size to `build_backbone(name, (height, "
            f"width))`. Received: a backbone of input {backbone.input.shape}"
        )
    if preprocessing is None:
        raise ValueError(
            "A detector answers for images of one image size. Pass it to "
            "`build_backbone(name, (height, width))`; or, to train on several sizes, "
            "pass `preprocessing=Preprocessing((height, width), ...)` with the size to "
            f"evaluate and to predict at. Received: a backbone of input "
            f"{backbone.input.shape} and no preprocessing"
        )
    return preprocessing.image_size


@contextlib.contextmanager
def _validation_weights(model: keras.Model, callbacks):
    """Within it, the weights that callbacks give the model while it is validated.

    Keras asks them for the losses alone.

    Args:
        model: What is validated.
        callbacks: As for `evaluate`; those that swap weights are Keras' own and any
            with `swaps_weights`.
    """
    found = [
        callback
        for callback in keras.tree.flatten(getattr(callbacks, "callbacks", callbacks))
        if isinstance(callback, keras.callbacks.SwapEMAWeights)
        or getattr(callback, "swaps_weights", False)
    ]
    for callback in found:
        callback.set_model(model)
        callback.on_test_begin()
    try:
        yield
    finally:
        for callback in reversed(found):
            callback.on_test_end()

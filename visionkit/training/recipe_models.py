"""`model` in a recipe: the keywords of `build_backbone` and of a model's constructor.

A section for each model, since each has options of its own. Nothing here imports
TensorFlow or Keras.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from visionkit.training.recipe_base import Section, Size
from visionkit.types import RESIZE_MODES

Resize = Literal[RESIZE_MODES]


class ModelRecipe(Section):
    """What every model has: its backbone and how images become its input.

    `weights` are the backbone's; `start_from` is a run folder or a `.keras` file, a
    trained model of the same name and backbone, whose weights this one takes wherever
    they fit.
    """

    name: str
    backbone: str
    weights: str | None = None
    start_from: str | None = pydantic.Field(None, min_length=1)
    freeze: list[str] = pydantic.Field(default_factory=list)
    norm_momentum: float | None = pydantic.Field(None, ge=0, lt=1)
    stochastic_depth: float | None = pydantic.Field(None, ge=0, lt=1)
    backbone_dropout: float | None = pydantic.Field(None, ge=0, lt=1)
    image_size: Size
    resize: Resize = "letterbox"
    crop_fraction: float = pydantic.Field(0.875, gt=0, le=1)
    min_edge: pydantic.PositiveInt | None = None
    max_edge: pydantic.PositiveInt | None = None
    channels: Literal[1, 3] = 3

    @pydantic.field_validator("start_from")
    @classmethod
    def _alone(cls, value, info):
        weights = info.data.get("weights")
        if value is not None and weights is not None:
            raise ValueError(
                "it brings the backbone's weights too; leave model.weights out, or say "
                f"model.weights=null in place of {weights!r}"
            )
        return value

    def options(self) -> dict[str, Any]:
        """The keywords of the model's own constructor."""
        shared = ModelRecipe.model_fields.keys() | {"output_stride", "multi_grid"}
        return self.model_dump(exclude=shared, exclude_none=True)


class ClassifierRecipe(ModelRecipe):
    """`ImageClassifier`."""

    name: str = "classifier"
    output_stride: Literal[8, 16, 32] = 32
    resize: Resize = "center_crop"
    top: Literal["pooled", "paper", "paper+auxiliary"] = "pooled"
    dropout: float = pydantic.Field(0.0, ge=0, lt=1)
    label_smoothing: float = pydantic.Field(0.0, ge=0, lt=1)


# The options that change in a component's published defaults.
Component = dict[str, Any] | None


class DetectorRecipe(ModelRecipe):
    """What every detector has."""

    nms: Component = None


class YOLORecipe(DetectorRecipe):
    """`YOLO`."""

    name: Literal["yolo"]
    size: Literal["n", "s", "m", "l", "x"] | None = None
    neck: Component = None


class SSDRecipe(DetectorRecipe):
    """`SSD`."""

    name: Literal["ssd"]
    resize: Resize = "stretch"
    lite: bool = False
    neck: Component = None
    anchors: Component = None


class RetinaNetRecipe(DetectorRecipe):
    """`RetinaNet`."""

    name: Literal["retinanet"]
    resize: Resize = "shortest_edge"
    neck: Component = None
    head: Component = None
    anchors: Component = None


class FasterRCNNRecipe(DetectorRecipe):
    """`FasterRCNN`."""

    name: Literal["faster_rcnn"]
    resize: Resize = "shortest_edge"
    neck: Component = None
    anchors: Component = None
    rpn: Component = None
    roi: Component = None


class FastRCNNRecipe(DetectorRecipe):
    """`FastRCNN`; the data's `proposals` option says where its regions come from."""

    name: Literal["fast_rcnn"]
    resize: Resize = "shortest_edge"
    num_proposals: pydantic.PositiveInt = 1000
    neck: Component = None
    roi: Component = None


class MaskRCNNRecipe(FasterRCNNRecipe):
    """`MaskRCNN`."""

    name: Literal["mask_rcnn"]
    mask: Component = None


class SegmenterRecipe(ModelRecipe):
    """What every segmenter has."""

    auxiliary_level: str | None = None
    auxiliary_weight: pydantic.PositiveFloat = 0.4


class FCNRecipe(SegmenterRecipe):
    """`FCN`."""

    name: Literal["fcn"]
    stride: Literal[8, 16, 32] = 8
    head_channels: pydantic.NonNegativeInt | None = None
    dropout: float = pydantic.Field(0.1, ge=0, lt=1)
    learn_upsampling: bool = True


class UNetRecipe(SegmenterRecipe):
    """`UNet`; `unet_16` and the like are backbones."""

    name: Literal["unet"]
    padding: Literal["same", "valid"] = "same"
    width: pydantic.PositiveInt | None = None
    norm: bool | None = None


class DeepLabRecipe(SegmenterRecipe):
    """`DeepLabV3` and `DeepLabV3Plus`; `norm_momentum` is for the head too."""

    name: Literal["deeplab_v3", "deeplab_v3_plus"]
    output_stride: Literal[8, 16, 32] = 16
    multi_grid: list[pydantic.PositiveInt] | None = pydantic.Field(None, min_length=1)
    rates: list[pydantic.PositiveInt] | None = pydantic.Field(None, min_length=1)
    head_channels: pydantic.PositiveInt = 256
    separable: bool = False
    dropout: float = pydantic.Field(0.1, ge=0, lt=1)

    def options(self) -> dict[str, Any]:
        """The keywords of the model's own constructor."""
        momentum = self.model_dump(include={"norm_momentum"}, exclude_none=True)
        return super().options() | momentum


# Task -> model name -> its section; the keys are those of `tasks.MODELS`.
MODEL_RECIPES: dict[str, dict[str, type[ModelRecipe]]] = {
    "classification": {"classifier": ClassifierRecipe},
    "detection": {
        "yolo": YOLORecipe,
        "ssd": SSDRecipe,
        "retinanet": RetinaNetRecipe,
        "faster_rcnn": FasterRCNNRecipe,
        "fast_rcnn": FastRCNNRecipe,
    },
    "semantic_segmentation": {
        "fcn": FCNRecipe,
        "unet": UNetRecipe,
        "deeplab_v3": DeepLabRecipe,
        "deeplab_v3_plus": DeepLabRecipe,
    },
    "instance_segmentation": {"mask_rcnn": MaskRCNNRecipe},
}

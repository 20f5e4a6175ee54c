"""Which top a classifier has: from the last pyramid level to logits."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras

from visionkit.heads.tops import (
    AuxiliaryTop,
    FullyConnectedTop,
    LeNet5Top,
    PooledTop,
    Top,
)


@dataclass(frozen=True)
class PaperTop:
    """A published top and the features it reads."""

    layer: type[Top] = PooledTop
    options: dict = field(default_factory=dict)
    """Keywords of the layer; its `dropout` is the published one."""
    features: tuple[int, int, int] | None = None
    """(h, w, C) of the features, where the top needs one size."""
    image_size: str = ""
    """The image size that gives those."""


_VGG = PaperTop(FullyConnectedTop, {"dropout": 0.5}, (7, 7, 512), "224x224")
_ALEXNET = PaperTop(
    FullyConnectedTop,
    {"dropout": 0.5, "dropout_first": True},
    (6, 6, 256),
    "227x227",
)

# The backbones that are not here publish a pooled top without dropout. ConvNeXt's
# pools before its last normalisation, which here belongs to the backbone (as in Keras
# without a top) and so comes before the pooling. No weights of a top are ever loaded.
PAPER_TOPS: dict[str, PaperTop] = {
    "lenet5": PaperTop(LeNet5Top, {}, (5, 5, 16), "32x32"),
    "alexnet": _ALEXNET,
    "alexnet_ungrouped": _ALEXNET,
    "vgg16": _VGG,
    "vgg19": _VGG,
    "googlenet": PaperTop(options={"dropout": 0.4}),
    "mobilenet_v3_small": PaperTop(
        options={"dropout": 0.2, "hidden_units": 1024, "activation": "hard_swish"}
    ),
    "mobilenet_v3_large": PaperTop(
        options={"dropout": 0.2, "hidden_units": 1280, "activation": "hard_swish"}
    ),
    "ghostnet": PaperTop(
        options={"dropout": 0.2, "hidden_units": 1280, "activation": "relu"}
    ),
    **{
        f"mobilenet_v1{width}": PaperTop(options={"dropout": 1e-3})
        for width in ("", "_025", "_050", "_075")
    },
    **{
        f"efficientnet_b{i}": PaperTop(options={"dropout": (2 + i // 2) / 10})
        for i in range(8)
    },
    **{
        f"efficientnet_v2_{size}": PaperTop(options={"dropout": 0.2})
        for size in ("b0", "b1", "b2", "b3", "s", "m", "l")
    },
}

AUXILIARY_LAYERS = {"googlenet": ("inception_4a", "inception_4d")}
"""Backbone -> its layers that have a published auxiliary classifier."""

TOPS = ("pooled", "paper", "paper+auxiliary")


def build_top(top: str, backbone, num_classes: int, dropout: float, features):
    """Logits from the last level of a backbone.

    Args:
        top: `"pooled"`, or `"paper"` (the published top of that backbone), or
            `"paper+auxiliary"` (the same here; see `build_auxiliary`).
        backbone: The backbone; `"paper"` goes by its name.
        num_classes: Number of classes.
        dropout: Share dropped before the logits; a published top has its published
            share where this is 0.
        features: (B, h, w, C), the last level.

    Returns:
        (B, num_classes) float32.

    Raises:
        ValueError: `top` is none of these, the backbone has no published top or no
            auxiliary ones, or the features are not those of the published image size.
    """
    if top == "pooled":
        return PooledTop(num_classes, dropout, name="top")(features)
    if top not in TOPS:
        raise ValueError(f"`top` must be one of {TOPS}. Received: top={top!r}")

    from visionkit.backbones import BACKBONES

    if backbone.name not in BACKBONES:
        raise ValueError(
            f"The backbone {backbone.name!r} has no published top: it is not in "
            "`visionkit.BACKBONES`. Use top='pooled'."
        )
    if top == "paper+auxiliary" and backbone.name not in AUXILIARY_LAYERS:
        raise ValueError(
            f"{backbone.name} has no published auxiliary classifiers; these have: "
            f"{', '.join(AUXILIARY_LAYERS)}. Use top='paper'."
        )
    paper = PAPER_TOPS.get(backbone.name, PaperTop())
    shape = tuple(features.shape[1:])
    if paper.features not in (None, shape):
        raise ValueError(
            f"The published top of {backbone.name} reads features of shape "
            f"{paper.features}, those of a {paper.image_size} image. "
            f"Received: {shape}. Build the backbone with that image_size, or use "
            "top='pooled'."
        )
    options = {**paper.options, **({"dropout": dropout} if dropout else {})}
    return paper.layer(num_classes, name="top", **options)(features)


def build_auxiliary(backbone, num_classes: int, top: keras.layers.Layer):
    """The graph that training runs: logits and those of the auxiliary classifiers.

    Args:
        backbone: A backbone of `AUXILIARY_LAYERS`.
        num_classes: Number of classes.
        top: The layer that reads the last level, shared.

    Returns:
        A model from images to {"logits": (B, num_classes), and one more such entry
        for each auxiliary classifier}, float32.

    Raises:
        ValueError: The backbone's image size is dynamic or too small.
    """
    outputs = {"logits": top(backbone.output[max(backbone.output)])}
    for name in AUXILIARY_LAYERS[backbone.name]:
        features = backbone.get_layer(name).output
        if None in features.shape[1:3] or min(features.shape[1:3]) < 5:
            raise ValueError(
                f"The auxiliary classifiers of {backbone.name} need a static image "
                f"size that leaves 5x5 features or more at {name}. Received: features "
                f"of shape {tuple(features.shape[1:])}. Build the backbone with "
                "image_size=(224, 224), or use top='paper'."
            )
        auxiliary = AuxiliaryTop(num_classes, name=f"auxiliary_{name}")
        outputs[auxiliary.name] = auxiliary(features)
    return keras.Model(backbone.input, outputs, name="with_auxiliary")

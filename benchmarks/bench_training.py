"""Training steps of classifiers, DeepLab V3+ and RetinaNet beside other libraries'."""

from __future__ import annotations

import numpy as np

from benchmarks.goals import at_most
from benchmarks.harness import Bench, Side
from benchmarks.peers import load, load_torch, load_torchvision_models
from benchmarks.work import (
    check_losses,
    count_without_biases,
    draw_boxes,
    draw_images,
    draw_labels,
    train_gigaflops,
    trained_once,
)

CLASSIFIERS = (
    # name here, in keras.applications, in torchvision, side of the images
    ("resnet50", "ResNet50", "resnet50", 128),
    ("mobilenet_v2", "MobileNetV2", "mobilenet_v2", 160),
)
RESNET50 = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 128, 256, 512],
    "stackwise_num_blocks": [3, 4, 6, 3],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "bottleneck_block",
}
"""keras_hub's spelling of it."""


def classifiers(bench: Bench) -> None:
    """ResNet-50 and MobileNetV2 with 1,000 classes, eight images."""
    import keras

    import visionkit as vk

    for name, theirs, torch_name, side in CLASSIFIERS:
        side = 32 if bench.quick else side
        shape = (8, side, side, 3)
        images = draw_images(8, (side, side))
        labels = np.arange(8, dtype="int32")

        def keras_side(label, model, shape=shape, images=images, labels=labels):
            model.compile(
                optimizer=_sgd(),
                loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=[],
                jit_compile=False,
            )
            return _first(bench, label, model, images, labels, shape), model

        ours, model = keras_side(
            "visionkit",
            vk.ImageClassifier(vk.build_backbone(name, (side, side)), 1000),
        )
        peer, their_model = keras_side(
            "keras.applications",
            getattr(keras.applications, theirs)(
                weights=None,
                input_shape=(side, side, 3),
                classes=1000,
                classifier_activation=None,
            ),
        )
        bench.require_equal(
            "parameters", model.count_params(), their_model.count_params()
        )

        def torch_side(name=torch_name, images=images, labels=labels, model=model):
            return _torch_side(bench, name, images, labels, model)

        others = bench.peers({"torchvision": torch_side})
        bench.compare(
            f"{name}: train step, {side}, b8",
            ours,
            [peer, *others],
            {"keras.applications": at_most(1.02), "torchvision": at_most(1.5)},
            also="GFLOP",
            seconds=40,
        )


def deeplab(bench: Bench) -> None:
    """DeepLab V3+ on ResNet-50, whose last maps are convolved at rates 6, 12 and 18."""
    import keras

    import visionkit as vk

    size = (64, 64) if bench.quick else (256, 256)
    images, classes = draw_images(2, size), 21
    truth = np.random.default_rng(0).integers(0, classes, (2, *size)).astype("uint8")

    def side(name, model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=_sgd(), loss=loss, metrics=[], jit_compile=False)
        shape = tuple(model.compute_output_shape((2, *size, 3)))
        bench.require_equal(f"output of {name}", shape, (2, *size, classes))
        return _first(bench, name, model, images, truth, images.shape)

    def theirs():
        models = load("keras_hub").models
        encoder = models.ResNetBackbone(**RESNET50, image_shape=(*size, 3))
        backbone = models.DeepLabV3Backbone(
            image_encoder=encoder,
            spatial_pyramid_pooling_key="P5",
            low_level_feature_key="P2",
            dilation_rates=[6, 12, 18],
            upsampling_size=8,
            image_shape=(*size, 3),
        )
        model = models.DeepLabV3ImageSegmenter(backbone, classes, activation=None)
        return side("keras_hub", model)

    # As keras_hub's: maps of stride 32, with the rates that were published for 16.
    backbone = vk.build_backbone("resnet50", size)
    bench.compare(
        f"DeepLab V3+ ResNet-50: train step, {size[0]}, b2",
        side("visionkit", vk.DeepLabV3Plus(backbone, classes, rates=(6, 12, 18))),
        bench.peers({"keras_hub": theirs}),
        {"keras_hub": at_most(0.35)},
        also="GFLOP",
        warm_ups=1,
    )


def retinanet(bench: Bench) -> None:
    """RetinaNet on ResNet-50 with the assignment of its targets, two images."""
    import visionkit as vk

    size = (128, 128) if bench.quick else (320, 320)
    images, classes = draw_images(2, size), 80
    target = {
        "boxes": draw_boxes(2, 20, size),
        "labels": draw_labels(2, 20, classes),
    }

    def theirs():
        models = load("keras_hub").models
        encoder = models.ResNetBackbone(**RESNET50, image_shape=(*size, 3))
        backbone = models.RetinaNetBackbone(
            encoder, min_level=3, max_level=7, use_p5=True, image_shape=(*size, 3)
        )
        model = models.RetinaNetObjectDetector(
            backbone, classes, bounding_box_format="xyxy"
        )
        model.compile(optimizer=_sgd(), jit_compile=False)
        (logits,) = (x for x in model.outputs if x.shape[-1] == classes)
        shapes.append(tuple(logits.shape[1:]))
        return _first(bench, "keras_hub", model, images, target, images.shape)

    model = vk.RetinaNet(vk.build_backbone("resnet50", size), classes)
    model.compile(optimizer=_sgd(), jit_compile=False)
    shapes = [tuple(model.output["classes"].shape[1:])]
    ours = _first(bench, "visionkit", model, images, target, images.shape)
    peers = bench.peers({"keras_hub": theirs})
    bench.require_equal("anchors and classes", shapes[0], shapes[-1])
    bench.compare(
        f"RetinaNet ResNet-50: train step, {size[0]}, b2, 20 boxes",
        ours,
        peers,
        {"keras_hub": at_most(0.9)},
        also="GFLOP",
    )


def _first(bench: Bench, name, model, images, target, shape) -> Side:
    """The side of further steps, after one; what that showed is a note."""
    losses, train = trained_once(model, images, target)
    check_losses(name, losses)
    work = train_gigaflops(model, shape)
    bench.note(
        f"{name}: {model.count_params():,} parameters, {work:.1f} GFLOP a step, "
        f"loss {losses['loss']:.3g}"
    )
    return Side(name, train, work=work)


def _torch_side(bench: Bench, name: str, images, labels, ours) -> Side:
    torch = load_torch()
    model = getattr(load_torchvision_models(), name)(weights=None).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()) / 255
    y = torch.from_numpy(labels.astype("int64"))
    count = sum(parameter.numel() for parameter in model.parameters())
    bench.require_equal(
        f"trainable parameters of {name}, here without biases before a normalisation,",
        count_without_biases(ours),
        count,
    )
    with load("torch.utils.flop_counter").FlopCounterMode(display=False) as counter:
        model(x)
    work = 3 * counter.get_total_flops() / 1e9  # backward is twice forward
    bench.note(
        f"torchvision: {name}, {count:,} trainable parameters, {work:.1f} GFLOP a "
        "step, eager, NCHW"
    )

    def train():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return Side("torchvision", train, work=work)


def _sgd():
    import keras

    return keras.optimizers.SGD(1e-3, momentum=0.9)

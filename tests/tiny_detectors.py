"""One tiny detector of each kind, on a backbone of any size."""

import keras

import visionkit as vk


def backbone(size):
    x = images = keras.Input((*size, 3), name="images")
    x = x / 127.5 - 1
    levels = {}
    for level in range(1, 6):
        x = keras.layers.Conv2D(4 * level, 3, 2, "same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        levels[f"P{level}"] = x = keras.layers.ReLU()(x)
    return keras.Model(images, levels, name="tiny")


def yolo(size, **options):
    neck = {"levels": ["P3", "P4"], "channels": [16, 16]}
    return vk.YOLO(backbone(size), 2, neck=neck, **options)


def ssd(size, **options):
    return vk.SSD(backbone(size), 2, **options)


def retinanet(size, **options):
    return vk.RetinaNet(
        backbone(size),
        2,
        neck={"channels": 16},
        head={"depth": 1},
        anchors={"sizes": [12, 24, 48, 96, 192]},
        **options,
    )


def faster_rcnn(size, **options):
    return vk.FasterRCNN(
        backbone(size),
        2,
        neck={"channels": 16},
        anchors={"sizes": [16, 24, 32, 48, 64]},
        rpn={"num_proposals": 40, "num_samples": 64},
        roi={"num_samples": 32, "units": 32, "output_size": 5},
        **options,
    )


DETECTORS = {
    "yolo": yolo,
    "ssd": ssd,
    "retinanet": retinanet,
    "faster_rcnn": faster_rcnn,
}

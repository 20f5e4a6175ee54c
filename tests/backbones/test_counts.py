"""Every entry of the table has exactly its published number of parameters."""

import keras
import numpy as np
import pytest

import visionkit as vk

# Trainable parameters with the published top of 1,000 classes. Of keras.applications:
# what `include_top=True` gives. resnet18, resnet34, shufflenet_v2: torchvision (and the
# ResNet-50 of Keras has 26,560 biases more than that). lenet5: 61,706 with ten classes.
# alexnet, googlenet, ghostnet: counted from the papers' tables. csp_darknet: with one
# dense layer; test_yolov8_totals_follow_from_the_backbone checks it with its detector.
# vgg16_atrous: 20,483,904 and one dense layer; SSD's published totals contain it.
# vgg16_fcn: that of VGG-16, whose layers it has; unet: with one dense layer, the
# published total of U-Net contains it.
# resnet*_cifar: test_cifar_resnets_have_the_counts_of_table_6 derives them.
# keras_cv: with one dense layer; its ResNets and DenseNets agree with torchvision.
EXPECTED_TRAINABLE = {
    "lenet5": 145_856,
    "alexnet": 60_965_224,
    "alexnet_ungrouped": 62_378_344,
    "vgg16": 138_357_544,
    "vgg16_atrous": 21_508_904,
    "vgg16_fcn": 138_357_544,
    "vgg19": 143_667_240,
    "googlenet": 6_998_552,
    "inception_v3": 23_817_352,
    "inception_resnet_v2": 55_813_192,
    "xception": 22_855_952,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_583_592,
    "resnet101": 44_601_832,
    "resnet152": 60_268_520,
    "resnet50_v2": 25_568_360,
    "resnet101_v2": 44_577_896,
    "resnet152_v2": 60_236_904,
    "resnet20_cifar": 334_072,
    "resnet32_cifar": 528_504,
    "resnet44_cifar": 722_936,
    "resnet56_cifar": 917_368,
    "resnet110_cifar": 1_792_312,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v1_025": 470_072,
    "mobilenet_v1_050": 1_331_592,
    "mobilenet_v1_075": 2_585_560,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v2_035": 1_677_128,
    "mobilenet_v2_050": 1_968_680,
    "mobilenet_v2_075": 2_636_424,
    "mobilenet_v2_140": 6_108_776,
    "mobilenet_v3_small": 2_542_856,
    "mobilenet_v3_large": 5_483_032,
    "shufflenet_v2_050": 1_366_792,
    "shufflenet_v2_100": 2_278_604,
    "shufflenet_v2_150": 3_503_624,
    "shufflenet_v2_200": 7_393_996,
    "ghostnet": 5_182_508,
    "nasnet_mobile": 5_289_978,
    "nasnet_large": 88_753_150,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "efficientnet_v2_b0": 7_139_704,
    "efficientnet_v2_b1": 8_141_052,
    "efficientnet_v2_b2": 10_096_086,
    "efficientnet_v2_b3": 14_358_406,
    "efficientnet_v2_s": 21_458_488,
    "efficientnet_v2_m": 54_139_356,
    "efficientnet_v2_l": 118_515_272,
    "convnext_tiny": 28_589_128,
    "convnext_small": 50_223_688,
    "convnext_base": 88_591_464,
    "convnext_large": 197_767_336,
    "convnext_xlarge": 350_196_968,
    "csp_darknet_n": 1_529_656,
    "csp_darknet_s": 5_592_712,
    "csp_darknet_m": 12_432_856,
    "csp_darknet_l": 20_321_576,
    "csp_darknet_x": 31_584_120,
    "unet": 19_868_200,
    "unet_norm": 19_876_136,
    "unet_32": 5_225_224,
    "unet_32_norm": 5_229_192,
    "unet_16": 1_435_768,
    "unet_16_norm": 1_437_752,
    "keras_cv.resnet_18": 11_689_512,
    "keras_cv.resnet_34": 21_797_672,
    "keras_cv.resnet_50": 25_557_032,
    "keras_cv.resnet_101": 44_549_160,
    "keras_cv.resnet_152": 60_192_808,
    "keras_cv.resnet_v2_18": 11_688_680,
    "keras_cv.resnet_v2_34": 21_796_840,
    "keras_cv.resnet_v2_50": 25_568_360,
    "keras_cv.resnet_v2_101": 44_577_896,
    "keras_cv.resnet_v2_152": 60_236_904,
    "keras_cv.densenet_121": 7_978_856,
    "keras_cv.densenet_169": 14_149_480,
    "keras_cv.densenet_201": 20_013_928,
    "keras_cv.csp_darknet_tiny": 2_757_304,
    "keras_cv.csp_darknet_s": 4_725_672,
    "keras_cv.csp_darknet_m": 13_121_992,
    "keras_cv.csp_darknet_l": 28_100_968,
    "keras_cv.csp_darknet_xl": 58_142_700,
    "keras_cv.efficientnet_v2_b0": 7_139_704,
    "keras_cv.efficientnet_v2_s": 21_458_488,
    "keras_cv.mobilenet_v3_small": 1_504_008,
    "keras_cv.mobilenet_v3_large": 3_932_952,
}

SIZES = {"lenet5": (32, 32), "alexnet": (227, 227), "alexnet_ungrouped": (227, 227)}

# One of most families; the others of the table are `slow`.
FAST = (
    "lenet5",
    "alexnet",
    "vgg16",
    "googlenet",
    "inception_v3",
    "resnet18",
    "resnet50",
    "resnet50_v2",
    "resnet20_cifar",
    "mobilenet_v1_025",
    "mobilenet_v2_035",
    "mobilenet_v3_small",
    "shufflenet_v2_050",
    "ghostnet",
    "efficientnet_b0",
    "convnext_tiny",
    "csp_darknet_n",
)

# Parameters of the detectors as published, and their depth multiple.
YOLOV8 = {
    "n": (3_157_200, 1 / 3),
    "s": (11_166_560, 1 / 3),
    "m": (25_902_640, 2 / 3),
}


@pytest.fixture
def without_values():
    """Variables get shapes and no values: VGG's top alone would fill 0.5 GB."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def trainable(model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_weights)


def test_the_table_of_counts_is_the_table_of_backbones():
    assert list(EXPECTED_TRAINABLE) == list(vk.BACKBONES)


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in vk.BACKBONES],
)
def test_trainable_parameters_are_the_published_count(name, without_values):
    channels = 1 if name == "lenet5" else 3
    size = SIZES.get(name, (224, 224))
    backbone = vk.build_backbone(name, size, channels=channels)
    model = vk.ImageClassifier(backbone, 1000, top="paper")
    assert trainable(model) == EXPECTED_TRAINABLE[name]


def conv(inside, out, kernel=1):
    """A convolution without bias and the scale and offset of its normalisation."""
    return inside * out * kernel**2 + 2 * out


# He et al. 2016, table 6: millions of parameters with ten classes.
CIFAR = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}


@pytest.mark.parametrize(
    "depth",
    [20, *(pytest.param(d, marks=pytest.mark.slow) for d in (32, 44, 56, 110))],
)
def test_cifar_resnets_have_the_counts_of_table_6(depth, without_values):
    n = (depth - 2) // 6
    stages = [(16, 16), (16, 32), (32, 64)]
    features = conv(3, 16, 3) + sum(
        conv(inside, out, 3) + (2 * n - 1) * conv(out, out, 3) for inside, out in stages
    )
    name = f"resnet{depth}_cifar"
    model = vk.ImageClassifier(vk.build_backbone(name, (32, 32)), 10, top="paper")
    assert trainable(model) == features + 64 * 10 + 10
    assert features + 64 * 1000 + 1000 == EXPECTED_TRAINABLE[name]
    assert f"{trainable(model) / 1e6:.2f}".startswith(f"{CIFAR[depth]}")
    weighted = [x for x in model.backbone.layers if isinstance(x, keras.layers.Conv2D)]
    assert len(weighted) + 1 == depth


def c2f(inside, out, blocks):
    half = out // 2
    ends = conv(inside, out) + conv((2 + blocks) * half, out)
    return ends + blocks * 2 * conv(half, half, 3)


def head(channels, width, outputs):
    """Two 3x3 convolutions and a 1x1 with bias, on each level."""
    return sum(
        conv(c, width, 3) + conv(width, width, 3) + width * outputs + outputs
        for c in channels
    )


@pytest.mark.parametrize("size", ["n", pytest.param("s", marks=pytest.mark.slow), "m"])
def test_yolov8_totals_follow_from_the_backbone(size, without_values):
    total, depth = YOLOV8[size]
    backbone = vk.build_backbone(f"csp_darknet_{size}")
    p3, p4, p5 = (backbone.output[level].shape[-1] for level in ("P3", "P4", "P5"))
    blocks = round(3 * depth)
    neck = c2f(p5 + p4, p4, blocks) + c2f(p4 + p3, p3, blocks)
    neck += conv(p3, p3, 3) + c2f(p3 + p4, p4, blocks)
    neck += conv(p4, p4, 3) + c2f(p4 + p5, p5, blocks)
    boxes = head((p3, p4, p5), max(16, p3 // 4, 64), 64)
    classes = head((p3, p4, p5), max(p3, 80), 80)
    fixed = 16  # the bins of the box distribution, a kernel that does not train
    assert trainable(backbone) + neck + boxes + classes + fixed == total

"""Whatever moves the pixels, boxes and masks are still those of the shapes drawn."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scenes_of_shapes import (
    COLORS,
    check_boxes,
    check_instances,
    color_map,
    extents,
    shapes_record,
    shapes_source,
)

from visionkit.data.pipeline import Order, augment_and_resize, make_dataset
from visionkit.data.reading import read_sample
from visionkit.data.targets import map_boxes, map_instances
from visionkit.data.transforms import TRANSFORMS, build_transforms, stage_of
from visionkit.types import TASKS, VOID_CLASS, Preprocessing

INPUT = Preprocessing((120, 160), "stretch")  # what is cut off ends at the border
TASKS = TASKS[1:]

# Strong enough to be seen, and never more than can be recognised.
OPTIONS = {
    "crop": {"scale": [0.3, 1.0]},
    "flip": {"vertical": True},
    "scale_jitter": {"range": [0.3, 2.0]},
    "zoom_out": {"max_scale": 2.5, "p": 0.8},
    "pad_crop": {"padding": 25},
    "erase": {"p": 1.0},
    "mosaic": {"p": 0.8, "scale": [0.6, 1.5]},
    "class_crop": {"scale": [0.3, 0.9], "p": 0.8},
    "copy_paste": {"p": 0.9, "share": 0.6},
    "multi_scale": {"sizes": [[120, 160], [140, 200], [90, 140]], "every": 1},
}
# Without a mask, what is left of an ellipse does not fill what is left of its box.
CUTTING = ("crop", "scale_jitter", "min_iou_crop", "pad_crop", "mosaic")
# Boxes without the pixels to show for them; they have tests of their own.
BLENDING = ("mixup", "cutmix", "copy_paste")


def legal(task):
    for name, kind in TRANSFORMS.items():
        if task in getattr(kind, "tasks", (task,)) and name not in BLENDING:
            yield name


def transforms_of(*names):
    items = [{name: OPTIONS.get(name, {})} for name in names]
    return build_transforms(items)


def is_mixer(name):
    return getattr(TRANSFORMS[name], "stage", "") in ("batch", "size")


def check_masks(image, mask, erased):
    found = np.where(color_map(image) < 0, 0, color_map(image) + 1)
    seen = mask != VOID_CLASS
    assert not seen.any() or (found == mask)[seen].mean() > 0.97
    if erased:
        return
    for label in range(1, len(COLORS) + 1):
        (ours, areas), (theirs, _) = extents(found, label), extents(mask, label)
        for piece, area in zip(ours, areas, strict=True):
            if area > 30:
                assert (np.abs(theirs - piece).max(axis=1) <= 2).any()


@pytest.mark.parametrize("task", TASKS)
def test_every_transform_eagerly(task):
    seen = 0
    for name in legal(task):
        if is_mixer(name):
            continue
        ellipses = task != "detection" or name not in CUTTING
        record = shapes_source(task, 1, ellipses=ellipses).records[0]
        tensors = {key: tf.constant(value) for key, value in record.items()}
        transforms = transforms_of(name)
        decode = [t for t in transforms if stage_of(t) == "decode"]
        for seed in range(3):
            start = {"index": 0, "seed": tf.constant([seed, 9], tf.int64), **tensors}
            sample = read_sample(start, INPUT, *decode)
            sample = augment_and_resize(sample, INPUT, transforms)
            image = sample["images"].numpy()
            if task == "semantic_segmentation":
                mask = sample["segmentation_masks"].numpy()
                check_masks(image, mask, name == "erase")
                continue
            rows = map_boxes(sample)
            if "instance_masks" in sample:
                rows = map_instances(sample, 9)
            if name == "erase":
                continue
            seen += check_boxes(image, rows["boxes"], rows["labels"])
            if "instance_masks" in sample:
                check_instances(image, *rows.values())
    assert seen > 20 or task == "semantic_segmentation"


GROUPS = (
    ("crop",),
    ("flip", "scale_jitter", "color"),
    ("zoom_out", "min_iou_crop"),
    ("hsv", "pad_crop"),
    ("mosaic",),
)


@pytest.mark.parametrize("names", GROUPS, ids=" ".join)
def test_every_transform_in_the_pipeline(names):
    tested = {name for group in GROUPS for name in group}
    # `multi_scale` has a file of its own.
    assert tested == {*legal("detection")} - {"erase", "multi_scale"}
    source = shapes_source("detection", ellipses=not {*names} & {*CUTTING})
    transforms, order = transforms_of(*names), Order(3, epochs=9)
    dataset = make_dataset(source, INPUT, 4, transforms=transforms, order=order)
    seen = 0
    for images, target in dataset.take(10):
        assert images.shape == (4, 120, 160, 3)
        for image, boxes, labels in zip(images, *target.values(), strict=True):
            image, valid = image.numpy(), labels.numpy() >= 0
            # A patch in a larger frame may cut objects off inside of it.
            seen += check_boxes(image, boxes, labels, whole=len(names) < 2)
            assert (np.sort(valid)[::-1] == valid).all()
    assert seen > 50


@pytest.mark.parametrize("task", TASKS[1:])
def test_all_together_in_the_pipeline(task):
    names = [name for name in legal(task) if name not in ("erase", "mosaic")]
    source = shapes_source(task)
    dataset = make_dataset(
        source, INPUT, 4, transforms=transforms_of(*names), order=Order(3, epochs=9)
    )
    for images, target in dataset.take(8):
        if task == "semantic_segmentation":
            for image, mask in zip(images.numpy(), target.numpy(), strict=True):
                check_masks(image, mask, erased=False)
            continue
        for image, *rows in zip(images.numpy(), *target.values(), strict=True):
            check_boxes(image, *rows[:2], tolerance=3, whole=False)
            check_instances(image, *rows)


@pytest.mark.parametrize("names", [("mosaic",), ("scale_jitter", "copy_paste")])
def test_masks_follow_what_mixes_images(names):
    dataset = make_dataset(
        shapes_source("instance_segmentation"),
        INPUT,
        4,
        transforms=transforms_of(*names),
        order=Order(3, epochs=9),
    )
    seen = 0
    for images, target in dataset.take(6):
        for image, *rows in zip(images.numpy(), *target.values(), strict=True):
            seen += check_instances(image, *rows)
            if names == ("mosaic",):  # 4: the round end of an ellipse at the border
                check_boxes(image, *rows[:2], tolerance=4)
    assert seen > 60


def albumentations_batches(specs, source, input_, count=6, **options):
    dataset = make_dataset(
        source,
        input_,
        4,
        transforms=build_transforms(specs),
        order=Order(5, epochs=9),
        **options,
    )
    return itertools.islice(dataset.as_numpy_iterator(), count)


def test_transforms_of_albumentations_move_boxes_along():
    specs = [
        {"HorizontalFlip": {"p": 0.5}},
        {
            "Affine": {
                "scale": [0.6, 1.4],
                "translate_percent": [-0.2, 0.2],
                "p": 0.7,
            }
        },
        {"RandomResizedCrop": {"size": [140, 180], "scale": [0.4, 1.0], "p": 1.0}},
        "flip",
    ]
    source = shapes_source("detection", ellipses=False)
    seen = 0
    for images, target in albumentations_batches(specs, source, INPUT):
        for image, boxes, labels in zip(images, *target.values(), strict=True):
            seen += check_boxes(image, boxes, labels, tolerance=3, whole=False)
    assert seen > 30


ELASTIC = [
    # Ronneberger et al. 2015, section 3.1: a grid of 3x3, moved by 10 pixels.
    {"GridElasticDeform": {"num_grid_xy": [3, 3], "magnitude": 10, "p": 1.0}},
    {"ElasticTransform": {"alpha": 60, "sigma": 8, "p": 1.0}},
    {"ThinPlateSpline": {"scale_range": [0.1, 0.2], "p": 1.0}},
]
MOVING = [
    {"Affine": {"rotate": [-40, 40], "scale": [0.6, 1.4], "p": 1.0}},
    {"RandomResizedCrop": {"size": [140, 180], "scale": [0.4, 1.0], "p": 1.0}},
    {"Perspective": {"p": 1.0}},
]


@pytest.mark.parametrize("spec", [*ELASTIC, *MOVING], ids=lambda spec: next(iter(spec)))
def test_transforms_of_albumentations_move_masks_along(spec):
    source = shapes_source("semantic_segmentation")
    for images, masks in albumentations_batches([spec], source, INPUT, count=3):
        for image, mask in zip(images, masks, strict=True):
            check_masks(image, mask, erased=False)
            assert (mask > 0).any()


def test_transforms_of_albumentations_move_instances_along():
    """Turned and bent, a box is again as tight as its mask, behind a fused crop too."""
    source, seen = shapes_source("instance_segmentation"), 0
    specs = [{"crop": {"scale": [0.6, 1.0]}}, *MOVING[:2], ELASTIC[0], "flip"]
    for images, target in albumentations_batches(specs, source, INPUT, count=4):
        for image, *rows in zip(images, *target.values(), strict=True):
            seen += check_instances(image, *rows)
            for box, label, mask in zip(*rows, strict=True):
                if label >= 0:
                    sides = (box[2:] - box[:2])[::-1]  # of y, of x
                    ends = [np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0)]
                    gaps = np.array([[first, 111 - last] for first, last in ends])
                    assert (gaps / 112 * sides[:, None] < 2.5).all()
    assert seen > 15


def test_rotated_boxes_hold_the_rotated_shapes():
    source = shapes_source("detection", ellipses=False)
    specs = [{"Rotate": {"limit": [-40, 40], "p": 1.0}}]
    whole = 0
    for images, target in albumentations_batches(specs, source, INPUT):
        for image, boxes, labels in zip(images, *target.values(), strict=True):
            for box, label in zip(boxes, labels, strict=True):
                pieces, areas = extents(color_map(image), label)
                if label < 0 or not len(pieces):
                    continue
                piece = pieces[areas.argmax()]
                assert (piece[:2] >= box[:2] - 3).all()
                assert (piece[2:] <= box[2:] + 3).all()
                # Where nothing was cut off, the box is as tight as it can be.
                inside = (piece > 2).all() and (piece[2:] < [158, 118]).all()
                inside &= bool((piece[1] > 14) and piece[3] < 106)
                if inside:
                    np.testing.assert_allclose(box, piece, atol=3)
                    whole += 1
    assert whole > 10


def test_proposals_travel_like_boxes():
    source = shapes_source("detection")
    for record in source.records:
        record["proposals"] = record["boxes"][::-1]
    names = ["crop", "flip", "scale_jitter", "zoom_out"]
    own = [{name: OPTIONS.get(name, {})} for name in names]
    for specs in (own, [{"Affine": {"translate_percent": [-0.3, 0.3], "p": 1.0}}]):
        seen = 0
        batches = albumentations_batches(specs, source, INPUT, max_proposals=6)
        for inputs, target in batches:
            assert inputs["proposals"].shape == (4, 6, 4)
            assert inputs["images"].shape == (4, 120, 160, 3)
            for found, boxes, labels in zip(
                inputs["proposals"], *target.values(), strict=True
            ):
                found = found[(found != 0).any(axis=1)]
                assert (inputs["proposals"][:, len(found) :] == 0).any()
                boxes = boxes[labels >= 0][::-1]
                # A proposal is no truth: one that is nearly cut off stays.
                assert len(found) >= len(boxes)
                distance = np.abs(found[None] - boxes[:, None]).max(axis=-1)
                assert (distance.min(axis=1) < 1e-3).all()
                seen += len(boxes)
        assert seen > 20


def test_proposals_that_cannot_be_given_are_refused():
    source = shapes_source("detection", 2)
    with pytest.raises(ValueError, match="for a source with proposals"):
        make_dataset(source, INPUT, 2, max_proposals=4)
    source.records[0]["proposals"] = source.records[1]["proposals"] = np.zeros((9, 4))
    mixers = build_transforms(["mosaic"])
    with pytest.raises(ValueError, match=r"at least 1.*max_proposals=0"):
        make_dataset(source, INPUT, 2, max_proposals=0)
    with pytest.raises(ValueError, match="neither mixed nor resized"):
        make_dataset(
            source, INPUT, 2, max_proposals=4, transforms=mixers, order=Order(0)
        )


def test_a_record_of_shapes_is_what_it_says():
    record = shapes_record(4)
    ((image, target),) = make_dataset(
        shapes_source("detection", 1), Preprocessing((144, 220)), 1
    )
    assert check_boxes(image[0].numpy(), target["boxes"][0], target["labels"][0]) == 3
    wrong = target["boxes"][0] + [0.0, 0.0, 4.0, 0.0]
    with pytest.raises(AssertionError):
        check_boxes(image[0].numpy(), wrong, target["labels"][0])
    with pytest.raises(AssertionError):
        check_boxes(image[0].numpy(), target["boxes"][0], [-1] * 8)
    assert len(record["instance_masks"]) == len(record["boxes"]) == 3
    source = shapes_source("instance_segmentation", 1)
    ((image, target),) = make_dataset(source, Preprocessing((144, 220)), 1)
    rows = [value[0].numpy() for value in target.values()]
    assert check_instances(image[0].numpy(), *rows) == 3
    for wrong in (rows[2][::-1], 1 - rows[2], np.roll(rows[2], 20, axis=2)):
        with pytest.raises(AssertionError):
            check_instances(image[0].numpy(), *rows[:2], wrong)

"""Pixels, boxes and masks stay together; wrong recipes are refused in words."""

import colorsys
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from visionkit.data import frames, geometric, min_iou_crop, photometric
from visionkit.data.pipeline import augment_and_resize
from visionkit.data.policies import POLICIES
from visionkit.data.targets import map_boxes
from visionkit.data.transforms import TRANSFORMS, build_transforms, check_order
from visionkit.types import TASKS, VOID_CLASS, Preprocessing

SIZE = (120, 170)
BOXES = np.array([[20, 30, 71, 66], [100, 70, 141, 111]], np.float32)


def scene(seed=0):
    """Two bright rectangles on black; the masks say which is which."""
    image = np.zeros((*SIZE, 3), np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    for label, (x1, y1, x2, y2) in enumerate(BOXES.astype(int), start=1):
        image[y1:y2, x1:x2, label] = 255
        mask[y1:y2, x1:x2] = label
    size = tf.constant(SIZE)
    return {
        "images": tf.constant(image),
        "segmentation_masks": tf.constant(mask),
        "bounding_boxes": {
            "boxes": tf.constant(BOXES),
            "labels": tf.constant([1, 2]),
            "is_crowd": tf.constant([False, False]),
            "area": tf.constant([1.0, 2.0]),
        },
        "instance_masks": tf.constant([b"one", b"two"]),
        "image_size": size,
        "seed": tf.constant([3, seed], tf.int64),
        **geometric.start_geometry(size),
    }


def window_then(sample, window):
    return geometric.cut(sample, tf.constant(window))


@pytest.mark.parametrize("mode", ["letterbox", "stretch", "center_crop"])
@pytest.mark.parametrize("graph", [False, True])
def test_boxes_and_masks_follow_the_pixels(mode, graph):
    transforms = (
        geometric.ScaleJitter((0.5, 2.0)),
        geometric.Flip(0.5),
        geometric.Flip(0.5, vertical=True),
        geometric.ScaleJitter((0.6, 1.1)),
    )
    preprocessing = Preprocessing((200, 260), mode, crop_fraction=1.0)

    def run(seed):
        sample = window_then({**scene(), "seed": seed}, [10, 8, 100, 150])
        sample = augment_and_resize(sample, preprocessing, transforms)
        return sample, map_boxes(sample)

    run = tf.function(run) if graph else run
    found = 0
    for seed in range(30 if graph else 4):
        sample, rows = run(tf.constant([seed, 5], tf.int64))
        assert sample["images"].shape == (200, 260, 3)
        for box, label, area, name in zip(
            rows["boxes"].numpy(),
            rows["labels"].numpy(),
            rows["area"].numpy(),
            rows["instance_masks"].numpy(),
            strict=True,
        ):
            assert (label, area, name) in [(1, 1, b"one"), (2, 2, b"two")]
            for pixels in (
                sample["segmentation_masks"].numpy() == label,
                (sample["images"].numpy()[..., label] > 127)
                & (sample["images"].numpy()[..., 0] < 60),
            ):
                ys, xs = np.nonzero(pixels)
                extent = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                np.testing.assert_allclose(box, extent, atol=3)
            found += 1
    assert found > 4


def test_map_boxes_drops_crowds_slivers_and_what_is_cut_off():
    sample = scene()
    boxes = np.array(
        [
            [0, 0, 10, 10],
            [0, 0, 95, 10],
            [0, 0, 85, 10],
            [95, 50, 95.5, 60],
            [93, 53, 99, 59],
        ]
    )
    sample["bounding_boxes"] = {
        "boxes": tf.constant(boxes, tf.float32),
        "labels": tf.range(5),
        "is_crowd": tf.constant([False, False, False, False, True]),
    }
    del sample["instance_masks"]
    rows = map_boxes(window_then(sample, [2, 80, 100, 60]))
    np.testing.assert_array_equal(rows["labels"], [1])  # 2 keeps under a tenth
    np.testing.assert_allclose(rows["boxes"], [[0, 0, 15, 8]])
    assert rows["is_crowd"].shape == (1,)


def test_crop_window_is_inside_and_has_legal_area_and_ratio():
    crop = geometric.Crop((0.2, 0.6), (0.5, 2.0))
    window = tf.function(crop.window)
    size = tf.constant([91, 140])
    windows = np.array(
        [window(size, tf.constant([0, i], tf.int64)) for i in range(200)]
    )
    y, x, h, w = windows.T
    assert (y >= 0).all() and (x >= 0).all()
    assert (y + h <= 91).all() and (x + w <= 140).all()
    share = h * w / (91 * 140)
    assert share.min() > 0.18 and share.max() < 0.62
    assert (w / h).min() > 0.48 and (w / h).max() < 2.1
    assert share.std() > 0.05 and len({tuple(v) for v in windows}) > 190


def test_crop_window_of_a_very_wide_image_falls_back_to_the_centre():
    crop = geometric.Crop((1.0, 1.0), (0.75, 4 / 3))
    window = crop.window(tf.constant([30, 400]), tf.constant([0, 1]))
    np.testing.assert_array_equal(window, [0, 180, 30, 40])


def test_flip_respects_p_and_direction():
    sample = scene()
    same = geometric.Flip(0.0)(sample, sample["seed"])
    np.testing.assert_array_equal(same["images"], sample["images"])
    for vertical, axis in ((False, 1), (True, 0)):
        flipped = geometric.Flip(1.0, vertical)(sample, sample["seed"])
        expected = np.flip(sample["images"], axis)
        np.testing.assert_array_equal(flipped["images"], expected)


def test_color_brightness_and_contrast_match_their_definitions():
    rng = np.random.default_rng(0)
    image = rng.integers(60, 120, (16, 24, 3), np.uint8)
    seed = tf.constant([1, 2], tf.int64)
    draw = tf.random.stateless_uniform((4,), seed, -1.0, 1.0).numpy()
    sample = {"images": tf.constant(image)}
    out = photometric.Color(0.5, 0, 0, 0)(sample, seed)["images"]
    expected = image * (1 + 0.5 * draw[0])
    assert abs(out.numpy() - expected).max() <= 0.51
    out = photometric.Color(0, 0.5, 0, 0)(sample, seed)["images"]
    mean = (image[::4, ::4] @ [0.299, 0.587, 0.114]).mean()
    expected = mean + (image - mean) * (1 + 0.5 * draw[1])
    assert abs(out.numpy() - expected).max() <= 0.51
    out = photometric.Color(0, 0, 1.0, 0)(sample, seed)["images"]
    grey = (image @ [0.299, 0.587, 0.114])[..., None]
    expected = np.clip(grey + (image - grey) * (1 + draw[2]), 0, 255)
    assert abs(out.numpy() - expected).max() <= 0.51


def test_color_hue_keeps_grey_and_luma():
    color = photometric.Color(0, 0, 0, 0.5)
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 256, (8, 12, 1), np.uint8), 3, axis=2)
    image = rng.integers(100, 150, (8, 12, 3), np.uint8)
    for i in range(5):
        seed = tf.constant([i, 2], tf.int64)
        out = color({"images": tf.constant(grey)}, seed)["images"].numpy()
        assert abs(out.astype(int) - grey).max() <= 1
        out = color({"images": tf.constant(image)}, seed)["images"].numpy()
        luma = [0.299, 0.587, 0.114]
        assert abs(out @ luma - image @ luma).max() < 1.5


def test_color_takes_one_channel():
    image = tf.fill((8, 12, 1), tf.constant(100, tf.uint8))
    out = photometric.Color(0.5, 0.5, 0.5, 0.5)({"images": image}, tf.constant([1, 2]))
    assert out["images"].shape == (8, 12, 1)


def test_color_changes_each_property_with_its_probability():
    sample = {"images": scene()["images"]}
    out = photometric.Color(0.5, 0.5, 0.5, 0.1, p=0.0)(sample, tf.constant([1, 2]))
    np.testing.assert_array_equal(out["images"], sample["images"])
    color = photometric.Color(0.5, 0, 0, 0, p=0.5)
    images = [color(sample, tf.constant([i, 2]))["images"] for i in range(40)]
    same = [bool((x == sample["images"]).numpy().all()) for x in images]
    assert 8 < sum(same) < 32


def test_hsv_is_what_colorsys_says():
    jitter = photometric.HsvJitter(0.2, 0.7, 0.4)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 14, 3), np.uint8)
    image[0] = image[0, :, :1]  # grey
    image[1, :2] = [[0, 0, 0], [255, 255, 255]]
    for i in range(4):
        seed = tf.constant([i, 2], tf.int64)
        draw = tf.random.stateless_uniform((3,), seed, -1.0, 1.0).numpy()
        turn, saturation, value = draw * [0.2, 0.7, 0.4]
        out = jitter({"images": tf.constant(image)}, seed)["images"].numpy()
        for pixel, found in zip(image.reshape(-1, 3), out.reshape(-1, 3), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*pixel / 255)
            s = min(s * (1 + saturation), 1)
            rgb = np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v)) * (1 + value)
            assert abs(np.clip(rgb * 255, 0, 255) - found).max() < 0.52
    grey = tf.fill((8, 12, 1), tf.constant(100, tf.uint8))
    assert jitter({"images": grey}, tf.constant([1, 2]))["images"].shape == (8, 12, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "jitter",
    [photometric.HsvJitter(), photometric.Color(0.4, 0.4, 0.4, 0.2)],
    ids=["hsv", "color"],
)
def test_colours_are_the_same_compiled_or_not(jitter, channels):
    """They are compiled only where the size is known and there is no GPU."""
    seed = tf.constant([3, 1], tf.int64)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, channels), np.uint8)

    @tf.function(input_signature=[tf.TensorSpec((None, None, channels), tf.uint8)])
    def of_any_size(image):
        return jitter({"images": image}, seed)["images"]

    expected = jitter({"images": tf.constant(image)}, seed)["images"].numpy()
    difference = np.abs(of_any_size(image).numpy().astype(int) - expected)
    assert difference.max() <= 1 and difference.mean() < 0.001  # rounding of halves


def test_scale_jitter_may_be_large_and_may_keep_to_the_centre():
    centres, factors = [], []
    jitter = geometric.ScaleJitter((0.1, 2.0), 0.1)
    for i in range(40):
        out = jitter(scene(), tf.constant([i, 7]))
        size = np.array(out["images"].shape[:2])
        scale, offset = out["placement"].numpy().reshape(2, 2)
        centres.append((scale * np.array(SIZE) / 2 + offset) / size - 0.5)
        factors.append((scale * SIZE / size)[0])
        assert out["segmentation_masks"].shape == tuple(size)
    assert 0.08 < np.abs(centres).max() < 0.12  # whole pixels of a small image
    assert min(factors) < 0.3 and max(factors) > 1.7


def test_zoom_out_keeps_every_pixel_in_a_frame_of_bounded_size(monkeypatch):
    zoom = frames.ZoomOut(1.0, 4.0)
    areas = []
    for i in range(8):
        out = zoom(scene(), tf.constant([i, 7]))
        y, x = (int(v) for v in out["placement"][2:])
        inner = out["images"][y : y + SIZE[0], x : x + SIZE[1]]
        np.testing.assert_array_equal(inner, scene()["images"])
        height, width = out["images"].shape[:2]
        assert abs(width / height - SIZE[1] / SIZE[0]) < 0.02
        areas.append(height / SIZE[0])
    assert 1 <= min(areas) < 2 and 3 < max(areas) <= 4
    monkeypatch.setattr(frames, "MAX_FRAME", 200)
    assert all(
        max(zoom(scene(), tf.constant([i, 7]))["images"].shape) <= 200 for i in range(5)
    )
    same = frames.ZoomOut(0.0)(scene(), tf.constant([1, 2]))
    np.testing.assert_array_equal(same["images"], scene()["images"])


@pytest.mark.parametrize("iou", [0.1, 0.5, 0.9])
def test_min_iou_crop_keeps_what_it_promises(iou):
    crop = tf.function(min_iou_crop.MinIoUCrop((iou,)))
    # One object in half of the image, so that overlaps of all sizes are possible.
    sample = {**scene(), "instance_masks": tf.constant([b"one"])}
    sample["bounding_boxes"] = {
        "boxes": tf.constant([[30.0, 20, 140, 100]]),
        "labels": tf.constant([1]),
        "is_crowd": tf.constant([False]),
    }
    kinds = {"whole": 0, "enough": 0, "any": 0}
    for i in range(60):
        out = crop(sample, tf.constant([i, 5]))
        y1, x1, y2, x2 = out["visible"].numpy()
        assert len(out["bounding_boxes"]["labels"]) == 1  # its centre is inside
        assert len(out["instance_masks"]) == 1
        assert x1 < 85 < x2 and y1 < 60 < y2
        assert 0.49 < (x2 - x1) / (y2 - y1) < 2.05
        both = (min(x2, 140) - max(x1, 30)) * (min(y2, 100) - max(y1, 20))
        overlap = both / ((x2 - x1) * (y2 - y1) + 110 * 80 - both)
        whole = (y2 - y1, x2 - x1) == SIZE
        kinds["whole" if whole else "enough" if overlap >= iou else "any"] += 1
    if iou == 0.9:
        assert kinds["enough"] < kinds["any"]
    else:
        assert kinds["enough"] > 10
    assert kinds["whole"] > 8


def test_min_iou_crop_of_an_image_without_objects():
    sample = scene()
    del sample["instance_masks"]
    rows = sample["bounding_boxes"]
    sample["bounding_boxes"] = {key: value[:0] for key, value in rows.items()}
    sizes = {
        tuple(min_iou_crop.MinIoUCrop()(sample, tf.constant([i, 5]))["images"].shape)
        for i in range(12)
    }
    assert len(sizes) > 3 and (*SIZE, 3) in sizes


def test_pad_crop_moves_whole_pixels_and_keeps_the_size():
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    sample = {"images": tf.constant(image), **geometric.start_geometry([32, 40])}
    padded = np.full((40, 48, 3), 114, np.uint8)
    padded[4:36, 4:44] = image
    places = set()
    for i in range(60):
        out = frames.PadCrop(4)(sample, tf.constant([i, 5]))
        y, x = (4 - int(v) for v in out["placement"][2:])
        np.testing.assert_array_equal(out["images"], padded[y : y + 32, x : x + 40])
        places |= {("y", y), ("x", x)}
    assert places == {(axis, i) for axis in "xy" for i in range(9)}
    tiny = {"images": tf.constant(image[:2, :3]), **geometric.start_geometry([2, 3])}
    assert frames.PadCrop(9)(tiny, tf.constant([1, 5]))["images"].shape == (2, 3, 3)


def test_erase_replaces_one_rectangle_and_voids_the_mask():
    sample = scene()
    out = photometric.Erase(1.0, (0.1, 0.2))(sample, sample["seed"])
    void = out["segmentation_masks"].numpy() == VOID_CLASS
    assert 0.09 < void.mean() < 0.21
    ys, xs = np.nonzero(void)
    assert void[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].all()
    changed = (out["images"].numpy() != sample["images"].numpy()).any(-1)
    assert not changed[~void].any() and changed[void].mean() > 0.9
    same = photometric.Erase(0.0)(sample, sample["seed"])
    np.testing.assert_array_equal(same["images"], sample["images"])


def test_build_transforms_reads_names_and_options():
    built = build_transforms(
        ["crop", {"flip": {"p": 0.25}}, {"scale_jitter": {"range": [1, 2]}}]
    )
    assert built == (
        geometric.Crop(),
        geometric.Flip(0.25),
        geometric.ScaleJitter((1, 2)),
    )
    assert build_transforms(None) == () and build_transforms([{"color": None}])
    assert all(build_transforms([name]) for name in TRANSFORMS)


@pytest.mark.parametrize(
    ("items", "match"),
    [
        (["flipp"], "Did you mean `flip`"),
        (["Clahe", "flip", "Blur"], r"as one group.*Legal: Clahe, Blur, flip"),
        (["Blur", "crop"], r"must be the first.*Legal: crop, Blur"),
        (["flip", "Blur"], "then all others. Received: flip, Blur"),
        (["crop", "crop"], "the only one of its kind"),
        ([{"mixup": {"alpha": 0}}], "Transform `mixup`: `alpha` must be above 0"),
        ([{"cutmix": {"off_last_epochs": 1.5}}], "a whole number of epochs"),
        ([{"rand_augment": {"magnitude": 31}}], r"`magnitude` must be in \[0, 30\]"),
        ([{"rand_augment": {"num_ops": 0}}], "`num_ops` must be 1 or more"),
        ([{"auto_augment": {"policy": "svhn"}}], "no AutoAugment policy 'svhn'"),
        ("light", "A policy depends on the task"),
        ([{"flip": {"prob": 1}}], "no option prob. Its options are p, vertical"),
        ([{"flip": {"p": 2}}], r"Transform `flip`: `p` must be in \[0, 1\]"),
        ([{"flip": {"p": "x"}}], "Transform `flip`"),
        ([{"crop": {"scale": [0.5]}}], "two ascending numbers"),
        ([{"scale_jitter": {"range": [2, 1]}}], "two ascending numbers"),
        ([{"flip": {}, "crop": {}}], "A transform is a name or"),
        ([{"flip": 0.5}], "A transform is a name or"),
        ([{"color": {"hue": 0.7}}], "hue"),
        ([{"hsv": {"hue": 0.7}}], "hue"),
        ([{"scale_jitter": {"translate": 0.6}}], r"`translate` must be in \[0, 0.5\]"),
        ([{"zoom_out": {"max_scale": 0.5}}], r"`max_scale` must be in \[1, 100\]"),
        ([{"pad_crop": {"padding": 0.5}}], "whole number of pixels"),
        ([{"min_iou_crop": {"ious": [0.5, 1.5]}}], r"`ious` must be in \[0, 1\]"),
        ([{"min_iou_crop": {"ious": 0.5}}], "`ious` must be a list"),
        ([{"mosaic": {"scale": [1, 30]}}], "`scale` must be two ascending numbers"),
        ([{"copy_paste": {"share": 2}}], r"`share` must be in \[0, 1\]"),
        (["flip", "crop"], "must be the first"),
    ],
)
def test_build_transforms_refuses_with_a_hint(items, match):
    with pytest.raises(ValueError, match=match):
        build_transforms(items)


def test_names_in_camel_case_become_one_group():
    crop, group, flip = build_transforms(
        ["crop", "CLAHE", {"Blur": {"p": 0.3}}, {"OneOf": {"transforms": []}}, "flip"]
    )
    assert crop == geometric.Crop() and flip == geometric.Flip()
    assert group.specs == (
        ("CLAHE", {}),
        ("Blur", {"p": 0.3}),
        ("OneOf", {"transforms": []}),
    )


def test_the_table_costs_no_import():
    code = (
        "import sys; from visionkit.data.transforms import build_transforms\n"
        "for name in ('none', 'light', 'strong'): build_transforms(name, TASK)\n"
        "build_transforms(['CLAHE', 'auto_augment'])\n"
        "bad = {'tensorflow', 'keras', 'albumentations'} & set(sys.modules)\n"
        "assert not bad, bad"
    ).replace("TASK", "'classification'")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("policy", ["none", "light", "strong"])
def test_policies_are_legal_lists(task, policy):
    assert set(POLICIES) == set(TASKS) and set(POLICIES[task]) == {
        "none",
        "light",
        "strong",
    }
    built = build_transforms(policy, task)
    assert built == build_transforms(POLICIES[task][policy], task)
    assert bool(built) == (policy != "none")


def test_wrong_policies_and_tasks_are_refused():
    with pytest.raises(ValueError, match=r"policy 'strongg'. Did you mean 'strong'"):
        build_transforms("strongg", "detection")
    for name in ("copy_paste", "rand_augment", "mosaic", "min_iou_crop"):
        with pytest.raises(ValueError, match=rf"`{name}` is for .*: .*'semantic_seg"):
            build_transforms([name], "semantic_segmentation")
    with pytest.raises(ValueError, match=r"`cutmix` is for .*task='detection'"):
        build_transforms(["cutmix"], "detection")


def test_check_order_accepts_objects_of_other_kinds():
    check_order([lambda sample, seed: sample])

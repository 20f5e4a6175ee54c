"""Masks of one object from several views are one mask."""

import numpy as np
import pytest
import tensorflow as tf

from visionkit.data.geometry import boxes_to_original
from visionkit.inference import graph
from visionkit.inference.instances import merge_instances
from visionkit.inference.styles import own_answers, style_function
from visionkit.inference.views import View, list_views
from visionkit.paste import reframe_masks
from visionkit.types import Preprocessing

SIZE = (120, 400)  # height, width


def shape(x1, y1, x2, y2):
    """(H, W) bool, an ellipse without its upper right quarter."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    x, y = (2 * x - x1 - x2) / (x2 - x1), (2 * y - y1 - y2) / (y2 - y1)
    return (x**2 + y**2 <= 1) & ((x < 0) | (y > 0))


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def seen(view, masks, least=20):
    """What a perfect segmenter of fine masks answers in a view."""
    boxes, framed, scores = [], [], []
    cells = (np.arange(200) + 0.5) / 200
    for mask in masks:
        part = view.cut(mask[..., None].astype("uint8"))[..., 0] == 1
        if part.sum() < least:
            continue
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        y = (box[1] + cells * (box[3] - box[1])).astype(int)
        x = (box[0] + cells * (box[2] - box[0])).astype(int)
        boxes.append(box)
        framed.append(part[np.ix_(y, x)])
        sure = 0.9 if view.flip else 0.8  # what is mirrored decides
        scores.append(sure * part.sum() / mask.sum())
    return {
        "boxes": np.float32(boxes).reshape(-1, 4),
        "scores": np.float32(scores),
        "labels": np.zeros(len(boxes), int),
        "masks": np.float32(framed).reshape(-1, 200, 200),
    }


@pytest.mark.parametrize(
    "options",
    [
        {"tile": 60},
        {"tile": 100, "overlap": 0.3, "flip": True},
        {"flip": True, "scales": (0.5, 2.0)},
    ],
)
def test_every_mask_is_there_once_and_whole(options):
    corners = ((10, 10, 60, 50), (100, 20, 190, 110), (300, 30, 340, 90))
    masks = [shape(*box) for box in corners]
    views = list_views(SIZE, **options)
    merged = merge_instances(views, [seen(view, masks) for view in views], SIZE)
    assert len(merged["masks"]) == 3
    for mask in masks:
        assert max(iou(mask, found) for found in merged["masks"]) > 0.97


def test_what_every_tile_cuts_is_united():
    long = shape(20, 30, 380, 90)
    views = list_views(SIZE, tile=120, overlap=0.25)[1:]  # without the whole image
    merged = merge_instances(views, [seen(view, [long]) for view in views], SIZE)
    (found,) = merged["masks"]
    assert iou(long, found) > 0.97
    x1, y1, x2, y2 = merged["boxes"][0].astype(int)
    assert found[y1:y2, x1:x2].sum() == found.sum()


def test_the_surest_view_decides_what_it_shows():
    # The second view shows the left half of the object, and is sure of a part of it.
    views = [View((0, 0, 400, 120)), View((0, 0, 100, 120))]
    box = np.float32([[50, 20, 150, 100]])
    whole = {"boxes": box, "masks": np.ones((1, 28, 28), "float32")}
    half = {"boxes": np.float32([[50, 20, 100, 100]]), "masks": whole["masks"].copy()}
    half["masks"][:, :7] = 0
    for answer, score in ((whole, 0.6), (half, 0.9)):
        answer |= {"scores": np.float32([score]), "labels": np.array([1])}
    merged = merge_instances(views, [whole, half], SIZE)
    expected = np.zeros(SIZE, bool)
    expected[40:100, 50:100] = expected[20:100, 100:150] = True
    inner = slice(21, 99)  # a mask's corners are rounded
    np.testing.assert_array_equal(merged["masks"][0][inner], expected[inner])
    np.testing.assert_allclose(merged["boxes"], box)
    assert merged["labels"].tolist() == [1]


def test_nothing_found_in_any_view():
    views = list_views(SIZE, tile=100)
    empty = seen(views[0], [])
    merged = merge_instances(views, [empty] * len(views), SIZE)
    assert merged["masks"].shape == (0, *SIZE) and not len(merged["boxes"])


def test_masks_are_cut_with_their_boxes_as_in_numpy():
    rng = np.random.default_rng(0)
    boxes = np.float32([[[4, 6, 25, 20], [-3, 10, 9, 31], [0, 0, 0, 0]]])
    boxes = np.concatenate([boxes, boxes + 4])
    masks = rng.random((2, 3, 28, 28)).astype("float32")
    place = np.float32([[0.5, 0.25, 3, 0], [1, 1, 0, -2]])
    sizes = np.int32([[40, 100], [20, 30]])
    labels = np.int32([[0, 1, -1], [1, 0, 0]])
    outputs = {"boxes": boxes, "masks": masks, "labels": labels}
    outputs |= {"scores": np.zeros((2, 3)), "num_detections": np.int32([2, 3])}
    prepared = {"placement": tf.constant(place), "image_size": tf.constant(sizes)}
    found = graph.instance_answers(outputs, prepared, tf.constant(["a", "b"]))
    whole = boxes_to_original(boxes, place)
    cut = boxes_to_original(boxes, place, sizes)
    assert (whole != cut).any() and (whole == cut).any()
    for i, j in np.ndindex(2, 3):
        rows = (array[i, j][None] for array in (masks, whole, cut))
        (expected,) = reframe_masks(*rows)
        expected *= labels[i, j] >= 0
        np.testing.assert_allclose(found["masks"][i, j], expected, atol=1e-5)
    np.testing.assert_array_equal(found["masks"][0, 0], masks[0, 0])


@pytest.mark.parametrize("style", ["modelgarden", "odapi"])
def test_other_styles_name_the_masks_as_their_projects_do(style):
    size, preprocessing = (300, 1000), Preprocessing((120, 160))
    masks = np.random.default_rng(0).random((1, 2, 28, 28)).astype("float32")
    answers = {
        "boxes": tf.constant([[[400.0, 60.0, 520.0, 260.0], [0.0, 0.0, 0.0, 0.0]]]),
        "scores": tf.constant([[0.9, 0.0]]),
        "labels": tf.constant([[3, -1]]),
        "num_detections": tf.constant([1]),
        "masks": tf.constant(masks),
    }
    prepared = graph.prepare_image(tf.zeros((*size, 3), tf.uint8), preprocessing)
    prepared = {name: value[None] for name, value in prepared.items()}
    restyle = style_function(style, "instance_segmentation")
    found = restyle(answers, prepared, preprocessing)
    assert found["detection_masks"].dtype == tf.float32 and "masks" not in found
    np.testing.assert_array_equal(found["detection_masks"], masks)
    row = {name: value[0].numpy() for name, value in found.items()}
    own = own_answers({**row, "image_valid": 1}, style, size)
    np.testing.assert_array_equal(own["masks"], masks[0])
    np.testing.assert_allclose(own["boxes"][0], [400, 60, 520, 260], atol=1e-2)
    assert own["labels"].tolist() == [3, -1]

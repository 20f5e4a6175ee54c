"""Views of an image: where they lie, what they show, and how their answers meet."""

import numpy as np
import pytest

from visionkit.inference.views import View, list_views, merge_views

SIZE = (300, 1000)  # height, width
OBJECTS = np.array(
    [[10, 20, 60, 90], [180, 40, 260, 200], [5, 5, 990, 290], [700, 100, 705, 130]],
    "float32",
)
LABELS = np.array([0, 1, 1, 0])


def seen(view, boxes=OBJECTS, labels=LABELS, least=0.1):
    """What a perfect detector answers in a view: the visible part of each object."""
    x1, y1, x2, y2 = view.window
    cut = np.clip(boxes, [x1, y1, x1, y1], [x2, y2, x2, y2])
    share = np.prod(cut[:, 2:] - cut[:, :2], 1) / np.prod(
        boxes[:, 2:] - boxes[:, :2], 1
    )
    cut = (cut - [x1, y1, x1, y1])[share > least]
    if view.flip:
        cut = np.stack(
            [x2 - x1 - cut[:, 2], cut[:, 1], x2 - x1 - cut[:, 0], cut[:, 3]], 1
        )
    share, labels = share[share > least], labels[share > least]
    return {"boxes": cut.astype("float32"), "scores": 0.9 * share, "labels": labels}


def test_tiles_cover_the_image_and_overlap():
    views = list_views(SIZE, tile=128, overlap=0.25)
    assert views[0] == View((0, 0, 1000, 300))
    covered = np.zeros(SIZE, int)
    for x1, y1, x2, y2 in (view.window for view in views[1:]):
        assert (x2 - x1, y2 - y1) == (128, 128)
        covered[y1:y2, x1:x2] += 1
    assert covered.min() >= 1
    lefts = np.unique([view.window[0] for view in views[1:]])
    assert np.diff(lefts).max() <= 96


def test_a_view_shows_its_window_mirrored_and_padded():
    image = np.arange(6, dtype="uint8").reshape(2, 3, 1)
    np.testing.assert_array_equal(
        View((1, 0, 3, 2)).cut(image)[..., 0], [[1, 2], [4, 5]]
    )
    flipped = View((-1, 0, 3, 2), flip=True).cut(image)[..., 0]
    np.testing.assert_array_equal(flipped, [[2, 1, 0, 114], [5, 4, 3, 114]])


@pytest.mark.parametrize(
    "options",
    [
        {"tile": 128},
        {"tile": 200, "overlap": 0.3, "flip": True},
        {"flip": True, "scales": (0.5, 2.0)},
    ],
)
def test_what_all_views_see_is_one_object_each_at_its_place(options):
    views = list_views(SIZE, **options)
    merged = merge_views(views, [seen(view) for view in views], SIZE)
    order = np.lexsort(merged["boxes"].T)
    expected = np.lexsort(OBJECTS.T)
    np.testing.assert_allclose(merged["boxes"][order], OBJECTS[expected], atol=1e-3)
    np.testing.assert_array_equal(merged["labels"][order], LABELS[expected])


def test_an_object_that_every_tile_cuts_is_put_together():
    views = list_views(SIZE, tile=300, overlap=0.2)[1:]  # without the whole image
    long = np.array([[100, 100, 900, 200]], "float32")
    answers = [seen(view, long, np.array([3]), least=0.01) for view in views]
    merged = merge_views(views, answers, SIZE)
    np.testing.assert_allclose(merged["boxes"], long, atol=1e-3)


def test_neighbours_of_one_view_stay_two():
    pair = np.array([[100, 100, 200, 200], [120, 100, 220, 200]], "float32")
    views = list_views(SIZE, flip=True)
    answers = [seen(view, pair, np.array([0, 0])) for view in views]
    assert len(merge_views(views, answers, SIZE)["boxes"]) == 2


def test_nothing_found_and_wrong_options():
    views = list_views(SIZE, tile=256)
    empty = seen(views[0], OBJECTS[:0], LABELS[:0])
    assert merge_views(views, [empty] * len(views), SIZE)["boxes"].shape == (0, 4)
    with pytest.raises(ValueError, match="overlap"):
        list_views(SIZE, tile=64, overlap=1.0)
    with pytest.raises(ValueError, match="tile"):
        list_views(SIZE, tile=0)

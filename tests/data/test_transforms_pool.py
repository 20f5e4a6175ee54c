"""albumentations' group stands between the decoding and our own transforms."""

import numpy as np
from pictures import classification_source

from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.sources.balance import Oversampled
from visionkit.data.transforms import build_transforms
from visionkit.types import Preprocessing

INPUT = Preprocessing((24, 32), "stretch")


def first(transforms, source):
    dataset = make_dataset(
        source, INPUT, 4, transforms=build_transforms(transforms), order=Order(2)
    )
    return next(dataset.as_numpy_iterator())


def test_the_group_runs_in_the_pipeline():
    source = Oversampled(classification_source(8))
    plain, labels = first(["crop"], source)
    inverted, same = first(["crop", {"InvertImg": {"p": 1.0}}], source)
    np.testing.assert_array_equal(labels, same)
    assert abs(inverted.astype(int) - (255 - plain.astype(int))).max() <= 1
    mixed, soft = first(["crop", {"InvertImg": {"p": 1.0}}, "flip", "mixup"], source)
    assert mixed.shape == plain.shape and soft.shape == (4, 8)

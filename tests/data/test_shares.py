"""Several processes read the batches that one would, each its own rows of them."""

import itertools

import numpy as np
import pytest
from pictures import classification_source

from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.report import DataReport
from visionkit.data.transforms import build_transforms
from visionkit.types import Preprocessing

INPUT = Preprocessing((16, 20))
AUGMENT = build_transforms(["crop", "flip"])


def stream(source, count, order, **options):
    options = {"transforms": AUGMENT, "with_ids": True, **options}
    dataset = make_dataset(source, INPUT, 6, order=order, **options)
    batches = itertools.islice(dataset.as_numpy_iterator(), count)
    return [(images, target["image_id"]) for images, target in batches]


# 14, or 11 usable, images in batches of 6: epochs end within batches and shares.
@pytest.mark.parametrize(("bad", "shares"), [([], 2), ([2, 5, 6], 3)])
def test_the_shares_of_a_batch_are_its_rows(bad, shares):
    source = classification_source(14)
    report = DataReport(source, max_bad=0.5)
    for index in bad:
        report.add_bad(index, "image.corrupt", "")
    start = {"seed": 7, "start_epoch": 1, "start_step": 1}
    whole = stream(source, 5, Order(**start), report=report)
    parts = [
        stream(source, 5, Order(**start, share=i, shares=shares), report=report)
        for i in range(shares)
    ]
    for batch, *own in zip(whole, *parts, strict=True):
        for column in (0, 1):  # images, drawn by (seed, epoch, index), and ids
            joined = np.concatenate([part[column] for part in own])
            np.testing.assert_array_equal(joined, batch[column])


def test_other_processes_rows_are_not_decoded():
    broken = (0, 3, 4, 8)
    source = classification_source(12, broken)
    reports = [DataReport(source, max_bad=0.5) for _ in range(2)]
    for share, report in enumerate(reports):
        stream(source, 1, Order(7, share=share, shares=2), report=report)
    found = [set(report.bad_indices) for report in reports]
    assert found[0] and found[0] != found[1]


def test_sizes_of_the_shares_batches_are_static_and_mixing_stays_within_them():
    source = classification_source(12)
    order = Order(7, epochs=2, share=1, shares=2)
    mixed = build_transforms(["mixup"])
    dataset = make_dataset(source, INPUT, 6, order=order, transforms=mixed)
    images, labels = dataset.element_spec
    assert images.shape == (3, 16, 20, 3) and labels.shape[0] == 3
    _, labels = next(dataset.as_numpy_iterator())
    _, ids = stream(source, 1, order, transforms=[])[0]
    assert not labels[:, [i for i in range(12) if i not in ids]].any()


def test_batches_that_cannot_be_divided_are_refused():
    source = classification_source(12)
    with pytest.raises(ValueError, match=r"multiple of `shares`.*batch_size=6"):
        make_dataset(source, INPUT, 6, order=Order(0, share=0, shares=4))
    with pytest.raises(ValueError, match=r"`share` must be.*share=2, shares=2"):
        Order(0, share=2, shares=2)

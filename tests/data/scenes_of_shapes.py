"""Pictures of coloured shapes of which everything is known, to look for afterwards."""

import numpy as np
from pictures import MemorySource, encode
from PIL import Image, ImageDraw
from scipy import ndimage

from visionkit.data.rle import encode_rle

SIZE = (144, 220)
# Label -> colour: the corners of the colour cube, black and white left out.
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]


def shapes_record(seed, shapes=3, ellipses=True):
    """A record with boxes, instance masks and a mask; each colour occurs once."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", SIZE[::-1])
    labels = rng.permutation(len(COLORS))[:shapes]
    boxes = []
    for place, label in enumerate(labels):
        left = 8 + place * 70
        x1, y1 = left + rng.integers(0, 14), rng.integers(8, 60)
        x2, y2 = x1 + rng.integers(32, 48), y1 + rng.integers(32, 72)
        draw = ImageDraw.Draw(image)
        round_ = ellipses and rng.random() < 0.5
        shape = draw.ellipse if round_ else draw.rectangle
        shape((x1, y1, x2 - 1, y2 - 1), fill=COLORS[label])
        boxes.append((x1, y1, x2, y2))
    pixels = np.asarray(image)
    # Class 0 is the background.
    mask = np.zeros(SIZE, np.uint8)
    for label in labels:
        mask[(pixels == COLORS[label]).all(axis=-1)] = label + 1
    return {
        "encoded": encode(image),
        "boxes": np.float32(boxes),
        "box_labels": labels.astype(np.int32),
        "instance_masks": [encode_rle(mask == label + 1) for label in labels],
        "mask_encoded": encode(Image.fromarray(mask)),
    }


KEYS = {
    "detection": ("encoded", "boxes", "box_labels"),
    "instance_segmentation": ("encoded", "boxes", "box_labels", "instance_masks"),
    "semantic_segmentation": ("encoded", "mask_encoded"),
}


def shapes_source(task, count=8, **options):
    records = [shapes_record(seed, **options) for seed in range(count)]
    records = [{key: record[key] for key in KEYS[task]} for record in records]
    return MemorySource(records, task, len(COLORS) + 1)


def color_map(image):
    """(H, W) int, the label of each pixel's colour; -1 for all grey."""
    image = np.asarray(image, int)
    low, high = image.min(axis=-1), image.max(axis=-1)
    contrast = high - low
    bits = image > ((low + high) / 2)[..., None]
    found = np.full(contrast.shape, -1)
    for label, color in enumerate(COLORS):
        found[(bits == np.array(color, bool)).all(axis=-1)] = label
    return np.where(contrast > contrast.max() / 2, found, -1)


def extents(found, label):
    """[x1, y1, x2, y2] of each connected piece of a label, and its pixels."""
    pieces, _ = ndimage.label(found == label, np.ones((3, 3)))
    boxes, areas = [], []
    for number, (ys, xs) in enumerate(ndimage.find_objects(pieces), start=1):
        boxes.append([xs.start, ys.start, xs.stop, ys.stop])
        areas.append((pieces[ys, xs] == number).sum())
    return np.array(boxes).reshape(-1, 4), np.array(areas)


def check_boxes(image, boxes, labels, *, tolerance=2.0, whole=True):
    """Every box is the extent of a piece of its colour, and the other way round.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4).
        labels: (N,); -1 is padding.
        tolerance: Pixels by which an edge may be blurred.
        whole: Every piece that no edge of the image cuts off must have a box.

    Returns:
        How many boxes there are.
    """
    found, frame = color_map(image), np.array(image.shape[1::-1])
    for label in range(len(COLORS)):
        own = np.asarray(boxes)[np.asarray(labels) == label]
        pieces, areas = extents(found, label)
        close = np.abs(own[:, None] - pieces[None]).max(axis=-1) <= tolerance
        sides = (own[:, 2:] - own[:, :2]).min(axis=-1) if len(own) else np.zeros(0)
        seen = close.any(axis=1) | (sides < 4)  # what is tiny may be a blur
        assert seen.all(), (label, own[~seen].tolist(), pieces.tolist())
        inside = (pieces[:, :2] > 1).all(axis=1)
        inside &= (pieces[:, 2:] < frame - 1).all(axis=1)
        lost = ~close.any(axis=0) & inside & (areas > 20)
        assert not (whole and lost.any()), (label, own.tolist(), pieces[lost].tolist())
    return int((np.asarray(labels) >= 0).sum())


def check_instances(image, boxes, labels, masks):
    """In each box, the mask is the pixels of its colour; blurred edges do not count.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4).
        labels: (N,); -1 is padding.
        masks: (N, 112, 112), framed by the boxes.

    Returns:
        How many masks there are.
    """
    found = color_map(image)
    sure = ndimage.minimum_filter(found, 3) == ndimage.maximum_filter(found, 3)
    labels, count = np.asarray(labels), 0
    for label in range(len(COLORS)):
        inside, painted = np.zeros((2, *found.shape), bool)
        for row in np.flatnonzero(labels == label):
            mask, (x1, y1, x2, y2) = np.asarray(masks[row]), np.asarray(boxes[row])
            assert mask.shape == (112, 112) and set(np.unique(mask)) <= {0, 1}
            assert mask.any()
            for y in range(max(round(y1), 0), min(round(y2), len(found))):
                for x in range(max(round(x1), 0), min(round(x2), found.shape[1])):
                    i = int((y + 0.5 - y1) / (y2 - y1) * 112)
                    j = int((x + 0.5 - x1) / (x2 - x1) * 112)
                    inside[y, x] = True
                    painted[y, x] |= mask[min(i, 111), min(j, 111)] == 1
            count += 1
        wrong = sure & inside & (painted != (found == label))
        assert wrong.sum() <= 1 + 0.01 * inside.sum(), (label, int(wrong.sum()))
    assert not np.asarray(masks)[labels < 0].any()
    return count

"""From a source's records to batches of ground truth.

The one place where the order of the steps is decided, each with its reason:

1. Records are shuffled as indices: a global shuffle that costs no memory.
2. Reading and decoding is protected per record: a broken file is reported and the next
   record takes its place. A random crop is part of the decoding.
3. Albumentations' transforms, as one group, in worker processes.
4. Transforms that move pixels, at the image's own size.
5. Resize, the same function as in prediction and export, to uint8.
6. Transforms that change values, on the fewer pixels that are left.
7. Boxes and proposals are mapped once, by the composed geometry, and padded to static
   numbers; only then are instance masks sampled, into their boxes.
8. Batch, mix the images of a batch, change its size, and prefetch; pixels stay uint8
   until the device.
"""

from __future__ import annotations

import math

import tensorflow as tf

from visionkit.data.closing import end_iterators_at_exit
from visionkit.data.geometric import move
from visionkit.data.mixing import mix_batches
from visionkit.data.multi_scale import resize_batches
from visionkit.data.order import (
    Order,
    batch_names,
    evaluation_records,
    steps_per_epoch,
    training_records,
)
from visionkit.data.reading import read_sample, read_samples
from visionkit.data.report import DataReport
from visionkit.data.resize import resize_image, resize_mask
from visionkit.data.sources.base import Source
from visionkit.data.targets import (
    limit_boxes,
    make_target,
    map_proposals,
    pad_proposals,
    simplify,
)
from visionkit.data.transforms import bind_transforms, check_transforms, stage_of
from visionkit.data.tuning import without_autotuning
from visionkit.types import BOX_TASKS, Preprocessing

__all__ = ["Order", "batch_names", "make_dataset", "steps_per_epoch"]


def make_dataset(
    source: Source,
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    transforms=(),
    order: Order | None = None,
    report: DataReport | None = None,
    with_ids: bool = False,
    max_boxes: int | None = None,
    max_proposals: int | None = None,
) -> tf.data.Dataset:
    """Batches of images and ground truth.

    Args:
        source: Records and task.
        preprocessing: How an image becomes the model's input.
        batch_size: Images per batch; of all shares together where `order` has several,
            and the batches here are smaller accordingly.
        transforms: Augmentations, as `transforms.build_transforms` makes them.
        order: For training: an endless stream with a static batch size, see
            `steps_per_epoch`. None for evaluation: each record once, in order, the
            last batch possibly smaller.
        report: Knows which records of `source.origin` are unreadable and is told of
            new ones; one with the default limit is made when omitted.
        with_ids: Makes the target a dict with "image_id" (B,) int32 and "image_size"
            (B, 2) int32, the original (height, width).
        max_boxes: Boxes to pad to; the source's largest number, more where transforms
            mix images, at most 400, when omitted. Further boxes are dropped, the
            source's with a warning that counts them.
        max_proposals: Boxes that are input, not truth: the source's proposals, padded
            to this number with zeros. Further ones are dropped.

    Returns:
        A `tf.data.Dataset` of (images, target): images (B, h, w, C) uint8 (of dynamic
        h and w where a transform changes the size of batches), with
        `max_proposals` {"images": ..., "proposals": (B, P, 4) float32 xyxy pixels of
        the input}; the target by the source's task:
        classification: labels (B,) int32, with ids {"labels": ...}; (B, K) float32
        where the source has many labels per image, or a transform mixes images;
        semantic segmentation: (B, h, w) uint8 class ids, 255 = void, with ids
        {"segmentation_masks": ...}; with `mixup` (B, h, w, K) float32 shares of the
        classes, all 0 where void;
        detection: {"boxes": (B, M, 4) float32 xyxy pixels of the input, "labels":
        (B, M) int32}, label -1 in padded rows; instance segmentation also {"masks":
        (B, M, MASK_SIZE, MASK_SIZE) uint8} of 0 and 1, each in its box (`box_masks`).

    Raises:
        ValueError: No usable record, a wrong batch size, or transforms that are in a
            wrong order or not for this task.
    """
    _check_batch_size(batch_size)
    end_iterators_at_exit()
    task = source.info.task
    check_transforms(transforms, task, order)
    transforms = bind_transforms(transforms, source)
    names = ("decode", "pool", "batch", "size")
    stages = {stage: _at(stage, transforms) for stage in names}
    if max_proposals is not None:
        _check_proposals(source, max_proposals, stages["batch"] + stages["size"])
    report = report or DataReport(source)
    report.check()
    if task in BOX_TASKS:
        mixed = math.prod(mixer.images for mixer in stages["batch"])
        max_boxes = limit_boxes(source, max_boxes, report, mixed)

    def finish(sample):
        sample = augment_and_resize(sample, preprocessing, transforms)
        target = make_target(sample, task, max_boxes, with_ids)
        if stages["batch"]:
            return sample["images"], target, sample["seed"]
        if max_proposals is None:
            return sample["images"], simplify(target)
        proposals = pad_proposals(map_proposals(sample), max_proposals)
        return {"images": sample["images"], "proposals": proposals}, simplify(target)

    # No Python branch or loop of ours depends on a tensor. AutoGraph would convert all
    # the same, and what is called while it traces (a source that parses its files or
    # draws its scenes) would run several times slower.
    @tf.autograph.experimental.do_not_convert
    def batches():
        if order is None:
            records = evaluation_records(source, report.bad_indices)
        else:
            records = training_records(source, order, batch_size, report.bad_indices)
        read = _reader(
            source, preprocessing, stages["decode"], max_proposals is not None
        )
        dataset = read_samples(records, read, report)
        for group in stages["pool"]:
            dataset = _run_in_pool(dataset, source, group, report)
        dataset = dataset.map(finish, tf.data.AUTOTUNE, deterministic=True)
        rows = batch_size if order is None else order.rows(batch_size)
        dataset = dataset.batch(rows, drop_remainder=order is not None)
        dataset = _change_batches(dataset, source, stages, order, batch_size)
        return without_autotuning(dataset.prefetch(tf.data.AUTOTUNE))

    return batches()


def _change_batches(dataset, source: Source, stages, order, batch_size: int):
    """What mixes the images of a batch, then what changes its size."""
    steps = steps_per_epoch(source, batch_size)
    if stages["batch"]:
        dataset = mix_batches(
            dataset, stages["batch"], order, steps, source.info.num_classes
        ).map(lambda images, target: (images, simplify(target)))
    for multi_scale in stages["size"]:
        dataset = resize_batches(dataset, multi_scale, order, steps)
    return dataset


def _reader(source: Source, preprocessing, crops, proposals: bool):
    """Record to sample, graph code; proposals are left out unless asked for."""
    code = source.mask_code

    def read(record):
        if not proposals:
            record = {key: record[key] for key in record if key != "proposals"}
        return read_sample(record, preprocessing, *crops, mask_code=code)

    return read


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(
            f"`batch_size` must be at least 1. Received: batch_size={batch_size}"
        )


def _check_proposals(source: Source, max_proposals: int, mixers) -> None:
    if max_proposals < 1 or mixers:
        raise ValueError(
            "`max_proposals` must be at least 1, and batches with proposals are "
            "neither mixed nor resized. Received: "
            f"max_proposals={max_proposals}, {len(mixers)} transforms that do so"
        )
    if "proposals" not in source.raw_dataset().element_spec:
        raise ValueError(
            "`max_proposals` is for a source with proposals. Received: a source of "
            f"{source.info.name!r} without them"
        )


def _at(stage: str, transforms) -> list:
    return [transform for transform in transforms if stage_of(transform) == stage]


def _run_in_pool(dataset, source: Source, group, report):
    from visionkit.data.albumentations import AlbumentationsPool

    pool = AlbumentationsPool(list(group.specs))
    return pool.apply(dataset, source.origin, report)


def augment_and_resize(sample, preprocessing: Preprocessing, transforms=()):
    """A decoded sample as the model sees it, its random transforms done.

    Args:
        sample: As `reading.read_sample` returns it.
        preprocessing: Mode and size.
        transforms: The whole list; what runs before is done, what runs on the batch
            is still to come.

    Returns:
        The sample with "images" (h, w, C) uint8; boxes still in original pixels.
    """
    late = []
    for position, transform in enumerate(transforms):
        seed = tf.random.fold_in(sample["seed"], position)
        if stage_of(transform) == "input":
            late.append((transform, seed))
        elif stage_of(transform) == "pixels":
            sample = transform(sample, seed)
    images, placement = resize_image(sample["images"], preprocessing)
    if "segmentation_masks" in sample:
        mask = resize_mask(sample["segmentation_masks"], preprocessing)
        sample = {**sample, "segmentation_masks": mask}
    size = preprocessing.image_size
    sample = move({**sample, "images": images}, placement[:2], placement[2:], size)
    for transform, seed in late:
        sample = transform(sample, seed)
    return sample

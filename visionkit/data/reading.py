"""Records to samples with pixels; a record that cannot be read never stops the rest."""

from __future__ import annotations

import os

import tensorflow as tf

from visionkit.data.decode import decode_and_crop, decode_image
from visionkit.data.geometric import cut, start_geometry
from visionkit.data.graph_headers import is_sixteen_bit, require
from visionkit.data.graph_rle import check_regions, paint_regions
from visionkit.data.image_header import BadImage
from visionkit.data.index_masks import decode_mask
from visionkit.data.mask_codes import MaskCode
from visionkit.data.order import origin_of
from visionkit.data.report import DataReport, diagnose
from visionkit.data.sources.base import Source
from visionkit.data.sources.ragged import RLE_COLUMNS
from visionkit.types import Preprocessing

FINE, NOTED, END = range(3)  # what the normal path tells the reporting one

BOX_COLUMNS = ("boxes", "is_crowd", "is_difficult", "area")

# Records in work at once; more than the cores, since some of them wait for the disk.
PARALLEL_RECORDS = 2 * (os.cpu_count() or 1)

# Records that are protected together. At the end of each lot the cores wait for its
# last image; a lot and the next one are held in memory, still encoded.
LOT = min(16 * PARALLEL_RECORDS, 256)


def read_sample(
    record, preprocessing: Preprocessing, crop=None, mask_code: MaskCode | None = None
):
    """One record, read and decoded. Graph code.

    Args:
        record: An element of `Source.raw_dataset`, with "seed" (2,) int64.
        preprocessing: Channels and EXIF rule.
        crop: A `Crop` that is done while decoding; it draws from transform 0's seed.
        mask_code: The source's; None for masks of class ids of any number.

    Returns:
        A `Sample` with "seed", the keys of `geometric.start_geometry` and "event" ()
        int32: `FINE` or `NOTED`.

    Raises:
        InvalidArgumentError, NotFoundError...: It cannot be read.
    """
    encoded = _bytes(record, "encoded", "path")
    options = (preprocessing.channels, preprocessing.exif)
    if crop is None:
        image = decode_image(encoded, *options)
        size = tf.shape(image)[:2]
    else:
        seed = tf.random.fold_in(record["seed"], 0)
        image, size, window = decode_and_crop(
            encoded, lambda size: crop.window(size, seed), *options
        )
    sample = {
        "seed": record["seed"],
        "image_id": tf.cast(origin_of(record), tf.int32),
        "image_size": size,
        "event": tf.where(is_sixteen_bit(encoded), NOTED, FINE),
        **start_geometry(size),
        **_annotations(record, size, mask_code),
    }
    if crop is not None:
        sample = cut(sample, window)
    return {**sample, "images": image}


def _bytes(record, encoded, path):
    return record[encoded] if encoded in record else tf.io.read_file(record[path])


def _annotations(record, size, mask_code):
    """The annotations under the sample's names."""
    out = {}
    if "label" in record:
        label = record["label"]
        many = label.dtype.is_floating
        out["labels"] = label if many else tf.cast(label, tf.int32)
    if "boxes" in record:
        boxes = {key: record[key] for key in BOX_COLUMNS if key in record}
        out["bounding_boxes"] = {**boxes, "labels": record["box_labels"]}
    if "mask_path" in record or "mask_encoded" in record:
        mask = decode_mask(_bytes(record, "mask_encoded", "mask_path"), mask_code)
        out["segmentation_masks"] = require(
            tf.reduce_all(tf.shape(mask) == size),
            mask,
            "mask.size: a mask must be as large as its upright image; mask, image:",
            tf.shape(mask),
            size,
        )
    if "regions" in record:
        parts = record["regions"], record["region_labels"]
        out["segmentation_masks"] = paint_regions(*parts, size)
    if "instance_masks" in record:
        out["instance_masks"] = check_regions(record["instance_masks"], size)
        out["mask_size"] = size
    if "proposals" in record:
        out["proposals"] = record["proposals"]
    return out


def read_samples(records, read, report: DataReport):
    """All readable samples of `records`, in order; the others go to `report`.

    Args:
        records: A data set of records.
        read: Record to sample, graph code without state.
        report: Is told of every record that `read` fails on, before the next sample
            is given.

    Returns:
        A `tf.data.Dataset` of samples, decoded in parallel. An error of the report, or
        of `records`, is its end.
    """

    def protected(lot):
        # Errors are passed over in here alone, where there are none but those of
        # `read`, and each lot comes to its end: a stream of nothing but broken records
        # is told of as well. A data set for each record would do with less care; it
        # costs as much as decoding a photograph.
        indices = lot.get("origin", lot["index"]).batch(LOT).get_single_element()
        samples = tf.data.Dataset.zip(lot).enumerate()
        samples = samples.map(
            lambda place, record: {**read(record), "place": place, "lot": indices},
            PARALLEL_RECORDS,
            deterministic=True,
        )
        spec = samples.element_spec

        def end(_):
            empty = tf.nest.map_structure(_empty, spec)
            place = tf.size(indices, tf.int64)
            event = tf.constant(END)
            return {**empty, "event": event, "place": place, "lot": indices}

        ends = tf.data.Dataset.range(1).map(end)
        return samples.ignore_errors().concatenate(ends)

    def report_events(index, event, missed):
        if event == NOTED:
            report.note("image.16bit", int(index))
        for bad in missed.numpy().tolist():
            if bad not in report.bad:
                report.add_bad(bad, *_reason(read, report.source, bad))
        return index

    def watch(expected, sample):
        # Python only on the rare path: the stage is cheap, so it may be serial.
        index, event, place = (sample[k] for k in ("image_id", "event", "place"))
        missed = sample["lot"][expected:place]
        sample["image_id"] = tf.cond(
            (tf.size(missed) == 0) & (event != NOTED),
            lambda: index,
            lambda: tf.ensure_shape(
                tf.py_function(report_events, [index, event, missed], tf.int32), []
            ),
        )
        after = tf.where(event == END, tf.constant(0, tf.int64), place + 1)
        return after, {k: sample[k] for k in sample if k not in ("place", "lot")}

    lots = records.window(LOT).prefetch(1)
    samples = lots.flat_map(protected).scan(tf.constant(0, tf.int64), watch)
    return samples.filter(lambda sample: sample["event"] != END)


def _empty(spec):
    """A tensor of a spec's type, with 0 for each size that is not known."""
    shape = [0 if size is None else size for size in spec.shape]
    return tf.zeros(shape, spec.dtype)


def _reason(read, source: Source, index: int) -> tuple[str, str]:
    """(rule, detail) of why a record cannot be read."""
    try:
        source.check_record(index)
        record = source.record(index)
    except BadImage as bad:
        return bad.rule, bad.detail
    return diagnose(record, _error(read, record), source.mask_code)


def _error(read, record) -> str:
    """What `read` says of a record that it fails on."""
    tensors = {
        key: tf.constant(value, tf.string if key in RLE_COLUMNS else None)
        for key, value in record.items()
    }
    seed = tf.zeros(2, tf.int64)
    try:
        read({**tensors, "index": tf.constant(0, tf.int64), "seed": seed})
    except (tf.errors.OpError, ValueError) as error:
        return getattr(error, "message", None) or str(error)
    return "it could not be read at first, but could be a moment later"

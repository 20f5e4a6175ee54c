"""The dataset doctor: what is wrong with a data set, before it costs a training."""

from __future__ import annotations

import functools
import os

import numpy as np

from visionkit._quiet import quiet_start
from visionkit.data.check_report import CheckReport, Finding
from visionkit.data.check_rules import COMMON_RULES, RULES, Scan, count
from visionkit.data.fingerprints import content_ids, parallel_map
from visionkit.data.headers import BadImage, ImageHeader, inspect_image
from visionkit.data.near_duplicates import fingerprints, near_pairs
from visionkit.data.report import DataReport
from visionkit.data.sources.base import Source


def check_data(
    train: Source,
    validation: Source,
    *,
    deep: bool = False,
    reports: dict[str, DataReport] | None = None,
) -> dict[str, CheckReport]:
    """Examines two splits, each by itself and against the other, in one go.

    Args:
        train: The training split.
        validation: The validation split.
        deep: As for `check_source`.
        reports: The run's reports by "train" and "validation".

    Returns:
        Reports by "train", "validation" and "train and validation".
    """
    splits = {"train": train, "validation": validation}
    contents = content_ids(train.origin, validation.origin)
    found = {
        name: check_source(
            source,
            name=name,
            deep=deep,
            report=(reports or {}).get(name),
            contents=ids,
        )
        for (name, source), ids in zip(splits.items(), contents, strict=True)
    }
    found["train and validation"] = check_splits(train, validation, contents, deep=deep)
    return found


def check_source(
    source: Source,
    *,
    name: str = "train",
    deep: bool = False,
    report: DataReport | None = None,
    contents: np.ndarray | None = None,
    workers: int | None = None,
) -> CheckReport:
    """Examines every record of a source.

    Headers are read of all files (seconds for 100,000), and files of equal size are
    compared byte by byte.

    Args:
        source: A split.
        name: What the report calls it.
        deep: Also decodes every image with the decoder of the training, which finds
            damage within the pixels, and every mask; else `check_masks.MAX_READ`.
        report: The run's report; it is told which records are unreadable, and raises
            where they are too many.
        contents: The source's `content_ids`, if they are known already.
        workers: Threads; default four per core, 32 at most.

    Returns:
        A `CheckReport`.
    """
    source = source.origin  # records that are repeated on purpose are no copies
    examine = functools.partial(_examine, source, decode=_decoder() if deep else None)
    headers = parallel_map(examine, range(len(source)), workers)
    if contents is None:
        (contents,) = content_ids(source, workers=workers)
    scan = Scan(source, headers, contents, deep)
    if report is not None:
        bad = np.flatnonzero(~scan.used).tolist()
        bad = {i: (headers[i].rule, headers[i].detail) for i in bad}
        report.take_scan(bad | (scan.masks.bad if scan.has_masks else {}), scan.notes)
    rules = (*COMMON_RULES, *RULES.get(source.info.task, ()))
    findings = [finding for rule in rules for finding in rule(scan)]
    return CheckReport(name, findings, count(scan))


def check_splits(
    train: Source, validation: Source, contents=None, *, deep: bool = False
) -> CheckReport:
    """Looks for images that are in both splits, byte for byte.

    Args:
        train: The training split.
        validation: The validation split.
        contents: `content_ids` of both, if they are known already.
        deep: Also decodes all images and looks for pictures that are the same but for
            their size or compression.

    Returns:
        A `CheckReport` with the errors `leak.exact` and `label.conflict` and the
        warning `leak.near`; their names are pairs, "training image = validation
        image".
    """
    train, validation = train.origin, validation.origin
    left, right = contents or content_ids(train, validation)
    shared, first, _ = np.intersect1d(left, right, return_indices=True)
    ours = dict(zip(shared.tolist(), first.tolist(), strict=True))
    leaks = [
        (ours[content], index)
        for index, content in enumerate(right.tolist())
        if content in ours
    ]

    def finding(rule, pairs, message, level="error"):
        names = [
            f"{train.record_name(i)} = {validation.record_name(j)}" for i, j in pairs
        ]
        return [Finding(level, rule, tuple(names), message)] if pairs else []

    findings = finding(
        "leak.exact",
        leaks,
        f"{len(leaks)} validation images are training images as well, so the score is "
        "too good; remove them from one side",
    )
    a, b = train.labels(), validation.labels()
    if a is not None and b is not None:
        conflicts = [(i, j) for i, j in leaks if not np.array_equal(a[i], b[j])]
        message = f"{len(conflicts)} of them have another label there"
        findings += finding("label.conflict", conflicts, message)
    if deep:
        exact = {j for _, j in leaks}
        near = near_pairs(fingerprints(train), fingerprints(validation))
        near = [(i, j) for i, j in near if j not in exact]
        message = (
            f"{len(near)} validation images look like a training image: another size "
            "or compression of it, or the next frame of a film; keep both on one side"
        )
        findings += finding("leak.near", near, message, "warning")
    counts = {"train": len(train), "validation": len(validation), "shared": len(leaks)}
    return CheckReport("train and validation", findings, counts)


def _examine(source: Source, index: int, decode=None) -> ImageHeader | BadImage:
    """The header of a record's image, or why it cannot be used."""
    try:
        record = source.record(index)
        path = os.fsdecode(record["path"]) if "path" in record else None
        header = inspect_image(path or record["encoded"])
        if decode:
            source.check_record(index)
            decode(_read(path) if path else record["encoded"])
    except BadImage as error:
        return error
    return header


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadImage("image.unreadable", error.strerror or str(error)) from error


def _decoder():
    """A function that decodes encoded bytes as the training does, or `BadImage`."""
    with quiet_start():
        import tensorflow as tf

    from visionkit.data.decode import decode_image

    # Only the shape leaves the graph; tracing once makes it callable from threads.
    decode = tf.function(
        lambda encoded: tf.shape(decode_image(encoded)),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    ).get_concrete_function()

    def check(encoded: bytes) -> None:
        try:
            decode(tf.constant(encoded))
        except tf.errors.OpError as error:
            detail = error.message.splitlines()[0]
            raise BadImage("image.corrupt", detail) from error

    return check

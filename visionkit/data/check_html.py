"""The doctor's report as one page with pictures of what it found."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from visionkit.data.check_report import CheckReport, Finding, printable
from visionkit.data.image_header import BadImage
from visionkit.data.instance_masks import InstanceMasks
from visionkit.data.rle import check_runs, decode_runs, encode_runs
from visionkit.data.sources.base import Source
from visionkit.types import Results

SHOWN = 6
"""Pictures of a finding."""

LISTED = 20
"""Names of a finding."""

SIDE = 320
"""Longest side of a picture, in pixels."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; }
h3 { margin: 1.5rem 0 0; } h3 small { font-weight: normal; }
.error { border-left: 5px solid #c0392b; } .warning { border-left: 5px solid #e0a800; }
.note { border-left: 5px solid #2f86a6; } section { padding-left: 1rem; }
figure { display: inline-block; margin: .5rem .5rem 0 0; vertical-align: top; }
figcaption, li { font-size: 12px; color: #555; overflow-wrap: anywhere; }
figcaption { max-width: 20rem; } td { padding-right: 1.5rem; vertical-align: top; }
"""


def write_html(
    path: str | os.PathLike,
    reports: Mapping[str, CheckReport],
    sources: Mapping[str, Source],
) -> None:
    """Writes one page that needs no other file.

    Args:
        path: Where.
        reports: By name, as from `check_data`.
        sources: The source of each report that has one; its pictures are drawn with
            their truth.
    """
    body = []
    for name, report in reports.items():
        source = sources[name].origin if name in sources else None
        body.append(f"<h2>{_text(name)}</h2>{_counts(report)}")
        body += [_finding(finding, source) for finding in report.findings]
        if not report.findings:
            body.append("<p>Nothing found.</p>")
    page = (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Data check</title>'
        f"<style>{_STYLE}</style><h1>Data check</h1>{''.join(body)}</html>\n"
    )
    Path(path).write_text(page, "utf-8")


def _counts(report: CheckReport) -> str:
    rows = []
    for key, value in report.counts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "0"
        rows.append(f"<tr><td>{_text(key)}<td>{_text(str(value))}")
    return f"<table>{''.join(rows)}</table>"


def _finding(finding: Finding, source: Source | None) -> str:
    names = [f"<li>{_text(name)}" for name in finding.names[:LISTED]]
    if len(finding.names) > LISTED:
        names.append(f"<li>... {len(finding.names) - LISTED} more")
    pictures = []
    if source is not None:
        pictures = [_figure(source, index) for index in finding.records[:SHOWN]]
    return (
        f'<section class="{finding.level}"><h3>{_text(finding.rule)} '
        f"<small>{finding.level}</small></h3><p>{_text(finding.message)}</p>"
        f"{''.join(pictures)}<ul>{''.join(names)}</ul></section>"
    )


def _figure(source: Source, index: int) -> str:
    data = thumbnail(source, index)
    if data is None:
        return ""
    encoded = base64.b64encode(data).decode("ascii")
    return (
        f'<figure><img src="data:image/jpeg;base64,{encoded}" alt=""><figcaption>'
        f"{_text(source.record_name(index))}</figcaption></figure>"
    )


def thumbnail(source: Source, index: int) -> bytes | None:
    """A small JPEG of a record with its truth drawn; None where it cannot be read."""
    from visionkit.visualize.drawing import draw_annotations, open_image

    try:
        record = source.record(index)
        file = os.fsdecode(record["path"]) if "path" in record else None
        image = open_image(file or io.BytesIO(record["encoded"]))
    except (OSError, ValueError):
        return None
    scale = min(1, SIDE / max(image.size))
    out = io.BytesIO()
    truth = _truth(source, index, image.size)
    draw_annotations(image, truth, scale).save(out, "JPEG")
    return out.getvalue()


def _truth(source: Source, index: int, size) -> Results:
    """The boxes with their masks, or the mask, that can be drawn."""
    record = source.record(index)
    if source.info.task == "semantic_segmentation":
        try:
            mask = source.mask(index)
        except BadImage:
            return Results()
        fits = mask.shape == size[::-1]
        names = list(source.info.class_names)
        labels = np.arange(len(names))
        return Results(
            segmentation=mask if fits else None, labels=labels, label_names=names
        )
    if "boxes" not in record:
        return Results()
    names = source.info.class_names
    boxes, labels = record["boxes"], record["box_labels"]
    drawn = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (labels >= 0)
    boxes = np.clip(boxes[drawn], 0, np.array([*size, *size], np.float32))
    labels = labels[drawn]
    told = [names[i] if i < len(names) else f"label {i}" for i in labels.tolist()]
    masks = None
    if "instance_masks" in record:
        rows = np.flatnonzero(drawn).tolist()
        rles = [_sound(record["instance_masks"][row], size) for row in rows]
        masks = InstanceMasks(rles, size[::-1])
    return Results(boxes=boxes, labels=labels, label_names=told, masks=masks)


def _sound(counts: bytes, size) -> bytes:
    """The RLE string, or that of an empty mask where it cannot be drawn."""
    try:
        check_runs(decode_runs(counts), size)
    except ValueError:
        return encode_runs(np.array([size[0] * size[1]]))
    return counts


def _text(text: str) -> str:
    return html.escape(printable(text))

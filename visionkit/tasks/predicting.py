"""What `predict` does on the command line: a table, JSON, pictures, videos."""

from __future__ import annotations

import collections
import itertools
import os
from pathlib import Path

from visionkit._quiet import quiet_start
from visionkit.tasks.commands import check_exists, make_console, make_table, write_json

_SHOWN_CLASSES = 8  # of an image, in the table


def predict_command(arguments) -> int:
    """Answer images; status 1 when some could not be read."""
    if arguments.score is not None and not 0 <= arguments.score <= 1:
        raise ValueError(f"--score must be in [0, 1]. Received: {arguments.score}")
    check_exists(arguments.model)

    from visionkit.inference import predict
    from visionkit.inference.inputs import is_video

    model, explanations = arguments.model, None
    if arguments.explain:
        if any(map(is_video, arguments.images)):
            raise ValueError("--explain is for images. Received: a video")
        with quiet_start():
            from visionkit.explaining import explain
            from visionkit.explaining.explanation import explainable

        model = explainable(model)
        explanations = explain(
            model, arguments.images, arguments.explain, level=arguments.level
        )
    results = predict(
        model,
        arguments.images,
        batch_size=arguments.batch_size,
        score=arguments.score,
        tile=arguments.tile,
        overlap=arguments.overlap,
        tta=arguments.tta,
        probabilities=arguments.probabilities,
    )
    table = make_table("", "image", "answer", "score")
    for result in results:
        if not result.ok:
            table.add_row(_printable(result.path), f"[red]{result.error}[/]", "")
        elif result.label_names:
            score = "" if result.segmentation is not None else result.scores[0]
            best = _summary(result), score and f"{score:.3f}"
            table.add_row(_printable(result.path), *map(_printable, best))
        else:
            table.add_row(_printable(result.path), "nothing above --score", "")
    console = make_console()
    console.print(table)
    if arguments.json:
        write_json(arguments.json, [result.to_dict() for result in results])
    if arguments.coco:
        rows = [r.to_coco(i) for i, r in enumerate(results) if r.ok]
        write_json(arguments.coco, [row for boxes in rows for row in boxes])
    if arguments.proposals:
        from visionkit.inference.proposals import propose

        write_json(arguments.proposals, propose(model, arguments.images))
    if arguments.out:
        folder = _write_pictures(results, explanations, Path(arguments.out))
        console.print(f"pictures  {folder}")
    failed = sum(not result.ok for result in results)
    if failed:
        console.print(f"[red]{failed} of {len(results)} images could not be read[/]")
    return 1 if failed else 0


def _summary(result) -> str:
    """The best class, how many boxes of each class, or the shares of the classes."""
    if result.segmentation is not None:
        shares = [
            f"{name} {100 * share:.1f} %"
            for name, share in zip(result.label_names, result.scores, strict=True)
        ]
        more = len(shares) - _SHOWN_CLASSES
        return ", ".join(shares[:_SHOWN_CLASSES] + [f"{more} more"] * (more > 0))
    if result.boxes is None:
        return result.label_names[0]
    counts = collections.Counter(result.label_names)
    return ", ".join(f"{count} × {name}" for name, count in counts.most_common())


def _printable(text) -> str:
    from rich.markup import escape

    return escape(str(text).encode("utf-8", "backslashreplace").decode())


def _write_pictures(results, explanations, folder: Path) -> Path:
    """A picture per answer with heat and masks beside it, an MP4 per video."""
    from visionkit.visualize import save_figure

    folder.mkdir(parents=True, exist_ok=True)
    taken = {os.path.realpath(result.path) for result in results if result.path}
    for index, result in enumerate(results):
        if result.frame == 0:
            frames = itertools.takewhile(
                lambda r: r.frame, itertools.islice(results, index + 1, None)
            )
            target = _free_path(folder, result.path, ".mp4", index, taken)
            _write_video(result.path, [result, *frames], target)
        if not result.ok or result.frame is not None:
            continue
        target = _free_path(folder, result.path, ".png", index, taken)
        save_figure(result.plot(), target)
        if result.segmentation is not None:
            mask = _free_path(folder, result.path, ".mask.png", index, taken)
            _write_pixels(result, mask)
        if result.masks is not None:
            ids = _free_path(folder, result.path, ".instances.png", index, taken)
            _write_instances(result, ids)
        if explanations and explanations[index].ok:
            heat = f"{target.stem}.{explanations[index].method}.png"
            save_figure(explanations[index].plot(), folder / heat)
    return folder


def _write_pixels(result, target: Path) -> None:
    """The classes of all pixels as an index PNG, and their probabilities beside it.

    The value of a pixel is its class id, 255 where the model saw nothing; the palette
    has the colours of the other pictures.
    """
    import numpy as np
    from PIL import Image

    from visionkit.visualize import index_palette, save_figure

    mask = Image.fromarray(result.segmentation)
    names = dict(zip(result.labels.tolist(), result.label_names, strict=True))
    mask.putpalette(index_palette(names).tobytes())
    save_figure(mask, target)
    if result.probabilities is not None:
        name = target.name.removesuffix(".mask.png") + ".probabilities.npz"
        file = target.with_name(name)
        np.savez_compressed(file, probabilities=result.probabilities)


def _write_instances(result, target: Path) -> None:
    """The masks as an index PNG: pixels of the n-th answer are n, all others 0.

    Where masks overlap, the surest is on top. From 256 answers on it has 16 bits and no
    palette.
    """
    import numpy as np
    from PIL import Image

    from visionkit.visualize import palette, save_figure

    count = len(result.masks)
    ids = np.zeros(result.image_size, np.uint8 if count < 256 else np.uint16)
    for index in reversed(range(count)):
        crop, top, left = result.masks.crop(index)
        window = ids[top : top + crop.shape[0], left : left + crop.shape[1]]
        window[crop] = index + 1
    picture = Image.fromarray(ids)
    if count < 256:
        # The colours of the other picture, behind black for what is no object.
        colors = np.concatenate([np.zeros((1, 3), np.uint8), palette(255)])
        picture.putpalette(colors.tobytes())
    save_figure(picture, target)


def _free_path(folder: Path, path, suffix: str, index: int, taken: set) -> Path:
    """Where an answer is written: over no input and no other answer.

    Args:
        folder: Where to.
        path: The input, or None.
        suffix: Of the file.
        index: Of the answer, for a name that is taken.
        taken: Real paths of all inputs and answers; the new one is added.
    """
    stem = Path(path).stem if path else f"image_{index}"
    target = folder / f"{stem}{suffix}"
    if os.path.realpath(target) in taken:
        target = folder / f"{stem}-{index}{suffix}"
    taken.add(os.path.realpath(target))
    return target


def _write_video(path: str, results, target: Path) -> None:
    """The annotated frames of a video."""
    import numpy as np

    from visionkit.inference.video import frame_rate, read_frames, write_video
    from visionkit.visualize import draw_results
    from visionkit.visualize.drawing import segment_names

    classes = None
    if any(result.segmentation is not None for result in results):
        found = [segment_names(r) for r in results if r.segmentation is not None]
        classes = dict(sorted(collections.ChainMap(*found).items()))
    frames = (
        np.asarray(draw_results(result, frame, classes))
        for frame, result in zip(read_frames(path), results, strict=True)
    )
    write_video(target, frames, frame_rate(path))

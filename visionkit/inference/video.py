"""Video files, frame by frame, through OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np


def read_frames(path: str, channels: int = 3) -> Iterator[np.ndarray]:
    """The frames of a video, upright, one at a time.

    Args:
        path: A file that OpenCV can read.
        channels: 3 (RGB) or 1 (grey).

    Yields:
        (H, W, channels) uint8.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It has no readable frame.
    """
    import cv2

    capture = _open(path)
    try:
        read, frame = capture.read()
        if not read:
            raise ValueError(
                f"{path} holds no frame that can be read. Expected a video that OpenCV "
                "knows, such as MP4 with H.264 or MPEG-4."
            )
        while read:
            if channels == 1:
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[..., None]
            else:
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            read, frame = capture.read()
    finally:
        capture.release()


def frame_rate(path: str) -> float:
    """Frames per second; 25 where the file does not say."""
    import cv2

    capture = _open(path)
    try:
        return capture.get(cv2.CAP_PROP_FPS) or 25.0
    finally:
        capture.release()


def write_video(path, frames, rate: float) -> int:
    """Write frames as an MP4 file (MPEG-4).

    Args:
        path: Where to.
        frames: Iterable of (H, W, 3) uint8 RGB; the first one's size is the video's,
            others are cut or padded at the bottom and the right.
        rate: Frames per second.

    Returns:
        The number of frames.

    Raises:
        OSError: The file cannot be written.
    """
    import cv2

    writer, count = None, 0
    try:
        for frame in frames:
            if writer is None:
                size = frame.shape[1::-1]
                code = cv2.VideoWriter_fourcc(*"mp4v")
                writer = cv2.VideoWriter(str(path), code, rate, size)
                if not writer.isOpened():
                    raise OSError(f"The video {path} cannot be written.")
            width, height = size
            frame = np.asarray(frame)[:height, :width]
            pads = [(0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)]
            frame = np.pad(frame, pads)
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    return count


def _open(path: str):
    import cv2

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no video {path}.")
    return cv2.VideoCapture(str(path))

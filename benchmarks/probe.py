"""What the machine can do at this moment, so that slow moments can be told."""

from __future__ import annotations

import functools
import io
import time

import numpy as np

LARGEST_FALL = 0.15  # below the run's median, or the round does not count


def measure_machine() -> dict[str, float]:
    """Speeds of one thread: "GFLOP/s" (sgemm of 1024), "MP/s" (JPEG), "GB/s" (copy).

    The best of three tries each, as a pause of the scheduler is no speed.
    """
    from threadpoolctl import threadpool_limits

    a, jpeg, source, target = _material()
    with threadpool_limits(1):
        multiply = _best(lambda: a @ a)
    return {
        "GFLOP/s": 2 * len(a) ** 3 / multiply / 1e9,
        "MP/s": 640 * 480 / _best(lambda: _decode(jpeg)) / 1e6,
        "GB/s": 2 * source.nbytes / _best(lambda: np.copyto(target, source)) / 1e9,
    }


def quiet_rounds(probes: list[dict[str, float]]) -> np.ndarray:
    """(R,) bool: the rounds before which no speed was far below its median."""
    speeds = np.array([list(probe.values()) for probe in probes], float)
    return (speeds >= (1 - LARGEST_FALL) * np.median(speeds, axis=0)).all(axis=1)


@functools.cache
def _material():
    from PIL import Image

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (30, 40, 3), "uint8")
    file = io.BytesIO()
    Image.fromarray(small).resize((640, 480)).save(file, "JPEG", quality=90)
    source = np.zeros(16 << 20, "uint8")
    a = rng.random((1024, 1024), "float32")
    return a, file.getvalue(), source, np.ones_like(source)


def _decode(jpeg: bytes) -> None:
    from PIL import Image

    Image.open(io.BytesIO(jpeg)).load()


def _best(function, tries: int = 3) -> float:
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)

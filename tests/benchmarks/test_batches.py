"""What draws batches for a comparison, and what its figures are read from."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from benchmarks.batches import DRAINED, TIMED, drawing
from benchmarks.harness import Bench, UnequalWork
from benchmarks.memory import resident_memory
from benchmarks.pictures import decode

SHAPE = (2, 4, 4, 3)


class Batches:
    """Counts what is drawn of it."""

    def __init__(self, count):
        self.count, self.drawn, self.begun = count, 0, 0

    def __iter__(self):
        self.begun += 1
        for _ in range(self.count):
            self.drawn += 1
            yield (np.zeros(SHAPE),)


def turn(side):
    side.before()
    side.run()
    side.after()


def test_drawing_begins_anew_and_draws_no_more_than_it_is_timed_for():
    batches = Batches(100)
    side = drawing("it", Bench("X"), batches, SHAPE)
    turn(side)
    turn(side)
    assert (batches.begun, batches.drawn) == (2, 2 * (DRAINED + TIMED))
    assert side.work == 2 * TIMED


def test_drawing_reads_to_the_end_what_goes_on_by_itself():
    batches = Batches(DRAINED + TIMED + 4)
    turn(drawing("it", Bench("X"), batches, SHAPE, finite=True))
    assert batches.drawn == DRAINED + TIMED + 4


def test_drawing_of_a_trial_and_of_what_needs_no_start():
    batches = Batches(100)
    turn(drawing("it", Bench("X", quick=True), batches, SHAPE, drained=0))
    assert batches.drawn == 2


def test_drawing_refuses_other_batches():
    side = drawing("it", Bench("X"), Batches(100), (2, 5, 4, 3))
    with pytest.raises(UnequalWork, match="batches of it differ"):
        side.before()


def test_resident_memory_sees_what_a_process_holds():
    before = resident_memory(os.getpid())
    held = np.ones(64 << 17)  # 64 MiB
    assert resident_memory(os.getpid()) - before == pytest.approx(64, abs=8)
    del held


def test_decode_gives_rgb():
    file = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 100, 0)).save(file, "JPEG", quality=100)
    image = decode(file.getvalue())
    assert (image.shape, image.dtype) == ((10, 20, 3), np.uint8)
    assert np.abs(image - np.array([200.0, 100.0, 0.0])).max() < 3

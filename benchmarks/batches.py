"""Pipelines as sides of a comparison: what draws batches, in images per second."""

from __future__ import annotations

import collections

from benchmarks.harness import Bench, Side

DRAINED, TIMED = 10, 8  # batches: until it runs at its speed, and what is measured


def sizes(bench: Bench) -> tuple[int, int]:
    """(batches before, batches timed)."""
    return (1, 2) if bench.quick else (DRAINED, TIMED)


def drawing(
    name: str, bench: Bench, batches, shape, finite: bool = False, drained=None
) -> Side:
    """Draws batches, each time from the start.

    A pipeline that waits while the others have their turn would fill its buffers, and
    enlarge them, at their cost. So it is ended after its turn, or, where it goes on in
    processes of its own, read to its end.

    Args:
        name: In the table.
        bench: Whose work is checked.
        batches: What can be iterated over again and again.
        shape: Of the images of a batch.
        finite: Whether it ends by itself, and not long after what is timed.
        drained: Batches until it runs at its speed; by default as `sizes` says.
    """
    before, timed = sizes(bench)
    before = before if drained is None else drained
    running: list = []

    def begin():
        running[:] = [iter(batches)]
        for _ in range(before):
            _check(next(running[0])[0])

    def run():
        for _ in range(timed):
            images = next(running[0])[0]
        _check(images)

    def end():
        iterator = running.pop()
        if finite:
            collections.deque(iterator, maxlen=0)

    def _check(images):
        if tuple(images.shape) != tuple(shape):
            bench.require_equal(f"batches of {name}", tuple(images.shape), shape)

    return Side(name, run, begin, shape[0] * timed, end)
